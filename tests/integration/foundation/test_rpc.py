"""skep.foundation.rpc over a real socket, against the control protocol, sections 2 and 3."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.foundation.errors import RefusedError, SkepError
from skep.foundation.rpc import (
    Call,
    Caller,
    CallError,
    ConnectionLostError,
    Event,
    Listener,
    Method,
    RpcError,
    Table,
    connect,
)
from skep.foundation.tasks import LATE_S
from support.waiting import MS, eventually

pytestmark = pytest.mark.anyio


class Number(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number, there and back."""

    n: int = 0


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Text, there and back; back it may be longer."""

    text: str = ""
    times: int = 0


ECHO = Method(name="test.echo", args=Number, result=Number)
WAIT = Method(name="test.wait", args=Number, result=Number, ends_with_connection=True)
FAIL = Method(name="test.fail", args=Number, result=Number)
TALK = Method(name="test.talk", args=Words, result=Words)
NOW = Method(name="test.now", args=Number, result=Number)
LATER = Method(name="test.later", args=Number, result=Number)
HOLD = Method(name="test.hold", args=Number, result=Number, ends_with_connection=True)
TOLD = Event(name="told", data=Number)
TABLE = Table("test.sock", (ECHO, WAIT, FAIL, TALK, NOW, LATER, HOLD))


class Service:
    """A listener with a method of each kind, and what happened to them."""

    def __init__(self) -> None:
        self.later: dict[int, asyncio.Future[Number]] = {}
        self.ended_waits = 0
        self.gone = 0
        self.release = asyncio.Event()
        self.listener = Listener(
            TABLE,
            {
                "test.echo": self.echo,
                "test.wait": self.wait,
                "test.fail": self.fail,
                "test.talk": self.talk,
                "test.now": self.now,
                "test.later": self.promise,
                "test.hold": self.promise,
            },
            in_flight=1_024,
            epoch=5,
            on_close=self.closed,
        )

    async def echo(self, call: Call, args: Number) -> Number:
        """Answer after a moment that differs, so that answers overtake each other."""
        await asyncio.sleep(random.random() * 0.002)
        call.connection.emit(TOLD, args)
        return args

    async def wait(self, _call: Call, args: Number) -> Number:
        """Wait for a word that may never come."""
        try:
            await self.release.wait()
        finally:
            self.ended_waits += 1
        return args

    async def fail(self, _call: Call, args: Number) -> Number:
        """Fail in one of the ways that there are."""
        raise _FAULTS[args.n]

    def now(self, _call: Call, args: Number) -> Number:
        """Answer on the spot, or fail there."""
        if args.n in _FAULTS:
            raise _FAULTS[args.n]
        return args

    def promise(self, _call: Call, args: Number) -> asyncio.Future[Number]:
        """Answer, or fail, when the test says so; with 9 at once."""
        future: asyncio.Future[Number] = asyncio.get_running_loop().create_future()
        self.later[args.n] = future
        if args.n == 9:
            future.set_result(args)
        return future

    async def talk(self, _call: Call, args: Words) -> Words:
        """Say as much as is asked for."""
        return Words("x" * args.times)

    def closed(self, _connection: object) -> None:
        """Count a connection that is gone."""
        self.gone += 1


_FAULTS: dict[int, Exception] = {
    0: RpcError("conflict", "taken", hint="choose another", retry_after_ms=7),
    1: RefusedError("nothing there", code="hive.not_found"),
    2: ValueError("hunter2"),
    99: RpcError("shutting_down", "the process is stopping", retry_after_ms=5),
}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A service on `tmp_path/s`."""
    service = Service()
    await service.listener.start(tmp_path / "s")
    yield service
    await service.listener.close()


@pytest.fixture
async def caller(service: Service, tmp_path: Path) -> AsyncIterator[Caller]:
    """A caller of the service."""
    assert service
    caller = await connect(tmp_path / "s", role="test")
    yield caller
    caller.close()


async def test_cp_06_1024_in_flight_are_answered_none_lost(caller: Caller) -> None:
    """Answers come in any order, each to who asked."""
    answers = await asyncio.gather(*(caller.call(ECHO, Number(n)) for n in range(1_024)))

    assert [answer.n for answer in answers] == list(range(1_024))


async def test_cp_06_one_more_than_fits_is_busy(service: Service, caller: Caller) -> None:
    """What is over the limit is refused for the moment; what waits is not disturbed."""
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(caller.call(WAIT, Number(n))) for n in range(1_024)]
        await asyncio.sleep(0)
        with pytest.raises(CallError) as raised:
            await caller.call(ECHO, Number(1))
        service.release.set()

    assert raised.value.wire_code == "busy"
    assert raised.value.is_worth_repeating
    assert sorted(task.result().n for task in waiting) == list(range(1_024))


@pytest.mark.parametrize("method", [FAIL, NOW, LATER], ids=["coroutine", "function", "future"])
@pytest.mark.parametrize(
    ("n", "code", "hint", "retry"),
    [(0, "conflict", "choose another", 7), (1, "not_found", "", None)],
)
async def test_a_refusal_arrives_with_code_hint_and_time(
    service: Service,
    caller: Caller,
    method: Method[Number, Number],
    n: int,
    code: str,
    hint: str,
    retry: int | None,
) -> None:
    """The caller learns who must act, whatever kind of handler refused."""
    with pytest.raises(CallError) as raised:
        await _fail(service, caller, method, n)

    assert (raised.value.wire_code, raised.value.hint, raised.value.retry_after_ms) == (code, hint, retry)


@pytest.mark.parametrize("method", [FAIL, NOW, LATER], ids=["coroutine", "function", "future"])
async def test_an_unexpected_fault_gives_an_incident_and_no_detail(
    service: Service, caller: Caller, method: Method[Number, Number]
) -> None:
    """What went wrong inside stays inside."""
    with pytest.raises(CallError) as raised:
        await _fail(service, caller, method, 2)

    assert raised.value.wire_code == "internal"
    assert "hunter2" not in raised.value.problem
    assert (await caller.call(ECHO, Number(3))).n == 3


async def test_a_function_answers_on_the_spot_or_later(service: Service, caller: Caller) -> None:
    """A struct is the result; a future is answered when it is done, in any order, or was done already."""
    first = asyncio.ensure_future(caller.call(LATER, Number(4)))
    second = asyncio.ensure_future(caller.call(LATER, Number(5)))
    await eventually(lambda: {4, 5} <= set(service.later))
    done = await caller.call(LATER, Number(9))
    service.later[5].set_result(Number(50))
    overtaken = await second
    service.later[4].set_result(Number(40))

    assert (done.n, overtaken.n, (await first).n) == (9, 50, 40)
    assert (await caller.call(NOW, Number(6))).n == 6
    assert not service.listener.pending


async def test_a_future_is_in_flight_until_it_is_done(service: Service, caller: Caller) -> None:
    """It counts as a task would: one over the limit is busy, and done ones make room."""
    waiting = [asyncio.ensure_future(caller.call(LATER, Number(n))) for n in range(10, 1_034)]
    await eventually(lambda: len(service.later) == 1_024)
    with pytest.raises(CallError) as raised:
        await caller.call(NOW, Number(3))
    for n, future in service.later.items():
        future.set_result(Number(n))

    assert raised.value.wire_code == "busy"
    assert [answer.n for answer in await asyncio.gather(*waiting)] == list(range(10, 1_034))
    assert (await caller.call(NOW, Number(3))).n == 3


async def test_a_pending_future_ends_with_its_connection_only_where_the_method_says_so(
    service: Service, caller: Caller
) -> None:
    """What only waits is cancelled; what may be half done goes on, and whatever comes of it harms nobody."""
    waiting = [asyncio.ensure_future(caller.call(*each)) for each in ((HOLD, Number(3)), (LATER, Number(4)))]
    await eventually(lambda: {3, 4} <= set(service.later))
    caller.close()
    await asyncio.wait(waiting)
    await eventually(service.later[3].cancelled)
    is_kept = service.later[4] in service.listener.pending
    service.later[4].set_exception(ValueError("hunter2"))

    await eventually(lambda: not service.listener.pending)
    assert is_kept
    assert [type(each.exception()) for each in waiting] == [ConnectionLostError] * 2


async def test_a_pending_future_is_cancelled_when_the_listener_closes(
    service: Service, caller: Caller
) -> None:
    """Closing waits for nobody: each call has ended, the caller knows at once."""
    waiting = asyncio.ensure_future(caller.call(LATER, Number(4)))
    await eventually(lambda: 4 in service.later)
    await service.listener.close()

    assert service.later[4].cancelled()
    assert service.gone == 1
    with pytest.raises(ConnectionLostError):
        await waiting


async def test_a_wait_ends_with_its_connection(service: Service, caller: Caller) -> None:
    """Nobody waits on behalf of a caller that is gone."""
    waiting = asyncio.ensure_future(caller.call(WAIT, Number()))
    await asyncio.sleep(0.01)
    caller.close()

    with pytest.raises(ConnectionLostError):
        await waiting
    await eventually(lambda: service.ended_waits == 1 and service.gone == 1, within=1_000 * MS)


async def test_a_lost_connection_fails_calls_at_once(service: Service, caller: Caller) -> None:
    """A caller does not wait for an answer that cannot come."""
    waiting = asyncio.ensure_future(caller.call(WAIT, Number(), timeout_s=60))
    await asyncio.sleep(0.01)
    await service.listener.close()

    with pytest.raises(ConnectionLostError):
        await waiting


async def test_frames_before_a_bad_one_are_answered(service: Service, tmp_path: Path) -> None:
    """What was right before it went wrong is answered, however it was cut into reads."""
    assert service
    bad = b"\x00\x00\x00\x00"
    answer = await _send_raw(tmp_path / "s", _hello(1) + _frame({"i": 2, "m": "test.gone"}) + bad)

    assert b'"code":"unknown_method"' in answer
    assert answer.endswith(b'"hint":""}')
    assert b'"i":0,"ok":false,"code":"bad_frame"' in answer


async def test_nothing_is_done_after_the_answer_that_closes(service: Service, tmp_path: Path) -> None:
    """A caller that was refused does not get in with what it sent along."""
    assert service
    early = _frame({"i": 1, "m": "test.echo", "a": {"n": 1}})
    answer = await _send_raw(tmp_path / "s", early + _hello(1) + early)

    assert answer.count(b'"i":1') == 1
    assert b'"code":"proto_unsupported"' in answer
    assert service.gone == 0  # it was never there


async def test_a_request_that_cannot_pass_is_too_large_and_harms_nothing(caller: Caller) -> None:
    """One call over the limit is that call's own trouble, not the end of the connection."""
    with pytest.raises(CallError) as raised:
        await caller.call(TALK, Words("x" * (1 << 20)))

    assert raised.value.wire_code == "too_large"
    assert (await caller.call(ECHO, Number(6))).n == 6


async def test_an_answer_that_cannot_pass_is_too_large_and_harms_nothing(caller: Caller) -> None:
    """The same for what the listener would say."""
    with pytest.raises(CallError) as raised:
        await caller.call(TALK, Words(times=5 << 20))

    assert raised.value.wire_code == "too_large"
    assert (await caller.call(ECHO, Number(7))).n == 7


async def test_a_caller_that_never_reads_is_cut_off_at_the_end(tmp_path: Path) -> None:
    """Closing waits for nobody: what a caller does not read is not sent for ever."""
    service = Service()
    await service.listener.start(tmp_path / "s")
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"), limit=1)
    talk = [_frame({"i": n, "m": "test.talk", "a": {"times": 1 << 20}}) for n in range(1, 9)]
    writer.write(_hello(1) + b"".join(talk))
    await eventually(lambda: any(not each.is_writable for each in service.listener.connections))
    async with asyncio.timeout(5):
        await service.listener.close()

    assert service.gone == 1
    assert not service.listener.connections
    writer.close()
    assert reader


async def test_a_closed_listener_has_told_of_each_connection(service: Service, caller: Caller) -> None:
    """Who keeps something per connection may let go of everything when `close` is back."""
    assert (await caller.call(ECHO, Number(1))).n == 1
    await service.listener.close()

    assert service.gone == 1


async def test_a_listener_that_refuses_callers_keeps_those_it_has(
    service: Service, caller: Caller, tmp_path: Path
) -> None:
    """Who is there is answered as before, also that the process is stopping; who dials now finds nobody."""
    service.listener.refuse_callers()
    with pytest.raises(CallError) as raised:
        await caller.call(FAIL, Number(n=99))
    with pytest.raises(ConnectionLostError):
        await connect(tmp_path / "s", role="test")

    assert (raised.value.wire_code, raised.value.retry_after_ms) == ("shutting_down", 5)
    assert await caller.call(ECHO, Number(n=7)) == Number(n=7)


async def test_a_dial_that_is_given_up_hangs_up(tmp_path: Path) -> None:
    """A probe with a deadline leaves no connection behind."""
    hung_up = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        hung_up.set()

    server = await asyncio.start_unix_server(say_nothing, str(tmp_path / "mute"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connect(tmp_path / "mute", role="test")

    async with asyncio.timeout(2):
        await hung_up.wait()
    server.close()


BAD_FRAMES = {
    "length 0": b"\x00\x00\x00\x00",
    "over the limit": (1 << 20 | 1).to_bytes(4, "big"),
    "not JSON": b"\x00\x00\x00\x01{",
    "not an object": b"\x00\x00\x00\x02[]",
    "no m": b'\x00\x00\x00\x07{"i":1}',
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_cp_02_a_bad_frame_closes_its_connection_and_no_other(
    service: Service, caller: Caller, tmp_path: Path, frame: bytes
) -> None:
    """The author of the bad frame is told and hung up on; the others notice nothing."""
    assert service
    answer = await _send_raw(tmp_path / "s", _hello(1) + frame)

    assert b'"code":"bad_frame"' in answer
    assert (await caller.call(ECHO, Number(4))).n == 4


async def test_cp_02_unknown_method_and_argument_leave_the_connection(caller: Caller) -> None:
    """A wrong call is an answer, not the end."""
    unknown: Method[Any, Any] = Method(name="test.gone", args=Number, result=Number)
    with pytest.raises(CallError) as no_method:
        await caller.call(unknown, Number())
    wrong: Method[Any, Any] = Method(name="test.echo", args=dict, result=Number)
    with pytest.raises(CallError) as no_argument:
        await caller.call(wrong, {"m": 1})

    assert no_method.value.wire_code == "unknown_method"
    assert no_argument.value.wire_code == "invalid_argument"
    assert (await caller.call(ECHO, Number(5))).n == 5


async def test_cp_04_a_foreign_uid_is_closed_without_a_word(tmp_path: Path) -> None:
    """Who may call follows from the kernel's word for the peer."""
    listener = Listener(Table("none", ()), {}, uids=frozenset({os.getuid() + 1}))
    await listener.start(tmp_path / "foreign")
    with pytest.raises(ConnectionLostError):
        await connect(tmp_path / "foreign", role="test")
    await listener.close()


@pytest.mark.parametrize("proto", [0, 2])
async def test_cp_05_another_protocol_is_refused_and_closed(
    service: Service, tmp_path: Path, proto: int
) -> None:
    """A caller of another protocol learns which one is spoken."""
    assert service
    answer = await _send_raw(tmp_path / "s", _hello(proto))

    assert b'"code":"proto_unsupported"' in answer


async def test_the_first_request_is_hello(service: Service, tmp_path: Path) -> None:
    """Nothing is done for a caller that has not said who it is."""
    assert service
    answer = await _send_raw(tmp_path / "s", _frame({"i": 1, "m": "test.echo", "a": {"n": 1}}))

    assert b'"code":"proto_unsupported"' in answer


async def test_a_socket_file_is_private(service: Service, tmp_path: Path) -> None:
    """Only its owner may connect."""
    assert service
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


async def test_handlers_and_table_must_agree() -> None:
    """The list of methods is closed, in code as in the text."""
    with pytest.raises(ValueError, match=r"test\.echo"):
        Listener(TABLE, {})


async def test_a_time_out_is_the_callers_own(caller: Caller) -> None:
    """An answer that does not come in time is a code too."""
    with pytest.raises(CallError) as raised:
        await caller.call(WAIT, Number(), timeout_s=0.02)

    assert raised.value.wire_code == "timeout"


async def test_calls_time_out_each_by_its_own_limit(service: Service, caller: Caller) -> None:
    """Never before the limit, and soon after it, whichever was asked first; what is answered is not touched."""
    limits_s = (0.3, 0.02, 0.25, 0.1)
    answered = asyncio.ensure_future(caller.call(LATER, Number(4), timeout_s=0.05))
    await eventually(lambda: 4 in service.later)
    service.later[4].set_result(Number(4))

    async def took_s(limit_s: float) -> float:
        begun = time.monotonic()
        with pytest.raises(CallError, match=f"within {limit_s:g} s"):
            await caller.call(WAIT, Number(), timeout_s=limit_s)
        return time.monotonic() - begun

    took = await asyncio.gather(*map(took_s, limits_s))

    assert (await answered).n == 4
    assert all(
        limit_s <= each <= limit_s + LATE_S + 400 * MS for limit_s, each in zip(limits_s, took, strict=True)
    )


async def test_a_call_can_be_made_without_a_task(service: Service, caller: Caller) -> None:
    """`begin` comes back at once; what becomes of the call is told later, once, by whichever way it ends."""
    told: list[Number | Words | SkepError] = []
    caller.begin(NOW, Number(3), told.append)
    caller.begin(NOW, Number(0), told.append)
    caller.begin(TALK, Words("x" * (1 << 20)), told.append)
    caller.begin(WAIT, Number(), told.append, timeout_s=0.02)
    caller.begin(LATER, Number(4), told.append)
    at_once = list(told)
    await eventually(lambda: len(told) == 4)
    caller.close()
    await caller.wait_closed()
    caller.begin(NOW, Number(5), told.append)

    await eventually(lambda: len(told) == 6)
    assert at_once == []
    assert [each.wire_code if isinstance(each, SkepError) else each for each in told] == [
        "too_large",
        Number(3),
        "conflict",
        "timeout",
        "connection_lost",
        "connection_lost",
    ]


async def _fail(service: Service, caller: Caller, method: Method[Number, Number], n: int) -> None:
    """Call `method` so that it fails in way `n`."""
    call = asyncio.ensure_future(caller.call(method, Number(n)))
    if method is LATER:
        await eventually(lambda: n in service.later)
        service.later[n].set_exception(_FAULTS[n])
    await call


async def _send_raw(path: Path, data: bytes) -> bytes:
    """Send `data`, wait until the listener hangs up, and return what it said."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def _hello(proto: int) -> bytes:
    return _frame({"i": 1, "m": "hello", "a": {"proto": proto, "role": "test"}})


def _frame(fields: dict[str, Any]) -> bytes:
    body = msgspec.json.encode(fields)
    return len(body).to_bytes(4, "big") + body
