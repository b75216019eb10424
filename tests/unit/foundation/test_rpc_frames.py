"""skep.foundation.rpc.frames, against the control protocol, section 3."""

from __future__ import annotations

import msgspec
import pytest

from skep.foundation.errors import WireError
from skep.foundation.rpc import RpcError
from skep.foundation.rpc.frames import (
    FrameSplitter,
    decode_args,
    decode_incoming,
    decode_request,
    encode_answer,
    encode_event,
    encode_problem,
    encode_request,
)

# Bytes written by hand from the control protocol's examples.
GOLDEN = {
    "request": (
        encode_request(7, "pump.next", {"wait_ms": 5}),
        b'\x00\x00\x00\x29{"i":7,"m":"pump.next","a":{"wait_ms":5}}',
    ),
    "request with a session": (
        encode_request(1, "status.get", {}, s="abc"),
        b'\x00\x00\x00\x29{"i":1,"m":"status.get","a":{},"s":"abc"}',
    ),
    "answer": (encode_answer(7, {}), b'\x00\x00\x00\x18{"i":7,"ok":true,"r":{}}'),
    "refusal": (
        encode_problem(7, "busy", "64 wait", retry_after_ms=250),
        (
            b"\x00\x00\x00\x53"
            b'{"i":7,"ok":false,"code":"busy","problem":"64 wait","hint":"","retry_after_ms":250}'
        ),
    ),
    "event": (encode_event("turn", {"a": 1}), b'\x00\x00\x00\x18{"e":"turn","d":{"a":1}}'),
}
BAD_REQUESTS = {
    "not JSON": b"{",
    "not UTF-8": b'{"i":1,"m":"\xff"}',
    "a list": b"[1]",
    "a string": b'"hello"',
    "null": b"null",
    "no i": b'{"m":"x"}',
    "no m": b'{"i":1}',
    "i is text": b'{"i":"1","m":"x"}',
    "i is a bool": b'{"i":true,"m":"x"}',
    "i is negative": b'{"i":-1,"m":"x"}',
    "i is over 32 bits": b'{"i":4294967296,"m":"x"}',
    "nested too deep": b'{"i":1,"m":"x","a":' + b"[" * 200_000,
}


class Args(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of a made-up method."""

    name: str
    count: int = 0


@pytest.mark.parametrize(("made", "golden"), GOLDEN.values(), ids=GOLDEN.keys())
def test_cp_01_a_frame_has_these_bytes(made: bytes, golden: bytes) -> None:
    """A frame is four bytes of length and compact JSON."""
    assert made == golden


@pytest.mark.parametrize("frame", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_cp_02_a_bad_request_is_a_bad_frame(frame: bytes) -> None:
    """Whatever is not an object with `i` and `m` gives one code, and is never quoted."""
    with pytest.raises(WireError) as raised:
        decode_request(frame)

    assert raised.value.wire_code == "bad_frame"
    assert "hello" not in raised.value.problem


def test_cp_01_a_stream_is_cut_at_every_place() -> None:
    """It does not matter how the bytes of two frames arrive."""
    stream = encode_request(1, "a", {}) + encode_request(2, "b", {})
    for cut in range(len(stream) + 1):
        splitter = FrameSplitter(max_bytes=1024)
        frames = [*splitter.feed(stream[:cut]), *splitter.feed(stream[cut:])]
        assert [decode_request(frame).i for frame in frames] == [1, 2]


@pytest.mark.parametrize("length", [0, 1025, 0xFFFF_FFFF])
def test_cp_02_a_length_out_of_bounds_is_refused_before_the_bytes_come(length: int) -> None:
    """A frame that is empty or too long costs no memory."""
    with pytest.raises(WireError):
        list(FrameSplitter(max_bytes=1024).feed(length.to_bytes(4, "big")))


@pytest.mark.parametrize(
    ("raw", "names"),
    [(b"{}", "name"), (b'{"name":1}', "$.name"), (b'{"name":"a","x":1}', "x"), (b"[]", "object")],
)
def test_cp_02_a_wrong_argument_names_its_field(raw: bytes, names: str) -> None:
    """The author of the caller learns which field is wrong."""
    with pytest.raises(RpcError) as raised:
        decode_args(msgspec.Raw(raw), Args)

    assert raised.value.wire_code == "invalid_argument"
    assert names in raised.value.problem


def test_unknown_result_fields_are_ignored() -> None:
    """A newer listener may say more than an older caller knows."""
    incoming = decode_incoming(b'{"i":3,"ok":true,"r":{"x":1},"new":[1]}')

    assert (incoming.i, incoming.ok) == (3, True)
