"""skep.gateway: the link, against relay contract, sections 2 to 5 and 12.1."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from skep.gateway import dialer
from skep.gateway.errors import AmbiguousError, NotSentError
from skep.wire.relay.actions import Result, Send
from skep.wire.relay.frames import GoingIdle, Hello
from support.relay import web_descriptor
from support.waiting import MS, eventually

if TYPE_CHECKING:
    from integration.gateway.conftest import Site

pytestmark = pytest.mark.anyio


async def test_hello_names_each_identity_in_order(site: Site) -> None:
    """One hello each, at once after the upgrade, each saying that we are Skep."""
    site.env |= {
        "GATEWAY_RELAY_PLATFORMS": "discord, web",
        "GATEWAY_RELAY_BOT_IDS": json.dumps({"discord": {"botId": "B-1"}}),
    }
    await site.start()

    hellos = [frame for frame in site.relay.frames if isinstance(frame, Hello)]
    assert hellos == [
        Hello(platform="discord", bot_id="B-1", skep=1),
        Hello(platform="web", bot_id="", skep=1),
    ]
    assert len(site.relay.messages) == 1


async def test_upgrade_offers_no_compression_and_no_origin(site: Site) -> None:
    """Nothing but the token goes beside what an upgrade must have."""
    await site.start()

    headers = site.relay.dials[0]
    assert "Sec-WebSocket-Extensions" not in headers
    assert "Origin" not in headers
    assert headers["Authorization"].startswith("Bearer ")


async def test_gw_07_off_without_an_address(site: Site) -> None:
    """No relay URL: the gateway starts, tells the daemon so, and goes on."""
    site.env["GATEWAY_RELAY_URL"] = ""
    await site.start(connected=False)
    await site.state("off")

    assert site.door.attached[-1].detail == "no relay address"


async def test_gw_07_off_without_credentials_until_they_come(site: Site) -> None:
    """No pair: off; an enrolled pair that appears is used without a restart."""
    pinned = {name: site.env.pop(name) for name in ("GATEWAY_RELAY_ID", "GATEWAY_RELAY_SECRET")}
    await site.start(connected=False)
    await site.state("off")
    detail = site.door.attached[-1].detail
    site.home.gateway_env.write_text("".join(f"{name}={value}\n" for name, value in pinned.items()))
    site.home.gateway_env.chmod(0o600)

    await site.state("connected")
    assert detail == "no credentials"


async def test_gw_07_connecting_while_the_connector_is_away(site: Site) -> None:
    """A connector that is not there is dialled again, and connected when it comes."""
    port = int(site.relay.url.rpartition(":")[2])
    await site.relay.stop()
    await site.start(connected=False)
    await site.state("connecting")
    await eventually(lambda: site.door.attached[-1].detail == f"127.0.0.1:{port} cannot be reached")

    await site.relay.start(port)

    await site.state("connected")


@pytest.mark.parametrize("url", ["connector.example:1", "nonsense", "HTTP://127.0.0.1:1", "ftp://127.0.0.1"])
async def test_gw_07_connecting_with_a_wrong_address(site: Site, url: str) -> None:
    """A wrong address is a state, not a crash."""
    site.env["GATEWAY_RELAY_URL"] = url
    await site.start(connected=False)

    await eventually(lambda: bool(site.door.attached and site.door.attached[-1].detail))
    assert site.door.attached[-1].state == "connecting"


async def test_gw_07_connected_tells_what_the_connector_can(site: Site) -> None:
    """The daemon learns each account and its limits."""
    site.relay.descriptors = (web_descriptor(), web_descriptor(platform="discord", bot_id="B-1", label="D"))
    await site.start()

    await eventually(lambda: len(site.door.attached[-1].descriptors) == 2)
    fronted = site.door.attached[-1].descriptors
    assert [(item.platform, item.bot_id) for item in fronted] == [("web", ""), ("discord", "B-1")]
    assert fronted[0].max_message_length == 32_000


async def test_attached_again_after_the_daemon_was_away(site: Site) -> None:
    """A daemon that starts anew is told the state at once."""
    await site.start()
    await site.door.stop()
    site.door.attached.clear()
    await site.door.start()

    await site.state("connected")


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4000])
async def test_other_close_codes_are_dialled_again(site: Site, code: int) -> None:
    """A fresh token and a fresh set of hellos each time."""
    await site.start()
    await site.relay.close(code)

    await eventually(lambda: len(site.relay.dials) == 2)
    await site.state("connected")
    assert sum(isinstance(frame, Hello) for frame in site.relay.frames) == 2


async def test_connection_cut_without_a_word_is_dialled_again(site: Site) -> None:
    """1006: the peer or the network died."""
    await site.start()
    await site.relay.drop()

    await eventually(lambda: len(site.relay.dials) == 2)
    await site.state("connected")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
async def test_refused_upgrade_is_never_final(site: Site, status: int) -> None:
    """Whatever the status: tried again, and connected when the connector lets us."""
    site.relay.upgrade_status = status
    await site.start(connected=False)
    await eventually(lambda: len(site.relay.dials) >= 3)
    detail = site.door.attached[-1].detail or ""

    site.relay.upgrade_status = None

    await site.state("connected")
    assert detail.endswith(f"answered {status}")


async def test_4401_before_any_descriptor_is_not_final(site: Site) -> None:
    """A connector that does not know us yet may learn of us."""
    site.relay.close_code = (4401, "unauthorized")
    await site.start(connected=False)
    await eventually(lambda: len(site.relay.dials) >= 4)

    site.relay.close_code = None

    await site.state("connected")


async def test_first_4401_after_a_descriptor_is_provisional(site: Site) -> None:
    """One dial at once with a fresh token; the connector may have meant the old one."""
    await site.start()
    await site.relay.close(4401, "unauthorized")

    await eventually(lambda: len(site.relay.dials) == 2)
    await site.state("connected")


async def test_second_4401_is_final(site: Site) -> None:
    """Closed again on that dial: off, said so, and not dialled any more."""
    await site.start()
    site.relay.close_code = (4401, "unauthorized")
    await site.relay.close(4401, "unauthorized")
    await site.state("off")
    dials = len(site.relay.dials)
    await asyncio.sleep(100 * MS)

    assert (dials, len(site.relay.dials)) == (2, 2)
    assert "refused by the connector" in (site.door.attached[-1].detail or "")


async def test_4401_expired_is_never_final(site: Site) -> None:
    """A slow clock must not look like a revocation."""
    await site.start()
    site.relay.close_code = (4401, "expired")
    await site.relay.close(4401, "expired")
    await eventually(lambda: len(site.relay.dials) >= 5)

    site.relay.close_code = None

    await site.state("connected")


async def test_no_descriptor_ends_the_handshake(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connector that says nothing is left and dialled again."""
    monkeypatch.setattr(dialer, "HANDSHAKE_TIMEOUT_S", 0.05)
    site.relay.descriptors = ()
    await site.start(connected=False)
    await eventually(lambda: len(site.relay.dials) >= 2)

    site.relay.descriptors = (web_descriptor(),)

    await site.state("connected")


async def test_bad_lines_do_not_end_the_session(site: Site) -> None:
    """Each line that stops a released client is skipped here, and what follows is taken."""
    await site.start()
    for line in (
        "{oops",
        "[1,2]",
        '"x"',
        "null",
        "7",
        '{"type":"zzz"}',
        '{"x":1}',
        '{"type":"inbound","event":[1]}',
        '{"type":"descriptor","descriptor":{}}',
        '{"type":"outbound_result","result":[]}',
        "[" * 5000,
        '{"type":"passthrough_forward"}',
        '{"type":"inbound","event":null}',
    ):
        await site.relay.sockets[-1].send_str(line + "\n")
    await site.relay.sockets[-1].send_bytes(b'{"type":"inbound","event":{"text":"\xff"}}\n')
    await site.relay.send_event("after", buffer_id="b-1")

    await eventually(lambda: site.relay.acks() == ["b-1"])
    assert (site.door.texts, len(site.relay.dials)) == (["after"], 1)


async def test_stop_goes_idle_first(site: Site) -> None:
    """At a stop the connector is told to keep everything, then the socket is closed."""
    await site.start()
    await site.stop()

    assert isinstance(site.relay.frames[-1], GoingIdle)


async def test_a_request_that_was_never_written_is_known_to_be_so(site: Site) -> None:
    """A lost connection: what waited behind a connector that does not read may be sent again, no other."""
    link = (await site.start()).link
    site.relay.stop_reading()

    async def ask(chat_id: str) -> Result:
        return await link.request(Send(chat_id=chat_id, content="hello"), platform="web", bot_id="")

    written = asyncio.ensure_future(ask("c1"))
    await asyncio.sleep(5 * MS)
    for _ in range(400):
        link.post(Send(chat_id="c2", content="x" * 50_000), platform="web", bot_id="")
    await asyncio.sleep(5 * MS)
    unwritten = asyncio.ensure_future(ask("c3"))
    await asyncio.sleep(5 * MS)
    await site.relay.drop()

    outcomes = await asyncio.gather(written, unwritten, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AmbiguousError, NotSentError]


async def test_stop_of_one_session_reaches_the_daemon(site: Site) -> None:
    """`interrupt_inbound` becomes `door.interrupt` with exactly its session."""
    await site.start()
    await site.relay.send(
        {"type": "interrupt_inbound", "session_key": "agent:main:web:dm:local:c1", "chat_id": "c1"}
    )

    await eventually(lambda: len(site.door.interrupted) == 1)
    assert (site.door.interrupted[0].session_key, site.door.interrupted[0].chat_id) == (
        "agent:main:web:dm:local:c1",
        "c1",
    )


async def test_a_ping_on_a_line_that_is_closing_ends_only_the_line(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library answers pings inside `receive`, and raises when it cannot: the gateway dials again."""
    receive: Any = aiohttp.ClientWebSocketResponse.receive  # either form of it
    closing = iter((True,))

    async def receive_or_raise(socket: aiohttp.ClientWebSocketResponse[Any]) -> Any:
        message = await receive(socket)
        if site.gateway is not None and site.gateway.link.is_connected and next(closing, False):
            await socket.close()
            await socket.pong()
        return message

    monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "receive", receive_or_raise)
    await site.start()
    await site.relay.send_event("before")
    await eventually(lambda: len(site.relay.dials) == 2, within=4_000 * MS)
    await site.state("connected")
    await site.relay.send_event("after")
    await eventually(lambda: "after" in site.door.texts)
