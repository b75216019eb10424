"""`skep secret pull`, `check`, `diff` and `clean`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from skep.cli.guarded import GuardedOutput
from skep.cli.output import make_app, run_async
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.exits import Outcome, exit_code
from skep.foundation.settings import default_home
from skep.secrets.bridge import Bridge, clean_targets
from skep.secrets.checking import check_folder, check_manifest
from skep.secrets.fingerprints import fingerprint_key
from skep.secrets.manifest import Manifest, load_manifest
from skep.secrets.problems import usage
from skep.secrets.report import CheckReport, KeyRow, PullReport, TargetRow

__all__ = ["run"]

T = TypeVar("T")

app = make_app(
    "Fetch secrets from a store and render them into files for programs to read.\n\n"
    "MANIFEST is a TOML file of stores and targets, by default `secrets.toml` in the home folder.\n\n"
    "Example: skep secret pull secrets.toml --dry-run"
)

_MARKS: Final = {"same": " ", "new": "+", "changed": "~", "removed": "-", "absent": " ", "failed": "!"}

_Manifest = Annotated[Path | None, typer.Argument(metavar="[MANIFEST]", help="Stores and targets, TOML")]
_Target = Annotated[str | None, typer.Option("--target", metavar="NAME", help="Only this target")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program")]
_ExitCode = Annotated[bool, typer.Option("--exit-code", help="End with 10 when something would change")]
_WorldReadable = Annotated[
    bool, typer.Option("--allow-world-readable", help="Let a manifest name a mode that everybody can read")
]


_out: Final = GuardedOutput()


@app.callback()
def secret() -> None:
    """Fetch secrets from a store and render them into files for programs to read."""


@app.command("pull")
def pull(
    manifest: _Manifest = None,
    *,
    target: _Target = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, say what would be")] = False,
    with_exit_code: _ExitCode = False,
    allow_world_readable: _WorldReadable = False,
    as_json: _AsJson = False,
) -> int:
    """Fetch, encode and write the targets of a manifest.

    Nothing is restarted: a changed file is reported with the command that makes its readers read it again.

    Example: skep secret pull secrets.toml --target providers
    """
    bridge = _bridge(_load(manifest, allow_world_readable=allow_world_readable))
    report = _wait(bridge.pull(only=target, dry_run=dry_run))
    _print_pull(report, as_json=as_json, with_exit_code=with_exit_code, fingerprints=dry_run)
    return _code(report.outcomes, with_exit_code=with_exit_code)


@app.command("diff")
def diff(
    manifest: _Manifest = None,
    *,
    target: _Target = None,
    with_exit_code: _ExitCode = False,
    allow_world_readable: _WorldReadable = False,
    as_json: _AsJson = False,
) -> int:
    """Show what a pull would change: names and fingerprints, old against new.

    Fingerprints compare on this host only.

    Example: skep secret diff secrets.toml --exit-code
    """
    bridge = _bridge(_load(manifest, allow_world_readable=allow_world_readable))
    report = _wait(bridge.pull(only=target, dry_run=True))
    _print_pull(report, as_json=as_json, with_exit_code=with_exit_code, fingerprints=True, changes_only=True)
    return _code(report.outcomes, with_exit_code=with_exit_code)


@app.command("check")
def check(
    manifest: _Manifest = None,
    *,
    store: Annotated[str | None, typer.Option("--store", metavar="NAME", help="Store of --path")] = None,
    path: Annotated[
        str | None,
        typer.Option("--path", metavar="FOLDER", help="Check every name in a folder: '/folder/**'"),
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", help="Environment of --path, instead of the store's")
    ] = None,
    no_read: Annotated[
        bool, typer.Option("--no-read", help="Ask for presence alone, read no value where the store can say")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail when the credential may do more than it should")
    ] = False,
    as_json: _AsJson = False,
) -> int:
    """Check that the credentials can read what they should, and no more.

    Values that are read are dropped. Nothing is written, and no grant is made or widened.

    Example: skep secret check --store main --path '/home-platform/providers/**'
    """
    bridge = _bridge(_load(manifest))
    if (path is None) != (store is None) or (environment is not None and path is None):
        raise usage("`--store` and `--path` belong together", hint="see `skep secret check --help`")
    if path is not None and store is not None:
        work = check_folder(bridge, store, path, environment=environment, read=not no_read, strict=strict)
    else:
        work = check_manifest(bridge, read=not no_read, strict=strict)
    report = _wait(work)
    _print_check(report, as_json=as_json)
    return _code(report.outcomes)


@app.command("clean")
def clean(manifest: _Manifest = None, *, as_json: _AsJson = False) -> int:
    """Remove temporary files that an interrupted pull left.

    Example: skep secret clean secrets.toml
    """
    removed = clean_targets(_load(manifest))
    if as_json:
        _out.say_json({"removed": removed})
    else:
        for path, count in removed.items():
            _out.say(f"{path}: {count} removed\n")
    return 0


def run(name: str, words: list[str]) -> int:
    """Run `skep secret`."""
    return _out.run(app, name, words, hint="give it by file, see `skep secret --help`")


def _load(path: Path | None, *, allow_world_readable: bool = False) -> Manifest:
    file = default_home().root / "secrets.toml" if path is None else path
    return load_manifest(file, allow_world_readable=allow_world_readable)


def _bridge(manifest: Manifest) -> Bridge:
    key, is_kept = fingerprint_key(default_home().keys / "fingerprint.key")
    bridge = Bridge(
        manifest=manifest,
        environ=os.environ,
        redactor=_out.redactor,
        clock=SYSTEM_CLOCK,
        fingerprint_key=key,
    )
    if not is_kept:
        bridge.warnings.append("fingerprints of this run compare with no other: their key cannot be kept")
    return bridge


def _wait(work: Coroutine[Any, Any, T]) -> T:
    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(_out.redactor.loop_handler)
        return await work

    return run_async(watched())


def _code(outcomes: Sequence[Outcome], *, with_exit_code: bool = False) -> int:
    return exit_code(outcome for outcome in outcomes if with_exit_code or outcome != "would_change")


# --- what is printed ---------------------------------------------------------------------------------


def _print_pull(
    report: PullReport,
    *,
    as_json: bool,
    with_exit_code: bool,
    fingerprints: bool,
    changes_only: bool = False,
) -> None:
    if as_json:
        _out.say_json(
            report_fields(report) | {"exit_code": _code(report.outcomes, with_exit_code=with_exit_code)}
        )
        return
    targets = [row for row in report.targets if not (changes_only and row.outcome == "unchanged")]
    for target in targets:
        _out.say(f"{target.path}: {_what(target)}\n")
        for key in target.keys:
            if not (changes_only and key.state in {"same", "absent"}):
                _out.say(f"  {_key_line(key, fingerprints=fingerprints)}\n")
    if fingerprints and any(key.old or key.new for target in targets for key in target.keys):
        _out.say("Fingerprints compare on this host only.\n")
    for finding in report.findings:
        _out.say(f"{finding.id}: {finding.problem}\n  {finding.fix}\n")
    _print_rest(report)


def _what(target: TargetRow) -> str:
    about = f"{target.dialect}, mode {target.mode}"
    if target.mode_now not in {None, target.mode}:
        about += f" (now {target.mode_now})"
    if target.owner_now is not None and target.owner_now.split(":")[0] != target.owner.split(":")[0]:
        about += f", owner {target.owner} (now {target.owner_now})"
    return f"{target.outcome.replace('_', ' ')} ({about})"


def _key_line(key: KeyRow, *, fingerprints: bool) -> str:
    version = "" if key.version is None else f" v{key.version}"
    line = f"{_MARKS[key.state]} {key.env:<32} {key.state:<8}"
    if fingerprints:
        line += f" {key.old or '-':<8} -> {key.new or '-':<8}"
    return f"{line} {key.ref}{version}".rstrip()


def _print_check(report: CheckReport, *, as_json: bool) -> None:
    if as_json:
        _out.say_json(report_fields(report) | {"exit_code": _code(report.outcomes)})
        return
    for row in report.references:
        _out.say(f"{row.state:<13} {row.ref}\n")
    for probe in report.width:
        _out.say(f"{probe.answer:<13} {probe.asked}\n")
    _print_rest(report)


def _print_rest(report: PullReport | CheckReport) -> None:
    for source in report.sources:
        _out.tell(f"{source.store}: credential from {source.credential}\n")
    for warning in report.warnings:
        _out.tell(f"warning: {warning}\n")
    for error in report.errors:
        _out.tell_error(error)


def report_fields(report: PullReport | CheckReport) -> dict[str, object]:
    """Return the fields of a report that a program reads."""
    return {name: getattr(report, name) for name in report.__struct_fields__ if name != "outcomes"}
