"""skep.cli.output: what every command does the same way."""

from __future__ import annotations

import sys
from types import TracebackType

import pytest

from skep.cli.output import make_app, run_app


def test_a_hook_that_knows_secrets_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What dies after a command was parsed is still told by the redactor's hook, not by typer's."""

    def hook(_kind: type[BaseException], _error: BaseException, _trace: TracebackType | None) -> None:
        """Stand for the redactor's."""

    app = make_app("Fail.\n\nExample: skep fail")

    @app.command()
    def fail() -> None:
        """Fail as nobody expected."""
        raise ValueError("unexpected")

    assert fail
    monkeypatch.setattr(sys, "excepthook", hook)
    with pytest.raises(ValueError, match="unexpected"):
        run_app(app, "fail", [])

    assert sys.excepthook is hook
