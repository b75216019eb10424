"""The smoke against a real llama.cpp server, and the `openai` library against the same one.

Source: secrets and providers, section B7.1. The weights are random: what conforms does so by its grammar.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from skep.providers.smoke import CHECKS, ON_REQUEST, Plan
from support.llama import CONTEXT, KEY, VECTOR, llama_server
from support.smoking import run_provider, smoke

USUAL = frozenset(CHECKS) - ON_REQUEST


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model lies."""
    return tmp_path_factory.mktemp("llama")


@pytest.fixture(scope="module")
def chat(folder: Path) -> Iterator[str]:
    """A server that answers in chats."""
    with llama_server(folder) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def embeddings(folder: Path) -> Iterator[str]:
    """A server that makes vectors."""
    with llama_server(folder, embeddings=True) as base_url:
        yield base_url


async def test_b7_1_random_weights_obey_the_schema(chat: str) -> None:
    """Chat, JSON that is enforced, streaming, context and latency pass; a tool is not called, and that is said."""
    found = await smoke(chat, "tiny", Plan(), key=KEY)

    assert found.lines["chat_completion"] == "chat_completion=pass model=tiny"
    assert (
        found.lines["json_response"]
        == "json_response=pass json_mode=response_format/json_schema enforced=true"
    )
    assert found.lines["tool_call"] == "tool_call=fail class=content detail=no_tool_call"
    assert found.lines["context_length"] == f"context_length=pass declared={CONTEXT}"
    passed = {name for name, check in found.checks.items() if check.status == "pass"}
    assert passed == USUAL - {"tool_call"}, found.lines
    assert (found.report.verdict, found.report.exit_code) == ("fail", 1), found.lines


async def test_b7_1_what_is_not_required_does_not_fail(chat: str) -> None:
    """With tools left out of what must pass, the rest decides."""
    found = await smoke(chat, "tiny", Plan(required={"json_response": "json_schema"}), key=KEY)

    assert (found.report.verdict, found.report.exit_code) == ("degraded", 0), found.lines


async def test_b7_1_bad_key_is_auth(chat: str) -> None:
    """A key that is not right ends the run at the first question that needs one."""
    found = await smoke(chat, "tiny", Plan(checks=frozenset({"chat_completion", "json_response"})), key="no")

    assert found.lines == {
        "chat_completion": "chat_completion=error class=auth detail=invalid_key http=401",
        "json_response": "json_response=skip detail=after_chat_completion",
    }
    assert found.report.exit_code == 20


async def test_b2_wrong_key_is_seen(chat: str) -> None:
    """The check that proves that a bad key would be seen."""
    found = await smoke(chat, "tiny", Plan(checks=frozenset({"wrong_key"})), key=KEY)

    assert found.lines == {"wrong_key": "wrong_key=pass"}


async def test_b7_1_long_prompt_is_context_length(chat: str) -> None:
    """The server's own limit is told."""
    plan = Plan(checks=frozenset({"context_length"}), probe_tokens=3000)

    found = await smoke(chat, "tiny", plan, key=KEY)

    assert found.lines["context_length"] == (
        f"context_length=fail class=other detail=context_length http=400 probed=3000 limit={CONTEXT}"
    )
    assert found.report.exit_code == 1


async def test_b7_1_short_probe_fits(chat: str) -> None:
    """What fits passes, with the count of the server."""
    plan = Plan(checks=frozenset({"context_length"}), probe_tokens=100)

    found = await smoke(chat, "tiny", plan, key=KEY)

    assert found.checks["context_length"].status == "pass"


async def test_b7_1_embeddings_unsupported(chat: str) -> None:
    """501, and it is said which feature is off."""
    found = await smoke(chat, "tiny", Plan(checks=frozenset({"embeddings"})), key=KEY)

    assert found.lines["embeddings"] == "embeddings=fail class=unsupported detail=embeddings http=501"


@pytest.mark.parametrize(
    ("dimension", "line", "code"),
    [
        (VECTOR, f"embeddings=pass dim={VECTOR} base64=same", 0),
        (VECTOR + 1, f"embeddings=fail class=content detail=wrong_dimension dim={VECTOR}", 1),
    ],
)
async def test_b7_1_embeddings(embeddings: str, dimension: int, line: str, code: int) -> None:
    """Vectors of the right length pass, of another do not."""
    plan = Plan(checks=frozenset({"embeddings"}), embed_dim=dimension)

    found = await smoke(embeddings, "tiny", plan, key=KEY)

    assert (found.lines["embeddings"], found.report.exit_code) == (line, code)


async def test_b7_1_openai_library_agrees(chat: str) -> None:
    """A client that we did not write gets what the smoke says: text, JSON that fits, and a refusal of a bad key."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    async with openai.AsyncOpenAI(base_url=chat, api_key=KEY, max_retries=0) as client:
        said = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "JSON"}],
            max_tokens=64,
            response_format={"type": "json_schema", "json_schema": {"name": "ok", "schema": schema}},
        )
    async with openai.AsyncOpenAI(base_url=chat, api_key="no", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])

    assert json.loads(said.choices[0].message.content or "") in ({"ok": True}, {"ok": False})


async def test_b5_report_of_the_program(chat: str, tmp_path: Path) -> None:
    """`skep provider test` prints a line per check, ends by the table, and never holds the key."""
    words = ["test", "--base-url", chat, "--model", "tiny", "--key-ref", "env:LLAMA_KEY"]
    environ = {"LLAMA_KEY": KEY}

    human = await run_provider(tmp_path, [*words, "--require", "json=json_schema,chat"], environ=environ)
    machine = await run_provider(
        tmp_path, [*words, "--json", "--out", str(tmp_path / "report.json")], environ=environ
    )

    assert human.returncode == 0
    assert (
        "json_response=pass json_mode=response_format/json_schema enforced=true" in human.stdout.splitlines()
    )
    assert machine.returncode == 1
    assert (tmp_path / "report.json").read_text() == machine.stdout
    assert KEY not in human.stdout + human.stderr + machine.stdout + machine.stderr
