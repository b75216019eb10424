"""Secrets and providers, A3 and A7: each answer of a store has its class, and no answer leaves a trace.

A8.6: each row of the table gives its class and exit code.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from skep.foundation.clock import ManualClock
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.secrets.infisical import HIDDEN_MASK, Infisical
from skep.secrets.manifest import InfisicalStore, VaultStore
from skep.secrets.problems import SecretError
from skep.secrets.reference import parse_reference
from skep.secrets.vault import Vault
from support.secret_stores import Asked, FakeInfisical, FakeVault, Reply, reply_json, serving

TOKEN: Final = "canary-token-0123456789"
REF: Final = parse_reference("/a:KEY")
SECRET: Final = {
    "secretKey": "KEY",
    "secretValue": "value",
    "secretPath": "/a",
    "environment": "prod",
    "version": 1,
}


def _error(status: int, word: str, message: object = "", **more: object) -> Reply:
    return reply_json(
        status, {"reqId": "req-1", "statusCode": status, "error": word, "message": message} | more
    )


def _with(**fields: object) -> Reply:
    return reply_json(200, {"secret": SECRET | fields})


def _moved(status: int) -> Reply:
    return Reply(status=status, headers=(("location", "http://127.0.0.1:1/stolen"),))


def _bomb() -> Reply:
    data = gzip.compress(b"x" * 20_000_000)
    return Reply(body=data, headers=(("content-encoding", "gzip"), ("content-type", "application/json")))


INFISICAL: Final[dict[str, tuple[Reply, str, int]]] = {
    "401": (_error(401, "UnauthorizedError"), "auth", 20),
    "401 of a proxy": (Reply(status=401, body=b"<html>"), "auth", 20),
    "403 TokenError": (_error(403, "TokenError", "Your token has expired"), "auth", 20),
    "403 PermissionDenied": (_error(403, "PermissionDenied", "no", details=[{"a": 1}]), "permission", 21),
    "403 of a firewall": (Reply(status=403, body=b"<html>blocked</html>"), "permission", 21),
    "404": (_error(404, "NotFound", "Secret not found"), "not_found", 22),
    "404 HTML": (Reply(status=404, body=b"<html>"), "malformed", 27),
    "400 of our field": (_error(400, "ValidationFailure", [{"path": ["environment"]}]), "usage", 2),
    "422 of our field": (_error(422, "ValidationFailure", "projectId: Required"), "usage", 2),
    "422 of another": (_error(422, "ValidationFailure", "unexpected"), "malformed", 27),
    "429": (reply_json(429, {"error": "x"}, retry_after="0"), "rate", 25),
    "429, much later": (reply_json(429, {"error": "x"}, retry_after="86400"), "rate", 25),
    "500": (_error(500, "InternalServerError"), "server", 26),
    "502 HTML": (Reply(status=502, body=b"<html>bad gateway</html>"), "server", 26),
    "504": (_error(504, "GatewayTimeout"), "timeout", 24),
    "418": (Reply(status=418), "malformed", 27),
    "200 HTML": (Reply(body=b"<html>sign in</html>"), "malformed", 27),
    "200 {}": (reply_json(200, {}), "malformed", 27),
    "200 list": (reply_json(200, []), "malformed", 27),
    "200 nested deep": (Reply(body=b"[" * 100_000), "malformed", 27),
    "200 not UTF-8": (Reply(body=b'{"secret": "\xff"}'), "malformed", 27),
    "value null": (_with(secretValue=None), "malformed", 27),
    "value number": (_with(secretValue=1), "malformed", 27),
    "value list": (_with(secretValue=["x"]), "malformed", 27),
    "other key": (_with(secretKey="OTHER"), "malformed", 27),
    "other path": (_with(secretPath="/b"), "malformed", 27),
    "other environment": (_with(environment="dev"), "malformed", 27),
    "a reference inside": (_with(secretValue="x-${prod.OTHER}"), "malformed", 27),
    "masked": (_with(secretValue=HIDDEN_MASK), "permission", 21),
    "hidden": (_with(secretValue="value", secretValueHidden=True), "permission", 21),
    "cut body": (Reply(body=b'{"secret": {', declared_size=500), "malformed", 27),
    "closed at once": (Reply(close=True), "network", 23),
    "too long": (Reply(body=b" " * 1_100_000), "malformed", 27),
    "gzip bomb": (_bomb(), "malformed", 27),
    "301": (_moved(301), "malformed", 27),
    "307": (_moved(307), "malformed", 27),
}

VAULT: Final[dict[str, tuple[Reply, str, int]]] = {
    "404": (reply_json(404, {"errors": []}), "not_found", 22),
    "404 HTML": (Reply(status=404, body=b"<html>"), "malformed", 27),
    "deleted": (
        reply_json(404, {"data": {"data": None, "metadata": {"deletion_time": "x"}}}),
        "not_found",
        22,
    ),
    "400": (reply_json(400, {"errors": ["x"]}), "usage", 2),
    "405": (reply_json(405, {"errors": ["x"]}), "usage", 2),
    "sealed": (reply_json(503, {"errors": ["Vault is sealed"]}), "server", 26),
    "472": (reply_json(472, {"errors": []}), "server", 26),
    "473": (reply_json(473, {"errors": []}), "server", 26),
    "500": (reply_json(500, {"errors": []}), "server", 26),
    "429": (reply_json(429, {}, retry_after="0"), "rate", 25),
    "no data": (reply_json(200, {}), "malformed", 27),
    "data is text": (reply_json(200, {"data": {"data": "x"}}), "malformed", 27),
    "no field": (reply_json(200, {"data": {"data": {"OTHER": "x"}}}), "not_found", 22),
    "number": (reply_json(200, {"data": {"data": {"KEY": 1}}}), "malformed", 27),
    "200 HTML": (Reply(body=b"<html>"), "malformed", 27),
    "302": (_moved(302), "malformed", 27),
}


@pytest.fixture
def infisical() -> Iterator[FakeInfisical]:
    """A server that says what a test tells it to."""
    with serving(server := FakeInfisical()):
        yield server


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A server that says what a test tells it to."""
    with serving(server := FakeVault()):
        yield server


def _ask_infisical(site: str, **more: Any) -> SecretError:
    store = InfisicalStore(site=site, project="p", environment="prod", **more)
    redactor = Redactor()
    redactor.add(Secret("t", TOKEN))

    async def run() -> None:
        async with Infisical(
            "main", store, Secret("t", TOKEN), redactor=redactor, clock=ManualClock()
        ) as backend:
            await backend.fetch(REF)

    with pytest.raises(SecretError) as raised:
        asyncio.run(run())
    return raised.value


def _ask_vault(site: str) -> SecretError:
    async def run() -> None:
        async with Vault("v", VaultStore(site=site), Secret("t", TOKEN), redactor=Redactor()) as backend:
            await backend.fetch(REF)

    with pytest.raises(SecretError) as raised:
        asyncio.run(run())
    return raised.value


@pytest.mark.parametrize(("reply", "outcome", "code"), INFISICAL.values(), ids=INFISICAL.keys())
def test_a8_6_an_answer_of_infisical(infisical: FakeInfisical, reply: Reply, outcome: str, code: int) -> None:
    """The class decides what has to be done, and the exit code."""
    infisical.before = lambda _: reply
    error = _ask_infisical(infisical.site)

    assert (error.outcome, error.exit_code) == (outcome, code)
    assert TOKEN not in json.dumps(error.as_json())
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(("reply", "outcome", "code"), VAULT.values(), ids=VAULT.keys())
def test_a8_6_an_answer_of_vault(vault: FakeVault, reply: Reply, outcome: str, code: int) -> None:
    """The same for Vault and OpenBao."""
    vault.before = lambda _: reply
    error = _ask_vault(vault.site)

    assert (error.outcome, error.exit_code) == (outcome, code)


@pytest.mark.parametrize(("lookup", "outcome"), [(403, "auth"), (200, "permission")])
def test_a8_6_a_403_of_vault_is_decided_by_the_token_itself(
    vault: FakeVault, lookup: int, outcome: str
) -> None:
    """A bad token and a missing policy give the same answer."""

    def answer(asked: Asked) -> Reply:
        return reply_json(lookup if "lookup-self" in asked.path else 403, {"errors": ["permission denied"]})

    vault.before = answer

    assert _ask_vault(vault.site).outcome == outcome


def test_a7_a_slow_server_ends_at_the_total_limit(infisical: FakeInfisical) -> None:
    """A byte now and then does not keep a request alive."""
    infisical.before = lambda _: Reply(body=b'{"secret": {' + b" " * 100, pause_s=0.05)
    start = time.monotonic()

    assert _ask_infisical(infisical.site, timeout_s=0.4).exit_code == 24
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("site", "outcome"),
    [("http://127.0.0.1:{port}", "network"), ("https://127.0.0.1:{listening}", "network")],
    ids=["refused", "no TLS"],
)
def test_a_store_that_is_not_there(infisical: FakeInfisical, site: str, outcome: str) -> None:
    """A refused connection and a failed TLS are the network's."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        listening = infisical.site.rpartition(":")[2]
        error = _ask_infisical(site.format(port=port, listening=listening))

    assert error.outcome == outcome


def test_a7_the_bearer_is_not_sent_on(infisical: FakeInfisical) -> None:
    """A redirect to another host is not followed."""
    with serving(other := FakeInfisical()):
        moved = Reply(status=301, headers=(("location", f"{other.site}/api/v4/secrets/KEY"),))
        infisical.before = lambda _: moved
        assert _ask_infisical(infisical.site).outcome == "malformed"

    assert other.asked == []


def test_429_is_tried_again_as_long_as_the_server_says(infisical: FakeInfisical) -> None:
    """Three tries, then it is reported."""
    infisical.before = lambda _: reply_json(429, {}, retry_after="0")
    _ask_infisical(infisical.site)

    assert len(infisical.asked) == 3


def test_what_a_server_repeats_of_a_key_is_masked(infisical: FakeInfisical) -> None:
    """The server's words are passed on without the token, in 300 characters."""
    said = f"bad token {TOKEN}, hash 0123456789abcdef0123456789abcdef, sk-abc***wxyz9 " + "y " * 400
    infisical.before = lambda _: _error(401, "UnauthorizedError", said)
    error = _ask_infisical(infisical.site)

    assert "bad token ***" in error.detail
    assert len(error.detail) <= 300
    assert "abcdef" not in error.detail
    assert "wxyz9" not in error.detail
    assert error.request_id == "req-1"


def test_a_certificate_is_checked_and_can_be_added_but_not_ignored(tmp_path: Path) -> None:
    """A store with an unknown certificate is not spoken to; with `ca_file` it is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    pem, ca_file = tmp_path / "both.pem", tmp_path / "ca.pem"
    plain = serialization.NoEncryption()
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain) + certificate
    )
    ca_file.write_bytes(certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)

    with serving(server := FakeInfisical(), tls=tls):
        refused = _ask_infisical(server.site)
        assert server.asked == []
        trusted = _ask_infisical(server.site, ca_file=str(ca_file))

    assert (refused.outcome, "certificate" in refused.problem) == ("network", True)
    assert trusted.outcome == "auth"
    assert len(server.asked) == 1


CREDENTIALS: Final[dict[str, tuple[bytes, int, str]]] = {
    "readable by others": (b"token", 0o644, "unsafe_target"),
    "empty": (b"", 0o600, "auth"),
    "only a newline": (b"\n", 0o600, "auth"),
    "two lines": (b"a\nb\n", 0o600, "usage"),
    "byte order mark": (b"\xef\xbb\xbftoken", 0o600, "usage"),
    "a space": (b"to ken", 0o600, "usage"),
    "not ASCII": (b"tok\xe9n", 0o600, "usage"),
}


@pytest.mark.parametrize(("content", "mode", "outcome"), CREDENTIALS.values(), ids=CREDENTIALS.keys())
def test_a7_a_bad_credential_file(tmp_path: Path, content: bytes, mode: int, outcome: str) -> None:
    """Each has its class, and the content is not repeated."""
    from skep.secrets.credentials import credential_of

    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    store = InfisicalStore(site="https://x", project="p", environment="prod", credential_file=str(file))
    with pytest.raises(SecretError) as raised:
        credential_of(store, environ={})

    assert raised.value.outcome == outcome


def _by_file(path: Path) -> dict[str, str]:
    return {"INFISICAL_TOKEN_FILE": str(path)}


def _by_manager(path: Path) -> dict[str, str]:
    return {"CREDENTIALS_DIRECTORY": str(path.parent)}


SOURCES: Final[dict[str, tuple[Callable[[Path], dict[str, str]], str]]] = {
    "file": (_by_file, "file "),
    "service manager": (_by_manager, "credential INFISICAL_TOKEN of the service manager"),
    "environment": (lambda _: {}, "environment INFISICAL_TOKEN"),
}


@pytest.mark.parametrize(("environ", "source"), SOURCES.values(), ids=SOURCES.keys())
def test_a2_the_first_source_is_taken_and_named(
    tmp_path: Path, environ: Callable[[Path], dict[str, str]], source: str
) -> None:
    """In order: file, service manager, environment; a trailing newline is taken off."""
    from skep.secrets.credentials import credential_of

    file = tmp_path / "INFISICAL_TOKEN"
    file.write_text("the-token\n")
    file.chmod(0o600)
    store = InfisicalStore(site="https://x", project="p", environment="prod")
    found = credential_of(store, environ={"INFISICAL_TOKEN": "the-token", **environ(file)})

    assert found is not None
    assert found.source.startswith(source)
    assert found.secret == Secret("x", "the-token")
    assert found.is_weak == (source == "environment INFISICAL_TOKEN")
