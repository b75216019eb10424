"""skep.broker against a model, in any order of acts; hive, st-01."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skep.broker.errors import ClosedError, StaleLeaseError
from skep.broker.types import BrokerSettings, Lease, Urgency
from skep.foundation.clock import ManualClock
from support.broker import OPERATOR, Desk, open_desk

T = TypeVar("T")

AGENTS = st.sampled_from(["scribe", "tester"])
SESSIONS = st.sampled_from(["a", "b"])
BOUNDS = BrokerSettings(attempts_max=4, failures_max=2, error_backoff_ms=(50, 100))


class Lanes(RuleBasedStateMachine):
    """Two agents, two sessions each; every act of a sender, a harness, a crash, an operator and time."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.directory = Path(tempfile.mkdtemp(prefix="skep-machine-"))
        self.clock = ManualClock()
        self.sent: dict[int, tuple[str, str]] = {}
        """Delivery → (recipient, session), as acknowledged."""
        self.held: list[tuple[Lease, str | None]] = []
        self.shown: dict[tuple[str, str], list[int]] = defaultdict(list)
        """Places in the order in which turns first began with them, by lane."""
        self.moved: set[int] = set()
        """Deliveries that an operator put elsewhere, or that went before their lane."""
        self.turns = 0

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self.runner.run(wait())

    @initialize()
    def open(self) -> None:
        self.stack = AsyncExitStack()
        opening = open_desk(self.directory, clock=self.clock, settings=BOUNDS)
        self.desk: Desk = self.run(self.stack.enter_async_context(opening))

    @rule(to=AGENTS, session=SESSIONS, urgency=st.sampled_from(["normal", "normal", "soon", "interrupt"]))
    def send(self, to: str, session: str, urgency: Urgency) -> None:
        sent = self.run(self.desk.send(to, session=session, urgency=urgency))
        self.sent[sent.delivery_ids[0]] = (f"agent:{to}", session)
        if urgency == "interrupt":
            self.moved.add(sent.delivery_ids[0])

    @rule(to=AGENTS, session=SESSIONS, wait_ms=st.integers(1, 200))
    def send_later(self, to: str, session: str, wait_ms: int) -> None:
        at = self.clock.now_ms() + wait_ms
        sent = self.run(self.desk.send(to, session=session, not_before=at))
        self.sent[sent.delivery_ids[0]] = (f"agent:{to}", session)

    @rule(to=AGENTS, session=SESSIONS, wait_ms=st.integers(1, 200))
    def send_with_deadline(self, to: str, session: str, wait_ms: int) -> None:
        at = self.clock.now_ms() + wait_ms
        sent = self.run(self.desk.send(to, session=session, deadline_at=at))
        self.sent[sent.delivery_ids[0]] = (f"agent:{to}", session)

    @rule(to=AGENTS)
    def take(self, to: str) -> None:
        granted = self.run(self.desk.broker.take((f"agent:{to}",), holder=f"h-{to}"))
        for lease in granted.leases:
            assert lease.lane not in {other.lane for other, _ in self.held}, "two leases of one lane"
            self.held.append((lease, None))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.held) - 1))
        lease, turn = self.held[number]
        if turn is None:
            self.turns += 1
            turn = f"t{self.turns}"
            self.run(self.desk.broker.started(lease.lease_id, fence=lease.fence, turn_id=turn))
            self.held[number] = (lease, turn)
            for envelope in lease.envelopes:
                self._saw(lease, envelope.delivery_id, envelope.lane_seq, redelivered=envelope.redelivered)

    @precondition(lambda self: any(turn for _, turn in self.held))
    @rule(data=st.data(), limit=st.integers(1, 3))
    def more(self, data: st.DataObject, limit: int) -> None:
        lease, _ = data.draw(st.sampled_from([held for held in self.held if held[1]]))
        envelopes, _ = self.run(self.desk.broker.more(lease.lease_id, fence=lease.fence, limit=limit))
        for envelope in envelopes:
            self._saw(lease, envelope.delivery_id, envelope.lane_seq, redelivered=envelope.redelivered)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "ok", "error", "cancelled"]))
    def end(self, data: st.DataObject, outcome: Any) -> None:
        lease, turn = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        for _ in range(2):  # told twice: the second time it is known, or the lease is gone
            try:
                self.run(self.desk.end(lease, turn or "never", outcome))
            except StaleLeaseError:
                continue

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay_ms=st.integers(0, 100))
    def nack(self, data: st.DataObject, delay_ms: int) -> None:
        lease, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.run(self.desk.broker.nack(lease.lease_id, fence=lease.fence, delay_ms=delay_ms))

    @rule(name=AGENTS)
    def crash(self, name: str) -> None:
        self.run(self.desk.broker.end_leases(holder=f"h-{name}"))
        self.held = [held for held in self.held if not self._is_of(held[0], name)]

    @rule(ms=st.integers(1, 150))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)
        self._sweep()

    @rule()
    def leases_run_out(self) -> None:
        self.clock.advance(BOUNDS.lease_ttl_ms)
        self._sweep()
        assert not self.held

    @rule(hours=st.sampled_from([-1, 1]))
    def clock_jumps(self, hours: int) -> None:
        self.clock.jump(hours * 3_600_000)
        self._sweep()

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), act=st.sampled_from(["cancel", "requeue", "drop"]))
    def operate(self, data: st.DataObject, act: str) -> None:
        delivery_id = data.draw(st.sampled_from(sorted(self.sent)))
        try:
            state = self.run(getattr(self.desk.broker, act)(OPERATOR, delivery_id))
        except ClosedError:
            return
        if state == "ready":
            self.moved.add(delivery_id)

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.held.clear()
        self.open()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """What was acknowledged is there, once, in its lane; counters equal a recount."""
        if not hasattr(self, "desk"):
            return
        rows = self.run(
            self.desk.rows(
                "SELECT d.id, l.recipient, l.session, d.state, d.lease_id, l.lease_id FROM delivery d "
                "JOIN lane l ON l.id = d.lane"
            )
        )
        found = {row[0]: row[1:3] for row in rows}
        assert {key: found[key] for key in self.sent} == self.sent
        for _, _, _, state, own, lane in rows:
            assert (own is not None) == (state in ("leased", "shown"))
            assert own is None or own == lane
        leases = {lease.lease_id for lease, _ in self.held}
        assert {row[5] for row in rows if row[5]} == leases
        wrong = self.run(
            self.desk.rows(
                "SELECT l.id FROM lane l LEFT JOIN delivery d ON d.lane = l.id AND d.state = 'ready' GROUP BY l.id "
                "HAVING l.ready_n <> count(d.id) OR (l.lease_id IS NULL AND (l.head_at IS NULL) <> (l.ready_n = 0)) "
                "OR (l.lease_id IS NULL AND l.urgency <> coalesce(max(d.urgency), 0))"
            )
        )
        assert wrong == []
        holes = self.run(
            self.desk.rows(
                "SELECT l.id FROM lane l JOIN delivery d ON d.lane = l.id AND d.requeued = 0 "
                "GROUP BY l.id HAVING max(d.lane_seq) >= l.next_seq OR count(d.lane_seq) > l.next_seq - 1"
            )
        )
        assert holes == []

    @invariant()
    def memory_is_right(self) -> None:
        """What the writer remembers of a lane is what the store holds."""
        if hasattr(self, "desk"):
            assert self.run(self.desk.mistaken()) == []

    @invariant()
    def order_is_kept(self) -> None:
        """Turns first see a lane in the order of its places."""
        for places in self.shown.values():
            assert places == sorted(places)

    def teardown(self) -> None:
        try:
            if hasattr(self, "desk"):
                self._drain()
                self.run(self.stack.aclose())
        finally:
            self.runner.close()
            shutil.rmtree(self.directory)

    def _drain(self) -> None:
        """Work off what is left: in the end each delivery has exactly one final state."""
        for name in ("scribe", "tester"):
            self.crash(name)
        for _ in range(500):
            self.clock.advance(1_000)
            self._sweep()
            busy = False
            for mailbox in ("agent:scribe", "agent:tester"):
                for lease in self.run(self.desk.broker.take((mailbox,), holder="drain", lanes=8)).leases:
                    busy = True
                    self.run(self.desk.end(lease, self.run(self.desk.begin(lease))))
            if not busy:
                break
        states = self.run(self.desk.rows("SELECT id, state FROM delivery"))
        left = [row for row in states if row[0] in self.sent and row[1] in ("ready", "leased", "shown")]
        assert left == []

    def _sweep(self) -> None:
        lost = {lease.lease_id for lease in self.run(self.desk.broker.sweep()).lost}
        self.held = [held for held in self.held if held[0].lease_id not in lost]

    def _saw(self, lease: Lease, delivery_id: int, place: int, *, redelivered: bool) -> None:
        if not redelivered and delivery_id not in self.moved:
            self.shown[str(lease.lane), lease.session].append(place)

    def _is_of(self, lease: Lease, name: str) -> bool:
        return self.sent.get(lease.envelopes[0].delivery_id, ("", ""))[0] == f"agent:{name}"


Lanes.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
TestSt01 = Lanes.TestCase
