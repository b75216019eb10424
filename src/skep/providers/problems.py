"""The one error of this package: a failure with its class.

Source: secrets and providers, section S1. Sentences are ours: never a key, never a server's raw words.
"""

from __future__ import annotations

from skep.foundation.exits import ClassifiedError, Outcome

__all__ = ["ProviderError", "usage"]


class ProviderError(ClassifiedError):
    """A provider cannot be asked; `outcome` says which kind of fault it is."""

    def __init__(
        self, outcome: Outcome, problem: str, *, where: str = "", subject: str = "", hint: str = ""
    ) -> None:
        super().__init__(outcome, problem, area="provider", where=where, subject=subject, hint=hint)


def usage(problem: str, *, hint: str = "") -> ProviderError:
    """Return the error of a wrong flag or setting."""
    return ProviderError("usage", problem, hint=hint)
