"""The schema that the smoke asks for, and what of a text conforms to it.

Source: secrets and providers, section B3: all properties required, no others, no `$ref`, patterns or formats,
one boolean, one enumeration that holds a word made up for this question.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from skep.providers.strict_json import NotJsonError, parse_object

__all__ = ["SCHEMA_NAME", "Conformity", "conformity", "schema_for"]

SCHEMA_NAME: Final = "skep_smoke"

Conformity = Literal["conforms", "fenced", "empty", "unparsable", "schema_mismatch"]

_FENCE: Final = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)


def schema_for(word: str) -> dict[str, Any]:
    """Return the schema whose `word` can only be `word`."""
    return {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "word": {"type": "string", "enum": [word]}},
        "required": ["ok", "word"],
        "additionalProperties": False,
    }


def conformity(text: str, word: str) -> Conformity:
    """Return how `text`, all of it, stands to the schema of `word`.

    `fenced`: it would conform without the one code fence around it. Braces in the middle of prose are not looked
    for: who reads an agent's answer does not look for them either.
    """
    text = text.strip()
    if not text:
        return "empty"
    fence = _FENCE.fullmatch(text)
    try:
        fields = parse_object(fence[1] if fence else text)
    except NotJsonError:
        return "unparsable"
    if fields.keys() != {"ok", "word"} or type(fields["ok"]) is not bool or fields["word"] != word:
        return "schema_mismatch"
    return "fenced" if fence else "conforms"
