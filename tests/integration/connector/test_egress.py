"""What a gateway can do to a platform, against the relay contract, sections 7, 13 and 16."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.connector.egress import Egress, Identity, Origin
from skep.foundation.clock import SYSTEM_CLOCK
from skep.store.sqlite.connector import ChatRow, ConnectorStore, ConnectorTx, open_connector
from skep.wire.relay.actions import Result
from skep.wire.relay.frames import Outbound
from support.edge import CONTROL, Edge, FakeGateway, Tab, running_edge
from support.plain_platform import FakePlatform
from support.waiting import eventually

DECLINED = {
    "success": False,
    "code": "egress_declined",
    "error": "web egress declined: target is not an approved destination for this connection",
}


@dataclass
class Talk:
    """A gateway, a tab, and one message that was acknowledged."""

    edge: Edge
    gateway: FakeGateway
    who: dict[str, str]
    tab: Tab
    conversation: str
    message: str

    def action(self, op: str, /, **fields: Any) -> dict[str, Any]:
        """Return an action into the conversation, as our gateway would write it."""
        metadata = {"scope_id": "local", "agent": "concierge", **fields.pop("metadata", {})}
        return {"op": op, "chat_id": self.conversation, "metadata": metadata, **fields}


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[Talk]:
    """A conversation in which both ends are there."""
    async with running_edge(tmp_path / "home") as edge:
        gateway = await edge.gateway()
        who = await edge.bearer()
        conversation = await edge.conversation(who)
        tab = await edge.ready_tab(who)
        stored = await tab.send(conversation, "hello")
        await gateway.ack(await gateway.hear("inbound"))
        await tab.hear("state")
        yield Talk(edge, gateway, who, tab, conversation, stored["message"])


async def test_send_appears_and_says_whom_it_answers(talk: Talk) -> None:
    """Speaker and answers come in the metadata."""
    result = await talk.gateway.do(
        talk.action("send", content="hi", metadata={"idem": "r:1", "answers": [talk.message]})
    )
    message = (await talk.tab.hear("message"))["message"]
    assert result == {"success": True, "message_id": message["id"]}
    assert message["from"] == {"kind": "agent", "name": "concierge"}
    assert (message["text"], message["answers"], message["reply_to"]) == ("hi", [talk.message], talk.message)


async def test_repeat_of_a_key_answers_the_first_result_and_does_nothing(talk: Talk) -> None:
    """Exactly one message, also when the repeat has other words or comes at the same time."""
    actions = [talk.action("send", content=text, metadata={"idem": "r:1"}) for text in ("hi", "hi", "ho")]
    results = [await talk.gateway.do(action) for action in actions]
    assert results[0] == results[1] == results[2]
    texts = [message["text"] for message in await talk.edge.messages(talk.who, talk.conversation)]
    assert texts == ["hello", "hi"]


async def test_key_is_the_gateways_own(talk: Talk) -> None:
    """Without a key, as from a stock gateway, each send is a message."""
    first, second = [await talk.gateway.do(talk.action("send", content="hi")) for _ in range(2)]
    assert first["message_id"] != second["message_id"]


async def test_drafts_grow_into_the_final_message(talk: Talk) -> None:
    """Tabs are told what was added; the final text has the draft's id; nothing is kept before it."""
    key = {"idem": "r:1", "answers": [talk.message]}
    shown = ""
    ids: set[str] = set()
    for text in ("Hel", "Hello", "Hello 🐝 wor", "Help"):
        await talk.gateway.do(talk.action("draft", draft_id=1, content=text, final=False, metadata=key))
        step = await talk.tab.hear("draft")
        shown = shown[: step["at"]] + step["add"]
        ids.add(step["message"])
        assert shown == text
    assert len(await talk.edge.messages(talk.who, talk.conversation)) == 1
    await talk.gateway.do(talk.action("draft", draft_id=1, content="Hello world", final=True, metadata=key))
    message = (await talk.tab.hear("message"))["message"]
    assert (message["text"], {message["id"]}) == ("Hello world", ids)


async def test_draft_after_the_final_changes_nothing(talk: Talk) -> None:
    """It is answered with the final's id, also by a connector that has forgotten the draft."""
    key = {"idem": "r:1"}
    final = await talk.gateway.do(talk.action("send", content="all", metadata=key))
    await talk.tab.hear("message")
    late = talk.action("draft", draft_id=1, content="al", final=False, metadata=key)
    assert await talk.gateway.do(late) == final
    assert await talk.tab.hears_nothing()


async def test_drafts_are_not_durable_and_each_tab_gets_the_whole(talk: Talk) -> None:
    """A tab that comes later is told the text so far."""
    draft = talk.action("draft", draft_id=1, content="so far", final=False, metadata={"idem": "r:1"})
    await talk.gateway.do(draft)
    late = await talk.edge.tab(talk.who)
    step = await late.hear("draft")
    assert (step["at"], step["add"]) == (0, "so far")


async def test_seen_and_typing(talk: Talk) -> None:
    """The tick is told once; typing is told when it changes."""
    for _ in range(2):
        assert (await talk.gateway.do(talk.action("seen", message_ids=[talk.message])))["success"]
    assert (await talk.tab.hear())["state"] == "seen"
    for content in ({}, {}, {"content": ""}):
        await talk.gateway.do(talk.action("typing", **content))
    told = [await talk.tab.hear() for _ in range(2)]
    assert [(event["t"], event["on"]) for event in told] == [("typing", True), ("typing", False)]
    assert await talk.tab.hears_nothing()


async def test_seen_of_a_foreign_message_changes_nothing(talk: Talk) -> None:
    """Only messages of the chat that the guard let through."""
    other = await talk.edge.conversation(talk.who)
    stored = await talk.tab.send(other, "elsewhere", client_id="w-2")
    await talk.gateway.do(talk.action("seen", message_ids=[stored["message"]]))
    assert (await talk.edge.messages(talk.who, other))[0]["state"] == "stored"


async def test_edit_is_the_same_message_with_a_new_number(talk: Talk) -> None:
    """Only of what this gateway wrote."""
    sent = await talk.gateway.do(talk.action("send", content="hi"))
    first = await talk.tab.hear("message")
    edit = talk.action("edit", message_id=sent["message_id"], content="ho")
    assert (await talk.gateway.do(edit))["success"]
    second = await talk.tab.hear("message")
    assert (second["message"]["id"], second["message"]["text"]) == (first["message"]["id"], "ho")
    assert second["n"] > first["n"]
    foreign = await talk.gateway.do(talk.action("edit", message_id=talk.message, content="no"))
    assert foreign["code"] == "not_found_message"


REFUSED_ACTIONS = {
    "unknown op": ({"op": "explode"}, "unsupported", "unsupported op: explode"),
    "op of others": (
        {"op": "react", "message_id": "m", "emoji": "x"},
        "unsupported",
        "unsupported op: react",
    ),
    "no content": ({"op": "send"}, "bad_format", None),
    "blank": ({"op": "send", "content": " \n"}, "bad_format", "the text is empty"),
    "too long": ({"op": "send", "content": "x" * 300_000}, "too_long", None),
}


@pytest.mark.parametrize(("fields", "code", "error"), REFUSED_ACTIONS.values(), ids=REFUSED_ACTIONS.keys())
async def test_refused_action_is_answered(
    talk: Talk, fields: dict[str, Any], code: str, error: str | None
) -> None:
    """Silence would cost the caller 30 s."""
    action = {**talk.action(fields["op"]), **fields}
    result = await talk.gateway.do(action)
    assert (result["success"], result["code"]) == (False, code)
    assert error in (None, result["error"])


async def test_guard_refuses_all_alike(talk: Talk) -> None:
    """Invariants 6 to 8: equal bytes for every reason, and asked twice it refuses twice."""
    send = talk.action("send", content="x")
    attempts: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({**send, "chat_id": "c_unknown"}, {}),
        ({**send, "metadata": {}}, {}),
        ({**send, "metadata": {"scope_id": "other"}}, {}),
        ({**send, "metadata": {"user_id": "stranger"}}, {}),
        ({**send, "metadata": {"scope_id": "local", "guild_id": "other"}}, {}),
        (send, {"platform": "web", "botId": "somebody-elses"}),
    ]
    for action, tag in [*attempts, *attempts]:
        assert await talk.gateway.do(action, **tag) == DECLINED
    assert await talk.tab.hears_nothing()


async def test_guard_accepts_scope_alias_user_and_tags(talk: Talk) -> None:
    """The same chat, named in each allowed way."""
    send = talk.action("send", content="x")
    attempts: list[tuple[dict[str, Any], dict[str, str]]] = [
        (send, {"platform": "web", "botId": "local"}),
        (send, {"platform": "web"}),
        ({**send, "metadata": {"guild_id": "local"}}, {}),
        ({**send, "metadata": {"user_id": "owner"}}, {}),
    ]
    for action, tag in attempts:
        assert (await talk.gateway.do(action, **tag))["success"]


async def test_other_gateway_of_the_tenant_cannot_write_into_the_chat(talk: Talk) -> None:
    """It serves another instance."""
    other = await talk.edge.gateway("gw-other")
    assert await other.do(talk.action("send", content="x")) == DECLINED


async def test_gateway_that_was_revoked_and_made_again_has_no_chats(talk: Talk) -> None:
    """What it could write to before is forgotten, in memory too."""
    send = talk.action("send", content="x")
    assert (await talk.gateway.do(send))["success"]
    await talk.edge.call(CONTROL.GATEWAY_REVOKE, CONTROL.GatewayRevokeArgs(gateway_id="gw-local"))
    await talk.edge.ensure()
    assert await (await talk.edge.gateway()).do(send) == DECLINED


async def test_send_before_hello_is_declined(talk: Talk) -> None:
    """Nothing was advertised on that connection."""
    silent = await talk.edge.dial(talk.edge.token())
    result = await silent.do(talk.action("send", content="x"))
    assert result["code"] == "egress_declined"


async def test_restart_keeps_keys_and_drafts_ids(tmp_path: Path) -> None:
    """A retry after a restart finds the first answer."""
    async with running_edge(tmp_path / "home") as edge:
        gateway = await edge.gateway()
        who = await edge.bearer()
        conversation = await edge.conversation(who)
        await (await edge.ready_tab(who)).send(conversation, "hello")
        action = {
            "op": "send",
            "chat_id": conversation,
            "content": "hi",
            "metadata": {"scope_id": "local", "idem": "r:1"},
        }
        first = await gateway.do(action)
        secrets = edge.secrets
    async with running_edge(tmp_path / "home") as edge:
        edge.secrets = secrets
        gateway = await edge.gateway()
        assert await gateway.do(action) == first


# A platform whose store is not ours: the record of relay contract, section 16.


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ConnectorStore]:
    """A database that knows one chat of one tenant."""
    store = await open_connector(tmp_path / "connector.db")
    chat = ChatRow("fake", "bot", "c", "gw", "s", "u", b'{"platform":"fake","chat_id":"c"}')

    def prepare(tx: ConnectorTx) -> None:
        tx.add_tenant("t", now_ms=0)
        tx.put_chat("t", chat)

    await store.write(prepare)
    yield store
    await store.close()


ORIGIN = Origin(
    gateway_id="gw", tenant="t", instance="gw", identities=(Identity(platform="fake", bot_id="bot"),)
)


def _send(idem: str | None = "r:1", *, content: str = "x", **metadata: object) -> Outbound:
    hints = {"scope_id": "s", "idem": idem, **metadata}
    action = {"op": "send", "chat_id": "c", "content": content, "metadata": hints}
    return Outbound(request_id="1", action=msgspec.Raw(msgspec.json.encode(action)))


async def test_platform_is_called_once_per_key(store: ConnectorStore) -> None:
    """The stored result is the answer of every repeat."""
    platform = FakePlatform(results=[Result(success=True, message_id="p1")])
    egress = Egress(store, {"fake": platform}, SYSTEM_CLOCK)
    results = [await egress.perform(_send(), ORIGIN) for _ in range(3)]
    assert (results, platform.calls) == ([Result(success=True, message_id="p1")] * 3, 1)


async def test_temporary_refusal_may_be_asked_again(store: ConnectorStore) -> None:
    """The platform certainly did nothing."""
    again = Result(code="rate_limited", error="network: slow down", retry_after_ms=5)
    platform = FakePlatform(results=[again, Result(success=True, message_id="p1")])
    egress = Egress(store, {"fake": platform}, SYSTEM_CLOCK)
    assert [(await egress.perform(_send(), ORIGIN)).success for _ in range(3)] == [False, True, True]
    assert platform.calls == 2


async def test_send_that_was_cut_off_is_unknown_until_asked_as_a_repeat(store: ConnectorStore) -> None:
    """Killed between the record and the result: said once, sent again only when marked."""
    platform = FakePlatform(gate=asyncio.Event())
    async with asyncio.TaskGroup() as group:
        cut = group.create_task(Egress(store, {"fake": platform}, SYSTEM_CLOCK).perform(_send(), ORIGIN))
        await eventually(lambda: platform.calls == 1)
        cut.cancel()
    after = FakePlatform(results=[Result(success=True, message_id="p1")])
    egress = Egress(store, {"fake": after}, SYSTEM_CLOCK)
    assert (await egress.perform(_send(), ORIGIN)).code == "unknown_outcome"
    assert after.calls == 0
    assert (await egress.perform(_send(repeat=True), ORIGIN)).message_id == "p1"


async def test_cut_off_send_is_repeated_where_that_is_safe(store: ConnectorStore) -> None:
    """A platform with idempotent send takes it again."""
    await store.write(lambda tx: tx.begin_egress("gw", "r:1", now_ms=0))
    platform = FakePlatform(repeats_safely=True, results=[Result(success=True, message_id="p1")])
    egress = Egress(store, {"fake": platform}, SYSTEM_CLOCK)
    assert (await egress.perform(_send(), ORIGIN)).message_id == "p1"


async def test_sends_to_one_chat_are_serial(store: ConnectorStore) -> None:
    """One at a time, in the order of their frames, also when the chat was not looked up before."""
    texts = [f"text {i}" for i in range(20)]
    platform = FakePlatform(results=[Result(success=True, message_id=text) for text in texts])
    egress = Egress(store, {"fake": platform}, SYSTEM_CLOCK)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(egress.perform(_send(None, content=text), ORIGIN)) for text in texts]
    assert [task.result().message_id for task in tasks] == texts
    assert platform.said == texts


async def test_chat_without_a_known_author_needs_its_scope(store: ConnectorStore) -> None:
    """No discriminator is not the same as an absent one."""
    chat = ChatRow("fake", "bot", "c", "gw", None, None, b"{}")
    await store.write(lambda tx: tx.put_chat("t", chat))
    platform = FakePlatform()
    egress = Egress(store, {"fake": platform}, SYSTEM_CLOCK)
    assert (await egress.perform(_send(scope_id=None), ORIGIN)).code == "egress_declined"
    assert platform.calls == 0


async def test_store_that_is_away_is_a_temporary_refusal(store: ConnectorStore) -> None:
    """With the word that makes a 0.19.0 gateway try again."""
    await store.close()
    result = await Egress(store, {"fake": FakePlatform()}, SYSTEM_CLOCK).perform(_send(), ORIGIN)
    assert (result.code, "network" in (result.error or "")) == ("transient", True)
