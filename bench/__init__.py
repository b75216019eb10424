"""Skep beside named peers, measured in one run: `python -m bench`. Ratios only; nothing here asserts."""

from __future__ import annotations
