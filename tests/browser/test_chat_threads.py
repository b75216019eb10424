"""Threads of the web chat in a real browser: control protocol, section 13, and the rules of the interface."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from support.browser import HONEY
from support.edge import Edge
from support.room import Room, ticks, visiting_room
from support.waiting import MS, eventually

WIDTHS: Final = {1440: 900, 1024: 768, 390: 844, 320: 640}
FIRST: Final = "Five shops list them. The seal matters more than the price on your hubs."
FOCUSED: Final = "document.activeElement.dataset.thread"


def talk(page: Page) -> Locator:
    """What was said outside of threads."""
    return page.locator("#talk")


def side(page: Page) -> Locator:
    """The thread that is open."""
    return page.get_by_role("complementary", name="Thread")


async def asked(room: Room, text: str = "Who has them on stock?", answer: str = FIRST) -> str:
    """Ask and be answered; return the id of the answer."""
    await room.write(text)
    await room.answer(await room.heard(), answer)
    said = talk(room.page).locator(".said").last
    await expect(said).to_contain_text(answer.split("\n", maxsplit=1)[0])
    return await said.locator("xpath=..").get_attribute("data-row") or ""


async def reply(room: Room, text: str) -> dict[str, Any]:
    """Write in the thread that is open; return what reached the gateway."""
    await room.write(text, place=".side")
    return await room.heard()


async def test_a_thread_is_opened_written_in_and_answered_beside_the_conversation(room: Room) -> None:
    """By mouse: the answer streams in the pane and not in the main flow, which only says that there are replies."""
    page = room.page
    first = await asked(room)
    await talk(page).locator(".said").hover()
    await page.get_by_role("link", name="Reply in a thread").last.click()
    await expect(side(page).locator(".said .text")).to_have_text(FIRST)
    await expect(side(page).get_by_role("heading")).to_contain_text("Five shops list them.")
    await expect(side(page).locator(".replies")).to_have_count(0)
    await expect(side(page).get_by_role("textbox", name="Reply in this thread")).to_be_focused()

    event = await reply(room, "did we not have trouble with 2RS in the wet?")
    assert (event["text"], event["source"]["thread_id"]) == (
        "did we not have trouble with 2RS in the wet?",
        first,
    )
    state = ticks(page).last
    await expect(side(page).locator(".own p")).to_have_text("did we not have trouble with 2RS in the wet?")
    await expect(state).to_contain_text("sent")
    await room.begin(event)
    await expect(state).to_contain_text("seen")
    await expect(side(page).locator(".said .now")).to_contain_text("at work")
    await expect(talk(page).locator(".more-in")).to_have_text("1 reply, scout is at work")
    await expect(talk(page).locator(".now, .caret")).to_have_count(0)
    await expect(talk(page).get_by_role("button", name="Stop scout")).to_have_count(0)
    await expect(side(page).get_by_role("button", name="Stop scout")).to_be_visible()

    await room.draft(event, "Yes, in March")
    await expect(side(page).locator(".said .text").last).to_have_text("Yes, in March")
    await expect(talk(page).locator(".said")).to_have_count(1)
    await room.answer(event, "Yes, in March: two hubs came back.")
    await expect(state).to_contain_text("answered")
    await expect(side(page).locator(".said .text").last).to_have_text("Yes, in March: two hubs came back.")
    await expect(side(page).locator(".replies")).to_have_text("2 replies")
    await expect(talk(page).locator(".more-in")).to_contain_text("2 replies, last ")
    await expect(talk(page).locator(".said, .own")).to_have_count(2)
    assert await room.visit.coloured(HONEY) == []
    assert room.visit.complaints == []

    await side(page).get_by_role("button", name="Close the thread").click()
    await expect(side(page)).to_have_count(0)
    assert await page.evaluate(FOCUSED) == first


async def test_a_thread_by_key_alone(room: Room) -> None:
    """`T` opens the one of the newest message and closes it; `Esc` closes; the focus goes in and comes back."""
    page = room.page
    await asked(room)
    await room.write("only suppliers inside the EU, please")
    newest = (await room.heard())["message_id"]
    await expect(talk(page).locator(f"[data-thread={newest}]")).to_have_count(
        1
    )  # the page knows that it is stored
    await page.get_by_role("region", name="Messages").focus()
    await page.keyboard.press("t")
    box = side(page).get_by_role("textbox")
    await expect(box).to_be_focused()
    await expect(side(page).locator(".own p")).to_have_text("only suppliers inside the EU, please")
    await page.keyboard.type("the tt of it")
    await expect(box).to_have_value("the tt of it")
    await page.keyboard.press("Escape")
    await expect(side(page)).to_have_count(0)
    assert await page.evaluate(FOCUSED) == newest

    await page.keyboard.press("t")
    await expect(box).to_have_value("the tt of it")  # what was typed there stays there
    await expect(talk(page).get_by_role("textbox")).to_have_value("")
    await page.get_by_role("region", name="Replies").focus()
    await page.keyboard.press("t")
    await expect(side(page)).to_have_count(0)
    await page.keyboard.press("Shift+Tab")  # from the newest message to the one before, which is an agent's
    await page.keyboard.press("Enter")
    await expect(side(page).locator(".said .text")).to_have_text(FIRST)
    await expect(box).to_have_value("")


async def test_the_address_names_the_thread(room: Room) -> None:
    """After a reload it is open with all of its words, in another tab too; the browser's back closes it."""
    page = room.page
    first = await asked(room)
    url = page.url
    await page.goto(f"{url}/{first}")
    await room.answer(await reply(room, "a reply"), "an answer to it")
    await side(page).get_by_role("textbox").fill("only typed")
    await page.reload()
    for _ in range(2):
        await expect(side(page).locator(".own p")).to_have_text("a reply")
        await expect(side(page).locator(".said .text")).to_have_text([FIRST, "an answer to it"])
        await expect(talk(page).locator(".said .text")).to_have_text(FIRST)
        await expect(side(page).get_by_role("textbox")).to_have_value("only typed")
        await expect(side(page).get_by_role("textbox")).to_be_focused()
        page = (await room.visit.another_tab()).page
        await page.goto(f"{url}/{first}")
    await room.page.go_back()
    await expect(side(room.page)).to_have_count(0)
    await room.page.go_forward()
    await expect(side(room.page).locator(".replies")).to_have_text("2 replies")


async def test_news_of_a_thread_that_is_closed_are_told_where_it_begins(room: Room) -> None:
    """Its link says so until it is opened, and nothing is counted as new below."""
    page = room.page
    first = await asked(room)
    await page.goto(f"{page.url}/{first}")
    event = await reply(room, "a reply")
    await page.keyboard.press("Escape")
    await room.answer(event, "an answer to it")
    link = talk(page).locator(".more-in")
    await expect(link).to_contain_text("2 replies")
    await expect(link).to_contain_text("new")
    await expect(talk(page).get_by_role("button", name="new")).to_have_count(0)
    await link.click()
    await expect(side(page).locator(".said .text").last).to_have_text("an answer to it")
    await expect(link).not_to_contain_text("new")


async def test_stop_in_a_thread_stops_its_turn_and_no_other(room: Room) -> None:
    """Two turns run; each stop names its own."""
    page = room.page
    first = await asked(room)
    await page.goto(f"{page.url}/{first}")
    beside = await reply(room, "a slow one, beside")
    await room.write("a slow one")
    main = await room.heard()
    for event in (main, beside):
        await room.begin(event)
    await side(page).get_by_role("button", name="Stop scout").click()
    chat_id = main["source"]["chat_id"]
    stopped = await room.gateway.hear("interrupt_inbound", within=1_000 * MS)
    assert stopped["session_key"] == f"agent:main:web:dm:local:{chat_id}:{first}"
    await room.answer(beside, "(stopped)")
    await expect(side(page).get_by_role("button", name="Stop scout")).to_have_count(0)
    await talk(page).get_by_role("textbox").focus()
    await page.keyboard.press("Escape")
    await page.keyboard.press("Escape")
    stopped = await room.gateway.hear("interrupt_inbound", within=1_000 * MS)
    assert stopped["session_key"] == f"agent:main:web:dm:local:{chat_id}"
    await expect(side(page)).to_be_visible()


async def test_words_for_a_thread_wait_in_it_while_the_line_is_away(room: Room) -> None:
    """Not in the main flow, which says how many; they go when the line is back."""
    page = room.page
    first = await asked(room)
    await page.goto(f"{page.url}/{first}")
    await room.visit.context.set_offline(True)
    await expect(side(page).locator(".line-state")).to_contain_text("Your words are kept")
    await room.write("kept for the thread", place=".side")
    await expect(side(page).locator(".own.kept")).to_have_count(1)
    await expect(talk(page).locator(".own.kept")).to_have_count(0)
    await expect(talk(page).locator(".more-in")).to_have_text("1 not sent")
    await page.keyboard.press("ArrowUp")
    await expect(side(page).get_by_role("textbox")).to_have_value("kept for the thread")
    await page.keyboard.press("Enter")
    await room.visit.context.set_offline(False)
    event = await room.heard(within=15_000 * MS)
    assert (event["text"], event["source"]["thread_id"]) == ("kept for the thread", first)
    await expect(talk(page).locator(".more-in")).to_contain_text("1 reply, last")


async def test_a_thread_far_back_is_found_and_one_that_is_gone_is_said_to_be(room: Room) -> None:
    """Older pages are asked for until its first message is there; replies alone do not make an empty page."""
    page = room.page
    first = await asked(room)
    tab = await room.edge.ready_tab(await room.edge.bearer())
    url = page.url
    conversation = url.partition("#")[2]
    for i in range(130):
        where = {"thread": first} if i % 2 else {}
        await tab.send(conversation, f"words {i}", client_id=f"w{i}", **where)
    late = await room.visit.another_tab()
    await late.page.goto(f"{url}/{first}")
    await expect(side(late.page).locator(".said .text")).to_have_text(FIRST)
    await expect(side(late.page).locator(".replies")).to_have_text("65 replies")
    await expect(side(late.page).locator(".own p").last).to_have_text("words 129")

    for i in range(60):
        await tab.send(conversation, f"in the thread {i}", client_id=f"t{i}", thread=first)
    early = await room.visit.another_tab()
    await early.page.goto(url)
    await expect(talk(early.page).locator(".own p").last).to_have_text("words 128")
    assert await talk(early.page).locator(".own p").count() > 9

    await early.page.goto(f"{url}/m_nothing")
    await expect(side(early.page)).to_contain_text("The first message is not here any more.")
    await expect(side(early.page).get_by_role("textbox")).to_have_count(0)
    assert early.complaints == []


async def test_between_a_column_and_a_page_it_lies_over_and_gives_way(room: Room) -> None:
    """Whoever goes on in what lies under it finds it uncovered: nothing with the focus stays hidden."""
    page = room.page
    await page.set_viewport_size({"width": 1024, "height": 768})
    first = await asked(room)
    await page.goto(f"{page.url}/{first}")
    await expect(side(page).get_by_role("textbox")).to_be_focused()
    await talk(page).locator(".said b").click()
    await expect(side(page)).to_have_count(0)
    await page.go_back()
    await expect(side(page)).to_be_visible()
    await page.locator(".conv").click()
    await expect(side(page)).to_have_count(0)


async def test_on_a_phone_it_is_a_page_of_its_own(edge: Edge, browser: Browser) -> None:
    """With a way back, and with nothing of the conversation behind it."""
    async with visiting_room(edge, browser, width=390, height=844, has_touch=True) as room:
        page = room.page
        await page.goto(f"{edge.url}/#new")
        await asked(room)
        await page.get_by_role("link", name="Reply in a thread").last.tap()
        await expect(side(page)).to_be_visible()
        await expect(talk(page)).to_be_hidden()
        event = await reply(room, "a reply")
        await room.begin(event)
        await room.answer(event, "an answer to it")
        await expect(side(page).locator(".replies")).to_have_text("2 replies")
        await side(page).get_by_role("button", name="Back to the conversation").tap()
        await expect(talk(page)).to_be_visible()
        await expect(talk(page).locator(".more-in")).to_contain_text("2 replies")
        await expect(side(page)).to_have_count(0)


async def test_what_is_said_while_a_thread_covers_it_is_not_read(edge: Edge, browser: Browser) -> None:
    """On a phone the conversation is out of sight behind its thread: its count stays until it is seen."""
    async with visiting_room(edge, browser, width=390, height=844) as room:
        page = room.page
        await page.goto(f"{edge.url}/#new")
        await room.write("a question")
        event = await room.heard()
        await page.goto(f"{edge.url}/#{event['source']['chat_id']}/{event['message_id']}")
        await room.answer(event, "the answer")
        await expect(page).to_have_title(re.compile(r"^\(1\) "))
        assert await unread(edge) == [1]
        await side(page).get_by_role("button", name="Back to the conversation").click()
        await expect(talk(page).locator(".said .text")).to_have_text("the answer")
        await expect(page).not_to_have_title(re.compile(r"^\(1\) "))

        async def is_read() -> bool:
            return await unread(edge) == [0]

        await eventually(is_read)


async def unread(edge: Edge) -> list[int]:
    """Return how many messages of each conversation the server counts as new."""
    async with edge.http.get(f"{edge.url}/api/conversations", headers=await edge.bearer()) as answer:
        return [row["unread"] for row in await answer.json()]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_width(room: Room, theme: Literal["light", "dark"]) -> None:
    """Axe finds nothing and nothing scrolls sideways, in a thread where an agent writes."""
    page = room.page
    await asked(room, "We need about 40 bearings, 6902-2RS, for the e-bikes. Who has them on stock?")
    await room.write("only suppliers inside the EU, please")
    main = await room.heard()
    await talk(page).locator(".said").hover()
    await page.get_by_role("link", name="Reply in a thread").nth(1).click()
    event = await reply(room, "@concierge did we not have trouble with 2RS in the wet?")
    await room.answer(
        event,
        "Yes, in March: two hubs came back after the rain. Jonas wrote “contact seal, greased, no more water”. "
        "That is 2RS with the grooved ring.",
    )
    await expect(side(page).locator(".replies")).to_have_text("2 replies")
    event = await reply(room, "and the three offers?")
    await room.begin(event)
    await room.draft(event, "All three offers are the grooved kind.")
    await room.begin(main)
    await room.draft(
        main,
        "Three suppliers inside the EU have them now:\n\n| Supplier | From |\n|---|---|\n| Nord | Kiel |",
    )
    await expect(page.locator(".caret")).to_have_count(2)
    await page.emulate_media(color_scheme=theme)
    for width, height in WIDTHS.items():
        await page.set_viewport_size({"width": width, "height": height})
        await page.evaluate("document.fonts.ready")
        assert not await room.visit.is_sideways(), width
        assert await room.visit.axe() == [], width
        await room.visit.picture(f"chat-thread-{theme}-{width}")
    assert room.visit.complaints == []
