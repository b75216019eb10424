"""One bounded HTTP exchange with a store.

Source: secrets and providers, section A3. No redirect is followed, no certificate goes unchecked, no proxy
or password file of the environment is used, no answer is longer than 1 MiB or later than the total limit.
What the library raises holds the request with its credential: it is never the cause of what is raised here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import httpx
import msgspec

from skep.foundation.exits import Outcome
from skep.foundation.outbound import Unreached, as_request_id, is_encoded, make_client, why_unreached
from skep.foundation.redaction import Redactor
from skep.secrets.manifest import NetworkStore
from skep.secrets.problems import SecretError, usage

__all__ = ["MAX_ANSWER_BYTES", "Answer", "StoreClient"]

MAX_ANSWER_BYTES: Final = 1_048_576
RATE_TRIES: Final = 3
MAX_RETRY_AFTER_S: Final = 30.0
_UNREACHED: Final[Mapping[Unreached, str]] = {
    "tls": "its certificate or TLS is not acceptable",
    "name": "its name cannot be resolved",
    "connection": "it cannot be reached",
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Answer:
    """What a store answered: a status and a JSON object.

    Attributes:
        fields: The object; empty when `is_object` is false.
        is_object: The body is one JSON object.
    """

    status: int
    fields: dict[str, Any]
    is_object: bool
    request_id: str | None


class StoreClient:
    """Speaks to one store; a context manager."""

    def __init__(self, name: str, store: NetworkStore, redactor: Redactor) -> None:
        self.where: Final = f"{name} ({urlsplit(store.site).hostname})"
        self.redactor: Final = redactor
        self._timeout_s = store.timeout_s
        self._base = store.site.rstrip("/")
        self._client = make_client(
            trust=_trust(store), timeout=store.timeout_s, limits=httpx.Limits(max_connections=4)
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        subject: str,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        """Return the answer to one request; a refusal for too many requests is tried again.

        Args:
            path: From the root of the site, each piece encoded.
            subject: The reference or check, for the error.

        Raises:
            SecretError: `network`, `timeout`, `malformed`; the status of an answer is the caller's to judge.
        """
        for left in range(RATE_TRIES - 1, -1, -1):
            answer, retry_after_s = await self._once(method, path, subject, headers, query, body)
            if answer.status != 429 or not left or retry_after_s > MAX_RETRY_AFTER_S:
                return answer
            await asyncio.sleep(retry_after_s)
        raise AssertionError("the last try returns")

    def problem(
        self, outcome: Outcome, problem: str, *, subject: str, answer: Answer | None = None, hint: str = ""
    ) -> SecretError:
        """Return the error for `answer`, with what the server said, scrubbed."""
        said = "" if answer is None else _said(answer.fields)
        return SecretError(
            outcome,
            problem,
            where=self.where,
            subject=subject,
            hint=hint,
            http_status=None if answer is None else answer.status,
            request_id=None if answer is None else self.redactor.scrub(answer.request_id or "") or None,
            detail=self.redactor.scrub(said[:20_000]),
        )

    async def _once(
        self,
        method: str,
        path: str,
        subject: str,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None,
        body: Mapping[str, object] | None,
    ) -> tuple[Answer, float]:
        failed: tuple[Outcome, str] | None = None
        status, got, data = 0, httpx.Headers(), b""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(
                    method, f"{self._base}/{path}", headers=dict(headers), params=query, json=body
                ) as response,
            ):
                status, got = response.status_code, response.headers
                if status < 300 or status >= 400:
                    data = await _read(response)
        except (TimeoutError, httpx.TimeoutException):
            failed = "timeout", f"no whole answer within {self._timeout_s:g} s"
        except httpx.RemoteProtocolError as exc:
            ended_early = not status and "without sending" in str(exc)
            failed = (
                ("network", "the connection was closed")
                if ended_early
                else ("malformed", "the answer is cut")
            )
        except httpx.TransportError as exc:
            failed = (
                ("network", "the connection broke") if status else ("network", _UNREACHED[why_unreached(exc)])
            )
        except _TooLongError:
            failed = "malformed", f"the answer is over {MAX_ANSWER_BYTES} bytes"
        except _EncodedError:
            failed = "malformed", "the answer is compressed, which was not asked for"
        except httpx.InvalidURL:
            failed = "usage", "the address of the store is not one"
        if failed is None and 300 <= status < 400:
            failed = "malformed", f"the store answered {status}: a redirect, which is not followed"
        if failed is not None:
            outcome, why = failed
            raise SecretError(
                outcome, f"{self.where}: {why}", where=self.where, subject=subject, http_status=status or None
            )
        fields, is_object = _object(data)
        request_id = _request_id(fields, got)
        answer = Answer(status=status, fields=fields, is_object=is_object, request_id=request_id)
        return answer, _retry_after(got)


class _TooLongError(Exception):
    """Over the limit."""


class _EncodedError(Exception):
    """Compressed."""


async def _read(response: httpx.Response) -> bytes:
    if is_encoded(response):
        raise _EncodedError
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) > MAX_ANSWER_BYTES:
            raise _TooLongError
    return bytes(data)


def _object(data: bytes) -> tuple[dict[str, Any], bool]:
    try:
        parsed: object = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        parsed = None
    return (cast("dict[str, Any]", parsed), True) if isinstance(parsed, dict) else ({}, False)


def _request_id(fields: Mapping[str, Any], headers: httpx.Headers) -> str | None:
    return as_request_id(fields.get("reqId") or fields.get("request_id") or headers.get("x-request-id"))


def _retry_after(headers: httpx.Headers) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isdecimal() and len(text) < 6 else 1.0


def _said(fields: Mapping[str, Any]) -> str:
    said = fields.get("message") or fields.get("errors") or fields.get("error") or ""
    return said if isinstance(said, str) else msgspec.json.encode(said).decode()


def _trust(store: NetworkStore) -> ssl.SSLContext:
    if store.site.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; loading whom to trust takes time
    context = ssl.create_default_context()
    if store.ca_file is not None:
        try:
            context.load_verify_locations(cafile=store.ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise usage(f"`ca_file` {store.ca_file} cannot be read as certificates") from exc
    return context
