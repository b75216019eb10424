"""The web chat against everything that `skep up` starts: what the empty page offers really works."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser, expect

from support.browser import Visit, built, visiting
from support.installation import Installation, installed
from support.waiting import MS

REMINDED_MS = 20_000 * MS * 1_000
BACK_MS = 30_000 * MS * 1_000


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One running system for all tests here."""
    built("chat")
    with installed(tmp_path_factory.mktemp("whole") / "home") as installation:
        yield installation


@pytest.fixture
async def visit(installation: Installation, browser: Browser) -> AsyncIterator[Visit]:
    """Somebody who opened a link that `skep chat --link` printed, on an empty page."""
    link = installation.run("chat", "--link").stdout.split()[-1]
    async with visiting(browser) as visit:
        await visit.page.goto(link)
        await visit.page.get_by_role("link", name="New conversation", exact=True).click()
        await expect(visit.page.locator(".hello")).to_be_visible()
        yield visit
        assert await visit.refusals() == []


@pytest.mark.parametrize(
    ("offer", "says"),
    [
        ("Help", "I understand"),
        ("Ask scribe to count the words in: the bees came home", "4 words"),
        ("Remind me in 10 seconds to stretch", "remind you to stretch"),
    ],
    ids=["help", "ask", "remind"],
)
async def test_what_the_empty_page_offers_works(visit: Visit, offer: str, says: str) -> None:
    """Each of the three is answered, and the tick says so."""
    page = visit.page
    await page.get_by_role("button", name=offer, exact=True).click()
    await expect(page.locator(".said .text").filter(has_text=says)).to_be_visible(timeout=REMINDED_MS)
    await expect(page.locator(".own .state").first).to_contain_text("answered")
    await expect(page.locator(".caret")).to_have_count(0)
    assert visit.complaints == []
    await visit.picture(f"chat-whole-{offer.split(maxsplit=1)[0].lower()}")


async def test_a_slow_answer_is_stopped(visit: Visit) -> None:
    """Pressed once: the agent stops, and says that it did."""
    page = visit.page
    await page.get_by_role("textbox").fill("slow")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Stop concierge").click()
    await expect(page.locator(".said .text").last).to_contain_text("(stopped)")
    await expect(page.get_by_role("button", name="Stop concierge")).to_have_count(0)


async def test_a_thread_is_answered_in_the_thread(visit: Visit) -> None:
    """By the agent, with what it says on the way; a stop there stops it there, and the conversation goes on."""
    page = visit.page
    talk, side = page.locator("#talk"), page.get_by_role("complementary", name="Thread")
    await talk.get_by_role("textbox").fill("help")
    await page.keyboard.press("Enter")
    await expect(talk.locator(".own .state")).to_contain_text("answered")
    await page.get_by_role("region", name="Messages").focus()
    await page.keyboard.press("t")
    await expect(side.locator(".said .text")).to_contain_text("I understand")

    await side.get_by_role("textbox").fill("slow")
    await page.keyboard.press("Enter")
    await expect(side.locator(".said .now")).to_contain_text("writing")
    await talk.get_by_role("textbox").fill("slow")
    await page.keyboard.press("Enter")
    await expect(talk.locator(".said .now")).to_contain_text("writing")
    await side.get_by_role("button", name="Stop concierge").click()
    await expect(side.locator(".said .text").last).to_contain_text("(stopped)")
    await expect(side.locator(".replies")).to_have_text("2 replies")
    await expect(talk.locator(".said .now")).to_contain_text("writing")
    await talk.get_by_role("button", name="Stop concierge").click()
    await expect(talk.locator(".said .text").last).to_contain_text("(stopped)")
    await expect(talk.locator(".said")).to_have_count(2)
    assert visit.complaints == []


@pytest.mark.parametrize("kind", ["connector", "gateway", "hive"])
async def test_a_killed_process_costs_no_words(visit: Visit, installation: Installation, kind: str) -> None:
    """Words written while it is down are answered when it is back, once each, without a reload."""
    page = visit.page
    await page.get_by_role("textbox").fill("hello before")
    await page.keyboard.press("Enter")
    await expect(page.locator(".own .state").last).to_contain_text("answered")
    assert installation.kill(kind) is not None
    for text in ("hello during", "hello again"):
        await page.get_by_role("textbox").fill(text)
        await page.keyboard.press("Enter")
    await expect(page.locator(".own .state")).to_contain_text(["answered"] * 3, timeout=BACK_MS)
    await expect(page.locator(".own p")).to_have_text(["hello before", "hello during", "hello again"])
    await expect(page.locator(".own.kept")).to_have_count(0)


async def test_a_choice_is_pressed_by_its_number_and_answered(visit: Visit) -> None:
    """The card keeps its height, shows what was chosen and when, and is told to every tab."""
    page = visit.page
    await page.get_by_role("textbox").fill("let me choose: tea, coffee or water")
    await page.keyboard.press("Enter")
    pick = page.get_by_role("group", name="Choices")
    await expect(pick.get_by_role("button")).to_have_text(["1 tea", "2 coffee", "3 water"])
    await expect(page.locator(".own .state")).to_contain_text("answered")
    await visit.picture("chat-choice-open")
    before = await pick.bounding_box()
    await page.locator(".flow").focus()
    await page.keyboard.press("2")
    await expect(page.locator(".said .text").last).to_contain_text("You chose coffee.")
    chosen = pick.get_by_role("button", pressed=True)
    await expect(chosen).to_contain_text("coffee")
    await expect(chosen.locator("small")).to_contain_text("you, ")
    assert before is not None
    after = await pick.bounding_box()
    assert after is not None
    assert after["height"] == before["height"]
    other = await visit.another_tab()
    await other.page.goto(page.url)
    await expect(other.page.get_by_role("button", pressed=True)).to_contain_text("coffee")
    await expect(other.page.get_by_role("group", name="Choices").locator("button:enabled")).to_have_count(0)
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        for width, height in ((1440, 900), (390, 844)):
            await page.set_viewport_size({"width": width, "height": height})
            assert not await visit.is_sideways()
            assert await visit.axe() == []
            await visit.picture(f"chat-choice-{theme}-{width}")
    assert visit.complaints == []


async def test_whoever_begins_with_an_at_is_offered_the_agents(visit: Visit) -> None:
    """All that answer here, the default first, as they are; the one that is taken answers."""
    page = visit.page
    await page.keyboard.type("@")
    offers = page.get_by_role("option")
    await expect(offers).to_have_count(2, timeout=REMINDED_MS)
    await expect(offers.first).to_contain_text("concierge")
    await expect(offers.last).to_contain_text("idle")
    await visit.picture("chat-whole-mention")
    await page.keyboard.type("scr")
    await page.keyboard.press("Enter")
    await page.keyboard.type("hello")
    await page.keyboard.press("Enter")
    await expect(page.locator(".said .text").first).to_contain_text("I am scribe")
    assert visit.complaints == []
