"""The closed lists of operators' methods, against the control protocol, section 9."""

from __future__ import annotations

import pytest

from skep.foundation.rpc import Listener, Table
from skep.wire.control.operator import CLI, STATUS_GET, WEB

# Copied from the table by hand: a method that is added fails here until the table has it.
SIGN_IN = {"auth.login", "auth.logout"}
READ = {"status.get", "health.list", "agent.list", "agent.get", "hive.query", "hive.subscribe"}
STEER = {"ask.cancel", "reminder.cancel"}
ONLY_CLI = {"auth.code", "daemon.stop"}


def test_ps_06_the_method_tables_are_the_specified_ones() -> None:
    """The web process can call these, the command line those, and nothing else."""
    assert set(WEB.methods) == SIGN_IN | READ | STEER
    assert set(CLI.methods) == ONLY_CLI | READ | STEER


def test_ps_06_a_listener_serves_exactly_its_table() -> None:
    """A handler too few or too many does not start."""
    with pytest.raises(ValueError, match=r"differ: status\.get"):
        Listener(Table("x.sock", (STATUS_GET,)), {})
