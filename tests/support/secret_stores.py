"""Servers that answer as Infisical and Vault do, for the bridge and for clients of other makers.

Each is certified by driving `infisicalsdk`, the npm SDK or `hvac` against it (tests/contract/secrets).
A test sets `before` to answer instead, with any bytes at all.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Asked", "FakeInfisical", "FakeVault", "Reply", "StoreServer", "serving"]

MASK: Final = "<hidden-by-infisical>"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer; `body` goes out as it is, slowly when asked to, and cut when asked to."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    pause_s: float = 0.0
    declared_size: int | None = None
    close: bool = False


def reply_json(status: int, value: object, **headers: str) -> Reply:
    """Return `value` as an answer."""
    named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return Reply(
        status=status, body=json.dumps(value).encode(), headers=(("content-type", "application/json"), *named)
    )


@dataclass
class StoreServer:
    """What both have: who asked for what, and a way to answer otherwise."""

    asked: list[Asked] = field(default_factory=list[Asked])
    before: Callable[[Asked], Reply | None] | None = None
    site: str = ""

    def answer(self, asked: Asked) -> Reply:
        """Return the answer to one request."""
        self.asked.append(asked)
        if self.before is not None and (reply := self.before(asked)) is not None:
            return reply
        return self.route(asked)

    def route(self, asked: Asked) -> Reply:
        """Answer as the real server does."""
        raise NotImplementedError


@dataclass
class FakeInfisical(StoreServer):
    """One project of an Infisical.

    Attributes:
        secrets: (environment, path, key) to value.
        grants: token to {(environment, path prefix): what it may}.
        has_v4: An older server has no v4 routes.
    """

    project: str = "project-1"
    secrets: dict[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    grants: dict[str, dict[tuple[str, str], frozenset[str]]] = field(
        default_factory=dict[str, dict[tuple[str, str], frozenset[str]]]
    )
    identities: dict[str, str] = field(default_factory=dict[str, str])
    issued_token: str = "token-of-an-identity-0001"
    has_v4: bool = True

    def route(self, asked: Asked) -> Reply:
        if asked.path == "/api/v1/auth/universal-auth/login" and asked.method == "POST":
            return self._log_in(asked)
        for prefix, project in (("/api/v4/secrets", "projectId"), ("/api/v3/secrets/raw", "workspaceId")):
            if prefix == "/api/v4/secrets" and not self.has_v4:
                continue
            if asked.path == prefix or asked.path.startswith(prefix + "/"):
                return self._secrets(asked, asked.path.removeprefix(prefix).removeprefix("/"), project)
        message = f"Route {asked.method}:{asked.raw_path} not found"
        return reply_json(404, {"message": message, "error": "Not Found", "statusCode": 404})

    def _log_in(self, asked: Asked) -> Reply:
        if not all(isinstance(asked.body.get(name), str) for name in ("clientId", "clientSecret")):
            return self._error(422, "ValidationFailure", "clientId: Required")
        if self.identities.get(asked.body["clientId"]) != asked.body["clientSecret"]:
            return self._error(401, "UnauthorizedError", "Invalid credentials")
        return reply_json(
            200,
            {
                "accessToken": self.issued_token,
                "expiresIn": 7200,
                "accessTokenMaxTTL": 43200,
                "tokenType": "Bearer",
            },
        )

    def _secrets(self, asked: Asked, key: str, project: str) -> Reply:
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            return self._error(401, "UnauthorizedError", "Token missing")
        if token not in self.grants:
            return self._error(403, "TokenError", "Your token has expired or is invalid")
        given = asked.query
        for name in (project, "environment"):
            if not given.get(name):
                return self._error(422, "ValidationFailure", f"{name}: Required")
        if given[project] != self.project:
            return self._error(404, "NotFound", "Project not found")
        environment, path = given["environment"], given.get("secretPath", "/")
        may = self._may(token, environment, path)
        if "describe" not in may:
            return self._error(
                403,
                "PermissionDenied",
                "You are not allowed to describeSecret on secrets",
                details=[{"action": "describeSecret", "subject": "secrets"}],
            )
        hidden = given.get("viewSecretValue", "true") != "true" or "read" not in may
        rows = {
            (folder, name): value
            for (env, folder, name), value in self.secrets.items()
            if env == environment
            and (
                folder == path
                or (given.get("recursive") == "true" and folder.startswith(path.rstrip("/") + "/"))
            )
        }
        if not key:
            found = [self._secret(environment, at, name, value, hidden) for (at, name), value in rows.items()]
            return reply_json(200, {"secrets": found, "imports": []})
        if (path, key) not in rows:
            return self._error(404, "NotFound", f"Secret with name '{key}' not found")
        return reply_json(200, {"secret": self._secret(environment, path, key, rows[path, key], hidden)})

    def _may(self, token: str, environment: str, path: str) -> frozenset[str]:
        for (env, prefix), may in self.grants[token].items():
            if env == environment and (path == prefix or path.startswith(prefix.rstrip("/") + "/")):
                return may
        return frozenset()

    def _secret(self, environment: str, path: str, key: str, value: str, hidden: bool) -> dict[str, Any]:  # noqa: FBT001
        return {
            "id": f"id-{key}",
            "_id": f"id-{key}",
            "workspace": self.project,
            "environment": environment,
            "version": 1,
            "type": "shared",
            "secretKey": key,
            "secretValue": MASK if hidden else value,
            "secretValueHidden": hidden,
            "secretComment": "",
            "secretPath": path,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z",
            "tags": [],
        }

    def _error(self, status: int, word: str, message: str, **more: object) -> Reply:
        fields = {"reqId": "req-0123456789", "statusCode": status, "error": word, "message": message}
        return reply_json(status, fields | more)


@dataclass
class FakeVault(StoreServer):
    """The key-value engine of a Vault, both versions of it.

    Attributes:
        secrets: Path to its versions, oldest first; `None` is a deleted one. Mounted at `secret/` and `kv1/`.
        policies: token to {path of the API: capabilities}; the root token has every one.
        roles: role id to secret id.
    """

    secrets: dict[str, list[dict[str, Any] | None]] = field(
        default_factory=dict[str, "list[dict[str, Any] | None]"]
    )
    policies: dict[str, dict[str, list[str]]] = field(default_factory=dict[str, dict[str, list[str]]])
    roles: dict[str, str] = field(default_factory=dict[str, str])
    root: str = "hvs.root"
    issued_token: str = "hvs.issued"
    ttl: int = 1800
    is_sealed: bool = False

    def route(self, asked: Asked) -> Reply:
        if self.is_sealed:
            return reply_json(503, {"errors": ["Vault is sealed"]})
        path = asked.path.removeprefix("/v1/")
        if path == "auth/approle/login":
            if self.roles.get(asked.body.get("role_id", "")) != asked.body.get("secret_id"):
                return reply_json(400, {"errors": ["invalid role or secret ID"]})
            return self._data(None, auth={"client_token": self.issued_token, "lease_duration": 3600})
        token = asked.headers.get("x-vault-token", "")
        if token != self.root and token not in self.policies:
            return reply_json(403, {"errors": ["permission denied", "invalid token"]})
        match path:
            case "auth/token/lookup-self":
                return self._data(
                    {"ttl": self.ttl, "creation_ttl": 3600, "policies": ["default"], "id": token}
                )
            case "sys/capabilities-self":
                words = {at: self._may(token, at) for at in asked.body["paths"]}
                return (
                    self._data(words)
                    if len(words) != 1
                    else self._data(words | {"capabilities": next(iter(words.values()))})
                )
            case _:
                if not {"read", "root"} & set(self._may(token, path)):
                    return reply_json(403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]})
                return self._read(path, asked.query)

    def _read(self, path: str, query: Mapping[str, str]) -> Reply:
        mount, _, rest = path.partition("/")
        if mount == "kv1":
            versions = self.secrets.get(rest)
            return self._data(versions[-1]) if versions else reply_json(404, {"errors": []})
        kind, _, rest = rest.partition("/")
        versions = self.secrets.get(rest)
        if mount != "secret" or kind not in {"data", "subkeys"} or not versions:
            return reply_json(404, {"errors": []})
        number = int(query.get("version") or len(versions))
        if number > len(versions):
            return reply_json(404, {"errors": []})
        found = versions[number - 1]
        meta = {
            "version": number,
            "created_time": "2026-01-01T00:00:00Z",
            "deletion_time": "",
            "destroyed": False,
        }
        if found is None:
            gone = {"data": None, "metadata": meta | {"deletion_time": "2026-02-01T00:00:00Z"}}
            return reply_json(404, {"request_id": "r-1", "data": gone})
        if kind == "subkeys":
            return self._data({"subkeys": dict.fromkeys(found), "metadata": meta})
        return self._data({"data": found, "metadata": meta})

    def _may(self, token: str, path: str) -> list[str]:
        return ["root"] if token == self.root else self.policies[token].get(path, ["deny"])

    def _data(self, data: object, **more: object) -> Reply:
        fields = {"request_id": "r-1", "lease_id": "", "renewable": False, "lease_duration": 0, "data": data}
        return reply_json(200, fields | {"wrap_info": None, "warnings": None, "auth": None} | more)


@contextmanager
def serving(server: StoreServer, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `server` on this machine, with `tls` over HTTPS; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        rbufsize: ClassVar[int] = -1

        def _handle(self) -> None:
            url = urlsplit(self.path)
            size = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(size)
            reply = server.answer(
                Asked(
                    method=self.command,
                    path=unquote(url.path),
                    raw_path=self.path,
                    query={
                        name: values[-1]
                        for name, values in parse_qs(url.query, keep_blank_values=True).items()
                    },
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=json.loads(data) if data else {},
                )
            )
            if reply.close:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("content-length", str(reply.declared_size or len(reply.body)))
            self.end_headers()
            if reply.pause_s:
                for byte in reply.body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(reply.pause_s)
            else:
                self.wfile.write(reply.body)
            self.close_connection = self.close_connection or reply.declared_size is not None

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

        do_GET = do_POST = _handle  # noqa: N815  # its names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name
            """A test says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is what some tests are about."""

    http = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.site = f"http{'' if tls is None else 's'}://127.0.0.1:{http.server_port}"
    try:
        yield server.site
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
