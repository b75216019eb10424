"""Secrets and providers, A1, A5, A7 and A8.1: the installed command against servers, files and a real age.

The canary is the value of every secret and every credential; it must be in the target and nowhere else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import pytest

from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from support.parts import need
from support.secret_stores import Asked, FakeInfisical, FakeVault, Reply, reply_json, serving

ROOT: Final = Path(__file__).resolve().parents[3]
CANARY: Final = "canary-Value/9f3a'\"$x"
CREDENTIAL: Final = "canary-token-0123456789"
KEYS: Final = ("ONE", "TWO", "THREE")


@dataclass
class Desk:
    """A folder with a manifest, and a way to run the command in it."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def target(self) -> Path:
        return self.folder / "out" / "a.env"

    def manifest(
        self, store: str, *, path: str = "/home/providers", more: str = "", target: str = ""
    ) -> None:
        keys = "".join(f'{{ env = "{key}", ref = "{path}:{key}"{more} }}, ' for key in KEYS)
        (self.folder / "m.toml").write_text(
            f'[store.main]\n{store}\n[[target]]\npath = "out/a.env"\ndialect = "shell"\n'
            f"create_parent = true\n{target}\nkey = [{keys}]\n"
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `skep secret WORDS` as carefully as Python can, and look for the canary."""
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-X", "faulthandler", "-m", "skep", "secret", *words],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "TMPDIR": str(self.folder / "tmp"),
                "SKEP_HOME": str(self.folder / "home"),
                "SKEP_LOG_LEVEL": "debug",
                **self.environ,
            },
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        for text in (done.stdout, done.stderr):
            assert leaks(text) == [], text
        return done

    def json(self, *words: str) -> dict[str, Any]:
        done = self.run(*words, "--json")
        fields = cast("dict[str, Any]", json.loads(done.stdout))
        assert fields["exit_code"] == done.returncode
        return fields

    def private(self, name: str, content: str | bytes) -> Path:
        file = self.folder / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(0o600)
        return file


def _looking_for(value: str) -> Redactor:
    redactor = Redactor()
    redactor.add(Secret("canary", value))
    return redactor


LOOKING: Final = {"value": _looking_for(CANARY), "credential": _looking_for(CREDENTIAL)}


def leaks(text: str) -> list[str]:
    """Return which of the canaries is in `text`, in any form of section S2."""
    return [name for name, redactor in LOOKING.items() if redactor.known(text) != text]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder that is ours alone."""
    tmp_path.chmod(0o700)
    (tmp_path / "tmp").mkdir()
    return Desk(folder=tmp_path)


@pytest.fixture
def infisical() -> Iterator[FakeInfisical]:
    """Three secrets, and a token for exactly their folder."""
    server = FakeInfisical(
        secrets={("prod", "/home/providers", key): f"{CANARY}-{key}" for key in KEYS},
        grants={
            CREDENTIAL: {("prod", "/home/providers"): frozenset({"describe", "read"})},
            "describer-token": {("prod", "/home/providers"): frozenset({"describe"})},
            "wide-token": {("prod", "/"): frozenset({"describe", "read"})},
            "elsewhere-token": {("prod", "/other"): frozenset({"describe", "read"})},
        },
        identities={"client-1": CREDENTIAL},
        issued_token=CREDENTIAL,
    )
    with serving(server):
        yield server


@pytest.fixture
def with_infisical(desk: Desk, infisical: FakeInfisical) -> Desk:
    """A manifest of that project, its token in a file."""
    desk.manifest(_infisical(infisical))
    desk.environ["INFISICAL_TOKEN_FILE"] = str(desk.private("token", CREDENTIAL + "\n"))
    return desk


def _infisical(server: FakeInfisical, more: str = "") -> str:
    return f'kind = "infisical"\nsite = "{server.site}"\nproject = "project-1"\nenvironment = "prod"\n{more}'


def _age(desk: Desk, content: str, *, armour: bool) -> str:
    age = need("age")
    made = subprocess.run([f"{age}-keygen"], capture_output=True, text=True, check=True).stdout
    desk.private("identity", made)
    public = made.split("public key: ")[1].split()[0]
    encrypted = subprocess.run(
        [age, *(["-a"] if armour else []), "-r", public],
        input=content.encode(),
        capture_output=True,
        check=True,
    ).stdout
    desk.private("secrets.age", encrypted)
    return 'kind = "age"\npath = "secrets.age"\ncredential_file = "identity"\n'


def _use_universal(desk: Desk, infisical: FakeInfisical) -> None:
    desk.environ["INFISICAL_CLIENT_SECRET_FILE"] = str(desk.private("client-secret", CREDENTIAL))
    desk.manifest(_infisical(infisical, 'auth = "universal"\nclient_id = "client-1"'))


def _use_env(desk: Desk, _: FakeInfisical) -> None:
    desk.environ.update({key: f"{CANARY}-{key}" for key in KEYS})
    desk.manifest('kind = "env"', path="/")


def _use_file(desk: Desk, _: FakeInfisical) -> None:
    desk.private(
        "secrets.json", json.dumps({"home": {"providers": {key: f"{CANARY}-{key}" for key in KEYS}}})
    )
    desk.manifest('kind = "file"\npath = "secrets.json"\nformat = "json"')


def _use_age(armour: bool) -> Callable[[Desk, FakeInfisical], None]:  # noqa: FBT001  # one of two kinds
    def use(desk: Desk, _: FakeInfisical) -> None:
        lines = "".join(f"{key}={json.dumps(f'{CANARY}-{key}')}\n" for key in KEYS)
        desk.manifest(_age(desk, lines, armour=armour), path="/")

    return use


def _use_sops(desk: Desk, _: FakeInfisical) -> None:
    """A stand-in for sops that says what it was given, and answers as sops does."""
    program = desk.folder / "bin" / "sops"
    program.parent.mkdir()
    answer = json.dumps({key: f"{CANARY}-{key}" for key in KEYS})
    (desk.folder / "answer.json").write_text(answer)
    program.write_text(
        f'#!/bin/sh\n{{ echo "$@"; env; }} > {desk.folder}/child.log\n'
        f'grep -q canary-token "$SOPS_AGE_KEY_FILE" || exit 1\ncat {desk.folder}/answer.json\n'
    )
    program.chmod(0o755)
    desk.private("identity", CREDENTIAL)
    desk.manifest('kind = "sops"\npath = "x.yaml"\ncredential_file = "identity"', path="/")


STORES: Final[dict[str, Callable[[Desk, FakeInfisical], None]]] = {
    "infisical, universal": _use_universal,
    "env": _use_env,
    "file": _use_file,
    "age": _use_age(armour=False),
    "age, armoured": _use_age(armour=True),
    "sops": _use_sops,
}


@pytest.mark.parametrize("use", STORES.values(), ids=STORES.keys())
def test_a8_1_every_command_with_every_store_leaks_nothing(
    desk: Desk, infisical: FakeInfisical, use: Callable[[Desk, FakeInfisical], None]
) -> None:
    """Pull, pull again, dry run, diff, check and clean: the value is in the target and nowhere else."""
    use(desk, infisical)
    _every_command(desk)


def test_a8_1_infisical_by_token(with_infisical: Desk) -> None:
    """The same with Token Auth."""
    _every_command(with_infisical)


def test_a8_1_vault(desk: Desk) -> None:
    """The same with Vault."""
    server = FakeVault(
        secrets={"home/providers": [{key: f"{CANARY}-{key}" for key in KEYS}]},
        policies={CREDENTIAL: {"secret/data/home/providers": ["read"]}},
    )
    with serving(server):
        desk.manifest(f'kind = "vault"\nsite = "{server.site}"')
        desk.environ["VAULT_TOKEN"] = CREDENTIAL
        _every_command(desk)


def _every_command(desk: Desk) -> None:
    dry = desk.json("pull", "m.toml", "--dry-run")
    assert [row["state"] for row in dry["targets"][0]["keys"]] == ["new", "new", "new"]
    assert not desk.target.exists()
    assert desk.run("diff", "m.toml", "--exit-code").returncode == 10

    done = desk.run("pull", "m.toml")

    assert done.returncode == 0, done.stderr
    shell = ["bash", "-c", '. "$1"; printf %s "$ONE|$TWO|$THREE"', "x", str(desk.target)]
    read = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert read == "|".join(f"{CANARY}-{key}" for key in KEYS)
    assert desk.target.stat().st_mode & 0o777 == 0o600
    before = desk.target.stat()
    again = desk.json("pull", "m.toml")
    assert again["targets"][0]["outcome"] == "unchanged"
    assert desk.target.stat() == before
    assert desk.run("diff", "m.toml", "--exit-code").returncode == 0
    assert desk.run("diff", "m.toml").stdout == ""
    assert desk.run("check", "m.toml").returncode == 0
    assert desk.run("check", "m.toml", "--no-read").returncode == 0
    assert desk.run("clean", "m.toml").returncode == 0
    known = {"out", "token", "client-secret", "identity", "secrets.json", "answer.json", "bin"}
    for path in desk.folder.rglob("*"):
        if path.is_file() and path.relative_to(desk.folder).parts[0] not in known:
            assert leaks(path.read_bytes().decode(errors="replace")) == [], path
    assert [path.name for path in desk.target.parent.iterdir()] == ["a.env"]


def test_a5_one_missing_key_of_three_writes_nothing(with_infisical: Desk, infisical: FakeInfisical) -> None:
    """The missing one is named, and the old file is kept byte for byte."""
    desk = with_infisical
    assert desk.run("pull", "m.toml").returncode == 0
    before = (desk.target.read_bytes(), desk.target.stat())
    infisical.secrets["prod", "/home/providers", "ONE"] = "changed-value"
    del infisical.secrets["prod", "/home/providers", "TWO"]

    report = desk.json("pull", "m.toml")

    assert report["exit_code"] == 22
    assert [error["subject"] for error in report["errors"]] == ["/home/providers:TWO"]
    assert (desk.target.read_bytes(), desk.target.stat()) == before


def test_a7_a_token_that_expires_in_the_middle(with_infisical: Desk, infisical: FakeInfisical) -> None:
    """It is `auth`, once, and the old file is kept."""
    assert with_infisical.run("pull", "m.toml").returncode == 0
    before = with_infisical.target.read_bytes()
    infisical.secrets["prod", "/home/providers", "ONE"] = "changed-value"

    def expire(asked: Asked) -> Reply | None:
        fields = {"reqId": "r", "statusCode": 403, "error": "TokenError", "message": "expired"}
        return None if asked.path.endswith("ONE") else reply_json(403, fields)

    infisical.before = expire
    report = with_infisical.json("pull", "m.toml")

    assert report["exit_code"] == 20
    assert with_infisical.target.read_bytes() == before


def test_a5_an_optional_key(desk: Desk, infisical: FakeInfisical) -> None:
    """Missing: left out, and said. Denied: a fault all the same."""
    desk.manifest(_infisical(infisical), more=", required = false")
    desk.environ["INFISICAL_TOKEN"] = CREDENTIAL
    del infisical.secrets["prod", "/home/providers", "TWO"]
    report = desk.json("pull", "m.toml")
    assert [row["state"] for row in report["targets"][0]["keys"]] == ["new", "absent", "new"]
    assert any("environment INFISICAL_TOKEN" in warning for warning in report["warnings"])

    desk.environ["INFISICAL_TOKEN"] = "elsewhere-token"

    assert desk.json("pull", "m.toml")["exit_code"] == 21


def test_a5_an_empty_value_needs_a_word(desk: Desk) -> None:
    """An empty key is a fault unless the manifest says otherwise."""
    desk.environ.update(dict.fromkeys(KEYS, ""))
    desk.manifest('kind = "env"', path="/")
    assert desk.json("pull", "m.toml")["exit_code"] == 27

    desk.manifest('kind = "env"', path="/", more=", allow_empty = true")

    assert desk.json("pull", "m.toml")["exit_code"] == 0


def test_a8_8_a_changed_secret_is_reported_and_restarts_nothing(desk: Desk) -> None:
    """The report carries the command; the command is not run."""
    mark = desk.folder / "restarted"
    desk.manifest('kind = "env"', path="/", target=f'restart = "touch {mark}"')
    desk.environ.update(dict.fromkeys(KEYS, "first-value"))
    assert desk.json("pull", "m.toml")["findings"] == []
    desk.environ.update(dict.fromkeys(KEYS, "second-value"))

    report = desk.json("pull", "m.toml")

    assert [(finding["id"], finding["fix"]) for finding in report["findings"]] == [
        ("secret.changed", f"touch {mark}")
    ]
    assert report["exit_code"] == 0
    assert not mark.exists()


def test_a6_a_token_of_another_job_fails_clearly(with_infisical: Desk) -> None:
    """Denied, described only and missing are told apart, each with what to grant."""
    cases = {
        "elsewhere-token": ("denied", 21),
        "describer-token": ("describe_only", 21),
        "nobody": ("failed", 20),
    }
    for token, (state, code) in cases.items():
        with_infisical.environ["INFISICAL_TOKEN_FILE"] = str(with_infisical.private("token", token))
        report = with_infisical.json("check", "m.toml")
        assert {row["state"] for row in report["references"]} <= {state}
        assert report["exit_code"] == code
    assert with_infisical.run("check", "m.toml").stderr.count("error:") == 1


def test_a3_a_value_that_refers_to_another(with_infisical: Desk, infisical: FakeInfisical) -> None:
    """It is refused, not written, unless the key asks for it; then the store is asked to expand it."""
    infisical.secrets["prod", "/home/providers", "TWO"] = "made of ${ONE}"
    assert with_infisical.json("pull", "m.toml")["exit_code"] == 27
    assert with_infisical.json("check", "m.toml")["exit_code"] == 27

    with_infisical.manifest(_infisical(infisical), more=", references = true")

    assert with_infisical.json("check", "m.toml")["exit_code"] == 0
    assert with_infisical.json("pull", "m.toml")["exit_code"] == 0
    assert infisical.asked[-1].query["expandSecretReferences"] == "true"


def test_a6_a_whole_folder_is_checked(with_infisical: Desk, infisical: FakeInfisical) -> None:
    """Each name in it is asked as a reference is, in the environment that is named."""
    infisical.secrets["prod", "/home/providers/deeper", "FOUR"] = CANARY
    words = ("check", "m.toml", "--store", "main", "--path")
    assert len(with_infisical.json(*words, "/home/providers/**")["references"]) == 4
    report = with_infisical.json(*words, "/home/providers")

    assert [row["ref"] for row in report["references"]] == [f"main!/home/providers:{key}" for key in KEYS]
    assert {row["state"] for row in report["references"]} == {"ok"}
    assert {row["answer"] for row in report["width"]} == {"refused"}
    assert with_infisical.json(*words, "/home/providers", "--environment", "dev")["exit_code"] == 21
    assert with_infisical.run(*words, "/home/../x").returncode == 2


def test_a6_a_wide_token_is_a_warning_or_with_strict_a_fault(
    with_infisical: Desk, infisical: FakeInfisical
) -> None:
    """Nothing it asks for is a write."""
    with_infisical.environ["INFISICAL_TOKEN_FILE"] = str(with_infisical.private("token", "wide-token"))
    report = with_infisical.json("check", "m.toml")
    assert report["exit_code"] == 0
    assert any(warning.startswith("wider_than_needed") for warning in report["warnings"])

    assert with_infisical.json("check", "m.toml", "--strict")["exit_code"] == 1
    assert {asked.method for asked in infisical.asked} == {"GET"}


def test_a6_no_read_reads_nothing(with_infisical: Desk, infisical: FakeInfisical) -> None:
    """Presence alone is asked."""
    assert with_infisical.run("check", "m.toml", "--no-read").returncode == 0

    assert {asked.query["viewSecretValue"] for asked in infisical.asked} == {"false"}


@pytest.mark.parametrize("policy", ["read", "wide", "root"])
def test_a6_a_policy_of_vault(desk: Desk, policy: str) -> None:
    """More than read is a warning, and root a fault."""
    server = FakeVault(secrets={"home/providers": [dict.fromkeys(KEYS, "some-value")]}, root="root-token")
    server.policies = {
        "read": {"secret/data/home/providers": ["read"]},
        "wide": {"secret/data/home/providers": ["read", "update"]},
    }
    with serving(server):
        desk.manifest(f'kind = "vault"\nsite = "{server.site}"')
        desk.environ["VAULT_TOKEN"] = "root-token" if policy == "root" else policy
        report = desk.json("check", "m.toml")

    assert report["exit_code"] == (1 if policy == "root" else 0)
    assert any("wider_than_needed" in warning for warning in report["warnings"]) == (policy == "wide")


def test_wrong_use_is_2_and_keys_are_refused_as_arguments(desk: Desk) -> None:
    """A key on the command line is seen by every user of the machine."""
    assert desk.run("pull", "none.toml").returncode == 2
    assert desk.run("pull", "sk-proj-abcdefghijkl").returncode == 2
    assert desk.run("check", "--store", "main").returncode == 2
    desk.manifest('kind = "env"', path="/")
    assert desk.run("pull", "m.toml", "--target", "none").returncode == 2
    assert desk.run("check", "m.toml", "--store", "main", "--path", "/").returncode == 2


LINES: Final = """
import io, contextlib, os, sys
from skep.cli import main
from skep.cli.secret import _out
from skep.secrets import writing

OURS = (
    "/skep/secrets/",
    "/skep/cli/secret",
    "/skep/cli/guarded",
    "/foundation/secret",
    "/foundation/private_files",
    "/foundation/outbound",
)

class Injected(Exception):
    pass

said = io.StringIO()
step, first = int(sys.argv[1]), {}

def run(stop_at):
    count = 0
    def trace(frame, event, arg):
        nonlocal count
        name = frame.f_code.co_filename
        if not any(part in name for part in OURS):
            return None
        if event == "line":
            count += 1
            first.setdefault((name, frame.f_lineno), count)
            if count == stop_at:
                sys.settrace(None)
                raise Injected(f"at {name}:{frame.f_lineno}")
        return trace
    sys.settrace(trace)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main.run(["secret", "pull", "m.toml"])
    except BaseException as error:
        sys.settrace(None)
        import traceback
        said.write("".join(traceback.format_exception(error)))
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.settrace(None)

run(-1)
_out.redactor.install = lambda: None  # once a process
writing.LOCK_WAIT_S = 0.01  # an exception where the lock would be let go keeps it in this process
points = sorted(first.values())[::step]
for number in points:
    run(number)
sys.stderr.write(said.getvalue())
sys.stdout.write(f"{len(points)}")
"""


@pytest.mark.timeout(600)
def test_a8_1_an_exception_at_each_line_leaks_nothing(with_infisical: Desk) -> None:
    """Wherever it breaks, neither the traceback nor the report holds the value."""
    step = "1" if os.environ.get("SKEP_TEST_FAULTS") == "release" else "4"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", LINES, step],
        cwd=with_infisical.folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(with_infisical.folder),
            "SKEP_HOME": str(with_infisical.folder / "home"),
            **with_infisical.environ,
        },
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    sys.stdout.write(f"lines with an exception: {done.stdout}, leaks: {leaks(done.stderr)}\n")

    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50
    assert "Injected" in done.stderr
    assert leaks(done.stderr) == []


CORE: Final = """
import ctypes, os, resource, signal
from skep.foundation.hardening import forbid_core_dumps
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
forbid_core_dumps()
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0
held = "canary" * 1000
os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_s2_a_crash_writes_no_core(tmp_path: Path) -> None:
    """A process that dies while it holds a value leaves no copy of its memory."""
    child = subprocess.Popen([sys.executable, "-c", CORE], cwd=tmp_path, stderr=subprocess.DEVNULL)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = -signal.SIGSEGV

    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []
