"""skep.foundation.rpc.frames, against the control protocol, section 3."""

from __future__ import annotations

import msgspec
import pytest

from skep.foundation.errors import WireError
from skep.foundation.rpc import RpcError
from skep.foundation.rpc.frames import (
    FrameSplitter,
    Method,
    Table,
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


TABLE = Table("test.sock", [Method(name=f"test.{verb}", args=Args, result=dict) for verb in ("do", "undo")])
WHOLE = {
    "plain": b'{"i":7,"m":"test.do","a":{"name":"x"}}',
    "another method": b'{"i":0,"m":"test.undo","a":{"name":"x","count":2}}',
    "another order, with session and proof": b'{"p":"P","a":{"name":"x"},"s":"S","m":"test.do","i":4294967295}',
    "unknown field": b'{"i":7,"new":[1,{}],"m":"test.do","a":{"name":"x"}}',
}
NOT_WHOLE = {
    **BAD_REQUESTS,
    "unknown method": b'{"i":7,"m":"test.gone","a":{"name":"x"}}',
    "unknown argument": b'{"i":7,"m":"test.do","a":{"name":"x","more":1}}',
    "wrong argument": b'{"i":7,"m":"test.do","a":{"name":1}}',
    "no arguments": b'{"i":7,"m":"test.do"}',
    "two methods": b'{"i":7,"m":"test.do","m":"test.undo","a":{"name":"x"}}',
}


@pytest.mark.parametrize(("made", "golden"), GOLDEN.values(), ids=GOLDEN.keys())
def test_cp_01_a_frame_has_these_bytes(made: bytes, golden: bytes) -> None:
    """A frame is four bytes of length and compact JSON."""
    assert made == golden


@pytest.mark.parametrize("frame", WHOLE.values(), ids=WHOLE.keys())
def test_a_request_that_is_read_in_one_go_is_the_same(frame: bytes) -> None:
    """The short way gives what the long one does: method, arguments, session and proof."""
    whole, request = TABLE.read(frame), decode_request(frame)

    assert whole is not None
    assert (whole.i, whole.method.name, whole.s, whole.p) == (request.i, request.m, request.s, request.p)
    assert whole.a == decode_args(request.a, Args)


@pytest.mark.parametrize("frame", NOT_WHOLE.values(), ids=NOT_WHOLE.keys())
def test_what_is_not_of_the_form_is_left_to_who_says_why(frame: bytes) -> None:
    """The short way takes nothing that the long one would refuse."""
    assert TABLE.read(frame) is None


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


@pytest.mark.parametrize("piece", [1, 3, 4, 5, 1_000, 65_536])
def test_cp_01_a_long_frame_comes_in_pieces(piece: int) -> None:
    """However it is cut, with whole frames before and behind it."""
    frames = [encode_request(i, "test.do", {"text": "x" * size}) for i, size in ((1, 0), (2, 20_000), (3, 7))]
    stream, splitter = b"".join(frames), FrameSplitter(max_bytes=1 << 20)
    got = [frame for at in range(0, len(stream), piece) for frame in splitter.feed(stream[at : at + piece])]

    assert got == [frame[4:] for frame in frames]


def test_cp_02_frames_before_a_bad_one_are_given_first() -> None:
    """Those that came with it, and one that began before."""
    good = encode_request(1, "test.do", {})
    splitter = FrameSplitter(max_bytes=1 << 20)
    taken = list(splitter.feed(good[:9]))
    with pytest.raises(WireError):
        taken.extend(splitter.feed(good[9:] + good + b"\0\0\0\0" + good))

    assert taken == [good[4:]] * 2


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
