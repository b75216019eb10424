"""Secrets and providers, A8.3: every file written is read back by the program that it is written for."""

from __future__ import annotations

import io
import json
import os
import random
import string
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

import pytest
from dotenv import dotenv_values

from skep.foundation.secret import Secret
from skep.secrets.dialects import encode
from skep.secrets.manifest import Dialect
from skep.secrets.problems import SecretError

ROOT: Final = Path(__file__).resolve().parents[3]
COUNT: Final = 10_000
CHUNK: Final = 500

AWKWARD: Final = [
    *"'\"`$\\#=!&|;<>(){}[]*?~^%@ \t\n\r",
    *(
        "${X}",
        "$X",
        "$(id)",
        "`id`",
        "\\n",
        "\\'",
        '\\"',
        "\\\\",
        "\r\n",
        "  ",
        " #",
        "''",
        '""',
        "export ",
        "é",
        "😀",
    ),
    *(
        "\u2028",
        "\u00a0",
        "\u0085",
        "\x01",
        "\x0b",
        "\x1b",
        "\x7f",
        "\ufeff",
        "%s",
        "\nX=1\n",
        "-----BEGIN KEY-----\n",
    ),
]
NAMED: Final = {
    "21 awkward values": [
        "", "plain", "two words", " leading", "trailing ", "a'b", 'a"b', "a`b", "a\\b", "a\\", "$HOME", "${HOME}",
        "$(id)", "a#b", "a #b", "#a", "a=b", "line\nline", "cr\r\nlf", "'quoted'", '"quoted"',
    ]
}  # fmt: skip

_Reader = Callable[[bytes], Mapping[str, str]]


def _python(data: bytes, *, interpolate: bool = True) -> Mapping[str, str]:
    found = dotenv_values(stream=io.StringIO(data.decode(), newline=""), interpolate=interpolate)
    return {name: value or "" for name, value in found.items()}


def _python_file(data: bytes, tmp: Path) -> Mapping[str, str]:
    file = tmp / "dotenv.env"
    file.write_bytes(data)
    return {name: value or "" for name, value in dotenv_values(file).items()}


def _bash(data: bytes, tmp: Path) -> Mapping[str, str]:
    file = tmp / "shell.env"
    file.write_bytes(data)
    done = subprocess.run(
        ["bash", "--norc", "-c", 'set -a; . "$1"; exec env -0', "bash", file],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    assert not done.stderr, done.stderr[:500]
    pairs = (entry.partition(b"=") for entry in done.stdout.split(b"\0") if entry)
    return {name.decode(): value.decode() for name, _, value in pairs if name.startswith(b"V")}


def _node(data: bytes) -> Mapping[str, str]:
    script = "const read = require('util').parseEnv(require('fs').readFileSync(0, 'utf8'));"
    script += "process.stdout.write(JSON.stringify(read))"
    done = subprocess.run(
        [ROOT / ".venv/bin/node", "-e", script], input=data, capture_output=True, check=True
    )
    return cast("Mapping[str, str]", json.loads(done.stdout))


def _docker(data: bytes) -> Mapping[str, str]:
    """Read as `docker run --env-file` is documented to: lines, comments, the first `=`, nothing unquoted."""
    lines = [line.lstrip() for line in data.decode().split("\n")]
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def _values(seed: int) -> list[str]:
    chance = random.Random(seed)
    plain = string.ascii_letters + string.digits + string.punctuation
    made = list(NAMED["21 awkward values"])
    while len(made) < COUNT:
        pieces = [
            chance.choice(AWKWARD) if chance.random() < chance.choice((0.1, 0.6)) else chance.choice(plain)
            for _ in range(chance.randint(0, 24))
        ]
        made.append("".join(pieces))
    return made


@pytest.mark.timeout(240)
@pytest.mark.parametrize("dialect", ["portable", "shell", "python-dotenv", "docker-raw", "json", "dir"])
def test_a8_3_every_value_comes_back_or_is_refused(
    dialect: Dialect, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ten thousand awkward values a dialect through its real readers: none comes back wrong."""
    readers: dict[str, _Reader] = {
        "portable": lambda data: _same(_python_file(data, tmp_path), _bash(data, tmp_path), _node(data)),
        "shell": lambda data: _bash(data, tmp_path),
        "python-dotenv": lambda data: _same(_python_file(data, tmp_path), _python(data)),
        "docker-raw": _docker,
        "json": json.loads,
        "dir": json.loads,
    }
    accepted: dict[str, str] = {}
    for number, value in enumerate(_values(len(dialect))):
        outcome = _outcome(value, dialect)
        assert outcome in {"ok", "not_encodable"}
        if outcome == "ok":
            accepted[f"V{number}"] = value
    refused = COUNT - len(accepted)
    wrong = 0
    names = list(accepted)
    for start in range(0, len(names), CHUNK):
        chunk = {name: accepted[name] for name in names[start : start + CHUNK]}
        files = encode({name: Secret(name, value) for name, value in chunk.items()}, dialect)
        if dialect == "dir":
            read: Mapping[str, str] = {name: data.decode() for name, data in files.items()}
        else:
            read = readers[dialect](files[""])
        wrong += sum(read.get(name) != value for name, value in chunk.items()) + len(
            read.keys() - chunk.keys()
        )
    record_property("values", COUNT)
    record_property("refused", refused)
    sys.stdout.write(f"{dialect}: {COUNT} values, {refused} refused, {wrong} wrong\n")

    assert wrong == 0
    assert len(accepted) > COUNT / 20


def test_a8_3_interpolation_off_allows_more(tmp_path: Path) -> None:
    """A reader that is declared not to expand gets `${NAME}` as it is."""
    value = {"V": Secret("v", "a${HOME}b")}
    with pytest.raises(SecretError):
        encode(value, "python-dotenv")

    files = encode(value, "python-dotenv", interpolation=False)

    assert _python(files[""], interpolate=False) == {"V": "a${HOME}b"}


def _outcome(value: str, dialect: Dialect) -> str:
    try:
        encode({"V": Secret("v", value)}, dialect)
    except SecretError as error:
        return error.outcome
    return "ok"


def _same(*read: Mapping[str, str]) -> Mapping[str, str]:
    for other in read[1:]:
        differ = [name for name in read[0] if read[0][name] != other.get(name)]
        assert not differ, [(read[0][name], other.get(name)) for name in differ[:5]]
    return read[0]
