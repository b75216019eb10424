"""skep.secrets.manifest, against secrets and providers, sections A2, A5 and A7."""

from __future__ import annotations

from pathlib import Path

import pytest

from skep.secrets.manifest import InfisicalStore, load_manifest
from skep.secrets.problems import SecretError

STORE = '[store.main]\nkind = "infisical"\nsite = "https://secrets.example"\nproject = "p"\nenvironment = "prod"\n'
ENV = '[store.ci]\nkind = "env"\n'


def _target(more: str = "", keys: str = '{ env = "A_KEY", ref = "/a:KEY" }') -> str:
    return f'[[target]]\npath = "out.env"\nkey = [{keys}]\n{more}\n'


WRONG = {
    "no store": (_target(), "usage"),
    "no toml": ("[store", "usage"),
    "unknown key": (STORE + 'token = "hunter2hunter2"\n', "usage"),
    "unknown key of a target": (STORE + _target("colour = 1"), "usage"),
    "unknown kind": ('[store.main]\nkind = "hunter2hunter2"\n', "usage"),
    "two keys for one name": (
        STORE + _target(keys='{ env = "A", ref = "/a:K" }, { env = "A", ref = "/a:L" }'),
        "usage",
    ),
    "LD_PRELOAD": (STORE + _target(keys='{ env = "LD_PRELOAD", ref = "/a:K" }'), "usage"),
    "HTTPS_PROXY": (STORE + _target(keys='{ env = "HTTPS_PROXY", ref = "/a:K" }'), "usage"),
    "PATH": (STORE + _target(keys='{ env = "PATH", ref = "/a:K" }'), "usage"),
    "lower case": (STORE + _target(keys='{ env = "a_key", ref = "/a:K" }'), "usage"),
    "bad reference": (STORE + _target(keys='{ env = "A", ref = "/a/../b:K" }'), "usage"),
    "which store": (STORE + ENV + _target(), "usage"),
    "no such store": (STORE + _target(keys='{ env = "A", ref = "other!/a:K" }'), "usage"),
    "no keys": (STORE + '[[target]]\npath = "x"\nkey = []\n', "usage"),
    "mode 0644": (STORE + _target('mode = "0644"'), "unsafe_target"),
    "mode 0666": (STORE + _target('mode = "0666"'), "unsafe_target"),
    "mode 0604": (STORE + _target('mode = "0604"'), "unsafe_target"),
    "mode 0700": (STORE + _target('mode = "0700"'), "unsafe_target"),
    "mode 4600": (STORE + _target('mode = "4600"'), "unsafe_target"),
    "mode 0660": (STORE + _target('mode = "0660"\ngroup = "root"'), "unsafe_target"),
    "mode 0640 without a group": (STORE + _target('mode = "0640"'), "usage"),
    "mode words": (STORE + _target('mode = "rw"'), "usage"),
    "dir_mode 0777": (STORE + _target('dir_mode = "0777"'), "unsafe_target"),
    "plain http": (STORE.replace("https", "http"), "usage"),
    "site with a user": (STORE.replace("https://", "https://u:p@"), "usage"),
    "site with a query": (STORE.replace(".example", ".example/?a=1"), "usage"),
    "field of infisical": (STORE + _target(keys='{ env = "A", ref = "/a:K#F" }'), "usage"),
    "version of the environment": (ENV + _target(keys='{ env = "A", ref = "/:K@1" }'), "usage"),
    "required with a default": (STORE + _target(keys='{ env = "A", ref = "/a:K", default = "x" }'), "usage"),
    "the same path twice": (STORE + _target() + _target('name = "b"'), "usage"),
}


@pytest.mark.parametrize(("text", "outcome"), WRONG.values(), ids=WRONG.keys())
def test_a7_a_wrong_manifest_is_refused(tmp_path: Path, text: str, outcome: str) -> None:
    """Each fault has its class, and what was written where a value has no place is not repeated."""
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(SecretError) as raised:
        load_manifest(file)

    assert raised.value.outcome == outcome
    assert "hunter2" not in str(raised.value)


def test_a7_the_flag_allows_readable_by_all_and_nothing_more(tmp_path: Path) -> None:
    """0644 by force is possible; group-write never is."""
    file = tmp_path / "m.toml"
    file.write_text(STORE + _target('mode = "0644"\ngroup = "root"'))
    assert load_manifest(file, allow_world_readable=True).target[0].mode_bits == 0o644
    file.write_text(STORE + _target('mode = "0666"\ngroup = "root"'))
    with pytest.raises(SecretError) as raised:
        load_manifest(file, allow_world_readable=True)

    assert raised.value.outcome == "unsafe_target"


def test_what_is_left_out_has_safe_defaults(tmp_path: Path) -> None:
    """The shortest manifest writes 0600, in the portable dialect, required and without references."""
    file = tmp_path / "m.toml"
    file.write_text(STORE + _target())
    manifest = load_manifest(file)
    target, store = manifest.target[0], manifest.store["main"]

    assert (target.mode_bits, target.dir_mode_bits, target.dialect) == (0o600, 0o700, "portable")
    assert (target.path, target.name) == (str(tmp_path / "out.env"), "out.env")
    assert (target.key[0].required, target.key[0].references, target.key[0].allow_empty) == (
        True,
        False,
        False,
    )
    assert isinstance(store, InfisicalStore)
    assert (store.auth, store.api, store.allow_http) == ("token", "auto", False)


def test_reserved_names_can_be_allowed_by_name(tmp_path: Path) -> None:
    """Who names a reserved variable twice means it."""
    file = tmp_path / "m.toml"
    keys = '{ env = "HTTPS_PROXY", ref = "/a:K" }'
    file.write_text(STORE + _target('allow_reserved = ["HTTPS_PROXY"]', keys=keys))

    assert load_manifest(file).target[0].key[0].env == "HTTPS_PROXY"
