"""The checks of a smoke, but for JSON: each asks the endpoint and returns its row of the report.

Source: secrets and providers, section B2.
"""

from __future__ import annotations

import math
import re
from statistics import median
from typing import Any, Final

from skep.foundation.ids import random_token
from skep.foundation.secret import Secret
from skep.providers.answers import Answer
from skep.providers.asking import MAX_TOKENS, Asker, Reply
from skep.providers.classify import Case, Verdict, classify
from skep.providers.completion import Completion, as_count, as_dict, as_list, as_text
from skep.providers.dialects import TOOL_NAME
from skep.providers.embeddings import Vectors, cosine, read_vectors
from skep.providers.report import Check, cleaned, row

__all__ = [
    "check_chat",
    "check_context",
    "check_embeddings",
    "check_latency",
    "check_models",
    "check_streaming",
    "check_tools",
    "check_usage",
    "check_wrong_key",
]

LATENCY_RUNS: Final = 3
_HELLO: Final = "Say hello in one short sentence."
_LIMIT: Final = re.compile(r"(\d[\d,_]{2,})")
_LIMIT_NAMED: Final = re.compile(
    r"(?:context (?:size|length|window)(?: is| of)?|maximum(?: of)?|limit(?: is| of)?|at most|up to|>)\W{0,3}"
    r"(\d[\d,_]{1,9})",
    re.IGNORECASE,
)


async def check_models(asker: Asker) -> tuple[Check, int | None]:
    """Return the check `models` and the context length that the endpoint declares for the model."""
    answer = await asker.exchange.get(asker.dialect.models_path)
    if answer.status in {404, 405, 501}:
        return Check(name="models", status="skip", detail="not_offered", http_status=answer.status), None
    case = Case(answer=answer, subject="chat", rung="none")
    verdict = classify(case)
    rows = [as_dict(item) for item in as_list(as_dict(case.value).get("data"))]
    if answer.status == 200 and not case.is_fault:
        is_list = isinstance(as_dict(case.value).get("data"), list)
        verdict = Verdict(kind="ok" if is_list else "other", detail="malformed", fallback=False)
    asked = asker.endpoint.model
    found = next((item for item in rows if item.get("id") in {asked, f"models/{asked}"}), None)
    declared = _declared(found if found is not None else rows[0] if len(rows) == 1 else {})
    data: dict[str, Any] = {"listed": found is not None, "context": declared} if verdict.kind == "ok" else {}
    return row("models", verdict, answer, redactor=asker.redactor, data=data), declared


async def check_chat(asker: Asker, *, keep_text: bool = False) -> tuple[Check, Completion | None]:
    """Return the check `chat_completion` and what the model said."""
    reply = await asker.ask(asker.question(_HELLO))
    said = reply.verdict.completion
    if said is not None and not said.text.strip() and said.finish == "length":
        reply = await asker.ask(asker.question(_HELLO, max_tokens=4 * MAX_TOKENS))
        said = reply.verdict.completion
    failed = ""
    data: dict[str, Any] = {}
    if said is not None:
        failed = "empty" if not said.text.strip() else "no_finish_reason" if not said.finish else ""
        data = {"model": cleaned(said.model, asker.redactor)[:100] or None}
        if said.model and not said.model.startswith(asker.endpoint.model):
            data["model_differs"] = True
        if keep_text:
            data["text"] = cleaned(said.text, asker.redactor)
    return row(
        "chat_completion", reply.verdict, reply.answer, redactor=asker.redactor, failed=failed, data=data
    ), said


def check_usage(said: Completion | None) -> Check:
    """Return the check `usage`; a warning at most."""
    if said is None:
        return Check(name="usage", status="skip", detail="no_completion")
    data = {"tokens_in": said.tokens_in, "tokens_out": said.tokens_out}
    is_there = all(count is not None and count > 0 for count in data.values())
    if is_there:
        return Check(name="usage", status="pass", kind="ok", data=data)
    return Check(name="usage", status="fail", kind="content", detail="missing", data=data)


async def check_tools(asker: Asker) -> Check:
    """Return the check `tool_call`: called as told, and its result made use of."""
    start = asker.clock.monotonic_ms()
    word = asker.new_word()
    question = [{"role": "user", "content": f"Use the tool {TOOL_NAME} to look up the word {word}."}]
    body = asker.dialect.offer_tool(asker.question(question), force=True)
    reply = await asker.ask(body, subject="tools", rung="tools")
    said = reply.verdict.completion
    failed = ""
    if reply.verdict.kind == "ok" and said is not None:
        call = said.tool_calls[0]
        if call.name != TOOL_NAME:
            failed = "wrong_tool"
        elif (
            call.arguments is None or call.arguments.keys() != {"word"} or not as_text(call.arguments["word"])
        ):
            failed = "bad_arguments"
        elif not call.call_id:
            failed = "no_call_id"
        else:
            result = asker.dialect.tool_result(said, call, f"{word} is a home for bees.")
            follow_up = asker.dialect.offer_tool(asker.question([*question, *result]), force=False)
            reply = await asker.ask(follow_up)
            answered = reply.verdict.completion
            failed = "no_final_text" if answered is not None and not answered.text.strip() else ""
    ms = asker.clock.monotonic_ms() - start
    return row("tool_call", reply.verdict, reply.answer, redactor=asker.redactor, ms=ms, failed=failed)


async def check_streaming(asker: Asker) -> Check:
    """Return the check `streaming`."""
    reply = await asker.ask_in_stream(asker.question(_HELLO))
    failed = ""
    if reply.verdict.kind == "ok":
        failed = "empty" if not reply.text.strip() else "no_finish_reason" if not reply.finish else ""
        if failed == "empty" and reply.finish == "length" and reply.reasoning:
            failed = "truncated"
    data = {"first_ms": reply.first_ms, "events": reply.pieces, "usage": reply.tokens_out is not None}
    return row(
        "streaming",
        reply.verdict,
        reply.answer,
        redactor=asker.redactor,
        failed=failed,
        data=data if reply.verdict.kind == "ok" else None,
    )


async def check_latency(
    asker: Asker, *, max_first_token_ms: int | None = None, max_total_ms: int | None = None
) -> Check:
    """Return the check `latency`: medians of three answers; it fails only against a threshold."""
    start = asker.clock.monotonic_ms()
    firsts: list[int] = []
    totals: list[int] = []
    rates: list[float] = []
    answer = Answer()
    for _ in range(LATENCY_RUNS):
        reply = await asker.ask_in_stream(asker.question(_HELLO))
        answer = reply.answer
        if reply.verdict.kind != "ok":
            return row("latency", reply.verdict, reply.answer, redactor=asker.redactor)
        totals.append(answer.took_ms)
        if reply.first_ms is not None:
            firsts.append(reply.first_ms)
            writing_ms = max(reply.last_ms - reply.first_ms, 1)
            rates.append(1000 * (reply.tokens_out or reply.pieces) / writing_ms)
    first = round(median(firsts)) if firsts else None
    total = round(median(totals))
    failed = ""
    if max_first_token_ms is not None and (first is None or first > max_first_token_ms):
        failed = "first_token_late"
    elif max_total_ms is not None and total > max_total_ms:
        failed = "total_late"
    return row(
        "latency",
        Verdict(kind="ok", detail="answered", fallback=False),
        answer,
        redactor=asker.redactor,
        ms=asker.clock.monotonic_ms() - start,
        failed=failed,
        data={
            "first_token_ms": first,
            "total_ms": total,
            "tokens_per_s": round(median(rates), 1) if rates else None,
        },
    )


async def check_context(asker: Asker, *, declared: int | None, probe_tokens: int | None) -> Check:
    """Return the check `context_length`: what is declared, and whether `probe_tokens` fit if asked."""
    data: dict[str, Any] = {"declared": declared}
    if probe_tokens is None:
        if declared is None:
            return Check(name="context_length", status="skip", detail="not_declared")
        return Check(name="context_length", status="pass", kind="ok", data=data)
    filler = "bee " * max(probe_tokens, 1)
    reply = await asker.ask(asker.question(f"{filler}\n{_HELLO}", max_tokens=16))
    data["probed"] = probe_tokens
    if reply.verdict.detail == "context_length":
        data["limit"] = _limit(reply)
    elif reply.verdict.completion is not None:
        data["tokens_in"] = reply.verdict.completion.tokens_in
    return row("context_length", reply.verdict, reply.answer, redactor=asker.redactor, data=data)


async def check_embeddings(asker: Asker, *, model: str, dimension: int | None) -> Check:
    """Return the check `embeddings`."""
    path = asker.dialect.embeddings_path
    if path is None:
        return Check(name="embeddings", status="fail", kind="unsupported", detail="embeddings")
    start = asker.clock.monotonic_ms()
    texts = ["A hive of bees.", "A boat on a lake.", "A hive of bees."]
    body = {"model": model, "input": texts}
    answer = await asker.exchange.post(path, body)
    case = Case(answer=answer, subject="embeddings", rung="none")
    verdict = classify(case)
    failed = ""
    data: dict[str, Any] = {}
    if verdict.kind == "ok":
        vectors = read_vectors(case.value, count=len(texts))
        failed = vectors if isinstance(vectors, str) else _misfit(vectors, dimension)
        if not isinstance(vectors, str):
            data = {"dim": len(vectors[0])}
            if not failed:
                packed = await asker.exchange.post(path, {**body, "encoding_format": "base64"})
                data["base64"] = _base64_word(packed, vectors)
                failed = "base64_differs" if data["base64"] == "differs" else ""
    ms = asker.clock.monotonic_ms() - start
    return row("embeddings", verdict, answer, redactor=asker.redactor, ms=ms, failed=failed, data=data)


async def check_wrong_key(asker: Asker) -> Check:
    """Return the check `wrong_key`: a bad key is told apart from everything else."""
    wrong = Secret("wrong key", f"skep-wrong-{random_token()}")
    asker.redactor.add(wrong)
    reply = await asker.ask(asker.question(_HELLO), key=wrong)
    if reply.verdict.kind == "auth":
        right = Verdict(kind="ok", detail="auth", fallback=False)
        return row("wrong_key", right, reply.answer, redactor=asker.redactor)
    failed = "accepted" if reply.verdict.kind == "ok" else ""
    return row("wrong_key", reply.verdict, reply.answer, redactor=asker.redactor, failed=failed)


def _declared(model: dict[str, Any]) -> int | None:
    """Return the context length that an endpoint names for a model, whatever it calls it."""
    meta = as_dict(model.get("meta"))
    named = (
        meta.get("n_ctx"),
        model.get("max_model_len"),
        model.get("context_length"),
        model.get("context_window"),
        model.get("max_context_length"),
        model.get("max_input_tokens"),
        model.get("inputTokenLimit"),
        meta.get("n_ctx_train"),
    )
    return next((count for value in named if (count := as_count(value)) is not None and count > 0), None)


def _limit(reply: Reply) -> int | None:
    """Return the length that the endpoint says it can take."""
    given = as_count(as_dict(as_dict(_value(reply.answer)).get("error")).get("n_ctx"))
    if given is not None:
        return given
    said = reply.verdict.said
    match = _LIMIT_NAMED.search(said)
    if match is not None:
        return int(re.sub(r"\D", "", match[1]))
    numbers = [int(re.sub(r"\D", "", number)) for number in _LIMIT.findall(said)]
    return min(numbers) if numbers else None


def _value(answer: Answer) -> object:
    return Case(answer=answer, subject="chat", rung="none").value


def _misfit(vectors: Vectors, dimension: int | None) -> str:
    if dimension is not None and len(vectors[0]) != dimension:
        return "wrong_dimension"
    if cosine(vectors[0], vectors[2]) < 0.99:
        return "not_repeatable"
    return ""


def _base64_word(answer: Answer, vectors: Vectors) -> str:
    """Return how the packed form compares: `same`, `differs`, or `unsupported`."""
    packed = read_vectors(_value(answer), count=len(vectors), packed=True) if answer.status == 200 else "no"
    if isinstance(packed, str):
        return "unsupported"
    is_same = all(
        len(plain) == len(other)
        and all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-5) for a, b in zip(plain, other, strict=True))
        for plain, other in zip(vectors, packed, strict=True)
    )
    return "same" if is_same else "differs"
