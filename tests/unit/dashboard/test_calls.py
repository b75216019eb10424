"""ps-06, the dashboard's half: what a page may call is the table of the control protocol, section 9."""

from __future__ import annotations

from skep.dashboard.server import CALLS
from skep.wire.control import WEB

# Copied by hand from the rows marked 2: sign-in has routes of its own, so that no page sees a session.
CALLABLE = {
    "status.get",
    "health.list",
    "agent.list",
    "agent.get",
    "hive.query",
    "ask.cancel",
    "reminder.cancel",
}
WITH_A_ROUTE = {"auth.login", "auth.logout", "hive.subscribe"}


def test_ps_06_page_may_call_exactly_the_table() -> None:
    """A new method fails this test until the table in the specification has it."""
    assert set(CALLS) == CALLABLE
    assert set(WEB.methods) == CALLABLE | WITH_A_ROUTE


def test_ps_06_each_call_is_the_wire_method_itself() -> None:
    """Arguments are checked by the types that the daemon has."""
    assert all(WEB.methods[name] is method for name, method in CALLS.items())
