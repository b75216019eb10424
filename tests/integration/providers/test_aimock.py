"""The smoke against aimock: models that behave in chosen ways, its faults, and every shared vector over HTTP.

Source: secrets and providers, sections B3, B4, B5 and B7.2.
"""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.providers.answers import Rung, Subject
from skep.providers.asking import Asker
from skep.providers.classify import Case, Verdict, classify
from skep.providers.dialects import dialect_of, json_prompt
from skep.providers.endpoint import LIMITS, Endpoint
from skep.providers.exchange import Exchange
from skep.providers.smoke import Plan
from support.aimock import KEY, Aimock, aimock_server
from support.smoking import run_provider, smoke

FILE = Path(__file__).resolve().parents[2] / "vectors" / "response_format_errors.json"
VECTORS: dict[str, dict[str, Any]] = {
    vector["id"]: vector for vector in json.loads(FILE.read_text())["cases"] if vector["status"] is not None
}

BEHAVIOURS = {
    "enforcing": ("json_response=pass json_mode=response_format/json_schema enforced=true", "pass", 0),
    "willing": (
        "json_response=pass json_mode=response_format/json_schema enforced=false degraded=true",
        "degraded",
        0,
    ),
    "json-object": (
        "json_response=pass json_mode=response_format/json_object enforced=false degraded=true",
        "degraded",
        0,
    ),
    "prompt-only": ("json_response=pass json_mode=prompt fenced=true degraded=true", "degraded", 0),
    "prose": ("json_response=fail json_mode=none class=content detail=unparsable", "fail", 1),
    "breaks-below": ("json_response=error json_mode=none class=rate detail=limit http=429", "fail", 25),
    "new-names": ("json_response=pass json_mode=response_format/json_schema enforced=true", "pass", 0),
}

FAULTS = {
    "echoes-key": ("chat_completion=error class=auth detail=invalid_key http=401", 20),
    "missing": ("chat_completion=error class=model detail=not_found http=404", 22),
    "gateway-timeout": ("chat_completion=error class=timeout detail=gateway http=504", 24),
    "limited": ("chat_completion=error class=rate detail=quota http=429", 25),
    "overloaded": ("chat_completion=error class=other detail=server http=503", 26),
}

CHAOS = {
    "disconnectRate": ({"disconnectRate": 1.0}, "chat_completion=error class=other detail=connection", 23),
    "latencyMs": ({"latencyMs": 5000}, "chat_completion=error class=timeout detail=total", 24),
    "rateLimitRate": ({"rateLimitRate": 1.0}, "chat_completion=error class=rate detail=limit http=429", 25),
    "dropRate": ({"dropRate": 1.0}, "chat_completion=error class=other detail=server http=500", 26),
    "malformedRate": ({"malformedRate": 1.0}, "chat_completion=error class=other detail=malformed", 27),
}


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock]:
    """One server for every test here."""
    answers = {
        name: {
            "status": vector["status"],
            "content_type": vector["content_type"],
            "body": vector["body"],
        }
        for name, vector in VECTORS.items()
    }
    page = {"status": 200, "content_type": "text/html", "body": "<html><body>Welcome</body></html>"}
    with aimock_server(tmp_path_factory.mktemp("aimock"), {**answers, "page": page}) as server:
        yield server


@pytest.mark.parametrize("name", VECTORS)
async def test_b7_2_vector_over_http_has_its_class(aimock: Aimock, name: str) -> None:
    """Each shared answer, served by a server that nobody here wrote."""
    vector = VECTORS[name]

    verdict = await _asked(aimock.raw(name), vector)

    assert (verdict.kind, verdict.fallback) == (vector["expect"]["class"], vector["expect"]["fallback"])


@pytest.mark.parametrize(("model", "line", "verdict", "code"), [(k, *v) for k, v in BEHAVIOURS.items()])
async def test_b3_ladder_ends_where_the_model_is(
    aimock: Aimock, model: str, line: str, verdict: str, code: int
) -> None:
    """One endpoint for each rung, and two that must not get down: a fault below, and prose everywhere."""
    plan = Plan(checks=frozenset({"chat_completion", "json_response"}))

    found = await smoke(aimock.base_url, model, plan, key=KEY)

    assert found.lines["json_response"] == line
    assert (found.report.verdict, found.report.exit_code) == (verdict, code)


async def test_b2_an_endpoint_that_does_everything_passes_everything(aimock: Aimock) -> None:
    """Tools with their result, a stream, embeddings, and the `openai` library."""
    checks = frozenset(
        {"models", "chat_completion", "usage", "tool_call", "streaming", "embeddings", "latency", "sdk_chat"}
    )

    found = await smoke(aimock.base_url, "enforcing", Plan(checks=checks), key=KEY)

    assert {name: check.status for name, check in found.checks.items()} == dict.fromkeys(checks, "pass")


async def test_b5_required_mode_that_is_not_reached_fails(aimock: Aimock) -> None:
    """A lower rung that works is not what was asked for."""
    checks = frozenset({"json_response"})

    found = await smoke(
        aimock.base_url,
        "prompt-only",
        Plan(checks=checks, required={"json_response": "json_schema"}),
        key=KEY,
    )

    assert (found.report.verdict, found.report.exit_code) == ("fail", 1)


async def test_b2_another_models_name_is_said(aimock: Aimock) -> None:
    """An answer under another name passes, and the name is shown."""
    found = await smoke(aimock.base_url, "disguised", Plan(checks=frozenset({"chat_completion"})), key=KEY)

    assert found.lines["chat_completion"] == "chat_completion=pass model=another-model-7b model_differs=true"


@pytest.mark.parametrize(("model", "line", "code"), [(name, *fault) for name, fault in FAULTS.items()])
async def test_s1_fault_has_its_exit_code(
    aimock: Aimock, tmp_path: Path, model: str, line: str, code: int
) -> None:
    """Printed as one line, ended as the table says, and nothing after it is asked."""
    done = await run_provider(
        tmp_path,
        [
            "test",
            "--base-url",
            aimock.base_url,
            "--model",
            model,
            "--key-ref",
            "env:K",
            "--checks",
            "chat,json",
        ],
        environ={"K": KEY},
    )

    assert done.returncode == code
    assert line in done.stdout.splitlines()
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(("rates", "line", "code"), CHAOS.values(), ids=CHAOS.keys())
async def test_b7_2_chaos_has_its_exit_code(
    aimock: Aimock, tmp_path: Path, rates: dict[str, float], line: str, code: int
) -> None:
    """Cut, late, limited, broken and garbled, as aimock does it."""
    words = ["test", "--base-url", aimock.base_url, "--model", "enforcing", "--key-ref", "env:K"]

    with aimock.chaos(**rates):
        done = await run_provider(
            tmp_path, [*words, "--checks", "chat", "--timeout", "1.5"], environ={"K": KEY}
        )

    assert (done.returncode, done.stdout.splitlines()[0]) == (code, line)


async def test_b7_2_wrong_key_is_auth(aimock: Aimock, tmp_path: Path) -> None:
    """Refused by aimock's own check of keys."""
    done = await run_provider(
        tmp_path,
        ["test", "--base-url", aimock.base_url, "--model", "enforcing", "--key-ref", "env:K"],
        environ={"K": "another-key-0000"},
    )

    assert (done.returncode, done.stdout.splitlines()[0]) == (
        20,
        "models=error class=auth detail=invalid_key http=401",
    )


async def test_b7_2_page_instead_of_an_api(aimock: Aimock, tmp_path: Path) -> None:
    """HTML with a 200 is malformed, for every check, and never a mode that is missing."""
    done = await run_provider(
        tmp_path,
        [
            "test",
            "--base-url",
            aimock.raw("page"),
            "--model",
            "x",
            "--key-ref",
            "env:K",
            "--checks",
            "chat,json,tools,stream",
        ],
        environ={"K": KEY},
    )

    assert done.returncode == 27
    assert done.stdout.splitlines()[:4] == [
        "chat_completion=error class=other detail=malformed",
        "json_response=error json_mode=none class=other detail=malformed",
        "tool_call=error class=other detail=malformed",
        "streaming=error class=other detail=malformed",
    ]


async def test_a8_1_no_leak(aimock: Aimock, tmp_path: Path) -> None:
    """The key, in no form, in no output: with every log on, and an endpoint that repeats it."""
    keys = tmp_path / "key"
    keys.write_text(KEY + "\n")
    keys.chmod(0o600)
    environ = {
        "OPENAI_LOG": "debug",
        "SKEP_LOG_LEVEL": "debug",
        "PYTHONDEVMODE": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    out = tmp_path / "report.json"
    written = ""
    for model in ("enforcing", "echoes-key", "prose"):
        for more in (["--json"], ["--keep-text", "--checks", "chat,wrong-key,sdk"]):
            done = await run_provider(
                tmp_path,
                [
                    "test",
                    "--base-url",
                    aimock.base_url,
                    "--model",
                    model,
                    "--key-ref",
                    f"file:{keys}",
                    *more,
                    "--out",
                    str(out),
                ],
                environ=environ,
            )
            written += done.stdout + done.stderr + out.read_text()

    forms = [
        KEY,
        urllib.parse.quote(KEY),
        base64.b64encode(KEY.encode()).decode(),
        KEY.encode().hex(),
        KEY[: len(KEY) // 2],
    ]
    assert [form for form in forms if form in written] == []


async def test_b7_2_openai_library_agrees(aimock: Aimock) -> None:
    """A client that we did not write tells the same faults apart by their type."""
    expected = {
        "echoes-key": openai.AuthenticationError,
        "missing": openai.NotFoundError,
        "limited": openai.RateLimitError,
        "overloaded": openai.InternalServerError,
    }
    raised: dict[str, type[Exception]] = {}
    async with openai.AsyncOpenAI(base_url=aimock.base_url, api_key=KEY, max_retries=0) as client:
        for model in expected:
            try:
                await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
            except openai.APIStatusError as error:
                raised[model] = type(error)

    assert raised == expected


async def _asked(base_url: str, vector: dict[str, Any]) -> Verdict:
    endpoint = Endpoint(base_url=base_url, model="m", key=Secret("key", KEY))
    dialect = dialect_of("openai", base_url)
    subject, rung = cast("Subject", vector["feature"]), cast("Rung", vector["sent"])
    async with (
        asyncio.timeout(10),
        Exchange(endpoint, dialect, limits=LIMITS, clock=SYSTEM_CLOCK) as exchange,
    ):
        if subject == "embeddings":
            answer = await exchange.post("/embeddings", {"model": "m", "input": ["x"]})
            return classify(Case(answer=answer, subject=subject, rung=rung))
        asker = Asker(
            endpoint, dialect, exchange, redactor=Redactor(), clock=SYSTEM_CLOCK, new_word=lambda: "skep"
        )
        body = asker.question(json_prompt(rung, "skep"))
        body = (
            dialect.offer_tool(body, force=True) if subject == "tools" else dialect.demand(body, rung, "skep")
        )
        return (await asker.ask(body, subject=subject, rung=rung, word="skep")).verdict


async def test_b1_anthropic_protocol(aimock: Aimock) -> None:
    """The other protocol, end to end: its header, a tool with its result, a stream, and JSON as told."""
    checks = frozenset({"chat_completion", "json_response", "tool_call", "streaming", "latency"})

    found = await smoke(aimock.site, "willing", Plan(checks=checks), key=KEY, api="anthropic")

    assert {name: check.status for name, check in found.checks.items()} == dict.fromkeys(checks, "pass")
    assert "json_mode=response_format/json_schema enforced=false" in found.lines["json_response"]


async def test_b1_anthropic_faults(aimock: Aimock) -> None:
    """The same classes."""
    plan = Plan(checks=frozenset({"chat_completion"}))
    codes = {
        model: (await smoke(aimock.site, model, plan, key=KEY, api="anthropic")).report.exit_code
        for model in FAULTS
    }

    assert codes == {model: code for model, (_, code) in FAULTS.items()}
