"""The one error of the bridge: a failure with its class.

Source: secrets and providers, section S1. Sentences are ours: never a value, never a server's raw words.
"""

from __future__ import annotations

from skep.foundation.exits import ClassifiedError, Outcome

__all__ = ["SecretError", "usage"]


class SecretError(ClassifiedError):
    """A secret could not be read, encoded or written; `outcome` says which kind of fault it was."""

    def __init__(
        self,
        outcome: Outcome,
        problem: str,
        *,
        where: str = "",
        subject: str = "",
        hint: str = "",
        http_status: int | None = None,
        request_id: str | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(
            outcome,
            problem,
            area="secret",
            where=where,
            subject=subject,
            hint=hint,
            http_status=http_status,
            request_id=request_id,
            detail=detail,
        )


def usage(problem: str, *, hint: str = "", subject: str = "") -> SecretError:
    """Return the error of a wrong flag, manifest or reference."""
    return SecretError("usage", problem, hint=hint, subject=subject)
