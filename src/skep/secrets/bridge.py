"""Pull: fetch every key of a target, then write the target whole, or not at all.

Source: secrets and providers, sections A1 and A5. Rendering restarts nothing: it says what has to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from skep.foundation.clock import Clock
from skep.foundation.exits import RETRYABLE, ClassifiedError, Outcome
from skep.foundation.health import Finding
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.secrets import dialects
from skep.secrets.backend import Backend, Fetched
from skep.secrets.manifest import Manifest, Target, TargetKey
from skep.secrets.opening import open_store
from skep.secrets.problems import SecretError, usage
from skep.secrets.reference import Reference
from skep.secrets.report import KeyRow, PullReport, SourceRow, TargetRow
from skep.secrets.watching import changed_finding
from skep.secrets.writing import Place, Plan, clean, is_same, look, owner_ids, write

__all__ = ["Bridge", "clean_targets", "plan_of"]

AT_ONCE: Final = 4
"""Requests to one store at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """The stores of a manifest, and what a run needs besides.

    Attributes:
        environ: Environment of this process: credentials, and the store of kind `env`.
        fingerprint_key: Key of this host.
    """

    manifest: Manifest
    environ: Mapping[str, str]
    redactor: Redactor
    clock: Clock
    fingerprint_key: bytes
    sources: list[SourceRow] = field(default_factory=list[SourceRow])
    warnings: list[str] = field(default_factory=list[str])
    errors: list[ClassifiedError] = field(default_factory=list[ClassifiedError])

    async def pull(self, *, only: str | None = None, dry_run: bool = False) -> PullReport:
        """Fetch, encode and write the targets, or with `dry_run` say what would be written.

        Raises:
            SecretError: `usage`: `only` names no target. Every other fault is in the report.
        """
        targets = [target for target in self.manifest.target if only in {None, target.name}]
        if not targets:
            raise usage(
                f"there is no target `{only}`" if only else "the manifest names no target",
                hint=f"targets: {', '.join(target.name for target in self.manifest.target)}",
            )
        plans = [plan_of(target) for target in targets]
        found = await self._fetch([key for target in targets for key in target.key])
        rows: list[TargetRow] = []
        findings: list[Finding] = []
        for target, plan in zip(targets, plans, strict=True):
            row = self._render(target, plan, found, dry_run=dry_run)
            rows.append(row)
            if row.outcome == "written" and row.mode_now is not None:
                restart = target.restart or "restart what reads it"
                findings.append(changed_finding(Path(target.path), used_by="what reads it", restart=restart))
        outcomes: list[Outcome] = [error.outcome for error in self.errors]
        if any(row.outcome == "would_change" for row in rows):
            outcomes.append("would_change")
        return PullReport(
            sources=tuple(self.sources),
            warnings=tuple(dict.fromkeys(self.warnings)),
            errors=tuple(error.as_json() for error in self.errors),
            outcomes=tuple(outcomes),
            dry_run=dry_run,
            targets=tuple(rows),
            findings=tuple(findings),
        )

    async def open(self, stack: AsyncExitStack, name: str) -> Backend:
        """Return the opened store `name`, closed with `stack`.

        Raises:
            SecretError: The credential is missing, bad or refused.
        """
        store = self.manifest.store[name]
        backend, credential = open_store(
            name, store, environ=self.environ, redactor=self.redactor, clock=self.clock
        )
        if credential is not None:
            self.sources.append(SourceRow(store=name, credential=credential.source))
            if credential.is_weak:
                self.warnings.append(
                    f"the credential of `{name}` comes from {credential.source}: "
                    f"programs of the same user can read it there"
                )
        await stack.enter_async_context(backend)
        return backend

    async def _fetch(self, keys: Sequence[TargetKey]) -> dict[_Wish, Fetched | SecretError]:
        """Return the value or the fault of each distinct reference; nothing is written before all are in."""
        wishes: dict[str, list[_Wish]] = {}
        for key in keys:
            reference = key.reference
            of_store = wishes.setdefault(self.manifest.store_of(reference), [])
            if (wish := (reference, key.references)) not in of_store:
                of_store.append(wish)
        found: dict[_Wish, Fetched | SecretError] = {}
        for name, of_store in wishes.items():
            try:
                async with AsyncExitStack() as stack:
                    backend = await self.open(stack, name)
                    found |= await _ask_all(backend, of_store)
            except SecretError as error:
                found |= dict.fromkeys(of_store, error)
        return found

    def _render(
        self, target: Target, plan: Plan, found: Mapping[_Wish, Fetched | SecretError], *, dry_run: bool
    ) -> TargetRow:
        values, failed = self._values(target, found)
        place, files, outcome = Place(files={}), dict[str, bytes](), "failed"
        try:
            if not failed:
                files = dialects.encode(values, target.dialect, interpolation=target.interpolation)
            search_path = self.environ.get("PATH", "/usr/bin:/bin")
            if dry_run or failed:
                place = look(plan, search_path=search_path)
                if not failed:
                    outcome = "unchanged" if is_same(place, plan, files) else "would_change"
            else:
                place, changed = write(plan, files, search_path=search_path)
                outcome = "written" if changed else "unchanged"
        except SecretError as error:
            self.errors.append(error)
            outcome = "failed"
        return TargetRow(
            name=target.name,
            path=target.path,
            dialect=target.dialect,
            mode_now=f"{place.mode:04o}" if place.exists else None,
            mode=f"{plan.mode:04o}",
            owner_now=f"{place.uid}:{place.gid}" if place.exists else None,
            owner=f"{plan.uid}:{'-' if plan.gid is None else plan.gid}",
            outcome=outcome,
            keys=tuple(self._key_rows(target, place, found, values)),
        )

    def _values(
        self, target: Target, found: Mapping[_Wish, Fetched | SecretError]
    ) -> tuple[dict[str, Secret], bool]:
        values: dict[str, Secret] = {}
        failed = False
        for key in target.key:
            got = found[key.reference, key.references]
            if isinstance(got, Fetched):
                if got.secret.is_empty and not key.allow_empty:
                    got = SecretError(
                        "malformed",
                        f"`{key.ref}` is empty",
                        subject=key.ref,
                        hint="set it, or set `allow_empty = true` at this key",
                    )
                else:
                    values[key.env] = got.secret
                    continue
            elif got.outcome == "not_found" and not key.required:
                if key.default is not None:
                    values[key.env] = Secret(key.env, key.default)
                continue
            failed = True
            if not any(_is_same_fault(got, known) for known in self.errors):
                self.errors.append(got)
        return values, failed

    def _key_rows(
        self,
        target: Target,
        place: Place,
        found: Mapping[_Wish, Fetched | SecretError],
        values: Mapping[str, Secret],
    ) -> list[KeyRow]:
        old: dict[str, Secret] = {}
        if place.exists:
            try:
                read = dialects.parse(place.files, target.dialect)
                old = {name: Secret(name, text) for name, text in read.items()}
                self.redactor.add(*old.values())
            except SecretError:
                self.warnings.append(f"`{target.path}` was not of the dialect `{target.dialect}`")
        rows: list[KeyRow] = []
        for key in target.key:
            before, after = old.pop(key.env, None), values.get(key.env)
            got = found[key.reference, key.references]
            if after is None:
                is_absent = isinstance(got, SecretError) and got.outcome == "not_found" and not key.required
                state = "absent" if is_absent else "failed"
            elif before is None:
                state = "new"
            else:
                state = "same" if before == after else "changed"
            rows.append(
                KeyRow(
                    env=key.env,
                    state=state,
                    ref=key.ref,
                    store=self.manifest.store_of(key.reference),
                    version=got.version if isinstance(got, Fetched) else None,
                    old=self._fingerprint(before),
                    new=self._fingerprint(after),
                )
            )
        rows += [
            KeyRow(env=name, state="removed", old=self._fingerprint(value)) for name, value in old.items()
        ]
        return rows

    def _fingerprint(self, secret: Secret | None) -> str | None:
        return None if secret is None else secret.fingerprint(self.fingerprint_key)


_Wish = tuple[Reference, bool]
"""A reference, and whether references inside its value are to be expanded."""


def plan_of(target: Target) -> Plan:
    """Return how `target` is to be.

    Raises:
        SecretError: `usage`: its owner or group is not known here.
    """
    uid, gid = owner_ids(target.owner, target.group)
    return Plan(
        path=Path(target.path),
        mode=target.mode_bits,
        dir_mode=target.dir_mode_bits,
        uid=uid,
        gid=gid,
        create_parent=target.create_parent,
        is_dir=target.dialect == "dir",
    )


def clean_targets(manifest: Manifest) -> dict[str, int]:
    """Remove what interrupted writes left beside the targets; return how many, by path."""
    return {target.path: clean(Path(target.path)) for target in manifest.target}


async def _ask_all(backend: Backend, wishes: Sequence[_Wish]) -> dict[_Wish, Fetched | SecretError]:
    found: dict[_Wish, Fetched | SecretError] = {}
    at_once = asyncio.Semaphore(AT_ONCE)
    down: list[SecretError] = []

    async def ask(wish: _Wish) -> None:
        reference, references = wish
        async with at_once:
            if down:  # a store that refuses us or is away is not asked for every key
                found[wish] = down[0]
                return
            try:
                found[wish] = await backend.fetch(reference, references=references)
            except SecretError as error:
                found[wish] = error
                if error.outcome in RETRYABLE or error.outcome == "auth":
                    down.append(error)

    async with asyncio.TaskGroup() as group:
        for wish in wishes:
            group.create_task(ask(wish))
    return found


def _is_same_fault(one: ClassifiedError, other: ClassifiedError) -> bool:
    return one is other or (one.code, one.problem) == (other.code, other.problem)
