"""Ask for JSON, the best way first, and find out whether the endpoint enforces the schema.

Source: secrets and providers, section B3. Down a rung only when the endpoint says that it cannot, or does not:
any other fault stops the ladder and is the result.
"""

from __future__ import annotations

from typing import Literal

from skep.providers.answers import Rung
from skep.providers.asking import MAX_TOKENS, Asker, Reply
from skep.providers.dialects import json_prompt
from skep.providers.report import Attempt, Check, JsonResult, row

__all__ = ["check_json"]

_PROSE = "Tell me in two sentences of plain prose what bees do in winter. Write no JSON and no lists."


async def check_json(asker: Asker) -> tuple[Check, JsonResult]:
    """Return the check `json_response` and the way that works."""
    start = asker.clock.monotonic_ms()
    attempts: list[Attempt] = []
    reply: Reply | None = None
    for rung in asker.dialect.rungs:
        reply = await _ask_rung(asker, rung, attempts)
        if not reply.verdict.fallback:
            break
    assert reply is not None
    rung = attempts[-1].rung
    result = JsonResult(attempts=tuple(attempts))
    if reply.verdict.kind == "ok" and rung != "none" and rung != "tools":
        enforced = await _is_enforced(asker, rung) if rung == "json_schema" else False
        result = JsonResult(
            json_mode=rung,
            json_mode_group="prompt" if rung == "prompt" else "response_format",
            enforced=enforced,
            fenced=reply.verdict.detail == "fenced",
            degraded=enforced is not True,
            attempts=tuple(attempts),
        )
    ms = asker.clock.monotonic_ms() - start
    return row("json_response", reply.verdict, reply.answer, redactor=asker.redactor, ms=ms), result


async def _ask_rung(
    asker: Asker, rung: Rung, attempts: list[Attempt], *, max_tokens: int = MAX_TOKENS
) -> Reply:
    """Return the answer on `rung`; one that was cut is asked for once more, with room for four times as much."""
    word = asker.new_word()
    body = asker.dialect.demand(asker.question(json_prompt(rung, word), max_tokens=max_tokens), rung, word)
    reply = await asker.ask(body, subject="json", rung=rung, word=word)
    verdict = reply.verdict
    attempts.append(
        Attempt(rung=rung, kind=verdict.kind, detail=verdict.detail, http_status=reply.answer.status)
    )
    if verdict.detail == "truncated" and max_tokens == MAX_TOKENS:
        return await _ask_rung(asker, rung, attempts, max_tokens=4 * MAX_TOKENS)
    return reply


async def _is_enforced(asker: Asker, rung: Rung) -> bool | Literal["unknown"]:
    """Return whether prose that is asked for comes as the JSON that the format demands.

    The word is in the schema alone: a model that is only willing cannot know it.
    """
    word = asker.new_word()
    body = asker.dialect.demand(asker.question(_PROSE), rung, word)
    verdict = (await asker.ask(body, subject="json", rung=rung, word=word)).verdict
    if verdict.kind == "ok":
        return True
    if verdict.kind == "content":
        return False
    said = verdict.completion.text.lstrip() if verdict.completion else ""
    return False if verdict.detail in {"truncated", "refusal"} and said and said[0] != "{" else "unknown"
