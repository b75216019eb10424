"""The provider smoke: prove that an endpoint can do what an agent needs, and say in which mode.

Source: secrets and providers, section B. Nothing is retried and nothing is hidden: a fault that would hit every
check ends the run, and what was not asked is listed as skipped.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

from skep import __version__
from skep.foundation.clock import Clock
from skep.foundation.redaction import Redactor
from skep.providers.asking import Asker
from skep.providers.checks import (
    check_chat,
    check_context,
    check_embeddings,
    check_latency,
    check_models,
    check_streaming,
    check_tools,
    check_usage,
    check_wrong_key,
)
from skep.providers.completion import Completion
from skep.providers.dialects import dialect_of
from skep.providers.endpoint import LIMITS, Endpoint, Limits
from skep.providers.exchange import Exchange
from skep.providers.ladder import check_json
from skep.providers.problems import usage
from skep.providers.report import (
    FORMAT,
    INFORMATIVE,
    Check,
    Client,
    JsonResult,
    Report,
    outcome_of,
    verdict_of,
)
from skep.providers.sdk import check_sdk_chat

__all__ = ["CHECKS", "Plan", "check_names", "new_word", "requirements", "run_smoke"]

CHECKS: Final = (
    "models",
    "chat_completion",
    "usage",
    "json_response",
    "tool_call",
    "streaming",
    "embeddings",
    "context_length",
    "latency",
    "sdk_chat",
    "wrong_key",
)
"""In the order in which they are asked."""
ON_REQUEST: Final = frozenset({"embeddings", "wrong_key"})
SHORT_NAMES: Final = {
    "chat": "chat_completion",
    "json": "json_response",
    "tools": "tool_call",
    "tool": "tool_call",
    "stream": "streaming",
    "context": "context_length",
    "sdk": "sdk_chat",
}
ENDS_THE_RUN: Final = frozenset({"auth", "model", "network", "timeout", "rate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is checked, and what must pass.

    Attributes:
        checks: Names, as in `CHECKS`.
        required: Names that must pass, `json_response` with the mode that must be reached; `None` for the
            usual: each of `checks` that is not only informative.
    """

    checks: frozenset[str] = frozenset(CHECKS) - ON_REQUEST
    required: Mapping[str, str | None] | None = None
    embed_model: str | None = None
    embed_dim: int | None = None
    probe_tokens: int | None = None
    max_first_token_ms: int | None = None
    max_total_ms: int | None = None
    keep_text: bool = False

    @property
    def must_pass(self) -> Mapping[str, str | None]:
        """The checks that decide."""
        if self.required is not None:
            return self.required
        names = [name for name in self.checks if name not in INFORMATIVE and name != "sdk_chat"]
        names += ["context_length"] if self.probe_tokens is not None else []
        names += ["latency"] if self.max_first_token_ms is not None or self.max_total_ms is not None else []
        return dict.fromkeys(names)


@dataclass(slots=True, kw_only=True)
class _Run:
    """What has been found so far."""

    rows: list[Check] = field(default_factory=list[Check])
    json: JsonResult | None = None
    declared: int | None = None
    said: Completion | None = None


def check_names(text: str) -> frozenset[str]:
    """Return the checks that `text`, names with commas, asks for.

    Raises:
        ProviderError: `usage`.
    """
    return frozenset(_check_name(name) for name in text.split(",") if name.strip())


def requirements(text: str) -> dict[str, str | None]:
    """Return what `text` requires: `json=json_schema,tools`.

    Raises:
        ProviderError: `usage`.
    """
    wanted: dict[str, str | None] = {}
    for item in text.split(","):
        name, _, mode = item.strip().partition("=")
        if not name:
            continue
        check = _check_name(name)
        if mode and (check != "json_response" or mode not in {"json_schema", "json_object", "prompt"}):
            raise usage(
                f"`{name[:40]}` cannot be required in that way",
                hint="only json has modes: json=json_schema, json=json_object, json=prompt",
            )
        wanted[check] = mode or None
    return wanted


async def run_smoke(
    endpoint: Endpoint,
    plan: Plan,
    *,
    redactor: Redactor,
    clock: Clock,
    limits: Limits = LIMITS,
    word: Callable[[], str] | None = None,
) -> Report:
    """Return the report on `endpoint`.

    Args:
        word: Makes up the word of a schema; another only where the answers are made up before.
    """
    if endpoint.key is not None:
        redactor.add(endpoint.key)
    dialect = dialect_of(endpoint.api, endpoint.base_url)
    started_at = dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC).isoformat(timespec="seconds")
    run = _Run()
    async with Exchange(endpoint, dialect, limits=limits, clock=clock) as exchange:
        asker = Asker(endpoint, dialect, exchange, redactor=redactor, clock=clock, new_word=word or new_word)
        ended_by = ""
        for name in CHECKS:
            if name not in plan.checks:
                continue
            if ended_by:
                run.rows.append(Check(name=name, status="skip", detail=f"after_{ended_by}"))
                continue
            check = await _steps(asker, plan, run, limits)[name]()
            run.rows.append(check)
            if check.status == "error" and outcome_of(check) in ENDS_THE_RUN:
                ended_by = name
    verdict, code = verdict_of(run.rows, run.json, required=plan.must_pass)
    return Report(
        format=FORMAT,
        base_url_host=endpoint.host,
        model=endpoint.model,
        api=endpoint.api,
        started_at=started_at,
        client=Client(skep=__version__, httpx=version("httpx")),
        checks=tuple(run.rows),
        json=run.json,
        verdict=verdict,
        exit_code=code,
    )


def _steps(asker: Asker, plan: Plan, run: _Run, limits: Limits) -> dict[str, Callable[[], Awaitable[Check]]]:
    async def models() -> Check:
        check, run.declared = await check_models(asker)
        return check

    async def chat() -> Check:
        check, run.said = await check_chat(asker, keep_text=plan.keep_text)
        return check

    async def usage_counts() -> Check:
        return check_usage(run.said)

    async def json() -> Check:
        check, run.json = await check_json(asker)
        return check

    async def embeddings() -> Check:
        model = plan.embed_model or asker.endpoint.model
        return await check_embeddings(asker, model=model, dimension=plan.embed_dim)

    return {
        "models": models,
        "chat_completion": chat,
        "usage": usage_counts,
        "json_response": json,
        "tool_call": lambda: check_tools(asker),
        "streaming": lambda: check_streaming(asker),
        "embeddings": embeddings,
        "context_length": lambda: check_context(asker, declared=run.declared, probe_tokens=plan.probe_tokens),
        "latency": lambda: check_latency(
            asker, max_first_token_ms=plan.max_first_token_ms, max_total_ms=plan.max_total_ms
        ),
        "sdk_chat": lambda: check_sdk_chat(asker, limits=limits),
        "wrong_key": lambda: check_wrong_key(asker),
    }


def _check_name(text: str) -> str:
    name = text.strip().replace("-", "_")
    name = SHORT_NAMES.get(name, name)
    if name not in CHECKS:
        raise usage(f"there is no check `{name[:40]}`", hint=f"checks: {', '.join(CHECKS)}")
    return name


def new_word() -> str:
    """Return a word that nobody has heard of."""
    return f"skep{secrets.token_hex(4)}"
