"""skep.providers.credentials, endpoint and settings_file, against secrets and providers, sections A2, B1 and S2."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from skep.foundation.errors import SettingError
from skep.foundation.paths import Home
from skep.foundation.settings import load
from skep.providers.credentials import check_key_place, read_key
from skep.providers.endpoint import Endpoint, check_base_url
from skep.providers.presets import PRESETS
from skep.providers.problems import ProviderError
from skep.providers.settings_file import check_provider_name, write_provider

KEY = "canary-key-1234567890"


def _file(folder: Path, content: bytes = KEY.encode(), *, mode: int = 0o600) -> str:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return f"file:{path}"


def test_key_is_read_from_environment_and_file(tmp_path: Path) -> None:
    """A trailing newline is not part of a key; a relative path starts from the home folder."""
    _file(tmp_path, KEY.encode() + b"\n")

    assert read_key("env:K", environ={"K": KEY}, root=tmp_path).reveal() == KEY
    assert read_key("file:key", environ={}, root=tmp_path).reveal() == KEY


REFUSED = {
    "missing variable": ("env:NOT_THERE", b"", 0o600, "auth"),
    "missing file": ("file:not-there", b"", 0o600, "auth"),
    "empty": ("", b"", 0o600, "auth"),
    "two lines": ("", b"one\ntwo\n", 0o600, "usage"),
    "BOM": ("", b"\xef\xbb\xbfkey", 0o600, "auth"),
    "not text": ("", b"\xff\xfe", 0o600, "usage"),
    "spaces": ("", b"a b", 0o600, "auth"),
    "too long": ("", b"x" * 70_000, 0o600, "usage"),
    "read by others": ("", KEY.encode(), 0o644, "unsafe_target"),
    "written by the group": ("", KEY.encode(), 0o620, "unsafe_target"),
}


@pytest.mark.parametrize(("place", "content", "mode", "outcome"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_key_is_refused_without_showing_it(
    tmp_path: Path, place: str, content: bytes, mode: int, outcome: str
) -> None:
    """What is wrong is named, what was read is not."""
    place = place or _file(tmp_path, content, mode=mode)

    with pytest.raises(ProviderError) as raised:
        read_key(place, environ={}, root=tmp_path)

    assert raised.value.outcome == outcome
    assert KEY not in str(raised.value) + raised.value.hint


def test_symlink_and_folder_hold_no_key(tmp_path: Path) -> None:
    """Only a regular file that is named itself."""
    _file(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "key")

    for name in ("link", "."):
        with pytest.raises(ProviderError) as raised:
            read_key(f"file:{tmp_path / name}", environ={}, root=tmp_path)
        assert raised.value.outcome == "unsafe_target"


@pytest.mark.parametrize("place", [KEY, "env:a b", "sk-abc", "http://x", "env:X=1", "file:\0"])
def test_a_key_that_is_written_out_is_refused_and_not_repeated(place: str) -> None:
    """Only where a key lies may be written down."""
    with pytest.raises(ProviderError) as raised:
        check_key_place(place)

    assert raised.value.outcome == "usage"
    assert place not in raised.value.problem + raised.value.hint


@pytest.mark.parametrize(
    "address",
    [
        "ollama.com/v1",
        "ftp://x/v1",
        "https://",
        "https://user:hunter22@x/v1",
        "https://x/v1?key=hunter22",
        "https://x/v1#hunter22",
        "https://x:99999/",
        "https://x/\nv1",
    ],
)
def test_b5_address_is_only_an_address(address: str) -> None:
    """User, password and query are refused and not repeated."""
    with pytest.raises(ProviderError) as raised:
        check_base_url(address)

    assert "hunter22" not in raised.value.problem + raised.value.hint


def test_every_preset_is_an_endpoint() -> None:
    """Addresses and places of keys of the presets are such as `add` takes."""
    for preset in PRESETS.values():
        assert check_base_url(preset.base_url) == preset.base_url
        assert preset.key is None or check_key_place(preset.key)
    assert {"ollama", "ollama-cloud", "llama.cpp", "openai", "anthropic", "gemini", "openrouter"} == set(
        PRESETS
    )


def test_key_in_clear_is_told() -> None:
    """Over http to another machine a key can be read on the way."""
    key = read_key("env:K", environ={"K": KEY}, root=Path("/"))

    assert Endpoint(base_url="http://192.0.2.1/v1", model="m", key=key).sends_key_in_clear
    assert not Endpoint(base_url="http://192.0.2.1/v1", model="m").sends_key_in_clear
    assert not Endpoint(base_url="http://127.0.0.1:8080/v1", model="m", key=key).sends_key_in_clear


def test_add_keeps_what_is_there(tmp_path: Path) -> None:
    """Comments, order and other sections stay; what was written is what is read."""
    home = Home(tmp_path)
    before = (
        '# mine\n[log]\nlevel = "debug" # loud\n\n[provider.old]\nbase_url = "http://127.0.0.1/v1" # kept\n'
    )
    home.config.write_text(before)
    home.config.chmod(0o640)

    write_provider(
        home.config, "new", {"api": "openai", "base_url": "https://x/v1", "key": None, "model": "m"}
    )

    after = home.config.read_text()
    assert after.startswith(before)
    assert home.config.stat().st_mode & 0o777 == 0o640
    assert load(home, env={}).provider["new"].base_url == "https://x/v1"
    assert load(home, env={}).provider["old"].base_url == "http://127.0.0.1/v1"
    assert [file.name for file in tmp_path.iterdir()] == ["skep.toml"]


def test_add_makes_a_file_that_is_ours_alone(tmp_path: Path) -> None:
    """A new file is 0600, in a folder that is made if need be."""
    file = tmp_path / "home" / "skep.toml"

    write_provider(file, "a.b", {"base_url": "https://x/v1"})

    assert file.stat().st_mode & 0o777 == 0o600
    assert "a.b" in load(Home(file.parent), env={}).provider


def test_add_replaces_only_when_told(tmp_path: Path) -> None:
    """A second of one name needs a word; what is not given then goes."""
    file = tmp_path / "skep.toml"
    write_provider(file, "x", {"base_url": "https://one/v1", "key": "env:ONE"})

    with pytest.raises(ProviderError):
        write_provider(file, "x", {"base_url": "https://two/v1"})
    write_provider(file, "x", {"base_url": "https://two/v1", "key": None}, replace=True)

    found = load(Home(tmp_path), env={}).provider["x"]
    assert (found.base_url, found.key) == ("https://two/v1", None)


def test_add_leaves_a_broken_file_alone(tmp_path: Path) -> None:
    """What is not TOML is not written over."""
    file = tmp_path / "skep.toml"
    file.write_text("[provider\n")

    with pytest.raises(SettingError):
        write_provider(file, "x", {"base_url": "https://x/v1"})

    assert file.read_text() == "[provider\n"


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "-x", "x" * 65, "a]b"])
def test_names_are_plain(name: str) -> None:
    """A name goes into a file and onto command lines."""
    with pytest.raises(ProviderError):
        check_provider_name(name)


def test_s2_a_key_is_revealed_in_two_places() -> None:
    """Where its form is looked at, and where the header is made."""
    source = Path(__file__).resolve().parents[3] / "src" / "skep" / "providers"
    callers = {
        path.name
        for path in source.glob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }

    assert callers == {"credentials.py", "dialects.py"}
