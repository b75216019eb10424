"""Read what an embeddings endpoint answers. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import struct

from skep.providers.completion import as_count, as_dict, as_list

__all__ = ["Vectors", "cosine", "read_vectors"]

Vectors = list[list[float]]


def read_vectors(value: object, *, count: int, packed: bool = False) -> Vectors | str:
    """Return one vector per input, in their order, or the word for what is wrong with them.

    Args:
        packed: They come as base64 of little-endian floats of 32 bits.
    """
    rows = [as_dict(item) for item in as_list(as_dict(value).get("data"))]
    if len(rows) != count:
        return "wrong_count"
    if all(as_count(row.get("index")) is not None for row in rows):
        rows.sort(key=lambda row: row["index"])
    vectors: Vectors = []
    for row in rows:
        vector = _packed(row.get("embedding")) if packed else _plain(row.get("embedding"))
        if not vector:
            return "not_numbers"
        vectors.append(vector)
    return vectors if len({len(vector) for vector in vectors}) == 1 else "lengths_differ"


def cosine(one: list[float], other: list[float]) -> float:
    """Return the cosine between two vectors of one length; 0 for a vector without direction."""
    size = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / size if size else 0.0


def _plain(value: object) -> list[float]:
    """Return the numbers of a vector; none of them when one is not a finite number."""
    numbers = [
        float(item) for item in as_list(value) if isinstance(item, int | float) and type(item) is not bool
    ]
    is_whole = len(numbers) == len(as_list(value)) and all(map(math.isfinite, numbers))
    return numbers if is_whole else []


def _packed(value: object) -> list[float]:
    if not isinstance(value, str):
        return []
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return []
    if not data or len(data) % 4:
        return []
    numbers = list(struct.unpack(f"<{len(data) // 4}f", data))
    return numbers if all(map(math.isfinite, numbers)) else []
