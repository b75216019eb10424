"""Skep: a self-hosted home for a team of AI agents."""

__all__ = ["__version__"]

__version__ = "0.1.0"
