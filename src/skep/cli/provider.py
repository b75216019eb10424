"""`skep provider add`, `list` and `test`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from skep.cli.guarded import GuardedOutput
from skep.cli.output import make_app, run_async
from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.secret import Secret
from skep.foundation.settings import ProviderSettings, default_home, load
from skep.providers.credentials import check_key, check_key_place, read_key
from skep.providers.endpoint import LIMITS, Endpoint, check_base_url
from skep.providers.presets import PRESETS, Api
from skep.providers.problems import ProviderError, usage
from skep.providers.settings_file import check_provider_name, write_provider

if TYPE_CHECKING:
    from skep.providers.report import Report

__all__ = ["run"]

app = make_app(
    "Set up endpoints of language models, and find out what they can do.\n\nExample: skep provider test cloud"
)

_PLACE: Final = "env:NAME, file:PATH, or a reference of a secrets manifest: /path:KEY"
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program")]
_BaseUrl = Annotated[str | None, typer.Option("--base-url", metavar="URL", help="Address of the endpoint")]
_Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Name of the model")]
_ApiName = Annotated[str | None, typer.Option("--api", help="Protocol: openai or anthropic")]


_out: Final = GuardedOutput()


@app.callback()
def provider() -> None:
    """Set up endpoints of language models, and find out what they can do."""


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call it")],
    *,
    preset: Annotated[
        str | None, typer.Option("--preset", help=f"Fill in what is not given: {', '.join(PRESETS)}")
    ] = None,
    base_url: _BaseUrl = None,
    model: _Model = None,
    key_ref: Annotated[
        str | None, typer.Option("--key-ref", metavar="REF", help="Where its key lies: env:NAME or file:PATH")
    ] = None,
    api: _ApiName = None,
    replace_it: Annotated[bool, typer.Option("--replace", help="Replace one of this name")] = False,
    as_json: _AsJson = False,
) -> None:
    """Write a provider into `skep.toml`, which keeps its comments.

    A key is never written: only where it lies.

    Example: skep provider add cloud --preset ollama-cloud --model gemma4:31b-cloud
    """
    check_provider_name(name)
    home = default_home()
    load(home)  # what is there already must be right
    filled = PRESETS.get(preset) if preset is not None else None
    if preset is not None and filled is None:
        raise usage(f"there is no preset `{preset[:40]}`", hint=f"presets: {', '.join(PRESETS)}")
    address = base_url or (filled.base_url if filled else None)
    if address is None:
        raise usage("no address is given", hint="give `--preset` or `--base-url`")
    place = key_ref or (filled.key if filled else None)
    fields: dict[str, str | None] = {
        "api": _api(api or (filled.api if filled else None)),
        "base_url": check_base_url(address),
        "key": check_key_place(place) if place is not None else None,
        "model": model,
    }
    write_provider(home.config, name, fields, replace=replace_it)
    if as_json:
        _out.say_json({"name": name, **fields, "file": str(home.config)})
        return
    _out.say(f"{name}: {fields['base_url']} in {home.config}\n")
    hint = f"skep provider test {name}" + ("" if model else " --model MODEL")
    sys.stderr.write(f"Find out what it can do: {hint}\n")


@app.command("list")
def list_providers(*, as_json: _AsJson = False) -> None:
    """List the providers of `skep.toml`, and where the key of each lies.

    Example: skep provider list
    """
    rows = load(default_home()).provider
    if as_json:
        providers = [
            {
                "name": name,
                "api": row.api,
                "base_url": _shown_url(row.base_url),
                "model": row.model,
                "key": _shown_key(row.key),
            }
            for name, row in rows.items()
        ]
        _out.say_json({"providers": providers})
        return
    for name, row in rows.items():
        key = _shown_key(row.key)
        _out.say(
            f"{name:<16} {row.api:<10} {row.model or '-':<24} {_shown_url(row.base_url) or '-':<40}"
            f" {'no key' if key is None else key}\n"
        )
    if not rows:
        sys.stderr.write("no provider is set up; add one: skep provider add NAME --preset PRESET\n")


@app.command("test")
def smoke(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One of `skep.toml`")] = None,
    *,
    base_url: _BaseUrl = None,
    model: _Model = None,
    key_ref: Annotated[
        str | None, typer.Option("--key-ref", metavar="REF", help=f"Where its key lies: {_PLACE}")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Stores of a reference, instead of `secrets.toml`")
    ] = None,
    api: _ApiName = None,
    checks: Annotated[
        str | None, typer.Option("--checks", metavar="NAMES", help="Only these, with commas between")
    ] = None,
    require: Annotated[
        str | None,
        typer.Option("--require", metavar="NAMES", help="What must pass: json=json_schema,tools,…"),
    ] = None,
    embed_model: Annotated[
        str | None, typer.Option("--embed-model", metavar="NAME", help="Check embeddings with this model")
    ] = None,
    embed_dim: Annotated[
        int | None, typer.Option("--embed-dim", min=1, metavar="N", help="Numbers that a vector must have")
    ] = None,
    probe_context: Annotated[
        int | None,
        typer.Option(
            "--probe-context", min=1, max=2_000_000, metavar="N", help="Send about N tokens at once"
        ),
    ] = None,
    max_first_token_ms: Annotated[
        int | None, typer.Option("--max-first-token-ms", min=1, help="Fail when the first token comes later")
    ] = None,
    max_total_ms: Annotated[
        int | None, typer.Option("--max-total-ms", min=1, help="Fail when a short answer takes longer")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, metavar="S", help="Longest time for one request, in seconds"),
    ] = LIMITS.total_s,
    out: Annotated[Path | None, typer.Option("--out", help="Write the report to this file as well")] = None,
    keep_text: Annotated[
        bool, typer.Option("--keep-text", help="Put what the model said into the report, scrubbed")
    ] = False,
    as_json: _AsJson = False,
) -> int:
    """Ask an endpoint what an agent would, and report what it can do and in which mode.

    Ends with 0 when all that is required passes, 1 when something is missing, and 20 to 27 for a fault of the
    key, the model, the network, time, rate, the server or the form of its answers.

    Example: skep provider test --base-url https://ollama.com/v1 --model gemma4:31b-cloud --key-ref
    /home-platform/providers:OLLAMA_CLOUD_API_KEY
    """
    from skep.providers.smoke import CHECKS, ON_REQUEST, Plan, check_names, requirements

    endpoint = _endpoint(name, base_url=base_url, model=model, key_ref=key_ref, api=api, manifest=manifest)
    if endpoint.sends_key_in_clear:
        _out.tell("warning: the key goes over the network in clear: use https\n")
    required = None if require is None else requirements(require)
    wanted = frozenset(CHECKS) - ON_REQUEST if checks is None else check_names(checks)
    wanted |= frozenset(required or {})
    if embed_model is not None or embed_dim is not None:
        wanted |= {"embeddings"}
    if probe_context is not None:
        wanted |= {"context_length"}
    plan = Plan(
        checks=wanted,
        required=required,
        embed_model=embed_model,
        embed_dim=embed_dim,
        probe_tokens=probe_context,
        max_first_token_ms=max_first_token_ms,
        max_total_ms=max_total_ms,
        keep_text=keep_text,
    )
    report = run_async(_smoke(endpoint, plan, timeout_s=timeout))
    if out is not None:
        _write(out, report)
    _print(report, as_json=as_json)
    return report.exit_code


def run(name: str, words: list[str]) -> int:
    """Run `skep provider`."""
    return _out.run(app, name, words, hint="say where it lies: `--key-ref env:NAME`")


def _endpoint(
    name: str | None,
    *,
    base_url: str | None,
    model: str | None,
    key_ref: str | None,
    api: str | None,
    manifest: Path | None,
) -> Endpoint:
    settings = ProviderSettings()
    if name is not None:
        known = load(default_home()).provider
        if name not in known:
            raise usage(
                f"there is no provider `{name[:40]}`", hint=f"known: {', '.join(known) or 'none yet'}"
            )
        settings = known[name]
    address, model = base_url or settings.base_url, model or settings.model
    if address is None or model is None:
        raise usage(
            "no address is given" if address is None else "no model is given",
            hint="give NAME of a provider, or `--base-url` and `--model`",
        )
    is_elsewhere = base_url is not None and name is not None and base_url.rstrip("/") != settings.base_url
    place = key_ref if key_ref is not None or is_elsewhere else settings.key
    return Endpoint(
        base_url=check_base_url(address),
        model=model,
        api=_api(api or settings.api),
        key=None if place is None else _key(place, manifest),
    )


def _key(place: str, manifest: Path | None) -> Secret:
    if place.startswith(("env:", "file:")):
        key = read_key(place, environ=os.environ, root=default_home().root)
    elif "/" in place and ":" in place:
        key = check_key(run_async(_fetch(place, manifest)))
    else:
        check_key_place(place)  # says what is wrong with it
        raise AssertionError("refused above")
    _out.redactor.add(key)
    return key


async def _fetch(reference: str, manifest: Path | None) -> Secret:
    """Return the key that a store of the manifest keeps at `reference`."""
    from skep.secrets.bridge import Bridge
    from skep.secrets.manifest import load_manifest
    from skep.secrets.reference import parse_reference

    wanted = parse_reference(reference)
    stores = load_manifest(manifest or default_home().root / "secrets.toml", allow_world_readable=False)
    bridge = Bridge(
        manifest=stores,
        environ=os.environ,
        redactor=_out.redactor,
        clock=SYSTEM_CLOCK,
        fingerprint_key=b"",
    )
    async with AsyncExitStack() as stack:
        backend = await bridge.open(stack, stores.store_of(wanted))
        return (await backend.fetch(wanted)).secret


async def _smoke(endpoint: Endpoint, plan: Any, *, timeout_s: float) -> Report:
    from skep.providers.smoke import run_smoke

    asyncio.get_running_loop().set_exception_handler(_out.redactor.loop_handler)
    limits = replace(LIMITS, total_s=timeout_s)
    return await run_smoke(endpoint, plan, redactor=_out.redactor, clock=SYSTEM_CLOCK, limits=limits)


def _api(text: str | None) -> Api:
    match text:
        case None | "openai":
            return "openai"
        case "anthropic":
            return "anthropic"
        case _:
            raise usage(f"there is no protocol `{text[:40]}`", hint="openai or anthropic")


def _shown_key(place: str | None) -> str | None:
    """A key that was written out is not shown."""
    return place if place is None or place.startswith(("env:", "file:")) else "***"


def _shown_url(address: str | None) -> str | None:
    """An address is shown without what is not one."""
    if address is None:
        return None
    with contextlib.suppress(ProviderError):
        return check_base_url(address)
    return "***"


# --- what is printed ---------------------------------------------------------------------------------


def _print(report: Report, *, as_json: bool) -> None:
    from skep.providers.report import line_of

    if as_json:
        _out.say_json(_fields(report))
        return
    for check in report.checks:
        _out.say(line_of(check, report.json) + "\n")
    _out.say(f"verdict={report.verdict} exit_code={report.exit_code}\n")
    said = dict.fromkeys(check.data["said"] for check in report.checks if "said" in check.data)
    for text in said:
        _out.tell(f"the server said: {text}\n")


def _fields(report: Report) -> Mapping[str, Any]:
    return {field: getattr(report, field) for field in report.__struct_fields__}


def _write(out: Path, report: Report) -> None:
    try:
        out.write_text(_out.json_text(_fields(report)), encoding="utf-8")
    except OSError as exc:
        raise ProviderError("write_failed", f"`{out}` cannot be written: {exc.strerror}") from exc
