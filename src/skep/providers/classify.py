"""Which kind of answer an endpoint gave, and whether another way of asking may be tried.

Source: secrets and providers, section B4. The rules are asked in order, and the first that knows decides. What
matters most: a bad key, a missing model, a limit, a time-out or a broken server is never taken for a refusal of
the JSON mode, because a fallback would then hide it.
Pure: no key, no socket. Texts of servers are read here and passed on to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from skep.foundation.exits import Outcome
from skep.providers.answers import Answer, Fault, Rung, Subject, fault_of
from skep.providers.completion import Completion, error_inside, read_completion
from skep.providers.smoke_schema import conformity
from skep.providers.strict_json import NotJsonError
from skep.providers.vocabulary import (
    ABOUT_PARAMETER,
    ABOUT_SCHEMA,
    AUTH,
    CONTEXT,
    CREDENTIALS,
    GENERATION,
    MODEL,
    MODEL_REFUSED,
    NAMES_OTHER_FIELD,
    OF_SUBJECT,
    OWN_FAULT,
    POLICY,
    PROMPT,
    QUOTA,
    REFUSAL,
    REFUSING_STATUS,
    any_of,
)

__all__ = ["RULES", "Case", "Kind", "Rule", "Verdict", "classify"]

Kind = Literal["ok", "unsupported", "auth", "model", "timeout", "rate", "content", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an answer is.

    Attributes:
        detail: The kind in one word more; for `other` it decides the exit code.
        fallback: Another rung of the ladder may be tried.
        said: What the server said, not scrubbed: for the redactor alone.
        fields: Fields of our request that it names as the wrong ones.
        completion: What the model said, when it said something.
    """

    kind: Kind
    detail: str
    fallback: bool
    said: str = ""
    fields: tuple[str, ...] = ()
    completion: Completion | None = None

    @property
    def outcome(self) -> Outcome:
        """The class that decides the exit code (section S1)."""
        match self.kind:
            case "ok" | "auth" | "model" | "timeout" | "rate":
                return self.kind
            case "unsupported" | "content":
                return "check_failed"
            case "other":
                return _OTHER.get(self.detail, "check_failed")


_OTHER: Final[dict[str, Outcome]] = {
    "connection": "network",
    "tls": "network",
    "name": "network",
    "server": "server",
    "malformed": "malformed",
    "redirect": "malformed",
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Case:
    """An answer, and the question that it is to.

    Attributes:
        subject: What was asked for.
        rung: How.
        word: The one that the schema allows.
    """

    answer: Answer
    subject: Subject
    rung: Rung
    word: str = ""

    @cached_property
    def value(self) -> object:
        """The body as JSON; `None` when it is not."""
        try:
            return self.answer.json()
        except NotJsonError:
            return None

    @cached_property
    def is_fault(self) -> bool:
        """The answer tells of an error: by its status, or inside a 200."""
        return self.answer.status != 200 or error_inside(self.value)

    @cached_property
    def fault(self) -> Fault:
        """What the error says, unwrapped."""
        return fault_of(self.answer) if self.is_fault else Fault()

    @cached_property
    def status(self) -> int:
        """The status that counts: of an error inside a 200 its own, else 500."""
        if self.answer.status == 200 and self.is_fault:
            return self.fault.status or next(
                (status for word, status in _STATUS_WORDS if word in " ".join(self.fault.codes)), 500
            )
        return self.answer.status or 0

    @cached_property
    def is_html(self) -> bool:
        """It is a page for people."""
        return "html" in self.answer.content_type or self.answer.body[:200].lstrip().startswith(b"<")


Rule = Callable[[Case], tuple[Kind, str] | None]

_STATUS_WORDS: Final = (
    ("authentication", 401),
    ("invalid_api_key", 401),
    ("permission", 403),
    ("rate_limit", 429),
    ("quota", 429),
    ("timeout", 504),
    ("overloaded", 529),
    ("not_found", 404),
    ("invalid_request", 400),
    ("bad_request", 400),
)


def _transport(case: Case) -> tuple[Kind, str] | None:
    match case.answer.transport:
        case None:
            return None
        case "connect_timeout":
            return "timeout", "connect"
        case "read_timeout":
            return "timeout", "read"
        case "total_timeout":
            return "timeout", "total"
        case "connection" | "tls" | "name" as why:
            return "other", why


def _no_fault(case: Case) -> tuple[Kind, str] | None:
    """A 200 that is no error: a completion, or something that is none."""
    if case.is_fault:
        status = case.answer.status or 0
        if status < 300:
            return None if status == 200 else ("other", "malformed")
        return ("other", "redirect") if status < 400 else None
    if case.subject == "embeddings":
        return ("ok", "answered") if isinstance(case.value, dict) else ("other", "malformed")
    said = read_completion(case.value)
    if said is None:
        return "other", "malformed"
    match case.subject:
        case "json":
            return _json_content(said, case)
        case "tools" if not said.tool_calls:
            return "content", "no_tool_call"
        case _:
            return "ok", "answered"


def _json_content(said: Completion, case: Case) -> tuple[Kind, str]:
    how = conformity(said.text, case.word)
    if how == "conforms" or (how == "fenced" and case.rung == "prompt"):
        return "ok", how
    if said.refusal:
        return "other", "refusal"
    if said.finish == "length":
        return "other", "truncated"
    if said.finish == "content_filter":
        return "other", "policy"
    return "content", how


def _auth_status(case: Case) -> tuple[Kind, str] | None:
    if case.status not in {401, 403}:
        return None
    if CREDENTIALS.search(case.fault.text):
        return "auth", "credentials"
    return "auth", "blocked" if case.status == 403 and case.is_html else "invalid_key"


def _rate(case: Case) -> tuple[Kind, str] | None:
    if case.status not in {402, 429}:
        return None
    return "rate", "quota" if case.status == 402 or QUOTA.search(case.fault.words) else "limit"


def _timeout_status(case: Case) -> tuple[Kind, str] | None:
    if case.status not in {408, 504, 524}:
        return None
    return "timeout", "upstream" if case.status == 408 else "gateway"


def _auth_words(case: Case) -> tuple[Kind, str] | None:
    if CREDENTIALS.search(case.fault.words):
        return "auth", "credentials"
    return ("auth", "invalid_key") if AUTH.search(case.fault.words) else None


def _generation(case: Case) -> tuple[Kind, str] | None:
    if case.status >= 500:
        return None
    return ("content", "generation_failed") if GENERATION.search(case.fault.words) else None


def _context(case: Case) -> tuple[Kind, str] | None:
    return ("other", "context_length") if CONTEXT.search(case.fault.words) else None


def _own_fault(case: Case) -> tuple[Kind, str] | None:
    if PROMPT.search(case.fault.text):
        return "other", "prompt_requirement"
    says_missing = "missing" in case.fault.codes or OWN_FAULT.search(case.fault.text)
    return ("other", "bad_request") if says_missing else None


def _unsupported(case: Case) -> tuple[Kind, str] | None:
    fault = case.fault
    if case.status not in REFUSING_STATUS:
        return None
    subject = _subject_of(case)
    if any(not subject.search(name) for name in fault.fields):
        return None  # another field is named as the wrong one
    if NAMES_OTHER_FIELD.search(fault.text):
        return None
    pieces = fault.texts if case.status < 500 else re.split(r"[.;!?\n]\s", fault.text)
    named = bool(fault.fields)
    for piece in pieces:
        if (named or subject.search(piece)) and REFUSAL.search(piece):
            return "unsupported", _refused(piece, fault, case.subject)
    if any(subject.search(code) and REFUSAL.search(code) for code in fault.codes):
        return "unsupported", "parameter"
    return ("unsupported", "parameter") if named and "unsupported_parameter" in fault.codes else None


def _subject_of(case: Case) -> re.Pattern[str]:
    own = OF_SUBJECT.get(case.subject)
    return any_of(OF_SUBJECT["json"], *([own] if own else []))


def _refused(text: str, fault: Fault, subject: Subject) -> str:
    """Return which part of the wish was refused."""
    words = text.lower()
    if re.search(r"api[ _-]?versions?", words):
        return "api_version"
    if "no endpoints found that can" in words:
        return "routing"
    if ABOUT_SCHEMA.search(words):
        return "schema_dialect"
    if subject in {"tools", "embeddings"}:
        return subject
    if re.search(r"function call\w* with|together with|combined with", words):
        return "combination"
    if ABOUT_PARAMETER.search(words) or "unsupported_parameter" in fault.codes:
        return "parameter"
    return "format_type"


def _model(case: Case) -> tuple[Kind, str] | None:
    words = case.fault.words
    by_code = re.search(r"not_?found", " ".join(case.fault.codes)) and re.search(
        r"\bmodel", words, re.IGNORECASE
    )
    refused = case.status < 500 and MODEL_REFUSED.search(words)
    return ("model", "not_found") if MODEL.search(words) or by_code or refused else None


def _rest(case: Case) -> tuple[Kind, str]:
    if case.status >= 500:
        return "other", "server"
    return "other", "policy" if POLICY.search(case.fault.words) else "bad_request"


RULES: Final[tuple[Rule, ...]] = (
    _transport,
    _no_fault,
    _auth_status,
    _rate,
    _timeout_status,
    _auth_words,
    _generation,
    _context,
    _own_fault,
    _unsupported,
    _model,
)
"""In the order of section B4; what none of them knows is told by the status alone."""


def classify(case: Case, *, rules: tuple[Rule, ...] = RULES) -> Verdict:
    """Return what the answer of `case` is.

    Args:
        rules: Others only to show that each is needed.
    """
    kind, detail = next((found for rule in rules if (found := rule(case))), None) or _rest(case)
    has_next = case.rung != "prompt" and case.subject != "embeddings"
    return Verdict(
        kind=kind,
        detail=detail,
        fallback=kind in {"unsupported", "content"} and has_next,
        said=case.fault.text,
        fields=tuple(case.fault.fields),
        completion=None if case.is_fault else read_completion(case.value),
    )
