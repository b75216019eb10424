"""What an endpoint answered, and the fault that it tells of, whatever it is wrapped in.

Source: secrets and providers, section B4.6. Pure. Servers wrap an error in arrays, in strings, in the error of
a proxy, in validation lists; all later judgement looks at the unwrapped texts. What a server only repeats of
our own request is left out: it holds the very words that a refusal is told by.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from skep.providers.strict_json import MAX_DEPTH, NotJsonError, parse_json

__all__ = ["Answer", "Fault", "Rung", "Subject", "Transport", "fault_of"]

Subject = Literal["chat", "json", "tools", "embeddings", "streaming"]
"""What was asked for."""
Rung = Literal["json_schema", "json_object", "prompt", "tools", "none"]
"""How it was asked for."""
Transport = Literal["connect_timeout", "read_timeout", "total_timeout", "connection", "tls", "name"]
"""Why there is no answer."""

_MAX_TEXT: Final = 20_000
_TEXTS: Final = (
    "message",
    "msg",
    "error",
    "errors",
    "detail",
    "details",
    "title",
    "error_message",
    "error_description",
    "errormessage",
    "metadata",
    "raw",
    "reason",
    "cause",
    "innererror",
    "inner_error",
    "upstream_error",
    "provider_error",
    "previous_errors",
    "response",
    "body",
)
_CODES: Final = ("code", "type", "status", "reason", "error_code", "error_type", "errorcode")
_FIELDS: Final = ("param", "parameter", "field", "target")
_NOT_A_FIELD: Final = frozenset({"", "none", "null", "model", "body"})

_DESERIALISER: Final = re.compile(
    r"deserialize the json body into the target type: *(.*)", re.IGNORECASE | re.DOTALL
)
_SERDE_FIELD: Final = re.compile(r"(?:unknown|missing|duplicate) field [`'\"]([\w.\[\]-]+)")
_SERDE_PATH: Final = re.compile(r"([\w.\[\]-]+): ")
_SERDE_VARIANT: Final = re.compile(r"unknown variant [`'\"](\w+)")
_PYDANTIC: Final = re.compile(r"validation errors? for [\w\[\]]+[:\s]+([\w.\[\]-]+)\s")
_LOC: Final = re.compile(r"['\"]?loc['\"]?\s*[:=]\s*[(\[]([^)\]]{0,300})[)\]]")
_ECHO: Final = re.compile(r"(?:'input'|\"input\"|input_value)\s*[:=].*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Answer:
    """One answer, or why there is none.

    Attributes:
        status: HTTP status; `None` without an answer.
        transport: Why there is none.
        content_type: Of the header, in lower case, without parameters.
        body: As it came.
        is_cut: The body ended before its end, is too long, or is packed in a way that was not asked for.
    """

    status: int | None = None
    transport: Transport | None = None
    content_type: str = ""
    body: bytes = b""
    is_cut: bool = False
    request_id: str | None = None
    took_ms: int = 0

    def json(self) -> object:
        """Return the body as JSON.

        Raises:
            NotJsonError: It is not JSON, not UTF-8, or not whole.
        """
        if self.is_cut:
            raise NotJsonError("cut")
        try:
            return parse_json(self.body.decode("utf-8-sig"))
        except UnicodeDecodeError as exc:
            raise NotJsonError("not UTF-8") from exc


@dataclass(slots=True, kw_only=True)
class Fault:
    """What an error says, unwrapped.

    Attributes:
        texts: Sentences for people.
        codes: Short words for programs, in lower case.
        fields: Fields of our request that are named as the wrong ones, in lower case.
        is_validation: A list of wrong fields, or the message of a deserialiser: only `fields` count.
        status: A status given inside.
    """

    texts: list[str] = field(default_factory=list[str])
    codes: list[str] = field(default_factory=list[str])
    fields: list[str] = field(default_factory=list[str])
    is_validation: bool = False
    status: int | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    def words(self) -> str:
        """Texts and codes together."""
        return "\n".join((*self.texts, *self.codes))


def fault_of(answer: Answer) -> Fault:
    """Return what the body of an error says; empty for HTML and for JSON that is broken."""
    fault = Fault()
    try:
        value = answer.json()
    except NotJsonError:
        text = answer.body[:_MAX_TEXT].decode("utf-8", "replace").strip()
        looks_odd = answer.is_cut or text[:1] in {"<", "{", "["} or "html" in answer.content_type
        if text and not looks_odd:
            _take_text(fault, text, 0)
        return fault
    _take(fault, value, 0)
    return fault


def _take(fault: Fault, value: object, depth: int) -> None:
    if depth > 8:
        return
    if isinstance(value, str):
        _take_text(fault, value, depth)
    elif isinstance(value, list):
        for item in cast("list[object]", value)[:20]:
            _take(fault, item, depth + 1)
    elif isinstance(value, dict):
        _take_object(fault, cast("dict[str, object]", value), depth)


def _take_object(fault: Fault, fields: Mapping[str, object], depth: int) -> None:
    for name, value in fields.items():
        lower = name.lower()
        if lower in _CODES:
            _take_code(fault, value)
        if lower in _FIELDS and isinstance(value, str):
            _take_field(fault, value)
        if lower == "loc":
            fault.is_validation = True
            parts: list[object] = cast("list[object]", value) if isinstance(value, list) else [value]
            _take_field(fault, ".".join(str(part) for part in parts))
        is_one_word = isinstance(value, str) and " " not in value
        if lower in _TEXTS and not (lower in _CODES and is_one_word):
            _take(fault, cast("object", value), depth + 1)


def _take_code(fault: Fault, value: object) -> None:
    if isinstance(value, bool):
        return
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal() and len(value) == 3):
        status = int(value)
        if 400 <= status <= 599 and fault.status is None:
            fault.status = status
    elif isinstance(value, str):
        fault.codes.append(value.lower()[:200])


def _take_field(fault: Fault, name: str) -> None:
    lower = name.lower().removeprefix("body.")
    if lower not in _NOT_A_FIELD:
        fault.fields.append(lower[:200])


def _take_text(fault: Fault, text: str, depth: int) -> None:
    text = text[:_MAX_TEXT].strip()
    rest = text
    for start, end, value in _values_in(text):
        _take(fault, value, depth + 1)
        rest = text[:start] + " " + text[end:]
    lower = rest.lower()
    if match := _DESERIALISER.search(lower):
        fault.is_validation = True
        said = match[1]
        named = _SERDE_FIELD.match(said) or _SERDE_PATH.match(said) or _SERDE_VARIANT.match(said)
        fault.fields.append(named[1] if named else "?")
    elif match := _PYDANTIC.search(lower):
        fault.is_validation = True
        _take_field(fault, match[1])
    elif locations := _LOC.findall(lower):
        fault.is_validation = True
        for location in locations:
            _take_field(fault, ".".join(re.findall(r"[\w-]+", location)))
    if fault.is_validation:
        rest = _ECHO.sub("", rest)
    if rest.strip():
        fault.texts.append(rest.strip())


def _values_in(text: str) -> Iterator[tuple[int, int, object]]:
    """Yield the one JSON or Python value that `text` is or ends in, as proxies write it, and where it lies."""
    match = re.search(r"[{\[]", text)
    if match is None or not re.match(r"[{\[]\s*['\"{\[]", text[match.start() :]):
        return
    start = match.start()
    end = max(text.rfind("}"), text.rfind("]")) + 1
    part = text[start:end]
    if start and part.startswith("["):  # `parameters: ['response_format']` is a sentence, not a body
        return
    try:
        value: object = parse_json(part)
    except NotJsonError:
        value = _python_value(part)
    if type(value) in {dict, list}:
        yield start, end, value


def _python_value(text: str) -> object:
    """Return the dictionary that a Python program printed, or `None`."""
    if text.count("{") + text.count("[") + text.count("(") > MAX_DEPTH:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
