"""Rules that every answer of this port follows, whoever asks.

Source: reliability, section 3.2; control protocol, sections 11 and 13. Nothing here knows what is served.
`/relay` is held to none of the browser rules: a gateway proves itself by its token, and no browser can
send one with an upgrade.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from skep.foundation.errors import (
    BusyError,
    RefusedError,
    SettingError,
    SignInAgainError,
    SkepError,
    TryAgainError,
    WireError,
)
from skep.foundation.ids import random_token
from skep.foundation.log import get_logger

__all__ = ["MAX_BODY_BYTES", "Sender", "Site", "guard", "read_json", "sender_of", "with_headers"]

MAX_BODY_BYTES: Final = 256 * 1024
RELAY_PATH: Final = "/relay"

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "manifest-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
)
_HEADERS: Final = {
    "Server": "Skep",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

T = TypeVar("T")

_log = get_logger(part="http")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The names that this port answers to.

    Attributes:
        url: Where people open it, without a slash at the end.
        hosts: `Host` headers that are ours, each with the origin of its pages.
        is_https: People come over TLS, ended by something in front of us.
    """

    url: str
    hosts: dict[str, str]
    is_https: bool

    @classmethod
    def of(cls, *, host: str, port: int, public_url: str | None) -> Site:
        """Return the site that listens on `host` and `port`.

        Raises:
            SettingError: `public_url` is not an address of a web server.
        """
        names = {"127.0.0.1", *({host} - {"", "0.0.0.0", "::"})}
        hosts = {_netloc(name, port): f"http://{_netloc(name, port)}" for name in names}
        if public_url is None:
            return cls(url=f"http://127.0.0.1:{port}", hosts=hosts, is_https=False)
        parts = urlsplit(public_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise SettingError(
                "`connector.public_url` is not `https://HOST[:PORT]`", hint="set it without a path"
            )
        origin = f"{parts.scheme}://{parts.netloc.lower()}"
        return cls(
            url=origin, hosts={**hosts, parts.netloc.lower(): origin}, is_https=parts.scheme == "https"
        )

    @property
    def cookie(self) -> str:
        """Name of the session cookie. The prefix holds browsers to its rules; only https may have it."""
        return "__Host-skep_chat" if self.is_https else "skep_chat"


class Sender(enum.Enum):
    """Where a request that changes something comes from, by what only a browser can say."""

    SAME_ORIGIN = enum.auto()
    ELSEWHERE = enum.auto()
    NO_BROWSER = enum.auto()
    """It says nothing: then only a bearer token counts, never a cookie."""


def sender_of(request: web.Request, site: Site) -> Sender:
    """Return where `request` comes from."""
    fetch_site = request.headers.get("Sec-Fetch-Site")
    if fetch_site is not None:
        return Sender.SAME_ORIGIN if fetch_site == "same-origin" else Sender.ELSEWHERE
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None:
        return Sender.SAME_ORIGIN if origin == site.hosts.get(request.host.lower()) else Sender.ELSEWHERE
    return Sender.NO_BROWSER


async def read_json(request: web.Request, type_: type[T]) -> T:
    """Return the body of `request` as `type_`.

    Raises:
        WireError: Not `application/json`, too long, or not of this form; never quotes the body.
    """
    if request.content_type != "application/json":
        raise WireError(
            "the body is not `application/json`", hint="set Content-Type", code="web.unsupported_media"
        )
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError("the body is not of this form", code="web.bad_request") from exc


def guard(site: Site) -> Middleware:
    """Return the middleware that checks `Host` and gives every error its one shape."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_relay = request.path == RELAY_PATH or request.path.startswith(RELAY_PATH + "/")
        if not is_relay and request.host.lower() not in site.hosts:
            error = WireError(
                "this server does not answer to that name", hint=f"open {site.url}", code="web.host"
            )
            return _answer(error, 421, is_relay=False)
        try:
            return await handler(request)
        except SkepError as error:
            return _answer(error, _status(error), is_relay=is_relay)
        except web.HTTPException as exc:
            return _answer_http(request, exc, is_relay=is_relay)
        except Exception as exc:  # noqa: BLE001 - the border: the caller gets an incident id, the log the rest
            incident = random_token(64)
            _log.error("request_failed", method=request.method, incident=incident, exc_info=exc)
            return _answer(SkepError(f"unexpected fault, incident {incident}"), 500, is_relay=is_relay)

    return guarded


def with_headers(site: Site) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return what adds the headers that every answer carries."""
    headers = dict(_HEADERS)
    if site.is_https:
        headers["Strict-Transport-Security"] = "max-age=31536000"

    async def add(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")

    return add


def _answer(error: SkepError, status: int, *, is_relay: bool) -> web.Response:
    body: object = {"error": error.problem} if is_relay else error.as_json()
    response = web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
    if isinstance(error, TryAgainError):
        response.headers[hdrs.RETRY_AFTER] = str(max(1, round(error.retry_after_s)))
    return response


def _answer_http(request: web.Request, exc: web.HTTPException, *, is_relay: bool) -> web.StreamResponse:
    """Return one of aiohttp's own answers in our shape; an upgrade to a wrong path is 400."""
    status = exc.status
    if status < 400:
        raise exc
    if status == 404 and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
        status = 400
    match status:
        case 413:
            error = WireError(f"the body is over {MAX_BODY_BYTES} bytes", code="web.too_large")
        case 404:
            error = WireError("there is nothing here", code="web.not_found")
        case 405:
            error = WireError(f"{request.method} is not spoken here", code="web.method")
        case _:
            error = WireError("the request is not one of this server's", code="web.bad_request")
    return _answer(error, status, is_relay=is_relay)


_STATUS: Final = {
    "not_found": 404,
    "too_large": 413,
    "unsupported_media": 415,
    "rate_limited": 429,
}


def _status(error: SkepError) -> int:
    known = _STATUS.get(error.wire_code)
    if known is not None:
        return known
    match error:
        case SignInAgainError():
            return 401
        case RefusedError():
            return 403
        case BusyError():
            return 429
        case TryAgainError():
            return 503
        case WireError():
            return 400
        case _:
            return 500


def _netloc(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name.lower() if port == 80 else f"{name.lower()}:{port}"
