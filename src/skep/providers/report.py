"""The report of a smoke: one object for programs, one line per check for people.

Source: secrets and providers, section B5. It holds no prompt, no text of a model and no key; what servers said is
scrubbed, cut, and made of printable characters before it comes here. Its schema lies beside this file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.resources import files
from typing import Any, Final, Literal

import msgspec

from skep.foundation.exits import EXIT_CODES, MAX_DETAIL, Outcome, worst
from skep.foundation.redaction import Redactor
from skep.providers.answers import Answer, Rung
from skep.providers.classify import Kind, Verdict

__all__ = [
    "FORMAT",
    "Attempt",
    "Check",
    "Client",
    "JsonResult",
    "Report",
    "Status",
    "cleaned",
    "line_of",
    "outcome_of",
    "report_schema",
    "row",
    "verdict_of",
]

FORMAT: Final = "skep-provider-smoke/1"
INFORMATIVE: Final = frozenset({"models", "usage", "latency", "context_length"})
"""Checks that say something and require nothing, unless they are asked to."""

Status = Literal["pass", "fail", "skip", "error"]
JsonMode = Literal["json_schema", "json_object", "prompt", "none"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one check.

    Attributes:
        kind: Class of the answer that decided it; `None` when skipped.
    """

    name: str
    status: Status
    kind: Kind | None = msgspec.field(default=None, name="class")
    detail: str = ""
    http_status: int | None = None
    request_id: str | None = None
    ms: int = 0
    data: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try of the ladder."""

    rung: Rung
    kind: Kind = msgspec.field(name="class")
    detail: str
    http_status: int | None


class JsonResult(msgspec.Struct, frozen=True, kw_only=True):
    """Which way of asking for JSON works, and whether the endpoint enforces the schema.

    Attributes:
        json_mode_group: For readers of older reports.
        enforced: `unknown` when the question that tells could not be answered; `None` without a mode.
        degraded: It works, and nothing holds the model to it.
    """

    json_mode: JsonMode = "none"
    json_mode_group: Literal["response_format", "prompt", "none"] = "none"
    enforced: bool | Literal["unknown"] | None = None
    fenced: bool = False
    degraded: bool = False
    attempts: tuple[Attempt, ...] = ()


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Versions of what asked."""

    skep: str
    httpx: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole smoke."""

    format: str
    base_url_host: str
    model: str
    api: str
    started_at: str
    client: Client
    checks: tuple[Check, ...]
    json: JsonResult | None
    verdict: Literal["pass", "degraded", "fail"]
    exit_code: int


def report_schema() -> dict[str, Any]:
    """Return the JSON schema that every report fits."""
    return msgspec.json.decode(
        files("skep.providers").joinpath("report.schema.json").read_bytes(), type=dict[str, Any]
    )


def cleaned(text: str, redactor: Redactor) -> str:
    """Return what a server said without secrets, in one printable line of at most 300 characters."""
    scrubbed = redactor.scrub(text[:20_000])
    return " ".join("".join(c if c.isprintable() else " " for c in scrubbed).split())[:MAX_DETAIL]


def row(
    name: str,
    verdict: Verdict,
    answer: Answer,
    *,
    redactor: Redactor,
    ms: int | None = None,
    failed: str = "",
    data: Mapping[str, Any] | None = None,
) -> Check:
    """Return the row of a check that `verdict` decided.

    Args:
        failed: Why the answer, good in itself, fails the check.
        ms: Time of the whole check, if it asked more than once.
    """
    status: Status = "pass"
    if verdict.kind != "ok":
        status = "fail" if verdict.outcome == "check_failed" else "error"
    elif failed:
        status = "fail"
    said = {"said": text} if (text := cleaned(verdict.said, redactor)) else {}
    return Check(
        name=name,
        status=status,
        kind="content" if failed and verdict.kind == "ok" else verdict.kind,
        detail=failed or ("" if status == "pass" else verdict.detail),
        http_status=answer.status,
        request_id=redactor.scrub(answer.request_id) if answer.request_id else None,
        ms=answer.took_ms if ms is None else ms,
        data={**(data or {}), **said},
    )


def outcome_of(check: Check) -> Outcome:
    """Return what a check that ended in an error adds to the exit code."""
    if check.kind is None:
        return "check_failed"
    return Verdict(kind=check.kind, detail=check.detail, fallback=False).outcome


def verdict_of(
    checks: Iterable[Check], json: JsonResult | None, *, required: Mapping[str, str | None]
) -> tuple[Literal["pass", "degraded", "fail"], int]:
    """Return the verdict and the exit code.

    Args:
        required: Checks that must pass, and the JSON mode that must be reached, if one must.
    """
    outcomes: list[Outcome] = []
    short_of: list[str] = []
    for check in checks:
        if check.status == "error":
            outcomes.append(outcome_of(check))
        elif check.name in required and check.status != "pass":
            outcomes.append("check_failed")
        elif check.status == "fail" and check.name not in INFORMATIVE:
            short_of.append(check.name)
    wanted_mode = required.get("json_response")
    if wanted_mode is not None and (json is None or _is_below(json.json_mode, wanted_mode)):
        outcomes.append("check_failed")
    code = EXIT_CODES[worst(outcomes)]
    if code:
        return "fail", code
    return ("degraded" if short_of or (json is not None and json.degraded) else "pass"), 0


def _is_below(mode: str, wanted: str) -> bool:
    order = ("json_schema", "json_object", "prompt", "none")
    return order.index(mode) > order.index(wanted)


def line_of(check: Check, json: JsonResult | None = None, *, hide: Collection[str] = ("said", "text")) -> str:
    """Return the line of a check for people."""
    words = [f"{check.name}={check.status}"]
    if check.name == "json_response" and json is not None:
        words += _json_words(json)
    if check.status != "pass":
        words += [f"class={check.kind}"] if check.kind not in {None, "ok"} else []
        words += [f"detail={check.detail}"] if check.detail else []
        words += [f"http={check.http_status}"] if check.http_status not in {None, 200} else []
    words += [
        f"{name}={_word(value)}"
        for name, value in check.data.items()
        if name not in hide and value is not None
    ]
    return " ".join(words)


def _json_words(json: JsonResult) -> list[str]:
    is_native = json.json_mode_group == "response_format"
    words = [f"json_mode={'response_format/' if is_native else ''}{json.json_mode}"]
    if json.enforced is not None and is_native:
        words.append(f"enforced={_word(json.enforced)}")
    words += ["fenced=true"] if json.fenced else []
    return words + (["degraded=true"] if json.degraded else [])


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f'"{text}"' if " " in text or not text else text
