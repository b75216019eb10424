"""The upgrade, the handshake and the frames of `/relay`, against the relay contract, sections 2 to 5."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from skep.connector.deliveries import Bounds, Deliveries
from skep.connector.egress import Egress
from skep.connector.seal import Seal
from skep.connector.sessions import Sessions
from skep.connector.upgrade import RelayUpgrade
from skep.foundation.clock import SYSTEM_CLOCK
from skep.store.sqlite.connector import open_connector
from skep.wire.control.base import NoArgs
from skep.wire.relay.token import mint_token
from support.edge import CONTROL, Edge, running_edge

FOREIGN_SECRET = "0" * 64


@pytest.fixture
async def refused(edge: Edge) -> dict[str, str | None]:
    """Tokens that are worth nothing, by why. All of them must look the same from outside."""
    await edge.ensure("gw-gone")
    gone = edge.token("gw-gone")
    await edge.call(CONTROL.GATEWAY_REVOKE, CONTROL.GatewayRevokeArgs(gateway_id="gw-gone"))
    return {
        "missing": None,
        "malformed": "not-a-token",
        "unknown": edge.token("gw-nobody", secret=FOREIGN_SECRET),
        "wrong signature": edge.token(secret=FOREIGN_SECRET),
        "expired and wrong": edge.token(secret=FOREIGN_SECRET, ttl_s=1) + "A",
        "never expires": edge.token(ttl_s=0),
        "too far ahead": edge.token(ttl_s=25 * 3600),
        "revoked": gone,
    }


@pytest.mark.parametrize(
    "why",
    [
        "missing",
        "malformed",
        "unknown",
        "wrong signature",
        "expired and wrong",
        "never expires",
        "too far ahead",
        "revoked",
    ],
)
async def test_refused_token_is_accepted_then_closed_4401(
    edge: Edge, refused: dict[str, str | None], why: str
) -> None:
    """Rule 2: upgrade, then 4401 before any descriptor, and nothing that tells one case from another."""
    gateway = await edge.dial(refused[why])
    message = await gateway.socket.receive(timeout=5)
    assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4401, "unauthorized")


async def test_expired_token_that_is_rightly_signed_is_401(edge: Edge) -> None:
    """Rule 3: a slow clock must not look like a revocation."""
    late = -10 * 60
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await edge.dial(_token_from(edge, late))
    assert raised.value.status == 401


async def test_expired_token_with_a_wrong_signature_is_4401(edge: Edge) -> None:
    """Precedence: the signature is judged before the age."""
    gateway = await edge.dial(_token_from(edge, -10 * 60, secret=FOREIGN_SECRET))
    assert await gateway.close_code() == 4401


async def test_store_that_is_away_is_503(tmp_path: Path) -> None:
    """Rule 4: an outage must not look like a revocation."""
    store = await open_connector(tmp_path / "connector.db")
    deliveries = Deliveries(store, clock=SYSTEM_CLOCK, mark="m", start=1, bounds=Bounds(), platforms={})
    sessions = Sessions(
        store=store,
        deliveries=deliveries,
        egress=Egress(store, {}, SYSTEM_CLOCK),
        platforms={},
        provisioned={},
        clock=SYSTEM_CLOCK,
        settle_s=0,
    )
    app = web.Application()
    RelayUpgrade(store=store, sessions=sessions, seal=Seal(bytes(32)), clock=SYSTEM_CLOCK).add_routes(
        app.router
    )
    await store.close()
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
                await http.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}/relay")
        assert raised.value.status == 503
    finally:
        await runner.cleanup()


async def test_wrong_path_is_400_at_the_upgrade(edge: Edge) -> None:
    """Rule 1."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await edge.http.ws_connect(f"{edge.url}/relais", headers={"Authorization": f"Bearer {edge.token()}"})
    assert raised.value.status == 400


async def test_get_without_an_upgrade_is_400_in_the_contracts_shape(edge: Edge) -> None:
    """Errors under `/relay` are `{"error": …}`."""
    async with edge.http.get(f"{edge.url}/relay") as answer:
        assert (answer.status, list(await answer.json())) == (400, ["error"])


async def test_foreign_host_is_no_reason_to_refuse_a_gateway(edge: Edge) -> None:
    """A gateway proves itself by its token, whatever name it dialled."""
    headers = {"Authorization": f"Bearer {edge.token()}", "Host": "connector.example"}
    socket = await edge.http.ws_connect(f"{edge.url}/relay", headers=headers)
    assert not socket.closed


async def test_compression_is_declined(edge: Edge) -> None:
    """It would cost 36 KB for each idle socket."""
    headers = {"Authorization": f"Bearer {edge.token()}"}
    socket = await edge.http.ws_connect(f"{edge.url}/relay", headers=headers, compress=15)
    assert not socket.compress


async def test_revoking_closes_live_sockets_4401_and_later_dials_too(edge: Edge) -> None:
    """Invariant 10."""
    gateway = await edge.gateway()
    await edge.call(CONTROL.GATEWAY_REVOKE, CONTROL.GatewayRevokeArgs(gateway_id="gw-local"))
    assert await gateway.close_code() == 4401
    assert await (await edge.dial(edge.token())).close_code() == 4401


async def test_rotated_secret_works_beside_the_new_one(edge: Edge) -> None:
    """The old secret lives on for a day, so that nobody is cut off in between."""
    old = edge.token()
    await edge.ensure()
    for token in (old, edge.token()):
        assert (await (await edge.dial(token)).hello())["platform"] == "web"


async def test_ensure_gives_no_secret_to_who_has_a_live_one(edge: Edge) -> None:
    """`have` is the start of the secret's hash."""
    have = hashlib.sha256(edge.secrets["gw-local"].encode()).hexdigest()[:16]
    args = CONTROL.GatewayEnsureArgs(gateway_id="gw-local", tenant="local", have=have)
    assert (await edge.call(CONTROL.GATEWAY_ENSURE, args)).secret is None


async def test_each_hello_is_answered_in_order(edge: Edge) -> None:
    """Also one for a platform that is not provisioned; each line ends with a line feed."""
    gateway = await edge.dial(edge.token())
    await gateway.say(
        {"type": "hello", "platform": "web", "botId": "local", "skep": 1},
        {"type": "hello", "platform": "discord", "botId": "B"},
    )
    platforms = [(await gateway.hear("descriptor"))["descriptor"]["platform"] for _ in range(2)]
    assert platforms == ["web", "discord"]


async def test_stock_hello_gets_one_descriptor_without_our_additions(edge: Edge) -> None:
    """Only a gateway that said `skep` hears it, and only it gets drafts."""
    gateway = await edge.dial(edge.token())
    descriptor = await gateway.hello(is_skep=False)
    assert "skep" not in descriptor
    assert not {"draft", "seen"} & set(descriptor["supported_ops"])
    assert descriptor["supports_draft_streaming"] is False
    assert await gateway.hears_nothing()


BAD_LINES = {
    "not JSON": b"{nope",
    "a list": b"[1,2]",
    "a string": b'"text"',
    "null": b"null",
    "a number": b"7",
    "unknown type": b'{"type":"surprise","x":1}',
    "no type": b"{}",
    "field of a wrong type": b'{"type":"inbound_ack","bufferId":[]}',
    "not UTF-8": b'{"type":"hello","platform":"\xff"}',
    "nested deep": b"[" * 100_000,
    "too long": b'{"type":"hello","platform":"' + b"x" * (5 << 20),
    "blank": b"  ",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
async def test_bad_line_ends_nothing(edge: Edge, line: bytes) -> None:
    """Invariant 17: it is skipped, and what follows on the same socket is heard."""
    gateway = await edge.dial(edge.token())
    half = len(line) // 2
    await gateway.socket.send_bytes(line[:half])
    await gateway.socket.send_bytes(line[half:] + b"\n")
    assert (await gateway.hello())["platform"] == "web"


async def test_frames_split_and_joined_are_read(edge: Edge) -> None:
    """Only a line feed ends a frame."""
    gateway = await edge.dial(edge.token())
    hello = json.dumps({"type": "hello", "platform": "web", "botId": "", "skep": 1})
    idle = json.dumps({"type": "going_idle"})
    await gateway.socket.send_str(hello[:10])
    await gateway.socket.send_str(hello[10:] + "\n" + idle)
    await gateway.socket.send_str("\r\n")
    assert [(await gateway.hear())["type"] for _ in range(2)] == ["descriptor", "going_idle_ack"]


async def test_status_tells_who_is_connected(edge: Edge) -> None:
    """Nothing secret is in it."""
    gateway = await edge.gateway()
    status = await edge.call(CONTROL.STATUS_GET, NoArgs())
    assert [(row.gateway_id, row.connected) for row in status.gateways] == [("gw-local", True)]
    assert edge.secrets["gw-local"] not in repr(status)
    await gateway.socket.close()


async def test_stopping_closes_1012(tmp_path: Path) -> None:
    """Gateways come back at once."""
    async with asyncio.TaskGroup() as group, running_edge(tmp_path / "home") as edge:
        gateway = await edge.gateway()
        closed = group.create_task(gateway.close_code())
    assert closed.result() == 1012


def _token_from(edge: Edge, seconds: int, *, secret: str | None = None) -> str:
    """Return a token that was minted so many seconds from now."""
    now_s = edge.clock.now_ms() // 1000 + seconds
    return mint_token("gw-local", secret=secret or edge.secrets["gw-local"], now_s=now_s)
