"""Check: what a credential may do with each reference, and whether it may do more than it should.

Source: secrets and providers, section A6. Values that are read are dropped; nothing is written anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from skep.foundation.exits import RETRYABLE, Outcome
from skep.secrets.backend import Backend
from skep.secrets.bridge import Bridge
from skep.secrets.manifest import InfisicalStore
from skep.secrets.problems import SecretError, usage
from skep.secrets.reference import Reference, check_path
from skep.secrets.report import CheckReport, CheckRow, CheckState, WidthRow

__all__ = ["check_folder", "check_manifest"]

LOW_LIFE: Final = 0.2


async def check_manifest(bridge: Bridge, *, read: bool = True, strict: bool = False) -> CheckReport:
    """Return what the credentials of the manifest may do with its references.

    Args:
        read: Read each value too, and drop it; without it, presence alone is asked where the store can say.
        strict: A credential that may do more than it should fails the check.
    """
    run = _Check(bridge, read=read, strict=strict)
    optional: set[Reference] = set()
    by_store: dict[str, list[Reference]] = {}
    for key in (key for target in bridge.manifest.target for key in target.key):
        reference = key.reference
        references = by_store.setdefault(bridge.manifest.store_of(reference), [])
        if reference not in references:
            references.append(reference)
        if not key.required:
            optional.add(reference)
        if key.references:
            run.expanded.add(reference)
    if not by_store:
        raise usage("the manifest names no key")
    for name, references in by_store.items():
        await run.store(name, references, optional=optional, folder=None)
    return run.report()


async def check_folder(
    bridge: Bridge,
    store: str,
    pattern: str,
    *,
    environment: str | None = None,
    read: bool = True,
    strict: bool = False,
) -> CheckReport:
    """Return what the credential of `store` may do with every name in a folder.

    Args:
        pattern: `/folder`, `/folder/*`, or `/folder/**` with what is in folders below.
        environment: Instead of the store's own.

    Raises:
        SecretError: `usage`.
    """
    if store not in bridge.manifest.store:
        raise usage(f"there is no store `{store}`", hint=f"stores: {', '.join(bridge.manifest.store)}")
    if environment is not None:
        settings = bridge.manifest.store[store]
        if not isinstance(settings, InfisicalStore):
            raise usage(f"the store `{store}` has no environments")
        bridge.manifest.store[store] = msgspec.structs.replace(settings, environment=environment)
    folder = check_path(pattern.removesuffix("**").removesuffix("*").rstrip("/") or "/")
    run = _Check(bridge, read=read, strict=strict)
    await run.store(store, None, optional=set(), folder=folder, recursive=pattern.endswith("**"))
    return run.report()


class _Check:
    def __init__(self, bridge: Bridge, *, read: bool, strict: bool) -> None:
        self._bridge = bridge
        self._read = read
        self._strict = strict
        self.expanded: set[Reference] = set()
        """Those whose value may refer to other secrets."""
        self._rows: list[CheckRow] = []
        self._width: list[WidthRow] = []
        self._outcomes: list[Outcome] = []

    async def store(
        self,
        name: str,
        references: Sequence[Reference] | None,
        *,
        optional: set[Reference],
        folder: str | None,
        recursive: bool = False,
    ) -> None:
        """Check one store; `references` of `None` are those in `folder`."""
        try:
            async with AsyncExitStack() as stack:
                backend = await self._bridge.open(stack, name)
                if references is None:
                    references = await backend.names(folder or "/", recursive=recursive)
                    if not references:
                        self._bridge.warnings.append(f"`{folder}` of `{name}` is empty")
                for reference in references:
                    try:
                        await self._one(name, backend, reference, is_optional=reference in optional)
                    except SecretError as error:
                        self._rows.append(CheckRow(ref=str(reference), store=name, state="failed"))
                        if error.outcome in RETRYABLE or error.outcome == "auth":
                            raise  # a store that refuses us or is away is not asked for the rest
                        self._bridge.errors.append(error)
                await self._look_wider(name, backend, references, folder)
                self._look_at_life(name, backend)
        except SecretError as error:
            self._bridge.errors.append(error)

    def report(self) -> CheckReport:
        bridge = self._bridge
        return CheckReport(
            sources=tuple(bridge.sources),
            warnings=tuple(dict.fromkeys(bridge.warnings)),
            errors=tuple(error.as_json() for error in bridge.errors),
            outcomes=(*(error.outcome for error in bridge.errors), *self._outcomes),
            references=tuple(self._rows),
            width=tuple(self._width),
        )

    async def _one(self, name: str, backend: Backend, reference: Reference, *, is_optional: bool) -> None:
        state = await self._state(name, backend, reference)
        self._rows.append(CheckRow(ref=str(reference), store=name, state=state))
        match state:
            case "describe_only" | "denied":
                what = "described, not read" if state == "describe_only" else "neither described nor read"
                hint = "grant `describeSecret` and `readValue`, or in Vault `read`, on exactly this path"
                self._fault("permission", reference, f"`{reference}` may be {what}", hint)
            case "missing" if not is_optional:
                hint = "check path, key and environment"
                self._fault("not_found", reference, f"`{reference}` is not there", hint)
            case _:
                pass

    async def _state(self, name: str, backend: Backend, reference: Reference) -> CheckState:
        if backend.can_describe or not self._read:
            match await backend.describe(reference):
                case "missing":
                    return "missing"
                case "denied":
                    return "denied"
                case "present":
                    pass
        if not self._read:
            return "unread"
        try:
            got = await backend.fetch(reference, references=reference in self.expanded)
        except SecretError as error:
            match error.outcome:
                case "permission":
                    return "describe_only" if backend.can_describe else "denied"
                case "not_found":
                    return "missing"
                case _:
                    raise
        if got.secret.is_short:
            self._bridge.warnings.append(f"`{reference}` of `{name}` is weak: it is very short")
        return "ok"

    async def _look_wider(
        self, name: str, backend: Backend, references: Sequence[Reference], folder: str | None
    ) -> None:
        for probe in await backend.width(references, folder=folder):
            answer = "unclear" if probe.allowed is None else "allowed" if probe.allowed else "refused"
            self._width.append(WidthRow(store=name, asked=probe.what, answer=answer))
            if not probe.allowed:
                continue
            said = f"wider_than_needed: the credential of `{name}` may also: {probe.what}"
            if self._strict or probe.is_error:
                self._bridge.errors.append(
                    SecretError("check_failed", said, where=backend.where, hint="narrow its grant")
                )
            else:
                self._bridge.warnings.append(said)

    def _look_at_life(self, name: str, backend: Backend) -> None:
        left = backend.lifetime()
        if left is None:
            self._bridge.warnings.append(f"the credential of `{name}` does not say when it expires")
        elif left < LOW_LIFE:
            self._bridge.warnings.append(
                f"less than {LOW_LIFE:.0%} of the life of the credential of `{name}` is left"
            )

    def _fault(self, outcome: Outcome, reference: Reference, problem: str, hint: str) -> None:
        self._bridge.errors.append(SecretError(outcome, problem, subject=str(reference), hint=hint))
