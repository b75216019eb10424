"""skep.wire.relay.frames, against relay contract, sections 3, 4 and 16."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.wire.relay.actions import Partial, Result, Send
from skep.wire.relay.descriptor import Descriptor
from skep.wire.relay.frames import (
    ConnectorFrame,
    DescriptorFrame,
    Forward,
    FrameReader,
    GatewayFrame,
    GoingIdle,
    GoingIdleAck,
    Hello,
    Inbound,
    InboundAck,
    Interrupt,
    InterruptInbound,
    LineSplitter,
    Outbound,
    OutboundResult,
    PassthroughForward,
    Skipped,
    connector_frames,
    decode_connector_frame,
    decode_gateway_frame,
    encode_frame,
    gateway_frames,
    messages,
)

DESCRIPTOR = Descriptor(
    contract_version=1,
    platform="web",
    label="Web",
    max_message_length=100,
    supports_draft_streaming=False,
    supports_edit=True,
    supports_threads=False,
    markdown_dialect="gfm",
    len_unit="chars",
    supported_ops=("send",),
    skep=1,
)

GATEWAY: dict[str, tuple[GatewayFrame, str]] = {
    "hello": (
        Hello(platform="discord", bot_id="B", skep=1),
        '{"type": "hello", "platform": "discord", "botId": "B", "skep": 1}',
    ),
    "outbound": (
        Outbound.of(Send(chat_id="c", content="é"), request_id="0" * 32, platform="web", bot_id="b"),
        (
            '{"type": "outbound", "requestId": "00000000000000000000000000000000", "platform": "web", "botId": "b",'
            ' "action": {"op": "send", "chat_id": "c", "content": "é", "reply_to": null, "metadata": {}}}'
        ),
    ),
    "interrupt": (
        Interrupt(session_key="k", reason=None),
        '{"type": "interrupt", "session_key": "k", "reason": null}',
    ),
    "going_idle": (GoingIdle(), '{"type": "going_idle"}'),
    "inbound_ack": (InboundAck(buffer_id="b-1"), '{"type": "inbound_ack", "bufferId": "b-1"}'),
}
CONNECTOR: dict[str, tuple[ConnectorFrame, str]] = {
    "descriptor": (
        DescriptorFrame(descriptor=DESCRIPTOR),
        (
            '{"type": "descriptor", "skep": 1, "descriptor": {"contract_version": 1, "platform": "web", "label": "Web",'
            ' "max_message_length": 100, "supports_draft_streaming": false, "supports_edit": true,'
            ' "supports_threads": false, "markdown_dialect": "gfm", "len_unit": "chars", "emoji": "\\ud83d\\udd0c",'
            ' "platform_hint": "", "pii_safe": false, "supports_context": false, "supported_ops": ["send"], "skep": 1}}'
        ),
    ),
    "outbound_result": (
        OutboundResult(
            request_id="r",
            result=Result(code="rate_limited", retry_after_ms=5, partial=Partial(delivered=1, total=2)),
        ),
        (
            '{"type": "outbound_result", "requestId": "r", "result": {"success": false, "code": "rate_limited",'
            ' "retry_after_ms": 5, "partial": {"delivered": 1, "total": 2, "delivered_chars": 0}}}'
        ),
    ),
    "interrupt_inbound": (
        InterruptInbound(session_key="k", chat_id="c"),
        '{"type": "interrupt_inbound", "session_key": "k", "chat_id": "c"}',
    ),
    "passthrough_forward": (
        PassthroughForward(
            forward=Forward(
                platform="d",
                bot_id="b",
                method="POST",
                path="/i",
                headers=(("a", "1"), ("a", "2")),
                body=b"{}",
            ),
            buffer_id="p-1",
        ),
        (
            '{"type": "passthrough_forward", "bufferId": "p-1", "forward": {"platform": "d", "botId": "b",'
            ' "method": "POST", "path": "/i", "headers": [["a", "1"], ["a", "2"]], "bodyB64": "e30="}}'
        ),
    ),
    "going_idle_ack": (GoingIdleAck(), '{"type": "going_idle_ack"}'),
}
SKIPPED = {
    "not UTF-8": (b'{"type":"inbound","event":{"text":"\xff"}}', Skipped.NOT_UTF8),
    "not JSON": (b"{oops", Skipped.NOT_JSON),
    "cut short": (b'{"type":"inbound"', Skipped.NOT_JSON),
    "nested too deep": (b"[" * 200_000, Skipped.NOT_JSON),
    "deep inside an event": (b'{"type":"inbound","event":' + b"[" * 200_000, Skipped.NOT_JSON),
    "a list": (b"[1]", Skipped.NOT_OBJECT),
    "a string": (b'"x"', Skipped.NOT_OBJECT),
    "null": (b"null", Skipped.NOT_OBJECT),
    "no type": (b'{"x":1}', Skipped.UNKNOWN_TYPE),
    "type is a number": (b'{"type":1}', Skipped.UNKNOWN_TYPE),
    "type of the other direction": (b'{"type":"going_idle"}', Skipped.UNKNOWN_TYPE),
    "event is a list": (b'{"type":"inbound","event":[1]}', Skipped.MALFORMED),
    "event is null": (b'{"type":"inbound","event":null}', Skipped.MALFORMED),
    "descriptor lacks a field": (b'{"type":"descriptor","descriptor":{"platform":"x"}}', Skipped.MALFORMED),
    "descriptor is missing": (b'{"type":"descriptor"}', Skipped.MALFORMED),
    "forward is a string": (b'{"type":"passthrough_forward","forward":"x"}', Skipped.MALFORMED),
    "request id is a number": (b'{"type":"outbound_result","requestId":5}', Skipped.MALFORMED),
}


@pytest.mark.parametrize(("frame", "line"), GATEWAY.values(), ids=GATEWAY.keys())
def test_gateway_frame_reads_and_writes_as_the_contract_says(frame: GatewayFrame, line: str) -> None:
    """One JSON object and a line feed; any spelling of it is read."""
    written = encode_frame(frame)

    assert (json.loads(written), written[-1:]) == (json.loads(line), b"\n")
    read = decode_gateway_frame(line.encode())
    assert not isinstance(read, Skipped)
    assert json.loads(encode_frame(read)) == json.loads(line)


@pytest.mark.parametrize(("frame", "line"), CONNECTOR.values(), ids=CONNECTOR.keys())
def test_connector_frame_reads_and_writes_as_the_contract_says(frame: ConnectorFrame, line: str) -> None:
    """The same in the other direction."""
    written = encode_frame(frame)

    assert (json.loads(written), written[-1:]) == (json.loads(line), b"\n")
    assert decode_connector_frame(line.encode()) == frame


@pytest.mark.parametrize(("line", "reason"), SKIPPED.values(), ids=SKIPPED.keys())
def test_bad_line_is_skipped_with_its_reason(line: bytes, reason: Skipped) -> None:
    """Counted, and the next line is read as if nothing had been."""
    reader = connector_frames()

    frames = reader.feed(line + b'\n{"type":"going_idle_ack"}\n')

    assert (frames, dict(reader.skipped)) == ([GoingIdleAck()], {reason: 1})


@given(st.binary(max_size=200))
def test_no_line_raises(line: bytes) -> None:
    """Whatever arrives, a session goes on."""
    for reader in (connector_frames(), gateway_frames()):
        reader.feed(line + b"\n")


ODD_VALUES: list[object] = json.loads(
    '[null, true, 0, -1, 1.5, "", "x", [], [1], [{}], {}, {"op": 1}, {"text": []}, {"success": "x"}]'
)


@given(
    st.sampled_from(["inbound", "outbound_result", "descriptor", "passthrough_forward", "hello", "outbound"]),
    st.dictionaries(
        st.sampled_from(
            ["event", "bufferId", "requestId", "result", "descriptor", "forward", "action", "platform"]
        ),
        st.sampled_from(ODD_VALUES),
    ),
)
def test_no_odd_field_raises(kind: str, fields: dict[str, object]) -> None:
    """Known frames with fields of any type end no session either."""
    line = json.dumps({**fields, "type": kind}).encode() + b"\n"
    for reader in (connector_frames(), gateway_frames()):
        reader.feed(line)


def test_event_is_kept_as_it_came() -> None:
    """Spaces, order and unknown fields included: whoever passes it on changes nothing."""
    frame = decode_connector_frame(
        b'{"type":"inbound", "tenant":"evil", "event": {"b": 1, "a":[ 2 ]}, "bufferId":17}'
    )

    assert isinstance(frame, Inbound)
    assert (bytes(frame.event), frame.buffer_id) == (b'{"b": 1, "a":[ 2 ]}', "17")


@pytest.mark.parametrize("buffer_id", [b'""', b"0", b"null"])
def test_nothing_is_acknowledged_without_an_id(buffer_id: bytes) -> None:
    """Empty, zero and absent ids name no entry."""
    frame = decode_connector_frame(b'{"type":"inbound","event":{},"bufferId":' + buffer_id + b"}")

    assert isinstance(frame, Inbound)
    assert frame.buffer_id is None


@pytest.mark.parametrize("result", [b"null", b"[]", b'"x"', b'{"message_id":[]}'])
def test_result_that_cannot_be_read_is_a_failure(result: bytes) -> None:
    """The caller is answered, never left waiting."""
    frame = decode_connector_frame(b'{"type":"outbound_result","requestId":"r","result":' + result + b"}")

    assert frame == OutboundResult(request_id="r", result=Result())


def test_skep_is_read_at_either_level_of_a_descriptor() -> None:
    """Written at both, so that a reader of either finds it."""
    wire = json.loads(CONNECTOR["descriptor"][1])
    outer = {**wire, "descriptor": {**wire["descriptor"], "skep": 0}}
    inner = {name: value for name, value in wire.items() if name != "skep"}

    for line in (outer, inner):
        frame = decode_connector_frame(json.dumps(line).encode())
        assert isinstance(frame, DescriptorFrame)
        assert frame.descriptor.skep == 1


@given(
    st.lists(st.text(alphabet="aé\u2028\r👋 ", max_size=12), max_size=12),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_lines_are_the_same_however_messages_are_cut(texts: list[str], cuts: list[int]) -> None:
    """Only a line feed ends a line; U+2028 and carriage returns are data."""
    stream = "".join(text + "\n" for text in texts).encode()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    splitter = LineSplitter()

    lines = [line for start, end in pairwise(edges) for line in splitter.feed(stream[start:end])]

    assert lines == [text.encode() for text in texts]


def test_line_over_the_limit_is_dropped_and_the_next_is_read() -> None:
    """Dropped as it grows: no more than the limit is ever held."""
    splitter = LineSplitter(max_bytes=10)

    lines = [
        line
        for part in (b"x" * 8, b"y" * 8, b"z\nnext\n", b"w" * 11 + b"\nlast\n")
        for line in splitter.feed(part)
    ]

    assert (lines, splitter.too_long) == ([b"next", b"last"], 2)


PIECES = (
    b"\n",
    b"\r",
    b" ",
    b"}",
    b"{",
    b"\xff",
    b'{"type":"going_idle"}',
    b'{"type":"inbound_ack",',
    b'"bufferId":"a"}',
    b'{"type":"inbound","event":{"a":{}}}',
    b'{"type":"inbound","event":[]}',
    b'{"type":"outbound_result","result":null}',
    b'{"type":"interrupt_inbound"}',
    b'{"type":"nothing"}',
    '{"type":"inbound_ack","bufferId":"é"}'.encode(),
)


@pytest.mark.parametrize(
    ("reader", "decode"),
    [(gateway_frames, decode_gateway_frame), (connector_frames, decode_connector_frame)],
    ids=["gateway", "connector"],
)
@given(messages=st.lists(st.lists(st.sampled_from(PIECES)).map(b"".join), max_size=3))
def test_frames_of_a_message_are_those_of_its_lines(
    reader: Callable[[], FrameReader[object]],
    decode: Callable[[bytes], object],
    messages: list[bytes],
) -> None:
    """However many lines there are and whatever is between them, each is taken or skipped by itself."""
    lines = b"".join(messages).split(b"\n")[:-1]
    decoded = [decode(line) for line in lines if line and not line.isspace()]
    frames = reader()
    got = [frame for message in messages for frame in frames.feed(message)]
    assert got == [one for one in decoded if not isinstance(one, Skipped)]
    assert frames.skipped == Counter(one for one in decoded if isinstance(one, Skipped))


def test_frame_without_a_line_feed_waits() -> None:
    """Held until one arrives, as the released client does."""
    reader = connector_frames()

    assert reader.feed('{"type":"going_idle_ack"}') == []
    assert reader.feed("\r\n") == [GoingIdleAck()]


@given(st.lists(st.text(alphabet="aé👋", max_size=30), max_size=10), st.integers(8, 40))
def test_messages_hold_every_line_and_cut_no_character(texts: list[str], max_bytes: int) -> None:
    """Joined up to the limit; a longer line goes over several messages, each of them whole UTF-8."""
    lines = [text.encode() + b"\n" for text in texts]

    sent = list(messages(lines, max_bytes=max_bytes))

    assert b"".join(sent) == b"".join(lines)
    assert all(len(message) <= max_bytes for message in sent)
    assert "".join(message.decode() for message in sent) == "".join(texts_with_feeds(texts))


def texts_with_feeds(texts: list[str]) -> list[str]:
    """Return `texts`, each ended."""
    return [text + "\n" for text in texts]


def test_bot_id_goes_only_with_a_platform() -> None:
    """An account without its platform would name nothing."""
    frame = Outbound.of(Send(chat_id="c", content="x"), request_id="r", bot_id="b")

    assert msgspec.json.decode(encode_frame(frame)).keys() == {"type", "requestId", "action"}
