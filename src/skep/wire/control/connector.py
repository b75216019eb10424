"""Administration of the connector on its own machine.

Source: control protocol, section 10. Tokens and codes appear in an answer once and are never listed.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from skep.foundation.health import Finding
from skep.foundation.rpc import Method, Table
from skep.wire.control.base import Args, Empty, NoArgs, Result

__all__ = [
    "CONNECTOR",
    "GATEWAY_ENSURE",
    "GATEWAY_LIST",
    "GATEWAY_REVOKE",
    "STATUS_GET",
    "WEB_CODE",
    "ConnectorStatus",
    "GatewayEnsureArgs",
    "GatewayEnsureResult",
    "GatewayRevokeArgs",
    "GatewayRow",
    "GatewayRows",
    "PlatformStatus",
    "WebCodeArgs",
    "WebCodeResult",
]


class PlatformStatus(Result, frozen=True):
    """One platform account of this connector."""

    platform: str
    account: str
    state: str
    last_event_at: int | None = None


class GatewayRow(Result, frozen=True):
    """One gateway as the connector knows it."""

    gateway_id: str
    tenant: str
    connected: bool
    buffered: int = 0
    last_seen_at: int | None = None
    is_skep: bool = False


class ConnectorStatus(Result, frozen=True):
    """How the connector is."""

    build: str
    started_at: int
    chat_url: str
    gateways: tuple[GatewayRow, ...] = ()
    platforms: tuple[PlatformStatus, ...] = ()
    findings: tuple[Finding, ...] = ()


class GatewayEnsureArgs(Args, frozen=True):
    """Make sure that this gateway has a live secret.

    Attributes:
        have: First 16 hex digits of SHA-256 of the secret that the caller holds.
    """

    gateway_id: str
    tenant: str
    have: str | None = None


class GatewayEnsureResult(Result, frozen=True):
    """`secret` is absent when the caller's is live."""

    secret: str | None = None


class GatewayRows(Result, frozen=True):
    """All gateways."""

    gateways: tuple[GatewayRow, ...] = ()


class GatewayRevokeArgs(Args, frozen=True):
    """Cut this gateway off, at once and for good."""

    gateway_id: str


class WebCodeArgs(Args, frozen=True):
    """A one-time sign-in for an account of the web chat."""

    account: str = "owner"
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=900)] = 900


class WebCodeResult(Result, frozen=True):
    """`url` carries the code in its fragment."""

    code: str
    url: str


STATUS_GET = Method(name="status.get", args=NoArgs, result=ConnectorStatus)
GATEWAY_ENSURE = Method(name="gateway.ensure", args=GatewayEnsureArgs, result=GatewayEnsureResult)
GATEWAY_LIST = Method(name="gateway.list", args=NoArgs, result=GatewayRows)
GATEWAY_REVOKE = Method(name="gateway.revoke", args=GatewayRevokeArgs, result=Empty)
WEB_CODE = Method(name="web.code", args=WebCodeArgs, result=WebCodeResult)

CONNECTOR = Table("connector.sock", (STATUS_GET, GATEWAY_ENSURE, GATEWAY_LIST, GATEWAY_REVOKE, WEB_CODE))
