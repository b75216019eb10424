"""Questions with choices in the web chat, against the control protocol, sections 7 and 13."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skep.foundation.clock import ManualClock
from support.edge import Edge, FakeGateway, Tab, running_edge

TEA_OR_COFFEE = [{"id": "1", "label": "tea"}, {"id": "2", "label": "coffee"}]


def _prompt(conversation: str, **more: Any) -> dict[str, Any]:
    """Return the action that asks."""
    metadata = {"scope_id": "local", "user_id": "owner", "agent": "concierge", **more.pop("metadata", {})}
    return {
        "op": "prompt",
        "chat_id": conversation,
        "content": "Which one?",
        "prompt_kind": "choice",
        "prompt_id": "ab12.7",
        "options": TEA_OR_COFFEE,
        "metadata": metadata,
        **more,
    }


async def _asked(edge: Edge, tab: Tab, conversation: str, **more: Any) -> tuple[FakeGateway, dict[str, Any]]:
    """Return a gateway that has asked, and the message as the tab saw it."""
    gateway = await edge.gateway()
    await tab.send(conversation, "hello")
    await gateway.ack(await gateway.hear("inbound"))
    result = await gateway.do(_prompt(conversation, **more))
    assert result["success"], result
    shown = (await tab.hear("message"))["message"]
    assert shown["id"] == result["message_id"]
    return gateway, shown


async def test_choices_are_shown_with_the_question(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """In the event, and when the messages are asked for."""
    tab = await edge.ready_tab(who)
    _, shown = await _asked(edge, tab, conversation)
    assert (shown["text"], shown["from"]) == ("Which one?", {"kind": "agent", "name": "concierge"})
    assert shown["prompt"] == {"id": "ab12.7", "options": TEA_OR_COFFEE}
    assert (await edge.messages(who, conversation))[-1] == shown


async def test_press_reaches_the_gateway_and_every_tab(
    edge: Edge, who: dict[str, str], conversation: str
) -> None:
    """As the answer to that prompt; the message is told again with what was chosen."""
    tab, other = await edge.ready_tab(who), await edge.ready_tab(who)
    gateway, shown = await _asked(edge, tab, conversation)
    await tab.say(t="choose", conversation=conversation, prompt="ab12.7", option="2")
    told = (await tab.hear("message"))["message"]
    assert (told["id"], told["prompt"]["chosen"]) == (shown["id"], "2")
    assert told["prompt"]["chosen_at"] > 0
    while (seen := (await other.hear("message"))["message"]).get("prompt", {}).get("chosen") is None:
        pass
    assert seen == told
    event = (await gateway.hear("inbound"))["event"]
    assert event["prompt_response"] == {
        "prompt_id": "ab12.7",
        "option_id": "2",
        "label": "coffee",
        "prompt_message_id": shown["id"],
    }
    assert (event["text"], event["message_type"]) == ("/2", "command")  # what a gateway without prompts reads
    assert event["source"]["user_id"] == "owner"


async def test_second_press_changes_nothing(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """The same one is passed over, another one is refused; the gateway hears of one."""
    tab = await edge.ready_tab(who)
    gateway, _ = await _asked(edge, tab, conversation)
    for option in ("2", "2", "1"):
        await tab.say(t="choose", conversation=conversation, prompt="ab12.7", option=option)
    assert (await tab.hear("message"))["message"]["prompt"]["chosen"] == "2"
    refused = await tab.hear("error")
    assert (refused["code"], refused["id"]) == ("web.not_open", "ab12.7")
    await gateway.ack(await gateway.hear("inbound"))
    assert await gateway.hears_nothing()


async def test_question_closes_by_itself(tmp_path: Path) -> None:
    """At the end that the asker gave it."""
    clock = ManualClock(now_ms=1_767_225_600_000)
    async with running_edge(tmp_path / "home", clock=clock) as edge:
        await edge.ensure()
        who = await edge.bearer()
        conversation = await edge.conversation(who)
        tab = await edge.ready_tab(who)
        _, shown = await _asked(edge, tab, conversation, timeout_s=60)
        assert shown["prompt"]["until"] == clock.now_ms() + 60_000
        clock.advance(60_000)
        await tab.say(t="choose", conversation=conversation, prompt="ab12.7", option="1")
        assert (await tab.hear("error", "message"))["code"] == "web.not_open"


@pytest.mark.parametrize(("prompt", "option"), [("ab12.8", "1"), ("ab12.7", "3")])
async def test_press_on_what_is_not_there_is_refused(
    edge: Edge, who: dict[str, str], conversation: str, prompt: str, option: str
) -> None:
    """No such question, no such choice; a conversation of somebody else's has none either."""
    tab = await edge.ready_tab(who)
    await _asked(edge, tab, conversation)
    await tab.say(t="choose", conversation=conversation, prompt=prompt, option=option)
    assert (await tab.hear("error", "message"))["code"] == "web.not_found"
    await tab.say(t="choose", conversation="c_x", prompt="ab12.7", option="1")
    assert (await tab.hear("error", "message"))["code"] == "web.not_found"


async def test_repeated_question_is_one(edge: Edge, who: dict[str, str], conversation: str) -> None:
    """Its key finds the first one, also after it was answered."""
    tab = await edge.ready_tab(who)
    gateway, shown = await _asked(edge, tab, conversation, metadata={"idem": "k-1"})
    await tab.say(t="choose", conversation=conversation, prompt="ab12.7", option="1")
    await tab.hear("message")
    again = await gateway.do(_prompt(conversation, metadata={"idem": "k-1"}))
    assert again["message_id"] == shown["id"]
    assert [m["prompt"]["chosen"] for m in await edge.messages(who, conversation) if "prompt" in m] == ["1"]


BAD = {
    "none": [],
    "twice the same": [TEA_OR_COFFEE[0], TEA_OR_COFFEE[0]],
    "too many": [{"id": str(n), "label": "x"} for n in range(21)],
    "without words": [{"id": "1", "label": "  "}],
    "too long": [{"id": "1", "label": "x" * 201}],
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD.keys())
async def test_choices_that_cannot_be_shown_are_refused(
    edge: Edge, who: dict[str, str], conversation: str, options: list[dict[str, str]]
) -> None:
    """So that the gateway says them as text."""
    tab = await edge.ready_tab(who)
    gateway = await edge.gateway()
    await tab.send(conversation, "hello")
    await gateway.hear("inbound")
    result = await gateway.do(_prompt(conversation, options=options))
    assert (result["success"], result["code"]) == (False, "bad_format")
    assert len(await edge.messages(who, conversation)) == 1


async def test_choice_that_was_given_up_is_open_again(tmp_path: Path) -> None:
    """With words that say so; it can be pressed once more."""
    async with running_edge(tmp_path / "home", buffer_events=1) as edge:
        await edge.ensure()
        who = await edge.bearer()
        conversation = await edge.conversation(who)
        tab = await edge.ready_tab(who)
        gateway, shown = await _asked(edge, tab, conversation)
        await gateway.socket.close()
        await tab.say(t="choose", conversation=conversation, prompt="ab12.7", option="1")
        assert (await tab.hear("message"))["message"]["prompt"]["chosen"] == "1"
        await tab.send(conversation, "two", client_id="b")
        again = (await tab.hear("message"))["message"]
        assert (again["id"], "chosen" in again["prompt"]) == (shown["id"], False)
        notice = (await tab.hear("message"))["message"]
        assert (notice["from"]["kind"], notice["reply_to"]) == ("system", shown["id"])
        await tab.say(t="choose", conversation=conversation, prompt="ab12.7", option="2")
        assert (await tab.hear("message"))["message"]["prompt"]["chosen"] == "2"
