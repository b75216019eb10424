"""`@name` in the composer of the web chat, in a real browser: the agents that can be meant, and taking one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from support.browser import HONEY
from support.edge import Edge
from support.room import Agents, Room, agent, visiting_room
from support.waiting import MS

TEAM: Final = (
    agent("concierge", role="manager"),
    agent("scribe", "busy", 2),
    agent("scout", "busy"),
    agent("ledger", "away"),
)
LONG: Final = "a" * 32
HOSTILE: Final = "<img src=x onerror='window.hit = 1'>\u202e" + "n" * 200
FOCUSED: Final = "document.activeElement.getAttribute('aria-activedescendant')"


@pytest.fixture
def agents() -> Agents:
    """Who can be written to."""
    return Agents(*TEAM)


@pytest.fixture
async def room(edge: Edge, browser: Browser, agents: Agents) -> AsyncIterator[Room]:
    """Somebody who is signed in, and a gateway; nothing complained."""
    options: dict[str, Any] = {"before": agents.install, "reduced_motion": "reduce"}
    async with visiting_room(edge, browser, **options) as room:
        yield room


def words(page: Page, place: str = "#talk") -> Locator:
    """The composer, whatever its role is now."""
    return page.locator(f"{place} textarea")


def names(page: Page) -> Locator:
    """The names that are offered."""
    return page.get_by_role("listbox", name="Agents").get_by_role("option").locator("b")


def chosen(page: Page) -> Locator:
    """The agent that Enter takes."""
    return page.get_by_role("option", selected=True)


async def at(page: Page) -> tuple[str, int]:
    """Return what is in the composer that has the focus, and where its caret is."""
    found = await page.evaluate("[document.activeElement.value, document.activeElement.selectionStart]")
    return found[0], found[1]


async def test_by_keyboard(room: Room) -> None:
    """Down and up go round, Enter takes and does not send, and the next Enter sends."""
    page = room.page
    await words(page).press("@")
    await expect(names(page)).to_have_text(["concierge", "scribe", "scout", "ledger"])
    await expect(page.get_by_role("option")).to_have_text(
        [
            "Co concierge, manager, idle",
            "Sc scribe, agent, busy, 2 waiting",
            "Sc scout, agent, busy",
            "Le ledger, agent, away",
        ]
    )
    await expect(chosen(page)).to_contain_text("concierge")
    await page.keyboard.press("ArrowUp")
    await expect(chosen(page)).to_contain_text("ledger")
    await page.keyboard.press("ArrowDown")
    await expect(chosen(page)).to_contain_text("concierge")
    await page.keyboard.press("ArrowDown")
    await expect(chosen(page)).to_contain_text("scribe")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("listbox")).to_have_count(0)
    assert await at(page) == ("@scribe ", 8)
    await page.keyboard.type("note this")
    await page.keyboard.press("Enter")
    assert (await room.heard())["text"] == "@scribe note this"
    await expect(words(page)).to_have_value("")

    await page.keyboard.type("@led")
    await expect(names(page)).to_have_text(["ledger"])
    await page.keyboard.press("Tab")
    assert await at(page) == ("@ledger ", 8)
    await expect(words(page)).to_be_focused()
    assert await room.gateway.hears_nothing()


async def test_typing_filters_and_nobody_is_offered_where_no_name_can_be(room: Room) -> None:
    """A beginning, a beginning of a later part, in any case; not elsewhere in the words, not when one is whole."""
    page = room.page
    await words(page).press("@")
    for typed, found in (("S", ["scribe", "scout"]), ("c", ["scribe", "scout"]), ("o", ["scout"]), ("x", [])):
        await page.keyboard.type(typed)
        await expect(names(page)).to_have_text(found)
    await page.keyboard.press("Backspace")
    await expect(names(page)).to_have_text(["scout"])
    await page.keyboard.type("ut the plan")
    await expect(names(page)).to_have_count(0)

    for value in ("ask @sc", " @sc", "scout", "@scout ", "@sc.out"):
        await words(page).fill(value)
        await expect(names(page)).to_have_count(0)

    await words(page).fill("what is that")
    await page.keyboard.press("Home")
    await page.keyboard.type("@l")
    await expect(names(page)).to_have_text(["ledger"])
    await page.keyboard.press("ArrowRight")
    await expect(names(page)).to_have_count(0)
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("Enter")
    assert await at(page) == ("@ledger what is that", 8)


async def test_by_pointer(room: Room) -> None:
    """A click takes, and the words keep the focus; a click elsewhere closes."""
    page = room.page
    await words(page).press("@")
    await page.get_by_role("option", name="scout").hover()
    await expect(chosen(page)).to_contain_text("scout")
    await page.get_by_role("option", name="scribe").click()
    await expect(page.get_by_role("listbox")).to_have_count(0)
    await expect(words(page)).to_be_focused()
    assert await at(page) == ("@scribe ", 8)

    await words(page).fill("@")
    await expect(names(page)).to_have_count(4)
    await page.locator("#talk header").click()
    await expect(names(page)).to_have_count(0)
    await words(page).click()
    await expect(names(page)).to_have_count(4)


async def test_escape_closes_it_and_does_nothing_else(room: Room) -> None:
    """No agent is asked to stop, and it stays closed until a name is begun anew."""
    page = room.page
    await room.write("a slow one")
    await room.begin(await room.heard())
    await expect(page.locator(".line-state")).to_contain_text("scout reads")
    await words(page).press("@")
    await page.keyboard.press("Escape")
    await expect(names(page)).to_have_count(0)
    await expect(page.locator(".line-state")).to_contain_text("scout reads")
    await page.keyboard.type("s")
    await expect(names(page)).to_have_count(0)
    await page.keyboard.press("Escape")
    await expect(page.locator(".line-state")).to_contain_text("again to stop scout")
    await words(page).fill("")
    await page.keyboard.type("@")
    await expect(names(page)).to_have_count(4)


async def test_a_field_with_a_list_only_while_there_is_one(room: Room) -> None:
    """Its option is named at the field; without the list it is a box for words."""
    page = room.page
    box = words(page)
    await expect(box).not_to_have_attribute("role", "combobox")
    await box.press("@")
    await expect(page.get_by_role("combobox", expanded=True)).to_be_focused()
    await expect(box).to_have_attribute("aria-autocomplete", "list")
    await expect(page.get_by_role("listbox")).to_have_attribute(
        "id", await box.get_attribute("aria-controls") or ""
    )
    await page.keyboard.press("ArrowDown")
    await expect(chosen(page)).to_have_attribute("id", await page.evaluate(FOCUSED))
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("textbox")).to_be_focused()
    for name in ("role", "aria-expanded", "aria-controls", "aria-activedescendant"):
        assert await box.get_attribute(name) is None


async def test_without_word_of_the_agents_there_is_no_list(edge: Edge, browser: Browser) -> None:
    """Of an older connector: `@` is a letter like others, Enter sends, Escape and Tab are what they were."""
    nobody = Agents()
    async with visiting_room(edge, browser, before=nobody.install) as room:
        await words(room.page).press("@")
        await room.page.keyboard.type("scribe")
        await expect(room.page.get_by_role("listbox")).to_have_count(0)
        await room.page.keyboard.press("Enter")
        assert (await room.heard())["text"] == "@scribe"
        await words(room.page).press("@")
        nobody.tell(*TEAM)
        await expect(names(room.page)).to_have_count(4)


async def test_the_list_follows_what_the_agents_do_and_the_choice_stays(room: Room, agents: Agents) -> None:
    """Enter takes who was chosen, though another came before it meanwhile."""
    page = room.page
    await words(page).press("@")
    await expect(names(page)).to_have_count(4)
    await page.keyboard.press("ArrowDown")
    agents.tell(agent("archive"), agent("concierge", "busy", 1, role="manager"), agent("scribe"))
    await expect(page.get_by_role("option", name="concierge")).to_contain_text("busy, 1 waiting")
    await expect(chosen(page)).to_contain_text("scribe")
    await page.keyboard.press("Enter")
    await expect(words(page)).to_have_value("@scribe ")


async def test_while_the_line_is_away_the_names_stay_and_nobody_is_known_to_be_alive(room: Room) -> None:
    """What they do is shown again when it was told again."""
    page = room.page
    await words(page).press("@")
    await expect(page.get_by_role("option").nth(1)).to_contain_text("busy")
    await room.visit.context.set_offline(True)
    await expect(page.locator(".line-state")).to_contain_text("Your words are kept")
    await expect(names(page)).to_have_count(4)
    await expect(page.get_by_role("option").nth(1)).to_have_text("Sc scribe, agent")
    assert await room.visit.coloured(HONEY) == []
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.keyboard.type("later")
    await page.keyboard.press("Enter")
    await expect(page.locator(".own.kept")).to_have_count(1)
    await room.visit.context.set_offline(False)
    assert (await room.heard(within=15_000 * MS))["text"] == "@scribe later"
    await words(page).press("@")
    await expect(page.get_by_role("option").nth(1)).to_contain_text("busy, 2 waiting")


async def test_while_a_word_is_composed_it_keeps_still(room: Room) -> None:
    """Its keys are the input method's; what is composed may narrow the list, and no more."""
    page = room.page
    keyboard: Any = await room.visit.context.new_cdp_session(page)

    async def compose(text: str) -> None:
        await keyboard.send(
            "Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)}
        )

    await words(page).press("@")
    await compose("さ")
    await expect(words(page)).to_have_value("@さ")
    await expect(names(page)).to_have_count(4)
    for key in ("ArrowDown", "Enter", "Escape", "Tab"):
        await page.evaluate(
            """(key) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown',
              { key, isComposing: true, bubbles: true, cancelable: true }))""",
            key,
        )
    await expect(words(page)).to_have_value("@さ")
    await expect(chosen(page)).to_contain_text("concierge")
    await compose("sc")
    await expect(names(page)).to_have_text(["scribe", "scout"])
    await page.get_by_role("option", name="scribe").click()
    await expect(names(page)).to_have_count(0)
    assert await at(page) == ("@scribe ", 8)

    await words(page).fill("")
    await page.keyboard.type("@")
    await compose("sc")
    await expect(names(page)).to_have_text(["scribe", "scout"])
    await keyboard.send("Input.insertText", {"text": "ス"})
    await expect(words(page)).to_have_value("@ス")
    await expect(names(page)).to_have_count(0)


async def test_in_a_thread_it_is_of_its_own_composer(room: Room) -> None:
    """Taken there, it goes there; Escape does not close the thread."""
    page = room.page
    await room.write("Who has them on stock?")
    event = await room.heard()
    await room.answer(event, "Five shops list them.")
    await expect(page.locator(".said .text")).to_have_text("Five shops list them.")
    await page.goto(f"{page.url}/{event['message_id']}")
    await expect(words(page, ".side")).to_be_focused()
    await page.keyboard.type("@")
    await expect(page.locator(".side").get_by_role("listbox")).to_be_visible()
    await expect(page.get_by_role("listbox")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("listbox")).to_have_count(0)
    await expect(page.locator(".side")).to_be_visible()
    await words(page, ".side").fill("")
    await page.keyboard.type("@con")
    await page.keyboard.press("Enter")
    assert await at(page) == ("@concierge ", 11)
    await page.keyboard.type("is that so?")
    await page.keyboard.press("Enter")
    reply = await room.heard()
    assert (reply["text"], reply["source"]["thread_id"]) == ("@concierge is that so?", event["message_id"])


async def test_eight_rows_and_the_chosen_one_is_in_sight(room: Room, agents: Agents) -> None:
    """More are scrolled to; nothing on the page moves."""
    page = room.page
    agents.tell(*(agent(f"worker-{i}") for i in range(30)))
    await words(page).fill("a")
    box = await page.locator(".box").bounding_box()
    await words(page).fill("@")
    options = page.get_by_role("option")
    await expect(options).to_have_count(30)
    await expect(options.nth(7)).to_be_in_viewport(ratio=1)
    await expect(options.nth(8)).not_to_be_in_viewport()
    await page.keyboard.press("ArrowUp")
    await expect(options.nth(29)).to_be_in_viewport(ratio=1)
    assert await page.locator(".box").bounding_box() == box
    assert await page.evaluate("document.scrollingElement.scrollTop") == 0


async def test_names_from_outside_are_text(room: Room, agents: Agents) -> None:
    """No script runs, what is long is cut, words that are not known are shown as they are."""
    page = room.page
    agents.tell(agent(HOSTILE, HOSTILE, role=HOSTILE), agent("scribe", "dreaming", role="drone"))
    await words(page).press("@")
    await expect(page.get_by_role("option").nth(1)).to_have_text("Sc scribe, drone, dreaming")
    assert len(await names(page).first.inner_text()) == 32
    await expect(page.get_by_role("option").locator("img")).to_have_count(0)
    for width in (1440, 390, 320):
        await page.set_viewport_size({"width": width, "height": 800})
        assert not await room.visit.is_sideways(), width
    assert await page.evaluate("window.hit") is None
    assert room.visit.complaints == []


async def test_on_a_phone_a_tap_takes(edge: Edge, browser: Browser, agents: Agents) -> None:
    """Above the composer, as wide as it, with rows for a finger."""
    options: dict[str, Any] = {"has_touch": True, "is_mobile": True, "reduced_motion": "reduce"}
    async with visiting_room(edge, browser, width=390, height=844, before=agents.install, **options) as room:
        page = room.page
        await page.goto(f"{edge.url}/#new")
        await words(page).tap()
        await page.keyboard.type("@")
        rows = page.get_by_role("listbox")
        await expect(rows).to_be_visible()
        around, of = await page.locator(".box").bounding_box(), await rows.bounding_box()
        assert around is not None
        assert of is not None
        assert (of["x"] - 1, of["width"] + 2) == (around["x"], around["width"])  # a hairline is outside
        assert of["y"] + of["height"] < around["y"]
        row = await page.get_by_role("option").first.bounding_box()
        assert row is not None
        assert row["height"] >= 44
        await page.get_by_role("option", name="scribe").tap()
        assert await at(page) == ("@scribe ", 8)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_width(room: Room, agents: Agents, theme: Literal["light", "dark"]) -> None:
    """Axe finds nothing and nothing scrolls sideways: in the conversation and in a thread, with few and many."""
    page = room.page
    await room.write("We need about 40 bearings, 6902-2RS, for the e-bikes. Who has them on stock?")
    event = await room.heard()
    await room.answer(event, "Five shops list them. The seal matters more than the price on your hubs.")
    await expect(page.locator(".said .text")).to_contain_text("Five shops list them.")
    talk = page.url
    await page.emulate_media(color_scheme=theme)

    async def look(name: str, place: str) -> None:
        for width, height in {1440: 900, 1024: 768, 390: 844, 320: 640}.items():
            await page.set_viewport_size({"width": width, "height": height})
            await words(page, place).fill("@")
            await page.keyboard.press("ArrowDown")
            await expect(chosen(page)).to_be_in_viewport(ratio=1)
            await page.evaluate("document.fonts.ready")
            assert not await room.visit.is_sideways(), (name, width)
            if width in (1440, 390):
                assert await room.visit.axe() == [], (name, width)
            await room.visit.picture(f"chat-mention-{name}-{theme}-{width}")

    await look("talk", "#talk")
    await page.set_viewport_size({"width": 1440, "height": 900})
    await words(page).fill("")
    await page.goto(f"{talk}/{event['message_id']}")
    agents.tell(
        *TEAM,
        agent(LONG, "busy", 12_000),
        *(agent(f"worker-{i}", ("idle", "busy", "away")[i % 3], i) for i in range(30)),
    )
    await look("thread", ".side")
    assert room.visit.complaints == []
