"""What `skep secret` and `skep provider` print: no secret that was read, whatever went wrong.

Source: secrets and providers, section S2.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

import typer

from skep.cli.output import json_text, run_app
from skep.foundation.exits import ClassifiedError
from skep.foundation.hardening import forbid_core_dumps
from skep.foundation.redaction import Redactor, is_secret_like

__all__ = ["GuardedOutput"]


class GuardedOutput:
    """What a command that handles secrets prints: its redactor's last pass is over everything.

    Attributes:
        redactor: Told of each secret by whoever reads one.
    """

    def __init__(self) -> None:
        self.redactor: Final = Redactor()

    def run(self, app: typer.Typer, name: str, words: list[str], *, hint: str) -> int:
        """Run `app` as `run_app` does, and tell a failure of a class by its exit code.

        Args:
            hint: How a secret is given, for who gave one as an argument.

        Raises:
            ClassifiedError: `usage`: an argument looks like a secret.
        """
        forbid_core_dumps()
        self.redactor.install()
        if any(map(is_secret_like, words)):
            raise ClassifiedError("usage", "an argument looks like a secret", area=name, hint=hint)
        try:
            return run_app(app, name, words)
        except ClassifiedError as error:
            if "--json" in words:
                self.say_json({**error.as_json(), "exit_code": error.exit_code})
            else:
                self.tell_error(error.as_json())
            return error.exit_code

    def say(self, text: str) -> None:
        """Print a part of the answer."""
        sys.stdout.write(self.redactor.known(text))

    def say_json(self, value: object) -> None:
        """Print the answer as `print_json` does."""
        sys.stdout.write(self.json_text(value))

    def json_text(self, value: object) -> str:
        """Return what `say_json` prints."""
        return self.redactor.known(json_text(value))

    def tell(self, text: str) -> None:
        """Print what is not the answer, on stderr."""
        sys.stderr.write(self.redactor.known(text))

    def tell_error(self, error: Mapping[str, object]) -> None:
        """Print what failed, what to do, what the other side said, and the code, on stderr."""
        lines = [f"error: {error['problem']}"]
        lines += [f"{name}: {error[name]}" for name in ("hint", "detail") if error.get(name)]
        self.tell("\n".join([*lines, f"code: {error['code']}"]) + "\n")
