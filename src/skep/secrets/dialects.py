"""Dialects: what reads a file decides its quoting.

Source: secrets and providers, section A4. There is no quoting that all readers agree on, so a value is
written in a form that the reader is known to read back, or refused. Pure; a value is in no error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from skep.foundation.secret import Secret
from skep.secrets.manifest import Dialect
from skep.secrets.problems import SecretError

__all__ = ["HEADER", "MAX_FILE_BYTES", "MAX_VALUE_BYTES", "encode", "parse", "parse_dotenv"]

MAX_VALUE_BYTES: Final = 65_536
MAX_FILE_BYTES: Final = 1_048_576
HEADER: Final = "# Written by `skep secret pull`; the next one overwrites it.\n"

_BARE: Final = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
_ONE_WORD: Final = re.compile(r"[^\s'\"`#$]+")
_LINE: Final = re.compile(r"([A-Z_][A-Z0-9_]*)=")


def encode(values: Mapping[str, Secret], dialect: Dialect, *, interpolation: bool = True) -> dict[str, bytes]:
    """Return the content of each file, by its name; the name is empty for the dialects of one file.

    Args:
        interpolation: Whether the reader expands `${NAME}`; matters to `python-dotenv` alone.

    Raises:
        SecretError: `not_encodable`, with the name of the variable and the kind of character.
    """
    texts = {name: secret.reveal() for name, secret in values.items()}
    for name, text in texts.items():
        _check(name, text)
    if dialect == "dir":
        files = {name: text.encode() for name, text in texts.items()}
    elif dialect == "json":
        files = {"": (json.dumps(texts, ensure_ascii=False, indent=2) + "\n").encode()}
    else:
        if dialect == "python-dotenv" and interpolation:
            for name, text in texts.items():
                _refuse(name, text, {"${": "`${`"})
        quote = _QUOTES[dialect]
        lines = [f"{name}={quote(name, text)}\n" for name, text in texts.items()]
        files = {"": (HEADER + "".join(lines)).encode()}
    if any(len(data) > MAX_FILE_BYTES for data in files.values()):
        raise SecretError("not_encodable", f"the file would be over {MAX_FILE_BYTES} bytes")
    if parse(files, dialect) != texts:
        # Our own reader is the last judge: what it reads otherwise is not written at all.
        raise SecretError("not_encodable", f"a value does not survive the dialect `{dialect}`")
    return files


def parse(files: Mapping[str, bytes], dialect: Dialect) -> dict[str, str]:
    """Return what a reader of `dialect` finds in `files`.

    Raises:
        SecretError: `malformed`.
    """
    try:
        if dialect == "dir":
            return {name: data.decode() for name, data in files.items()}
        text = files[""].decode()
        if dialect == "json":
            return msgspec.json.decode(text, type=dict[str, str])
        return _READERS[dialect](text)
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        pass  # raised anew below: the cause holds the text
    raise SecretError("malformed", f"the file is not of the dialect `{dialect}`")


def _check(name: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = -1
    if size < 0:
        raise _refused(name, "half of a surrogate pair")
    if "\0" in text:
        raise _refused(name, "a NUL")
    if size > MAX_VALUE_BYTES:
        raise SecretError("not_encodable", f"`{name}` is over {MAX_VALUE_BYTES} bytes", subject=name)


def _refused(name: str, kind: str) -> SecretError:
    return SecretError(
        "not_encodable",
        f"`{name}` holds {kind}, which this dialect cannot say",
        subject=name,
        hint="choose a dialect that can: `dir` or `json`",
    )


def _refuse(name: str, text: str, kinds: Mapping[str, str]) -> None:
    for mark, kind in kinds.items():
        if mark in text:
            raise _refused(name, kind)


# --- how each dialect writes ------------------------------------------------------------------------


def _portable(name: str, text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    kinds = {"'": "a single quote", "\\": "a backslash", "${": "`${`", "\r": "a carriage return"}
    _refuse(name, text, kinds)
    return f"'{text}'"


def _shell(_name: str, text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _python_dotenv(name: str, text: str) -> str:
    _refuse(name, text, {"\r": "a carriage return"})
    if text.endswith("\\"):  # the reader takes a backslash before the closing quote for an escape
        if not _ONE_WORD.fullmatch(text):
            raise _refused(name, "a backslash at its end")
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _docker_raw(name: str, text: str) -> str:
    _refuse(name, text, {"\n": "a newline", "\r": "a carriage return"})
    if text != text.strip():
        raise _refused(name, "a space at its beginning or end")
    return text


def _systemd(name: str, text: str) -> str:
    _refuse(name, text, {"\r": "a carriage return"})
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


_QUOTES: Final[Mapping[Dialect, Callable[[str, str], str]]] = {
    "portable": _portable,
    "shell": _shell,
    "python-dotenv": _python_dotenv,
    "docker-raw": _docker_raw,
    "systemd": _systemd,
}


# --- how each dialect is read -----------------------------------------------------------------------

_ANY: Final = r"(?:[^\\]|\\.)"
_PORTABLE_VALUE: Final = re.compile(r"'([^']*)'|([^\s'\"`#$\\]*)")
_SHELL_VALUE: Final = re.compile(r"'((?:[^']|'\\'')*)'")
_DOTENV_VALUE: Final = re.compile(r"'((?:\\'|[^'])*)'|([^\s'\"`#$]+)")
_SYSTEMD_VALUE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_RAW_VALUE: Final = re.compile(r"([^\r\n]*)")


def _reader(value: re.Pattern[str], unescape: Callable[[str], str]) -> Callable[[str], dict[str, str]]:
    def read(text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        place = 0
        while place < len(text):
            if text[place] in "#\n":
                place = (text.find("\n", place) + 1) or len(text)
                continue
            name = _LINE.match(text, place)
            inner = value.match(text, name.end()) if name else None
            if name is None or inner is None or (inner.end() < len(text) and text[inner.end()] != "\n"):
                raise SecretError("malformed", "the file is not of its dialect")
            quoted = inner[1]
            found[name[1]] = inner[0] if quoted is None else unescape(quoted)
            place = inner.end() + 1
        return found

    return read


_READERS: Final[Mapping[Dialect, Callable[[str], dict[str, str]]]] = {
    "portable": _reader(_PORTABLE_VALUE, str),
    "shell": _reader(_SHELL_VALUE, lambda text: text.replace("'\\''", "'")),
    "python-dotenv": _reader(_DOTENV_VALUE, lambda text: re.sub(r"\\([\\'])", r"\1", text)),
    "docker-raw": _reader(_RAW_VALUE, str),
    "systemd": _reader(_SYSTEMD_VALUE, lambda text: re.sub(r'\\(["\\$`])', r"\1", text)),
}


def parse_dotenv(text: str) -> dict[str, str]:
    """Return the variables of a file that a person wrote, as a backend reads it.

    Bare, single-quoted and double-quoted values, `export`, comments; nothing is expanded.

    Raises:
        SecretError: `malformed`, with the line.
    """
    found: dict[str, str] = {}
    place = 0
    while place < len(text) and (match := _WRITTEN.match(text, place)):
        place = match.end()
        if match["name"] is not None:
            found[match["name"]] = _written_value(match)
    if place < len(text):
        raise SecretError("malformed", f"line {text.count(chr(10), 0, place) + 1} is not `NAME=value`")
    return found


_WRITTEN: Final = re.compile(
    r"[ \t]*(?:\#[^\n]*|(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*"
    r"""(?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s'"\#][^\r\n]*?)?)"""
    r"(?:[ \t]+\#[^\n]*)?)?[ \t]*\r?(?:\n|(?<=[^\n])\Z)",
    re.DOTALL,
)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


def _written_value(match: re.Match[str]) -> str:
    if match["double"] is not None:
        return re.sub(
            r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match["double"], flags=re.DOTALL
        )
    return match["single"] if match["single"] is not None else match["bare"] or ""
