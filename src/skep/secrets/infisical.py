"""Infisical, by its HTTP API: Token Auth and Universal Auth, API v4 with v3 for older servers.

Source: secrets and providers, section A3. Imports and references are off unless a key asks for them: both
can pull a value from a path outside the grant. A masked value is never taken for a value.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final, Literal, cast

import msgspec

from skep.foundation.clock import Clock
from skep.foundation.exits import Outcome
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.secrets.backend import Fetched, Presence, Probe
from skep.secrets.manifest import InfisicalStore
from skep.secrets.problems import SecretError
from skep.secrets.reference import Reference, parse_reference
from skep.secrets.signed_in import SignedIn
from skep.secrets.web import Answer

__all__ = ["HIDDEN_MASK", "Infisical"]

HIDDEN_MASK: Final = "<hidden-by-infisical>"
_OUR_FIELDS: Final = (
    "projectId",
    "workspaceId",
    "environment",
    "secretPath",
    "secretName",
    "viewSecretValue",
    "expandSecretReferences",
    "includeImports",
    "include_imports",
    "clientId",
    "clientSecret",
    "organizationSlug",
    "recursive",
)
_GRANT_HINT: Final = (
    "grant the identity `describeSecret` and `readValue` on this path and environment, no more"
)


class Infisical(SignedIn[InfisicalStore]):
    """An Infisical project in one environment."""

    can_describe = True

    def __init__(
        self, name: str, store: InfisicalStore, credential: Secret, *, redactor: Redactor, clock: Clock
    ) -> None:
        super().__init__(name, store, credential, redactor=redactor)
        self._clock = clock
        self._api: Literal["v4", "v3"] | None = None if store.api == "auto" else store.api

    async def fetch(self, reference: Reference, *, references: bool = False) -> Fetched:
        """Return the value at `reference`; see `Backend`."""
        answer = await self._read(reference, view=True, references=references)
        secret = self._secret_of(answer, reference)
        value = secret.get("secretValue")
        if secret.get("secretValueHidden") is True or value == HIDDEN_MASK:
            raise self._client.problem(
                "permission",
                f"`{reference}` may be described, not read",
                subject=str(reference),
                hint="grant the identity `readValue` on this path",
            )
        if not isinstance(value, str):
            raise self._malformed(reference, "its value is not a text")
        found = Secret(str(reference), value)
        self._client.redactor.add(found)
        if not references and _has_reference(value):
            raise self._client.problem(
                "malformed",
                f"`{reference}` refers to another secret",
                subject=str(reference),
                hint="set `references = true` at this key, if the other one is in the grant",
            )
        version = secret.get("version")
        if reference.version is not None and version != reference.version:
            raise self._malformed(reference, "it is another version")
        return Fetched(secret=found, version=version if isinstance(version, int) else None)

    async def describe(self, reference: Reference) -> Presence:
        """Return whether `reference` is there; see `Backend`."""
        return await self._describe(reference, self._store.environment)

    async def names(self, path: str, *, recursive: bool) -> list[Reference]:
        """Return what lies in `path`; see `Backend`."""
        answer = await self._list(path, recursive=recursive)
        if answer.status != 200:
            raise self._fault(answer, f"{path}/**" if recursive else path)
        rows = cast("list[dict[str, Any]]", answer.fields.get("secrets"))
        try:
            return [
                parse_reference(f"{self._name}!{row.get('secretPath') or path}:{row['secretKey']}")
                for row in rows
            ]
        except (TypeError, KeyError, AttributeError, SecretError):
            pass
        raise self._client.problem(
            "malformed", "the list of a folder is not of the known shape", subject=path
        )

    async def width(self, references: Sequence[Reference], *, folder: str | None) -> list[Probe]:
        """Ask for what the credential should be refused; see `Backend`."""
        paths = {"/"} if folder in {None, "/"} else {"/", cast("str", folder).rpartition("/")[0] or "/"}
        asked = {reference.path for reference in references} | ({folder} if folder else set[str]())
        probes = [
            Probe(what=f"list `{path}`", allowed=_allowed(await self._list(path, recursive=False)))
            for path in sorted(paths - asked)
        ]
        if references:
            first = references[0]
            parent = (folder or first.path).rpartition("/")[0]
            sibling = f"{parent}/skep-width-probe"
            outside = Reference(path=sibling, key=first.key, store=first.store)
            answer = await self._read(outside, view=False)
            probes.append(Probe(what=f"describe a secret in `{sibling}`", allowed=_allowed(answer)))
            other = "dev" if self._store.environment != "dev" else "prod"
            answer = await self._read(first, view=False, environment=other)
            probes.append(Probe(what=f"describe the same in environment `{other}`", allowed=_allowed(answer)))
        return probes

    # --- requests -------------------------------------------------------------------------------------

    async def _sign_in(self) -> Secret:
        if self._store.auth == "universal":
            return await self._log_in()
        self._life_left = self._left_of_token()
        return self._credential

    async def _log_in(self) -> Secret:
        fields: dict[str, object] = {
            "clientId": self._store.client_id or "",
            "clientSecret": self._credential.reveal(),
        }
        if self._store.organization:
            fields["organizationSlug"] = self._store.organization
        answer = await self._client.ask(
            "POST", "api/v1/auth/universal-auth/login", subject="login", headers={}, body=fields
        )
        if answer.status != 200:
            raise self._fault(answer, "login")
        token = self._token_of(answer.fields.get("accessToken"))
        self._life_left = 1.0
        return token

    async def _describe(self, reference: Reference, environment: str) -> Presence:
        answer = await self._read(reference, view=False, environment=environment)
        try:
            self._secret_of(answer, reference, environment=environment)
        except SecretError as error:
            match error.outcome:
                case "permission":
                    return "denied"
                case "not_found":
                    return "missing"
                case _:
                    raise
        return "present"

    async def _read(
        self, reference: Reference, *, view: bool, references: bool = False, environment: str | None = None
    ) -> Answer:
        query = {
            "environment": environment or self._store.environment,
            "secretPath": reference.path,
            "viewSecretValue": _word(view),
            "expandSecretReferences": _word(references),
        }
        if reference.version is not None:
            query["version"] = str(reference.version)
        return await self._ask(f"/{reference.url_key}", query, references=references, subject=str(reference))

    async def _list(self, path: str, *, recursive: bool) -> Answer:
        query = {
            "environment": self._store.environment,
            "secretPath": path,
            "viewSecretValue": "false",
            "expandSecretReferences": "false",
            "recursive": _word(recursive),
        }
        return await self._ask("", query, references=False, subject=path)

    async def _ask(self, rest: str, query: dict[str, str], *, references: bool, subject: str) -> Answer:
        token = cast("Secret", self._token)
        headers = {"authorization": f"Bearer {token.reveal()}"}
        project, imports = self._store.project, _word(references)
        if self._api != "v3":
            answer = await self._client.ask(
                "GET",
                f"api/v4/secrets{rest}",
                subject=subject,
                headers=headers,
                query={"projectId": project, "includeImports": imports, **query},
            )
            if self._api == "v4" or not _is_route_missing(answer):
                self._api = "v4"
                return answer
        self._api = "v3"
        return await self._client.ask(
            "GET",
            f"api/v3/secrets/raw{rest}",
            subject=subject,
            headers=headers,
            query={"workspaceId": project, "include_imports": imports, **query},
        )

    # --- answers --------------------------------------------------------------------------------------

    def _secret_of(
        self, answer: Answer, reference: Reference, *, environment: str | None = None
    ) -> dict[str, Any]:
        if answer.status != 200:
            raise self._fault(answer, str(reference))
        secret = answer.fields.get("secret")
        if not isinstance(secret, dict):
            raise self._malformed(reference, "it is no secret")
        fields = cast("dict[str, Any]", secret)
        wanted = {
            "secretKey": reference.key,
            "secretPath": reference.path,
            "environment": environment or self._store.environment,
        }
        for name, value in wanted.items():
            given = fields.get(name)
            if given != value and not (given is None and name != "secretKey"):
                raise self._malformed(reference, f"its `{name}` is another one")
        return fields

    def _malformed(self, reference: Reference, why: str) -> SecretError:
        return self._client.problem(
            "malformed", f"{self.where} answered for `{reference}`, but {why}", subject=str(reference)
        )

    def _fault(self, answer: Answer, subject: str) -> SecretError:
        outcome, problem, hint = self._judge(answer, subject)
        return self._client.problem(
            outcome, f"{self.where}: {problem}", subject=subject, answer=answer, hint=hint
        )

    def _judge(self, answer: Answer, subject: str) -> tuple[Outcome, str, str]:
        word = answer.fields.get("error")
        match answer.status:
            case 401:
                return "auth", "the credential is refused", "renew the credential"
            case 403 if word == "TokenError":
                return "auth", "the token has expired or is not one", "renew the token"
            case 403:
                return "permission", f"`{subject}` is not allowed to this identity", _GRANT_HINT
            case 404 if _is_route_missing(answer) or not answer.is_object:
                return "malformed", "it does not know this API", "check `site`, and `api`"
            case 404:
                return "not_found", f"`{subject}` is not there", "check project, environment, path and key"
            case 400 | 422:
                said = msgspec.json.encode(answer.fields).decode()
                named = next((field for field in _OUR_FIELDS if field in said), None)
                if named:
                    return "usage", f"`{named}` is not acceptable to it", "check the store in the manifest"
                return "malformed", "it did not understand the request", ""
            case 429:
                return "rate", "too many requests", "wait, then try again"
            case 408 | 504 | 524:
                return "timeout", "it answered too late", "try again"
            case status if status >= 500:
                return "server", f"it failed ({status})", "try again; look at the server"
            case status:
                return "malformed", f"it answered {status}", "check `site`"

    def _left_of_token(self) -> float | None:
        """Return what is left of the life of a token that is a JWT; it is read, not verified."""
        parts = self._credential.reveal().split(".")
        if len(parts) != 3:
            return None
        try:
            claims = msgspec.json.decode(
                base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=dict[str, Any]
            )
            began, ends = float(claims["iat"]), float(claims["exp"])
        except (ValueError, KeyError, TypeError, msgspec.MsgspecError):
            return None
        return max(0.0, (ends - self._clock.now_ms() / 1000) / (ends - began)) if ends > began else 0.0


def _is_route_missing(answer: Answer) -> bool:
    message = answer.fields.get("message")
    return (
        answer.status == 404
        and "reqId" not in answer.fields
        and isinstance(message, str)
        and message.startswith("Route ")
        and message.endswith("not found")
    )


def _has_reference(value: str) -> bool:
    start = value.find("${")
    return start >= 0 and "}" in value[start:]


def _allowed(answer: Answer) -> bool | None:
    return {200: True, 401: False, 403: False}.get(answer.status)


def _word(flag: bool) -> str:  # noqa: FBT001  # a word for a flag is all that it is
    return "true" if flag else "false"
