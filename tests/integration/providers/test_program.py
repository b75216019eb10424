"""`skep provider add`, `list` and `test` as a program, with keys from every place."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.hostile import Hostile, hostile
from support.secret_stores import FakeInfisical, serving
from support.smoking import run_provider

KEY = "canary-key-Mn45-0123456789"
BODY = b'{"model":"m","choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}'


async def _answers(server: Hostile, writer: asyncio.StreamWriter) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\nconnection: close"
    await server.send(writer, head.encode() + b"\r\n\r\n" + BODY)


async def test_b1_add_list_and_test(tmp_path: Path) -> None:
    """Written once, then tested by its name; its key is named by where it lies."""
    async with hostile(_answers) as server:
        add = await run_provider(
            tmp_path,
            ["add", "mine", "--base-url", server.base_url, "--model", "m", "--key-ref", "env:MY_KEY"],
        )
        listed = await run_provider(tmp_path, ["list"])
        as_json = await run_provider(tmp_path, ["list", "--json"])
        tested = await run_provider(tmp_path, ["test", "mine", "--checks", "chat"], environ={"MY_KEY": KEY})

    assert (add.returncode, listed.returncode, tested.returncode) == (0, 0, 0)
    assert listed.stdout.split() == ["mine", "openai", "m", server.base_url, "env:MY_KEY"]
    assert json.loads(as_json.stdout)["providers"][0]["key"] == "env:MY_KEY"
    assert tested.stdout == "chat_completion=pass model=m\nverdict=pass exit_code=0\n"
    assert f"Bearer {KEY}" in server.requests[0]
    assert KEY not in tested.stdout + tested.stderr


async def test_b1_preset_fills_in_what_is_not_given(tmp_path: Path) -> None:
    """The documented example."""
    done = await run_provider(
        tmp_path, ["add", "cloud", "--preset", "ollama-cloud", "--model", "gemma4:31b-cloud", "--json"]
    )

    assert json.loads(done.stdout) == {
        "schema": 1,
        "name": "cloud",
        "api": "openai",
        "base_url": "https://ollama.com/v1",
        "key": "env:OLLAMA_CLOUD_API_KEY",
        "model": "gemma4:31b-cloud",
        "file": str(tmp_path / "skep.toml"),
    }


async def test_b1_key_from_a_store(tmp_path: Path) -> None:
    """A reference of the secrets manifest: the store is asked, and nothing is written."""
    (tmp_path / "store.json").write_text(json.dumps({"models": {"KEY": KEY}}))
    (tmp_path / "store.json").chmod(0o600)
    (tmp_path / "secrets.toml").write_text(
        f'[store.main]\nkind = "file"\npath = "{tmp_path / "store.json"}"\nformat = "json"\n'
    )
    async with hostile(_answers) as server:
        words = ["test", "--base-url", server.base_url, "--model", "m", "--checks", "chat"]
        found = await run_provider(tmp_path, [*words, "--key-ref", "/models:KEY"])
        missing = await run_provider(tmp_path, [*words, "--key-ref", "/models:OTHER"])

    assert (found.returncode, missing.returncode) == (0, 22)
    assert f"Bearer {KEY}" in server.requests[0]
    assert KEY not in found.stdout + found.stderr


async def test_b1_key_from_infisical(tmp_path: Path) -> None:
    """Fetched, used in a header, and gone: granted it passes, refused it ends as the store says."""
    token = tmp_path / "token"
    token.write_text("token-of-the-host-0001")
    token.chmod(0o600)
    store = FakeInfisical(
        secrets={("prod", "/home-platform/providers", "KEY"): KEY, ("prod", "/other", "KEY"): "no"},
        grants={"token-of-the-host-0001": {("prod", "/home-platform"): frozenset({"describe", "read"})}},
    )
    with serving(store) as site:
        (tmp_path / "secrets.toml").write_text(
            f'[store.main]\nkind = "infisical"\nsite = "{site}"\nproject = "project-1"\nenvironment = "prod"\n'
        )
        async with hostile(_answers) as server:
            words = ["test", "--base-url", server.base_url, "--model", "m", "--checks", "chat", "--key-ref"]
            environ = {"INFISICAL_TOKEN_FILE": str(token)}
            granted = await run_provider(tmp_path, [*words, "/home-platform/providers:KEY"], environ=environ)
            refused = await run_provider(tmp_path, [*words, "/other:KEY"], environ=environ)

    assert (granted.returncode, refused.returncode) == (0, 21)
    assert [f"Bearer {KEY}" in request for request in server.requests] == [True]
    assert KEY not in granted.stdout + granted.stderr + refused.stdout + refused.stderr


async def test_a8_1_no_key_in_a_traceback(tmp_path: Path) -> None:
    """A bug that dies with the whole request in its hands: the traceback is there, the key is not in it."""
    planted = (
        "import sys; from skep.providers.exchange import Exchange; from skep.cli.main import main\n"
        "async def read(self, response, got, reader): raise RuntimeError(response.request.headers.raw)\n"
        "Exchange._read = read\n"
        "sys.argv[0] = 'skep'; main()"
    )
    async with hostile(_answers) as server:
        words = ["provider", "test", "--base-url", server.base_url, "--model", "m", "--key-ref", "env:K"]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-X", "dev", "-c", planted, *words],
            env={"PATH": "/usr/bin:/bin", "SKEP_HOME": str(tmp_path), "K": KEY},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert KEY not in done.stdout + done.stderr


USAGE = {
    "a key as an argument": [
        "test",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--model",
        "m",
        "--key-ref",
        "sk-abcdef123",
    ],
    "a key as an unknown option": ["test", "--key=sk-abcdef123"],
    "a key that is not one of a known form": ["add", "x", "--preset", "openai", "--key-ref", "abcdef123"],
    "a password in the address": ["test", "--base-url", "https://u:abcdef123@x/v1", "--model", "m"],
    "no address": ["test", "--model", "m"],
    "no model": ["test", "--base-url", "http://127.0.0.1:9/v1"],
    "unknown provider": ["test", "nobody"],
    "unknown preset": ["add", "x", "--preset", "nothing"],
    "unknown check": ["test", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--checks", "colour"],
    "unknown protocol": ["test", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--api", "telnet"],
    "unknown verb": ["tset"],
    "a bad name": ["add", "A B", "--preset", "ollama"],
}


@pytest.mark.parametrize("words", USAGE.values(), ids=USAGE.keys())
async def test_s1_wrong_use_is_2_and_repeats_no_secret(tmp_path: Path, words: list[str]) -> None:
    """Nothing is asked and nothing is written."""
    done = await run_provider(tmp_path, words)

    assert done.returncode == 2
    assert "abcdef123" not in done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "skep.toml").exists()


async def test_s1_error_as_json(tmp_path: Path) -> None:
    """For a program: the one shape of an error, and its class."""
    words = [
        "test",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--model",
        "m",
        "--key-ref",
        "env:NOT_SET",
        "--json",
    ]

    done = await run_provider(tmp_path, words)

    error = json.loads(done.stdout)
    assert done.returncode == 20
    assert (error["ok"], error["class"], error["code"]) == (False, "auth", "provider.auth")


async def test_s1_nobody_listens(tmp_path: Path) -> None:
    """Refused: a fault of the network, and nothing else is asked."""
    done = await run_provider(
        tmp_path, ["test", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--checks", "chat,json"]
    )

    assert done.returncode == 23
    assert done.stdout.splitlines() == [
        "chat_completion=error class=other detail=connection",
        "json_response=skip detail=after_chat_completion",
        "verdict=fail exit_code=23",
    ]
