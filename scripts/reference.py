"""The pages of docs/reference/, written from the code: commands, settings, errors, log events, methods.

`--check` writes nothing and fails when a page is stale.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from skep.cli import main as cli
from skep.foundation.exits import EXIT_CODES, OUTCOME_MEANINGS, RETRYABLE, WORST_FIRST
from skep.foundation.rpc import Method, Table
from skep.foundation.settings import ProviderSettings, Settings
from skep.wire.control import CLI, CONNECTOR, DOOR, PUMP, TOOLS, WEB

__all__ = ["PAGES", "main"]

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src" / "skep"
FOLDER: Final = ROOT / "docs" / "reference"

MEANINGS: Final = {
    "connector.listen": "address of the chat, of `/relay` and of webhooks",
    "connector.public_url": "public URL; sets the host name that is answered, secure cookies and HSTS",
    "connector.store": "`sqlite`; another engine is not built yet",
    "connector.bus": "`local`; another bus is not built yet",
    "connector.buffer_events": "messages kept for one gateway that is away; over it the oldest is dropped",
    "connector.buffer_mib": "the same, in MiB",
    "connector.buffer_days": "the same, in days",
    "connector.metrics": "`HOST:PORT` of a Prometheus listener; not built yet",
    "connector.dedupe_hours": "how long a platform's repeat of an event is recognised",
    "connector.web_days": "how long messages of the web chat are kept",
    "connector.web_per_minute": "messages a minute that an account of the web chat may send; as many at once",
    "connector.stock_settle_s": "wait after the hello of a stock Hermes gateway, which drops what comes earlier",
    "gateway.relay_url": "connector to dial; without it the one on this machine",
    "gateway.credentials": "file of the gateway's own secret, from the home folder",
    "hive.store": "`sqlite`; another engine is not built yet",
    "hive.allow_old_sqlite": "start with a SQLite that has the WAL race",
    "hive.quiet_ms": "how long a burst of messages is waited for, by platform",
    "hive.retention": "how long what is kept, by kind; not built yet: the hive keeps everything",
    "identity.mode": "`strict`; `compat`, exactly as Hermes reads `honcho.json`, is not built yet",
    "identity.honcho": "the mapping file, from the home folder; not built yet",
    "identity.host": "its default block; not built yet",
    "memory.provider": "`local` or `honcho`; not built yet: there is no memory",
    "memory.url": "address of Honcho; not built yet",
    "memory.key": "key of Honcho, as `env:NAME` or `file:PATH`; not built yet",
    "web.listen": "address of the dashboard",
    "web.public_url": "public URL; sets the host name that is answered, secure cookies and HSTS",
    "web.metrics": "`HOST:PORT` of a Prometheus listener; not built yet",
    "log.level": "least level that is logged",
    "log.format": "`json`, `text`, or `auto`: text on a terminal",
    "provider.NAME.api": "which protocol the endpoint speaks",
    "provider.NAME.base_url": "address of the endpoint",
    "provider.NAME.key": "its key, as `env:NAME` or `file:PATH`",
    "provider.NAME.model": "default model",
}


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; return the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        file = FOLDER / name
        wanted = page()
        if file.is_file() and file.read_text() == wanted:
            continue
        if "--check" in arguments:
            print(f"error: docs/reference/{name} is stale\nhint: run `make docs`", file=sys.stderr)
            return 1
        file.write_text(wanted)
    return 0


# --- commands ---------------------------------------------------------------------------------------


def _commands() -> str:
    lines = [_head("Commands", "What `skep` understands, as `--help` says it."), _fenced(_help())]
    for command in (*cli.COMMANDS, *cli.SERVICES):
        lines += _command_pages((command.name,))
    return "\n".join(lines)


def _command_pages(words: tuple[str, ...]) -> Iterator[str]:
    text = _help(*words)
    yield f"## skep {' '.join(words)}\n"
    yield _fenced(text)
    _, _, subcommands = text.partition("\nCommands:\n")
    for name in re.findall(r"^  ([a-z][\w-]*)(?: |$)", subcommands, re.MULTILINE):
        yield from _command_pages((*words, name))


def _help(*words: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        cli.run([*words, "--help"])
    return "\n".join(line.rstrip() for line in said.getvalue().strip("\n").splitlines())


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


# --- settings ---------------------------------------------------------------------------------------


def _settings() -> str:
    about = (
        "Set by flag, by environment variable, or in `skep.toml` in the home folder, in this order. An unknown name\n"
        "is refused. `skep config show` says what is in force, and where each value came from."
    )
    lines = [_head("Settings", about)]
    named = [
        (field.name, field.type) for field in msgspec.structs.fields(Settings) if field.name != "provider"
    ]
    left = dict(MEANINGS)
    for section, type_ in (*named, ("provider.NAME", ProviderSettings)):
        lines.append(f"## {section}\n")
        rows: list[tuple[str, ...]] = []
        for field in msgspec.structs.fields(type_):
            name = f"{section}.{field.name}"
            variable = "–" if "NAME" in section else f"`SKEP_{name.upper().replace('.', '_')}`"
            rows.append((f"`{name}`", _default(field), variable, left.pop(name)))
        lines.append(_table(("setting", "default", "variable", "meaning"), rows))
    if left:
        raise KeyError(f"no such settings: {', '.join(left)}")
    return "\n".join(lines)


def _default(field: Any) -> str:
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None or value == {}:
        return "–"
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return "`" + ", ".join(f"{key} = {item}" for key, item in items) + "`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# --- errors and log events, as they stand in the source ---------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Error:
    code: str
    says: str
    hint: str


def _errors() -> str:
    about = (
        "Every error has a code that never changes its meaning. The class says who must act: a setting error is the\n"
        "operator's (exit code 2), a wire error the sender's; an unavailable or busy one is tried again by itself."
    )
    areas: defaultdict[str, set[_Error]] = defaultdict(set)
    for tree in _trees():
        for node in ast.walk(tree):
            for error in _errors_at(node):
                areas[error.code.partition(".")[0]].add(error)
    lines = [_head("Errors", about)]
    for area, errors in sorted(areas.items()):
        rows = [(f"`{error.code}`", error.says, error.hint or "–") for error in sorted(errors)]
        lines += [f"## {area}\n", _table(("code", "says", "what to do"), rows)]
    return "\n".join([*lines, *_exits()])


def _exits() -> Iterator[str]:
    yield "## Classes of `skep secret` and `skep provider`\n"
    yield "The code is `secret.<class>` or `provider.<class>`. Of several the first in this order of need decides:\n"
    yield f"{', '.join(outcome for outcome in WORST_FIRST if EXIT_CODES[outcome])}.\n"
    rows = [
        (f"`{outcome}`", OUTCOME_MEANINGS[outcome], str(code), "yes" if outcome in RETRYABLE else "–")
        for outcome, code in EXIT_CODES.items()
    ]
    yield _table(("class", "means", "exit code", "may help to try again"), rows)


def _errors_at(node: ast.AST) -> Iterator[_Error]:
    """Return the error that a class defines by its `code`, or that a call makes with one."""
    if isinstance(node, ast.ClassDef):
        for line in node.body:
            target = line.targets[0] if isinstance(line, ast.Assign) else None
            if isinstance(line, ast.AnnAssign):
                target = line.target
            if (
                isinstance(target, ast.Name)
                and target.id == "code"
                and isinstance(line, ast.Assign | ast.AnnAssign)
            ):
                code = _template(line.value)
                if "." in code:
                    says = (ast.get_docstring(node) or "").partition("\n")[0]
                    yield _Error(code=code, says=says, hint="")
    elif isinstance(node, ast.Call):
        words = {keyword.arg: keyword.value for keyword in node.keywords}
        code = _template(words.get("code"))
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", code) and node.args:
            yield _Error(code=code, says=_template(node.args[0]), hint=_template(words.get("hint")))


def _log_events() -> str:
    about = (
        "One line for each unit of work or change of state: the event, and its facts as fields. Lines are JSON, or\n"
        "text on a terminal. What people and agents write, and every secret, is never in one."
    )
    events: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for tree in _trees():
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr=level),
                    args=[ast.Constant(value=str(event)), *_],
                    keywords=words,
                ) if level in {"debug", "info", "warning", "error"}:
                    fields = ", ".join(
                        f"`{word.arg}`" for word in words if word.arg not in {None, "exc_info"}
                    )
                    events[event].add((level, fields))
                case _:
                    pass
    rows = [
        (f"`{event}`", level, fields or "–")
        for event, kinds in sorted(events.items())
        for level, fields in sorted(kinds)
    ]
    return _head("Log events", about) + "\n" + _table(("event", "level", "fields"), rows)


def _trees() -> Iterator[ast.Module]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield ast.parse(path.read_bytes())


def _template(node: ast.expr | None) -> str:
    """Return a text as it stands in the source, with `…` where a value goes."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_template(value) if isinstance(value, ast.Constant) else "…" for value in values)
        case None:
            return ""
        case _:
            return "…"


# --- control methods --------------------------------------------------------------------------------


def _control() -> str:
    about = (
        "The closed list of methods of each unix socket, with the fields of their arguments and results. A field with\n"
        "`?` may be left out. A method that is not in the list of a socket does not exist there."
    )
    lines = [_head("Control methods", about)]
    for table in (CLI, WEB, DOOR, PUMP, TOOLS, CONNECTOR):
        lines += [f"## {table.name}\n", _table(("method", "arguments", "result"), _methods(table))]
    return "\n".join(lines)


def _methods(table: Table) -> list[tuple[str, ...]]:
    def row(method: Method[Any, Any]) -> tuple[str, ...]:
        return f"`{method.name}`", _fields(method.args), _fields(method.result)

    return [row(method) for method in table.methods.values()]


def _fields(type_: Any) -> str:
    if not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
        return "any"
    fields = msgspec.structs.fields(type_)
    return ", ".join(f"`{field.encode_name}{'' if field.required else '?'}`" for field in fields) or "–"


# --- Markdown ---------------------------------------------------------------------------------------


def _head(title: str, about: str) -> str:
    return f"# {title}\n\n{about}\nThis page is written by `make docs`.\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": _commands,
    "control.md": _control,
    "errors.md": _errors,
    "log-events.md": _log_events,
    "settings.md": _settings,
}

if __name__ == "__main__":
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    sys.exit(main(sys.argv[1:]))
