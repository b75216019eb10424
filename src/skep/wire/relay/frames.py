"""Frames: one JSON object a line, in WebSocket messages that may hold many lines or a part of one.

Source: relay contract, sections 3, 4 and 16. A peer must skip what it cannot read and go on: nothing
here ends a session; what was skipped is counted by reason. Pure.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final, Generic, TypeVar, cast

import msgspec

from skep.foundation.errors import WireError
from skep.wire.relay.actions import Action, Result, decode_result
from skep.wire.relay.descriptor import Descriptor, decode_descriptor
from skep.wire.relay.team import AgentHere

__all__ = [
    "MAX_LINE_BYTES",
    "MAX_MESSAGE_BYTES",
    "SKEP",
    "Agents",
    "ConnectorFrame",
    "DescriptorFrame",
    "Forward",
    "FrameReader",
    "GatewayFrame",
    "GoingIdle",
    "GoingIdleAck",
    "Hello",
    "Inbound",
    "InboundAck",
    "Interrupt",
    "InterruptInbound",
    "LineSplitter",
    "Outbound",
    "OutboundResult",
    "PassthroughForward",
    "Skipped",
    "connector_frames",
    "decode_connector_frame",
    "decode_gateway_frame",
    "encode_frame",
    "gateway_frames",
    "messages",
]

SKEP: Final = 1
"""What a Skep end says of itself in `hello` and `descriptor`."""
MAX_LINE_BYTES: Final = 4 << 20
"""Longest line that is taken, in bytes."""
MAX_MESSAGE_BYTES: Final = 1_000_000
"""Longest WebSocket message that is sent, in bytes: the client's library refuses 1 MiB."""


class Skipped(enum.Enum):
    """Why a line was not taken."""

    TOO_LONG = "too_long"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    UNKNOWN_TYPE = "unknown_type"
    MALFORMED = "malformed"


class _Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """One line. The tag is `type`."""


# From gateway to connector.


class Hello(_Frame, frozen=True, tag="hello"):
    """One identity that the gateway fronts; one each, at once after the upgrade."""

    platform: str
    bot_id: str = msgspec.field(name="botId")
    command_manifest: list[Any] | None = None
    skep: int | None = None


class Outbound(_Frame, frozen=True, tag="outbound"):
    """Something to do on a platform; exactly one `outbound_result` answers it."""

    request_id: str = msgspec.field(name="requestId")
    action: msgspec.Raw
    platform: str | None = None
    bot_id: str | None = msgspec.field(name="botId", default=None)

    @classmethod
    def of(
        cls, action: Action, *, request_id: str, platform: str | None = None, bot_id: str | None = None
    ) -> Outbound:
        """Return the frame that asks for `action`; `bot_id` goes only together with `platform`."""
        return cls(
            request_id=request_id,
            action=msgspec.Raw(_encoder.encode(action)),
            platform=platform or None,
            bot_id=(bot_id or None) if platform else None,
        )


class Interrupt(_Frame, frozen=True, tag="interrupt"):
    """Stop the turn of a session that another gateway runs."""

    session_key: str
    reason: str | None


class GoingIdle(_Frame, frozen=True, tag="going_idle"):
    """Keep everything back from now on."""


class InboundAck(_Frame, frozen=True, tag="inbound_ack"):
    """The buffered event is on disk."""

    buffer_id: str = msgspec.field(name="bufferId")


class Agents(_Frame, frozen=True, tag="agents"):
    """The agents that anybody may write to, the default first. Only between Skep's own ends; the newest counts."""

    agents: Annotated[tuple[AgentHere, ...], msgspec.Meta(max_length=256)]


GatewayFrame = Hello | Outbound | Interrupt | GoingIdle | InboundAck | Agents


# From connector to gateway.


class DescriptorFrame(_Frame, frozen=True, tag="descriptor"):
    """Answer to one hello. Encoded by `encode_frame` with `skep` at both levels."""

    descriptor: Descriptor


class Inbound(_Frame, frozen=True, tag="inbound"):
    """An event of a platform, still JSON: whoever must pass it on unchanged does."""

    event: msgspec.Raw = msgspec.Raw(b"{}")
    raw_buffer_id: str | int | float | None = msgspec.field(name="bufferId", default=None)

    @property
    def buffer_id(self) -> str | None:
        """What an `inbound_ack` names; `None`: nothing to acknowledge."""
        return str(self.raw_buffer_id) if self.raw_buffer_id else None


class OutboundResult(_Frame, frozen=True, tag="outbound_result"):
    """Answer to one `outbound`; no result counts as a failure."""

    request_id: str = msgspec.field(name="requestId", default="")
    result: Result = Result()


class InterruptInbound(_Frame, frozen=True, tag="interrupt_inbound"):
    """A person stopped the turn of this session."""

    session_key: str = ""
    chat_id: str = ""


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a provider, already verified and answered; headers keep order and repeats."""

    platform: str = ""
    bot_id: str = ""
    method: str = ""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    profile: str | None = None

    def to_wire(self) -> dict[str, object]:
        """Return the object that goes into a `passthrough_forward`."""
        wire: dict[str, object] = {
            "platform": self.platform,
            "botId": self.bot_id,
            "method": self.method,
            "path": self.path,
            "headers": [list(pair) for pair in self.headers],
            "bodyB64": base64.b64encode(self.body).decode(),
        }
        return wire if self.profile is None else {**wire, "profile": self.profile}


class PassthroughForward(_Frame, frozen=True, tag="passthrough_forward"):
    """A forwarded request, with an id when it was buffered."""

    forward: Forward = Forward()
    buffer_id: str | None = msgspec.field(name="bufferId", default=None)


class GoingIdleAck(_Frame, frozen=True, tag="going_idle_ack"):
    """Everything is kept back from now on."""


ConnectorFrame = (
    DescriptorFrame | Inbound | OutboundResult | InterruptInbound | PassthroughForward | GoingIdleAck
)

F = TypeVar("F")

_encoder: Final = msgspec.json.Encoder()


def encode_frame(frame: GatewayFrame | ConnectorFrame) -> bytes:
    """Return `frame` as one line, line feed included."""
    wire: object = frame
    match frame:
        case OutboundResult():
            wire = {
                "type": "outbound_result",
                "requestId": frame.request_id,
                "result": frame.result.to_wire(),
            }
        case DescriptorFrame():
            skep = {"skep": frame.descriptor.skep} if frame.descriptor.skep else {}
            wire = {"type": "descriptor", "descriptor": frame.descriptor.to_wire(), **skep}
        case PassthroughForward():
            buffered = {"bufferId": frame.buffer_id} if frame.buffer_id else {}
            wire = {"type": "passthrough_forward", "forward": frame.forward.to_wire(), **buffered}
        case _:
            pass
    return _encoder.encode(wire) + b"\n"


def messages(lines: Iterable[bytes], *, max_bytes: int = MAX_MESSAGE_BYTES) -> Iterator[bytes]:
    """Yield `lines` joined into as few WebSocket messages as possible.

    A line over `max_bytes` is cut over several messages, never inside a character.
    """
    lines = tuple(lines)
    if sum(map(len, lines)) <= max_bytes:  # as nearly always
        if lines:
            yield b"".join(lines)
        return
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > max_bytes and waiting:
            yield b"".join(waiting)
            waiting, size = [], 0
        start = 0
        while len(line) - start > max_bytes:
            end = start + max_bytes
            while line[end] & 0xC0 == 0x80:
                end -= 1
            yield line[start:end]
            start = end
        waiting.append(line[start:])
        size += len(line) - start
    if waiting:
        yield b"".join(waiting)


class LineSplitter:
    """Cut WebSocket messages into lines; only a line feed ends one.

    Attributes:
        too_long: How many lines were dropped because they were over the limit.
    """

    def __init__(self, *, max_bytes: int = MAX_LINE_BYTES) -> None:
        self.too_long = 0
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._is_dropping = False

    @property
    def is_between_lines(self) -> bool:
        """Whether no line has begun that has not ended."""
        return not self._parts and not self._is_dropping

    def feed(self, message: bytes) -> list[bytes]:
        """Take one message; return the lines that are whole now, without their line feeds."""
        head, *rest = message.split(b"\n")
        if not rest:
            self._hold(head)
            return []
        self._hold(head)
        lines = [] if self._is_dropping else [b"".join(self._parts)]
        self._parts, self._size, self._is_dropping = [], 0, False
        last = rest.pop()
        for line in rest:
            if len(line) > self._max_bytes:
                self.too_long += 1
            else:
                lines.append(line)
        self._hold(last)
        return lines

    def _hold(self, part: bytes) -> None:
        if self._is_dropping or not part:
            return
        self._size += len(part)
        if self._size > self._max_bytes:
            self.too_long += 1
            self._parts, self._is_dropping = [], True
        else:
            self._parts.append(part)


class FrameReader(Generic[F]):
    """Frames out of the WebSocket messages of one connection.

    Attributes:
        skipped: How many lines were not taken, by reason.
    """

    def __init__(
        self, decode: Callable[[bytes], F | Skipped], decode_all: Callable[[bytes], list[F] | None]
    ) -> None:
        """Make a reader.

        Args:
            decode: Takes one line.
            decode_all: Takes a message of whole lines, each from `{` to `}`; `None` when it has to be
                looked at line by line.
        """
        self.skipped: Counter[Skipped] = Counter()
        self._decode = decode
        self._decode_all = decode_all
        self._splitter = LineSplitter()

    def feed(self, message: str | bytes) -> list[F]:
        """Take one message; return the frames that are whole now."""
        data = message.encode() if isinstance(message, str) else message
        if self._splitter.is_between_lines and _is_of_objects(data):
            frames = self._decode_all(data)
            if frames is not None and len(frames) == data.count(b"\n"):
                return frames
        return self._feed_lines(data)

    def _feed_lines(self, message: bytes) -> list[F]:
        frames: list[F] = []
        for line in self._splitter.feed(message):
            if line and not line.isspace():
                frame = self._decode(line)
                if isinstance(frame, Skipped):
                    self.skipped[frame] += 1
                else:
                    frames.append(frame)
        if self._splitter.too_long:
            self.skipped[Skipped.TOO_LONG] = self._splitter.too_long
        return frames


def connector_frames() -> FrameReader[ConnectorFrame]:
    """Return a reader of what a connector sends: a gateway's."""
    return FrameReader(decode_connector_frame, _decode_connector_frames)


def gateway_frames() -> FrameReader[GatewayFrame]:
    """Return a reader of what a gateway sends: a connector's."""
    return FrameReader(decode_gateway_frame, _decode_gateway_frames)


def decode_gateway_frame(line: bytes) -> GatewayFrame | Skipped:
    """Return what a gateway said in `line`, or why it cannot be taken. Never raises."""
    if not _is_utf8(line):
        return Skipped.NOT_UTF8
    try:
        return _gateway_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _why(line, _GATEWAY_TYPES)


def decode_connector_frame(line: bytes) -> ConnectorFrame | Skipped:
    """Return what a connector said in `line`, or why it cannot be taken. Never raises."""
    if not _is_utf8(line):
        return Skipped.NOT_UTF8
    try:
        return _plain(_connector_decoder.decode(line))
    except WireError:
        return Skipped.MALFORMED
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _lenient_result(line) or _why(line, _CONNECTOR_TYPES)


def _is_of_objects(message: bytes) -> bool:
    """Return whether each line of `message` is whole, and none is too long, blank, or of another form than `{…}`.

    So no JSON object goes over two lines: after a `}` none goes on with `{`.
    """
    return (
        len(message) <= MAX_LINE_BYTES
        and message.startswith(b"{")
        and message.endswith(b"}\n")
        and message.count(b"}\n{") == message.count(b"\n") - 1
    )


def _decode_gateway_frames(message: bytes) -> list[GatewayFrame] | None:
    if not _is_utf8(message):
        return None
    try:
        return _gateway_decoder.decode_lines(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decode_connector_frames(message: bytes) -> list[ConnectorFrame] | None:
    if not _is_utf8(message):
        return None
    try:
        frames = [_plain(frame) for frame in _connector_decoder.decode_lines(message)]
    except (WireError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    plain = [frame for frame in frames if not isinstance(frame, Skipped)]
    return plain if len(plain) == len(frames) else None


# What a connector's frames look like before leniency is applied.


class _DescriptorIn(_Frame, frozen=True, tag="descriptor"):
    descriptor: dict[str, Any]
    skep: Any = None


class _ForwardIn(_Frame, frozen=True, tag="passthrough_forward"):
    forward: dict[str, Any] = {}
    buffer_id: str | int | float | None = msgspec.field(name="bufferId", default=None)


class _InterruptIn(_Frame, frozen=True, tag="interrupt_inbound"):
    session_key: str | None = None
    chat_id: str | None = None


_gateway_decoder: Final = msgspec.json.Decoder(GatewayFrame)
_Incoming = _DescriptorIn | Inbound | OutboundResult | _InterruptIn | _ForwardIn | GoingIdleAck
_connector_decoder: Final[msgspec.json.Decoder[_Incoming]] = msgspec.json.Decoder(_Incoming)
_GATEWAY_TYPES: Final = frozenset({"hello", "outbound", "interrupt", "going_idle", "inbound_ack", "agents"})
_CONNECTOR_TYPES: Final = frozenset(
    {
        "descriptor",
        "inbound",
        "outbound_result",
        "interrupt_inbound",
        "passthrough_forward",
        "going_idle_ack",
    }
)
_BRACE: Final = ord("{")


def _plain(frame: _Incoming) -> ConnectorFrame | Skipped:
    match frame:
        case OutboundResult() | GoingIdleAck():
            return frame
        case Inbound():
            return frame if memoryview(frame.event)[0] == _BRACE else Skipped.MALFORMED
        case _DescriptorIn():
            return DescriptorFrame(descriptor=_with_skep(frame))
        case _ForwardIn():
            forward = _decode_forward(frame.forward)
            return PassthroughForward(forward=forward, buffer_id=_id_text(frame.buffer_id))
        case _InterruptIn():
            return InterruptInbound(session_key=frame.session_key or "", chat_id=frame.chat_id or "")


def _lenient_result(line: bytes) -> OutboundResult | None:
    """Return an `outbound_result` whose result is null, a list or oddly typed: still an answer."""
    try:
        parsed: object = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(parsed, dict):
        wire = cast("dict[str, object]", parsed)
        if wire.get("type") == "outbound_result" and isinstance(request_id := wire.get("requestId", ""), str):
            return OutboundResult(request_id=request_id, result=decode_result(wire.get("result")))
    return None


def _why(line: bytes, types: frozenset[str]) -> Skipped:
    try:
        parsed: object = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Skipped.NOT_JSON
    if not isinstance(parsed, dict):
        return Skipped.NOT_OBJECT
    is_known = cast("dict[str, object]", parsed).get("type") in types
    return Skipped.MALFORMED if is_known else Skipped.UNKNOWN_TYPE


def _is_utf8(line: bytes) -> bool:
    """Return whether `line` is UTF-8; what stays JSON in a frame is checked nowhere else."""
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _with_skep(frame: _DescriptorIn) -> Descriptor:
    descriptor = decode_descriptor(frame.descriptor)
    if not descriptor.skep and frame.skep == SKEP:
        return msgspec.structs.replace(descriptor, skep=SKEP)
    return descriptor


def _id_text(value: str | float | None) -> str | None:
    return str(value) if value else None


def _decode_forward(wire: dict[str, Any]) -> Forward:
    try:
        body = base64.b64decode(wire.get("bodyB64") or "")
    except (binascii.Error, ValueError, TypeError):
        body = b""
    headers = wire.get("headers")
    pairs = cast("list[object]", headers) if isinstance(headers, list) else []
    profile = wire.get("profile")
    return Forward(
        platform=str(wire.get("platform", "")),
        bot_id=str(wire.get("botId", "")),
        method=str(wire.get("method", "")),
        path=str(wire.get("path", "")),
        headers=tuple(
            (str(pair[0]), str(pair[1]))
            for item in pairs
            if isinstance(item, list) and len(pair := cast("list[object]", item)) == 2
        ),
        body=body,
        profile=profile if isinstance(profile, str) else None,
    )
