"""Classes of failure of `skep secret` and `skep provider`, and the exit code of each.

Source: secrets and providers, section S1. The codes refine "1, found a problem" of the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from skep.foundation.errors import SkepError

__all__ = [
    "EXIT_CODES",
    "MAX_DETAIL",
    "OUTCOME_MEANINGS",
    "RETRYABLE",
    "WORST_FIRST",
    "ClassifiedError",
    "Outcome",
    "exit_code",
    "worst",
]

Outcome = Literal[
    "ok",
    "unchanged",
    "check_failed",
    "usage",
    "would_change",
    "auth",
    "permission",
    "not_found",
    "model",
    "network",
    "timeout",
    "rate",
    "server",
    "malformed",
    "not_encodable",
    "unsafe_target",
    "write_failed",
    "busy",
]

EXIT_CODES: Final[Mapping[Outcome, int]] = {
    "ok": 0,
    "unchanged": 0,
    "check_failed": 1,
    "usage": 2,
    "would_change": 10,
    "auth": 20,
    "permission": 21,
    "not_found": 22,
    "model": 22,
    "network": 23,
    "timeout": 24,
    "rate": 25,
    "server": 26,
    "malformed": 27,
    "not_encodable": 28,
    "unsafe_target": 30,
    "write_failed": 31,
    "busy": 32,
}

OUTCOME_MEANINGS: Final[Mapping[Outcome, str]] = {
    "ok": "done",
    "unchanged": "nothing had to change",
    "check_failed": "reachable, but a required capability is missing or wrong",
    "usage": "wrong flag, manifest or reference",
    "would_change": "only with `--exit-code`, of a dry run or a diff",
    "auth": "credential refused, expired or malformed",
    "permission": "credential valid, action not allowed",
    "not_found": "secret, path, project or environment is not there",
    "model": "model is not there",
    "network": "name, connection or TLS failed",
    "timeout": "no whole answer in time",
    "rate": "too many requests, or the quota is used up",
    "server": "the other side failed, is sealed or overloaded",
    "malformed": "answer is not of the documented shape",
    "not_encodable": "value cannot be written in the chosen dialect",
    "unsafe_target": "link, foreign owner, wide mode, bad folder, or a git work tree",
    "write_failed": "disk full, I/O error, or no right to write",
    "busy": "another run held the lock for too long",
}

RETRYABLE: Final[frozenset[Outcome]] = frozenset({"network", "timeout", "rate", "server", "busy"})
"""Trying again, unchanged, may help."""

MAX_DETAIL: Final = 300
"""Longest text of a server that is passed on, in characters, after scrubbing."""

WORST_FIRST: Final[tuple[Outcome, ...]] = (
    "usage",
    "auth",
    "permission",
    "not_found",
    "model",
    "malformed",
    "rate",
    "timeout",
    "network",
    "server",
    "not_encodable",
    "unsafe_target",
    "write_failed",
    "busy",
    "check_failed",
    "would_change",
    "unchanged",
    "ok",
)


class ClassifiedError(SkepError):
    """A failure with its class; `code` is `<area>.<class>`.

    Attributes:
        outcome: The class. The exit code follows from it.
        where: Store, endpoint or file that failed, without secrets, user and query.
        subject: The reference or the check that failed.
        detail: What a server said, scrubbed by the caller; cut here.
    """

    def __init__(
        self,
        outcome: Outcome,
        problem: str,
        *,
        area: str,
        where: str = "",
        subject: str = "",
        hint: str = "",
        http_status: int | None = None,
        request_id: str | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(problem, hint=hint, code=f"{area}.{outcome}")
        self.outcome: Final = outcome
        self.where = where
        self.subject = subject
        self.http_status = http_status
        self.request_id = request_id
        self.detail = detail[:MAX_DETAIL]
        self.exit_code = EXIT_CODES[outcome]

    def as_json(self) -> dict[str, object]:
        """Return the error as an object: the shape of every error, and the fields of this family."""
        fields: dict[str, object] = {
            **super().as_json(),
            "class": self.outcome,
            "where": self.where,
            "subject": self.subject,
            "retryable": self.outcome in RETRYABLE,
        }
        optional = {"http_status": self.http_status, "request_id": self.request_id, "detail": self.detail}
        return fields | {name: value for name, value in optional.items() if value}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome that decides the exit code; `ok` when there are none."""
    found = set(outcomes)
    for outcome in WORST_FIRST:
        if outcome in found:
            return outcome
    return "ok"


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Return the exit code of a run with these outcomes."""
    return EXIT_CODES[worst(outcomes)]
