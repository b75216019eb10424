"""The tree of errors: the class says who must act.

Source: the error guide in docs/reference/errors.md.
An error carries values of ours; never message text, prompts, tokens, addresses with a query, or a body.
"""

from __future__ import annotations

__all__ = [
    "BusyError",
    "RefusedError",
    "SettingError",
    "SignInAgainError",
    "SkepError",
    "TryAgainError",
    "WireError",
]


class SkepError(Exception):
    """Base of every error raised by Skep.

    Attributes:
        problem: First line: what failed, with which value, and why.
        hint: What to do next, as a command where there is one.
        code: `<area>.<code>`; it never changes its meaning.
    """

    code: str = "skep.internal"
    exit_code: int = 1

    def __init__(self, problem: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        if code is not None:
            self.code = code

    @property
    def wire_code(self) -> str:
        """The part of `code` after the area, as it goes over the control protocol."""
        return self.code.rpartition(".")[2]

    def as_json(self) -> dict[str, object]:
        """Return the one shape that every JSON error has."""
        return {"ok": False, "code": self.code, "problem": self.problem, "hint": self.hint}


class WireError(SkepError):
    """The peer sent something wrong: its author must act."""

    code = "wire.invalid"


class SettingError(SkepError):
    """The operator must act: exit 2."""

    code = "setting.invalid"
    exit_code = 2


class TryAgainError(SkepError):
    """Nobody must act: retried with back-off."""

    code = "skep.unavailable"

    def __init__(
        self, problem: str, *, hint: str = "", code: str | None = None, retry_after_s: float = 1.0
    ) -> None:
        super().__init__(problem, hint=hint, code=code)
        self.retry_after_s = retry_after_s


class BusyError(TryAgainError):
    """More waits than can be taken now."""

    code = "skep.busy"


class SignInAgainError(SkepError):
    """A credential must be renewed; never retried."""

    code = "skep.sign_in"


class RefusedError(SkepError):
    """Not allowed; says nothing about what exists."""

    code = "skep.not_allowed"
