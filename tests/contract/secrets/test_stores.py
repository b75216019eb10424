"""Our servers for Infisical and Vault, driven by clients that others wrote, and by ours: all must agree.

With `SKEP_TEST_INFISICAL_URL` or `SKEP_TEST_VAULT_ADDR` a real server is asked too.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest

from skep.foundation.clock import ManualClock
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.secrets.infisical import Infisical
from skep.secrets.manifest import InfisicalStore, VaultStore
from skep.secrets.problems import SecretError
from skep.secrets.reference import Reference, parse_reference
from skep.secrets.vault import Vault
from support.npm_parts import NODE, npm_part
from support.secret_stores import FakeInfisical, FakeVault, serving

KEYS = parse_reference("/home-platform/providers:OLLAMA_CLOUD_API_KEY")
VALUE = "canary-value with 'both' \"quotes\" and ünïcode"


@pytest.fixture
def infisical() -> Iterator[FakeInfisical]:
    """A project with one secret, and three identities."""
    server = FakeInfisical(
        secrets={
            ("prod", "/home-platform/providers", "OLLAMA_CLOUD_API_KEY"): VALUE,
            ("prod", "/home-platform/providers", "OTHER"): "other",
            ("prod", "/elsewhere", "X"): "x",
        },
        grants={
            "reader": {("prod", "/home-platform/providers"): frozenset({"describe", "read"})},
            "describer": {("prod", "/home-platform/providers"): frozenset({"describe"})},
            "token-of-an-identity-0001": {("prod", "/"): frozenset({"describe", "read"})},
        },
        identities={"client-1": "client-secret-1"},
    )
    with serving(server):
        yield server


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A key-value engine with one secret of two versions, and one deleted."""
    server = FakeVault(
        secrets={
            "home/providers/ollama": [{"api_key": "old"}, {"api_key": VALUE}],
            "gone": [{"k": "v"}, None],
        },
        policies={"hvs.reader": {"secret/data/home/providers/ollama": ["read"]}},
        roles={"role-1": "secret-id-1"},
    )
    with serving(server):
        yield server


def _fetch(server: FakeInfisical, token: str, reference: Reference = KEYS, **more: Any) -> str:
    store = InfisicalStore(site=server.site, project=server.project, environment="prod", **more)

    async def run() -> str:
        credential = Secret("token", token)
        async with Infisical("main", store, credential, redactor=Redactor(), clock=ManualClock()) as backend:
            return (await backend.fetch(reference)).secret.reveal()

    return asyncio.run(run())


def _fetch_vault(server: FakeVault, token: str, reference: str, **more: Any) -> str:
    store = VaultStore(site=server.site, **more)

    async def run() -> str:
        async with Vault("v", store, Secret("token", token), redactor=Redactor()) as backend:
            return (await backend.fetch(parse_reference(reference))).secret.reveal()

    return asyncio.run(run())


def _outcome(error: pytest.ExceptionInfo[SecretError]) -> str:
    return error.value.outcome


def test_a8_5_infisicalsdk_and_we_read_the_same(infisical: FakeInfisical) -> None:
    """The Python SDK of Infisical reads from our server what our client reads."""
    sdk: Any = pytest.importorskip("infisical_sdk")
    client = sdk.InfisicalSDKClient(host=infisical.site, token="reader", cache_ttl=None)
    words = {"project_id": "project-1", "environment_slug": "prod", "secret_path": KEYS.path}

    theirs = client.secrets.get_secret_by_name(secret_name=KEYS.key, **words)
    listed = client.secrets.list_secrets(view_secret_value=False, **words)

    assert theirs.secretValue == VALUE == _fetch(infisical, "reader")
    assert {row.secretKey for row in listed.secrets} == {"OLLAMA_CLOUD_API_KEY", "OTHER"}
    assert {row.secretValue for row in listed.secrets} == {"<hidden-by-infisical>"}


def test_a8_5_infisicalsdk_logs_in_as_we_do(infisical: FakeInfisical) -> None:
    """Universal Auth gives both a token that reads."""
    sdk: Any = pytest.importorskip("infisical_sdk")
    client = sdk.InfisicalSDKClient(host=infisical.site, cache_ttl=None)
    client.auth.universal_auth.login(client_id="client-1", client_secret="client-secret-1")
    theirs = client.secrets.get_secret_by_name(
        secret_name=KEYS.key, project_id="project-1", environment_slug="prod", secret_path=KEYS.path
    )

    assert theirs.secretValue == VALUE
    assert _fetch(infisical, "client-secret-1", auth="universal", client_id="client-1") == VALUE
    with pytest.raises(SecretError) as refused:
        _fetch(infisical, "wrong", auth="universal", client_id="client-1")
    assert _outcome(refused) == "auth"


@pytest.mark.parametrize(("token", "key"), [("nobody", "OLLAMA_CLOUD_API_KEY"), ("reader", "NOT_THERE")])
def test_a8_5_infisicalsdk_is_refused_where_we_are(infisical: FakeInfisical, token: str, key: str) -> None:
    """What our server refuses to us, it refuses to the SDK."""
    sdk: Any = pytest.importorskip("infisical_sdk")
    client = sdk.InfisicalSDKClient(host=infisical.site, token=token, cache_ttl=None)

    with pytest.raises(sdk.infisical_requests.InfisicalError):
        client.secrets.get_secret_by_name(
            secret_name=key, project_id="project-1", environment_slug="prod", secret_path=KEYS.path
        )
    with pytest.raises(SecretError):
        _fetch(infisical, token, Reference(path=KEYS.path, key=key))


NPM = """
const { InfisicalSDK } = require(process.argv[1]);
(async () => {
  const client = new InfisicalSDK({ siteUrl: process.argv[2] });
  await client.auth().universalAuth.login({ clientId: 'client-1', clientSecret: 'client-secret-1' });
  const where = { projectId: 'project-1', environment: 'prod', secretPath: '/home-platform/providers' };
  const one = await client.secrets().getSecret({ ...where, secretName: 'OLLAMA_CLOUD_API_KEY' });
  const all = await client.secrets().listSecrets({ ...where, viewSecretValue: false });
  let refused = null;
  try { await client.secrets().getSecret({ ...where, secretName: 'NOT_THERE' }); }
  catch (error) { refused = String(error.message); }
  console.log(JSON.stringify({ value: one.secretValue, names: all.secrets.map((s) => s.secretKey).sort(), refused }));
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.mark.timeout(180)
def test_a8_5_the_npm_sdk_and_we_read_the_same(infisical: FakeInfisical) -> None:
    """The JavaScript SDK of Infisical logs in, reads and lists as we do."""
    sdk = npm_part("@infisical/sdk")
    done = subprocess.run(
        [NODE, "-e", NPM, str(sdk), infisical.site], capture_output=True, text=True, timeout=50, check=False
    )

    assert done.returncode == 0, done.stderr
    said = cast("dict[str, Any]", json.loads(done.stdout))
    assert said["value"] == VALUE == _fetch(infisical, "reader")
    assert said["names"] == ["OLLAMA_CLOUD_API_KEY", "OTHER"]
    assert "404" in said["refused"]


@pytest.mark.parametrize("api", ["auto", "v4", "v3"])
def test_both_versions_of_the_api_are_spoken(infisical: FakeInfisical, api: str) -> None:
    """The same value comes by either version."""
    assert _fetch(infisical, "reader", api=api) == VALUE
    assert ("v3" in infisical.asked[-1].path) == (api == "v3")


def test_an_older_server_is_asked_by_v3_and_only_then(infisical: FakeInfisical) -> None:
    """The fallback follows a missing route, never a missing secret."""
    with pytest.raises(SecretError):
        _fetch(infisical, "reader", Reference(path=KEYS.path, key="NOT_THERE"))
    assert [asked.path.split("/")[2] for asked in infisical.asked] == ["v4"]
    infisical.asked.clear()
    infisical.has_v4 = False

    assert _fetch(infisical, "reader") == VALUE
    assert [asked.path.split("/")[2] for asked in infisical.asked] == ["v4", "v3"]


def test_imports_and_references_are_off_unless_asked_for(infisical: FakeInfisical) -> None:
    """Both can pull a value from a path outside the grant."""
    _fetch(infisical, "reader")

    assert infisical.asked[-1].query["expandSecretReferences"] == "false"
    assert infisical.asked[-1].query["includeImports"] == "false"


def test_a_mask_is_never_a_value(infisical: FakeInfisical) -> None:
    """A token that may describe but not read is told apart from one that may do neither."""
    with pytest.raises(SecretError) as refused:
        _fetch(infisical, "describer")

    assert _outcome(refused) == "permission"
    assert "readValue" in refused.value.hint


def test_a8_5_hvac_and_we_read_the_same(vault: FakeVault) -> None:
    """Another maker's client reads from our server what our client reads, by token and by AppRole."""
    hvac: Any = pytest.importorskip("hvac")
    client = hvac.Client(url=vault.site, token="hvs.root")
    read = client.secrets.kv.v2.read_secret_version
    got = read(path="home/providers/ollama", raise_on_deleted_version=True)

    assert got["data"]["data"]["api_key"] == VALUE
    assert _fetch_vault(vault, "hvs.root", "/home/providers:ollama#api_key") == VALUE
    assert _fetch_vault(vault, "hvs.root", "/home/providers/ollama:api_key") == VALUE
    assert _fetch_vault(vault, "hvs.root", "/home/providers:ollama#api_key@1") == "old"
    assert client.is_authenticated()
    vault.policies["hvs.issued"] = {"secret/data/home/providers/ollama": ["read"]}
    assert client.auth.approle.login("role-1", "secret-id-1")["auth"]["client_token"] == "hvs.issued"
    assert (
        _fetch_vault(vault, "secret-id-1", "/home/providers:ollama#api_key", auth="approle", role_id="role-1")
        == VALUE
    )
    client.adapter.close()


def test_a8_5_hvac_is_refused_where_we_are(vault: FakeVault) -> None:
    """A deleted version, a missing path, a foreign path and a bad token are refused to both."""
    hvac: Any = pytest.importorskip("hvac")
    client = hvac.Client(url=vault.site, token="hvs.reader")
    read = client.secrets.kv.v2.read_secret_version
    vault.policies["hvs.reader"] |= {"secret/data/gone": ["read"], "secret/data/none": ["read"]}
    cases = {
        ("hvs.reader", "gone"): (hvac.exceptions.InvalidPath, "not_found"),
        ("hvs.reader", "none"): (hvac.exceptions.InvalidPath, "not_found"),
        ("hvs.reader", "other"): (hvac.exceptions.Forbidden, "permission"),
        ("hvs.bad", "gone"): (hvac.exceptions.Forbidden, "auth"),
    }
    for (token, path), (theirs, ours) in cases.items():
        client.token = token
        with pytest.raises(theirs):
            read(path=path, raise_on_deleted_version=True)
        with pytest.raises(SecretError) as refused:
            _fetch_vault(vault, token, f"/{path}:k")
        assert _outcome(refused) == ours
    vault.is_sealed = True
    with pytest.raises(hvac.exceptions.VaultDown):
        read(path="gone", raise_on_deleted_version=True)
    with pytest.raises(SecretError) as refused:
        _fetch_vault(vault, "hvs.reader", "/gone:k")
    assert _outcome(refused) == "server"
    client.adapter.close()


def test_the_first_engine_is_read_too(vault: FakeVault) -> None:
    """Version 1 of the engine has no `data` in its paths and none in its answers."""
    assert _fetch_vault(vault, "hvs.root", "/home/providers/ollama:api_key", mount="kv1", kv=1) == VALUE


@pytest.mark.parametrize(
    "server", ["ours", *(["a real one"] if "SKEP_TEST_INFISICAL_URL" in os.environ else [])]
)
def test_a_key_is_read_from_infisical(infisical: FakeInfisical, server: str) -> None:
    """The same read against our server and, where one is named, a real one; the test's name says which."""
    token, reference = "reader", KEYS
    if server != "ours":
        infisical.site = os.environ["SKEP_TEST_INFISICAL_URL"]
        infisical.project = os.environ["SKEP_TEST_INFISICAL_PROJECT"]
        token = os.environ["SKEP_TEST_INFISICAL_TOKEN"]
        reference = parse_reference(os.environ["SKEP_TEST_INFISICAL_REF"])

    assert _fetch(infisical, token, reference)


@pytest.mark.parametrize(
    "server", ["ours", *(["a real one"] if "SKEP_TEST_VAULT_ADDR" in os.environ else [])]
)
def test_a_key_is_read_from_vault(vault: FakeVault, server: str) -> None:
    """The same read against our server and, where one is named, a real one; the test's name says which."""
    token, reference = "hvs.reader", "/home/providers:ollama#api_key"
    if server != "ours":
        vault.site = os.environ["SKEP_TEST_VAULT_ADDR"]
        token, reference = os.environ["SKEP_TEST_VAULT_TOKEN"], os.environ["SKEP_TEST_VAULT_REF"]

    assert _fetch_vault(vault, token, reference)
