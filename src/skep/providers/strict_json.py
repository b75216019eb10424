"""JSON read strictly: one value, no name twice, no NaN, no depth that breaks a reader.

Pure. Endpoints are read with it, and so is what a model wrote: a lenient reader would call bad JSON good.
"""

from __future__ import annotations

import json
from typing import Any, Final, Never, cast

__all__ = ["MAX_DEPTH", "NotJsonError", "parse_json", "parse_object"]

MAX_DEPTH: Final = 100
"""Deepest nesting that is read. No answer of an endpoint comes near it."""


class NotJsonError(ValueError):
    """The text is not JSON as we read it. The text itself is not in the message."""


def parse_json(text: str) -> object:
    """Return the value that `text` is, all of it.

    Raises:
        NotJsonError: It is none, names a field twice, or nests deeper than `MAX_DEPTH`.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise NotJsonError("not JSON") from exc
    if _is_too_deep(value):
        raise NotJsonError("nested too deep")
    return value


def parse_object(text: str) -> dict[str, Any]:
    """Return the object that `text` is, all of it.

    Raises:
        NotJsonError: It is none.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise NotJsonError("not an object")
    return cast("dict[str, Any]", value)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise NotJsonError("a name twice")
    return fields


def _refuse(name: str) -> Never:
    raise NotJsonError(name)


def _is_too_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else []
