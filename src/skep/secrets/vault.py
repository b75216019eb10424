"""HashiCorp Vault and OpenBao: key-value engines 1 and 2, by token or AppRole.

Source: secrets and providers, section A3. `/folder:KEY` is the field `KEY` of the secret `folder`;
`/folder:NAME#FIELD` is the field of the secret `folder/NAME`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import quote

from skep.foundation.exits import Outcome
from skep.foundation.secret import Secret
from skep.secrets.backend import Fetched, Presence, Probe
from skep.secrets.manifest import VaultStore
from skep.secrets.problems import SecretError, usage
from skep.secrets.reference import Reference
from skep.secrets.signed_in import SignedIn
from skep.secrets.web import Answer

__all__ = ["Vault"]

_READ_HINT: Final = "grant the policy `read` on exactly this path"


class Vault(SignedIn[VaultStore]):
    """A key-value engine of a Vault or an OpenBao."""

    can_describe = False

    async def fetch(self, reference: Reference, *, references: bool = False) -> Fetched:
        """Return the value at `reference`; see `Backend`."""
        if references:
            raise usage("this store knows no references", subject=str(reference))
        subject = str(reference)
        query = {"version": str(reference.version)} if reference.version is not None else None
        answer = await self._ask("GET", self._path(reference, "data"), subject=subject, query=query)
        if answer.status != 200:
            raise await self._fault(answer, subject)
        data: object = answer.fields.get("data")
        version: object = None
        if self._store.kv == 2 and isinstance(data, dict):
            outer = cast("dict[str, Any]", data)
            meta: object = outer.get("metadata")
            version = cast("dict[str, Any]", meta).get("version") if isinstance(meta, dict) else None
            data = outer.get("data")
        if not isinstance(data, dict):
            raise self._client.problem(
                "malformed", f"{self.where} answered, but not with a secret", subject=subject
            )
        if reference.version is not None and version != reference.version:
            raise self._client.problem(
                "malformed", f"{self.where} answered with another version", subject=subject
            )
        fields = cast("dict[str, Any]", data)
        field = reference.field or reference.key
        if field not in fields:
            raise self._client.problem(
                "not_found",
                f"`{reference}`: the secret has no such field",
                subject=subject,
                hint="check the field; `/folder:NAME#FIELD` means another secret than `/folder:FIELD`",
            )
        value = fields[field]
        if not isinstance(value, str):
            raise self._client.problem("malformed", f"`{reference}` is not a text", subject=subject)
        found = Secret(subject, value)
        self._client.redactor.add(found)
        return Fetched(secret=found, version=version if isinstance(version, int) else None)

    async def describe(self, reference: Reference) -> Presence:
        """Vault cannot say what is there without reading it: what the policy allows is asked instead."""
        path = self._path(reference, "data").removeprefix("v1/")
        allowed = await self._capabilities([path], subject=str(reference))
        return "present" if {"read", "root"} & set(allowed[path]) else "denied"

    async def names(self, path: str, *, recursive: bool) -> list[Reference]:
        """Return the fields of the secret at `path`, which is what a folder is here; see `Backend`."""
        if recursive:
            raise usage("Vault has no list of a whole folder", hint="name its references in a manifest")
        subject = f"{path}/*"
        answer = await self._ask("GET", self._url(path, "subkeys"), subject=subject)
        if answer.status != 200:
            raise await self._fault(answer, subject)
        data: object = answer.fields.get("data")
        keys: object = cast("dict[str, Any]", data).get("subkeys") if isinstance(data, dict) else None
        if not isinstance(keys, dict):
            raise self._client.problem(
                "malformed", "the fields of a secret are not of the known shape", subject=subject
            )
        return [Reference(store=self._name, path=path, key=key) for key in cast("dict[str, Any]", keys)]

    async def width(self, references: Sequence[Reference], *, folder: str | None) -> list[Probe]:
        """Return what the policies allow beyond reading `references`; see `Backend`."""
        paths = [self._path(reference, "data").removeprefix("v1/") for reference in references]
        paths += [
            f"{self._store.mount}/metadata/",
            f"{self._store.mount}/{'data/' * (self._store.kv == 2)}skep-width-probe",
        ]
        probes: list[Probe] = []
        await self._look_up()
        for path, allowed in (
            await self._capabilities(list(dict.fromkeys(paths)), subject="capabilities")
        ).items():
            is_asked = path in paths[:-2]
            more = set(allowed) - ({"read", "deny"} if is_asked else {"deny"})
            what = f"{', '.join(sorted(more))} on `{path}`" if more else f"more on `{path}`"
            probes.append(Probe(what=what, allowed=bool(more), is_error="root" in more))
        return probes

    # --- requests -------------------------------------------------------------------------------------

    async def _sign_in(self) -> Secret:
        return await self._log_in() if self._store.auth == "approle" else self._credential

    async def _log_in(self) -> Secret:
        body = {"role_id": self._store.role_id or "", "secret_id": self._credential.reveal()}
        answer = await self._client.ask(
            "POST", "v1/auth/approle/login", subject="login", headers=self._headers(), body=body
        )
        if answer.status in {400, 401, 403}:
            raise self._client.problem(
                "auth",
                f"{self.where}: the role or its secret id is refused",
                subject="login",
                answer=answer,
                hint="make a new secret id",
            )
        if answer.status != 200:
            raise await self._fault(answer, "login")
        found: object = answer.fields.get("auth")
        return self._token_of(
            cast("dict[str, Any]", found).get("client_token") if isinstance(found, dict) else None
        )

    async def _look_up(self) -> None:
        answer = await self._ask("GET", "v1/auth/token/lookup-self", subject="lookup-self")
        data: object = answer.fields.get("data")
        if answer.status != 200 or not isinstance(data, dict):
            return
        fields = cast("dict[str, Any]", data)
        left, whole = fields.get("ttl"), fields.get("creation_ttl")
        if isinstance(left, int) and isinstance(whole, int) and whole > 0:
            self._life_left = left / whole

    async def _capabilities(self, paths: list[str], *, subject: str) -> dict[str, list[str]]:
        answer = await self._ask("POST", "v1/sys/capabilities-self", subject=subject, body={"paths": paths})
        if answer.status != 200:
            raise await self._fault(answer, subject)
        data: object = answer.fields.get("data")
        fields = cast("dict[str, Any]", data) if isinstance(data, dict) else answer.fields
        allowed = {path: fields.get(path) for path in paths}
        if not all(isinstance(words, list) for words in allowed.values()):
            raise self._client.problem(
                "malformed", "capabilities are not of the known shape", subject=subject
            )
        return cast("dict[str, list[str]]", allowed)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        subject: str,
        query: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> Answer:
        return await self._client.ask(
            method, path, subject=subject, headers=self._headers(), query=query, body=body
        )

    def _headers(self) -> dict[str, str]:
        headers = {"x-vault-request": "true"}
        if self._token is not None:
            headers["x-vault-token"] = self._token.reveal()
        if self._store.namespace:
            headers["x-vault-namespace"] = self._store.namespace
        return headers

    def _path(self, reference: Reference, kind: str) -> str:
        folder = reference.path
        if reference.field is not None:
            folder = f"{folder.rstrip('/')}/{reference.key}"
        return self._url(folder, kind)

    def _url(self, folder: str, kind: str) -> str:
        mount = "/".join(quote(piece, safe="") for piece in self._store.mount.split("/"))
        rest = "/".join(quote(piece, safe="") for piece in folder[1:].split("/"))
        return f"v1/{mount}/{f'{kind}/' if self._store.kv == 2 else ''}{rest}"

    # --- answers --------------------------------------------------------------------------------------

    async def _fault(self, answer: Answer, subject: str) -> SecretError:
        outcome, problem, hint = self._judge(answer, subject)
        if outcome == "permission":
            # A bad token and a missing policy look the same: only the token itself can tell.
            mine = await self._ask("GET", "v1/auth/token/lookup-self", subject="lookup-self")
            if mine.status == 403:
                outcome, problem, hint = "auth", "the token has expired or is not one", "renew the token"
        return self._client.problem(
            outcome, f"{self.where}: {problem}", subject=subject, answer=answer, hint=hint
        )

    def _judge(self, answer: Answer, subject: str) -> tuple[Outcome, str, str]:
        match answer.status:
            case 401:
                return "auth", "the token is refused", "renew the token"
            case 403:
                return "permission", f"`{subject}` is not allowed to this token", _READ_HINT
            case 404 if not answer.is_object:
                return "malformed", "it does not speak this API", "check `site`"
            case 404 if answer.fields.get("data"):
                return (
                    "not_found",
                    f"`{subject}`: this version is deleted",
                    "undelete it, or ask for another version",
                )
            case 404:
                return "not_found", f"`{subject}` is not there", "check mount, path and key"
            case 400 | 405:
                return "usage", "it does not accept the request", "check `mount` and `kv`"
            case 408 | 504 | 524:
                return "timeout", "it answered too late", "try again"
            case 429:
                return "rate", "too many requests", "wait, then try again"
            case 503:
                return "server", "it is sealed or down", "unseal it"
            case status if status >= 500 or status in {412, 472, 473}:
                return "server", f"it cannot answer ({status})", "try again; look at the server"
            case status:
                return "malformed", f"it answered {status}", "check `site`"
