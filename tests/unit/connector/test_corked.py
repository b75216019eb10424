"""skep.connector.platforms.web.corked, against RFC 6455, section 5.2."""

from __future__ import annotations

import pytest

from skep.connector.platforms.web.corked import text_frame

# First bytes of a frame of a server, by the length of its message; from the RFC, not from us.
HEADS = {
    0: b"\x81\x00",
    1: b"\x81\x01",
    125: b"\x81\x7d",
    126: b"\x81\x7e\x00\x7e",
    65_535: b"\x81\x7e\xff\xff",
    65_536: b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
}


@pytest.mark.parametrize(("size", "head"), HEADS.items(), ids=map(str, HEADS))
def test_frame_begins_as_the_rfc_says(size: int, head: bytes) -> None:
    """A frame is whole, of text, without a mask, and its length is in the shortest form."""
    assert text_frame(b"a" * size) == head + b"a" * size
