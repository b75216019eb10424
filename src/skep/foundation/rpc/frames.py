"""Frames of the control protocol: 4 bytes of length, then one JSON object.

Source: control protocol, section 3. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar, Union

import msgspec

from skep.foundation.errors import SkepError, WireError

__all__ = [
    "MAX_FROM_LISTENER",
    "MAX_TO_LISTENER",
    "PROTO",
    "Event",
    "FrameSplitter",
    "Hello",
    "HelloResult",
    "Incoming",
    "Method",
    "Request",
    "RpcError",
    "Table",
    "WholeRequest",
    "decode_args",
    "decode_incoming",
    "decode_request",
    "encode_answer",
    "encode_event",
    "encode_problem",
    "encode_request",
    "is_too_large",
]

PROTO: Final = 1
MAX_TO_LISTENER: Final = 1 << 20
"""Longest frame that a listener takes, in bytes."""
MAX_FROM_LISTENER: Final = 4 << 20
"""Longest frame that a caller takes, in bytes."""
_HEAD_BYTES: Final = 4

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[A, R]):
    """One method of one socket.

    Attributes:
        name: `group.verb`.
        args: Struct of the arguments (`forbid_unknown_fields=True`).
        result: Type of the result.
        timeout_s: How long the caller waits, in seconds.
        ends_with_connection: The listener cancels it when its connection is gone: for calls
            that wait. Others run to their end, because their effect may be half done.
    """

    name: str
    args: type[A]
    result: type[R]
    timeout_s: float = 10.0
    ends_with_connection: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[A]):
    """One kind of event that a listener sends to its callers."""

    name: str
    data: type[A]


class WholeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request with its arguments read; each method of a table has a form of its own, told apart by `m`."""

    method: ClassVar[Method[Any, Any]]
    i: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    a: Any
    s: str | None = None
    p: str | None = None


class Table:
    """The closed list of methods of one socket."""

    def __init__(self, name: str, methods: Iterable[Method[Any, Any]]) -> None:
        self.name: Final = name
        self.methods: Final = {method.name: method for method in methods}

    def read(self, frame: bytes) -> WholeRequest | None:
        """Return the request in `frame`, read in one go.

        `None`: not of this table, or not of its form. What is wrong with it say `decode_request` and
        `decode_args`.
        """
        try:
            return self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[WholeRequest]:
        """Made when the first request comes: who only calls needs none."""
        forms = tuple(
            msgspec.defstruct(
                "Request",
                [("a", method.args)],
                bases=(WholeRequest,),
                namespace={"method": method},
                tag_field="m",
                tag=method.name,
                frozen=True,
                kw_only=True,
            )
            for method in self.methods.values()
        )
        return msgspec.json.Decoder(Union[forms])  # noqa: UP007 - the forms are known only now


class RpcError(SkepError):
    """A refusal with a code of the control protocol, section 3."""

    def __init__(self, code: str, problem: str, *, hint: str = "", retry_after_ms: int | None = None) -> None:
        super().__init__(problem, hint=hint, code=f"control.{code}")
        self.retry_after_ms = retry_after_ms


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of `hello`, the first request on a connection."""

    proto: int
    role: str
    build: str = ""
    pid: int = 0


class HelloResult(msgspec.Struct, frozen=True, kw_only=True):
    """The listener's own answer to `hello`."""

    proto: int
    build: str
    epoch: int


class Request(msgspec.Struct, frozen=True):
    """A request as it stands in a frame; arguments are still bytes."""

    i: int
    m: str
    a: msgspec.Raw = msgspec.Raw(b"{}")
    s: str | None = None
    p: str | None = None


class Incoming(msgspec.Struct, frozen=True):
    """What a caller gets: an answer (`i`), or an event (`e`)."""

    i: int = 0
    ok: bool = False
    r: msgspec.Raw = msgspec.Raw(b"null")
    code: str = "internal"
    problem: str = ""
    hint: str = ""
    retry_after_ms: int | None = None
    e: str | None = None
    d: msgspec.Raw = msgspec.Raw(b"{}")


class FrameSplitter:
    """Cut a stream of bytes into frames. After an error it is of no more use."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begun = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what arrived and yield the whole frames in it, those before a bad one too.

        Raises:
            WireError: A frame has length 0 or is over the limit (`control.bad_frame`).
        """
        if self._begun:
            self._begun += data
            if len(self._begun) < self._wanted:
                return
            data = bytes(self._begun)
            self._begun.clear()
        start, size = 0, len(data)
        while (body := start + _HEAD_BYTES) <= size:
            length = int.from_bytes(data[start:body], "big")
            if not 0 < length <= self._max_bytes:
                raise _bad_frame(f"frame of {length} bytes, not 1 to {self._max_bytes}")
            if body + length > size:
                self._wanted = _HEAD_BYTES + length
                break
            start = body + length
            yield data[body:start]
        else:
            self._wanted = _HEAD_BYTES
        self._begun += data[start:]


_request_decoder = msgspec.json.Decoder(Request)
_incoming_decoder = msgspec.json.Decoder(Incoming)
_encode = msgspec.json.Encoder().encode
_args_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def decode_request(frame: bytes) -> Request:
    """Return the request in `frame`.

    Raises:
        WireError: Not JSON, not an object, no `i` or no `m` (`control.bad_frame`).
    """
    try:
        request = _request_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _bad_frame("frame is not a JSON object with `i` and `m`") from exc
    if not 0 <= request.i < 1 << 32:
        raise _bad_frame("frame `i` is not 0 to 4294967295")
    return request


def decode_args(raw: msgspec.Raw, type_: type[A]) -> A:
    """Return arguments or a result as `type_`.

    Raises:
        RpcError: `invalid_argument`, naming the field.
    """
    decoder = _args_decoders.get(type_)
    if decoder is None:
        decoder = _args_decoders[type_] = msgspec.json.Decoder(type_)
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # msgspec names field and expected type; it never quotes the value.
        raise RpcError("invalid_argument", str(exc)) from exc


def decode_incoming(frame: bytes) -> Incoming:
    """Return the answer or event in `frame`.

    Raises:
        WireError: Neither of the two.
    """
    try:
        return _incoming_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _bad_frame("frame is neither an answer nor an event") from exc


def encode_request(i: int, method: str, args: object, *, s: str | None = None, p: str | None = None) -> bytes:
    """Return a request as one frame. `method` is a name of a table: it has nothing to escape."""
    tail = b"}"
    if s is not None or p is not None:
        session = b"" if s is None else b',"s":%b' % _encode(s)
        tail = session + (b"}" if p is None else b',"p":%b}' % _encode(p))
    return _framed(b'{"i":%d,"m":"%b","a":' % (i, method.encode()), _encode(args), tail)


def encode_answer(i: int, result: object) -> bytes:
    """Return the answer to request `i` as one frame."""
    return _framed(b'{"i":%d,"ok":true,"r":' % i, _encode(result), b"}")


def encode_problem(
    i: int, code: str, problem: str, *, hint: str = "", retry_after_ms: int | None = None
) -> bytes:
    """Return a refusal of request `i` (0: unknown which) as one frame."""
    fields: dict[str, object] = {"i": i, "ok": False, "code": code, "problem": problem, "hint": hint}
    if retry_after_ms is not None:
        fields["retry_after_ms"] = retry_after_ms
    return _framed(_encode(fields))


def encode_event(name: str, data: object) -> bytes:
    """Return an event as one frame."""
    return _framed(_encode({"e": name, "d": data}))


def is_too_large(frame: bytes, max_bytes: int) -> bool:
    """Return whether the other end would hang up over `frame`."""
    return len(frame) > max_bytes + _HEAD_BYTES


def _framed(head: bytes, body: bytes = b"", tail: bytes = b"") -> bytes:
    size = len(head) + len(body) + len(tail)
    return b"".join((size.to_bytes(_HEAD_BYTES, "big"), head, body, tail))


def _bad_frame(problem: str) -> WireError:
    return WireError(problem, code="control.bad_frame")
