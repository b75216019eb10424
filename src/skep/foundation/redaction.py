"""Take secrets out of text that leaves for a terminal, a log or a report.

Source: secrets and providers, section S2. A second line of defence: what is secret is kept out of such
text in the first place. It knows live values in every form they may take on the way, and, without knowing
any value, what a secret looks like: servers repeat parts of keys in their answers.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import threading
import traceback
import urllib.parse
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TextIO

from skep.foundation.secret import SHORT, Secret

if TYPE_CHECKING:
    import asyncio

__all__ = ["MASK", "Redactor", "is_secret_like", "redact"]

MASK: Final = "***"
_MAX_WRAPPED: Final = 256
"""Longest value that is also looked for with line breaks anywhere in it, in characters."""

_PATTERNS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"()-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z ]*-----|\Z)",
        r"((?i:bearer|basic)\s+)[\w.~+/=*-]{8,}",
        r"(#once=)[\w-]+",
        r"()\bAGE-SECRET-KEY-[\w-]+",
        r"()\b(?:hv[sbr]|st|ey[JK])\.[\w.~+/=*-]{8,}",
        r"()\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?",
        r"()\b(?:sk|pk|rk|ghp|gho|ghs|xox[abps])[-_][\w*.-]{6,}",
        r"((?i:secret|token|passw(?:or)?d|api[_-]?key|authorization|\bkey)[\"']?\s*[:=]\s*[\"']?)[^\s\"',&}]{4,}",
    )
)
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
_HEX: Final = re.compile(r"[0-9a-fA-F]{32,}")


def redact(text: str, *, known: tuple[str, ...] = ()) -> str:
    """Return `text` with `known` secrets, and what looks like one, as `***`."""
    for secret in known:
        if secret:
            text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return _LONG_RUN.sub(_mask_run, text)


def is_secret_like(word: str) -> bool:
    """Return whether `word` has the form of a known kind of key: it does not belong on a command line."""
    return any(pattern.search(word) for pattern in _PATTERNS[:1] + _PATTERNS[3:-1])


def _mask_run(match: re.Match[str]) -> str:
    """Mask a long run that is hex or looks random; leave paths and long words."""
    run = match[0]
    kinds = (str.isupper, str.islower, str.isdigit)
    looks_random = all(any(kind(character) for character in run) for kind in kinds)
    return MASK if looks_random or _HEX.search(run) else run


class Redactor:
    """Knows every live value, and rewrites text without them."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._wrapped: set[str] = set()
        self._ready: tuple[list[str], re.Pattern[str]] | None = None

    def add(self, *secrets: Secret) -> None:
        """Look for these values from now on, in each form of section S2."""
        for secret in secrets:
            text = secret.reveal()
            parts = {text, text.strip(), *text.splitlines()}
            for part in parts:
                if len(part) >= SHORT:
                    self._forms |= _forms_of(part)
                    if len(part) <= _MAX_WRAPPED:
                        self._wrapped.add(r"(?:\\?\r?\n[ \t]*)?".join(map(re.escape, part)))
        self._ready = None

    def known(self, text: str) -> str:
        """Return `text` without live values: the last pass of a report."""
        if not self._forms:
            return text
        if self._ready is None:
            self._ready = (
                sorted(self._forms, key=len, reverse=True),
                re.compile("|".join(self._wrapped) or "(?!)"),
            )
        forms, wrapped = self._ready
        for form in forms:  # a pattern of long values takes far longer to compile than this to run
            text = text.replace(form, MASK)
        return wrapped.sub(MASK, text)

    def scrub(self, text: str) -> str:
        """Return `text` without live values and without what looks like a secret."""
        return redact(self.known(text))

    def install(self, stderr: TextIO | None = None) -> None:
        """Rewrite what this process logs, warns of and dies of, until it ends."""
        out = stderr or sys.stderr
        sys.excepthook = lambda _kind, error, _trace: self._say(out, error)
        threading.excepthook = lambda args: self._say(out, args.exc_value)
        warnings.showwarning = self._show_warning(out)
        make = logging.getLogRecordFactory()
        logging.setLogRecordFactory(self._record_factory(make))
        for name in ("httpx", "httpx2", "httpcore", "hvac", "urllib3"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def loop_handler(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what an event loop could not hand to anybody: one scrubbed line."""
        error = context.get("exception")
        self._say(sys.stderr, error if isinstance(error, BaseException) else None, str(context["message"]))

    def _say(self, out: TextIO, error: BaseException | None, message: str = "") -> None:
        lines: Iterable[str] = traceback.format_exception(error) if error is not None else ()
        out.write(self.scrub("".join(lines) or message + "\n"))

    def _show_warning(self, out: TextIO) -> Callable[..., None]:
        def show(
            message: Warning | str, category: type[Warning], filename: str, line: int, *_: object
        ) -> None:
            out.write(self.scrub(warnings.formatwarning(message, category, filename, line)))

        return show

    def _record_factory(self, make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
        def record(*args: object, **words: object) -> logging.LogRecord:
            made = make(*args, **words)
            try:
                made.msg, made.args = self.scrub(made.getMessage()), ()
            except (TypeError, ValueError):
                made.msg, made.args = self.scrub(str(made.msg)), ()
            if made.exc_info and made.exc_info[1] is not None:
                made.exc_text = self.scrub("".join(traceback.format_exception(made.exc_info[1])))
                made.exc_info = None
            elif made.exc_text:
                made.exc_text = self.scrub(made.exc_text)  # another redactor was here first
            return made

        return record


def _forms_of(text: str) -> set[str]:
    """Return each form of a value, written as itself or by a program on the way."""
    raw = text.encode("utf-8", "surrogatepass")
    quoted = urllib.parse.quote(raw, safe="")
    forms = {
        text,
        quoted,
        urllib.parse.quote(raw),
        urllib.parse.quote_plus(raw),
        re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), quoted),
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(text)[1:-1])[1:-1],
        repr(text)[1:-1],
        repr(raw)[2:-1],
        text.replace("'", "'\\''"),
        text.replace("'", "'\"'\"'"),
        text.replace("\\", "\\\\").replace("'", "\\'"),
        re.sub(r'(["\\$`])', r"\\\1", text),
        re.sub(r"([^A-Za-z0-9_@%+=:,./-])", r"\\\1", text),
        raw.hex(),
        raw.hex().upper(),
    }
    for shift in range(3):  # base64 of a text that holds the value looks different at each of three places
        coded = base64.b64encode(b"\0" * shift + raw)
        inside = coded[(0, 2, 3)[shift] : -4 if coded.endswith(b"=") else None].decode()
        if shift == 0:
            forms |= {coded.decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
        if len(inside) >= SHORT:
            forms |= {inside, inside.replace("+", "-").replace("/", "_")}
    return forms
