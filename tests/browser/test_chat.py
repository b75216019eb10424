"""The web chat in a real browser, against the control protocol, section 13, and the interface's own rules.

The connector is real; the gateway's end is the test's, so that each state lasts as long as the test looks at it.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Browser, BrowserContext, Page, WebSocketRoute, expect

from support.browser import HONEY, MADDER, Visit, built, visiting
from support.edge import Edge
from support.room import Room, sign_in, ticks
from support.waiting import MS, eventually

WEB: Final = Path(__file__).parents[2] / "src" / "skep" / "_web" / "chat"
Way = Literal["up", "down"]
WIDTHS: Final = {1440: 900, 1024: 768, 390: 844, 320: 640}
TOP: Final = "document.querySelector('.flow').scrollTop"

TABLE: Final = """Three suppliers inside the EU have them now:

| Supplier | From | On stock | Each |
|---|---|--:|--:|
| Kugellager Nord | Kiel | 40 | 2,96 € |
| Rulmenti Timiș | Timișoara | 50 | 2,54 € |

Kugellager Nord is the **nearest** and ships on *Monday*:

```python
print("hello")
```

- one
- two, with `code` and [a link](https://example.org/)

The price at Timișoara is lower, but with freight it comes to"""
HOSTILE: Final = (
    '<script>window.hit = 1</script> <img src=x onerror="window.hit = 2"> [x](javascript:alert(1)) '
    "![p](https://evil.example/p.png) \x1b[31mred\x1b[0m \u202ereversed " + "😀" * 200 + "\n\n" + "x" * 65_000
)


# Sign-in.


async def test_link_signs_in_once_and_leaves_the_address(edge: Edge, browser: Browser) -> None:
    """The code is gone from the address and from the history; used again, the page says so."""
    link = f"{edge.url}/#once={await edge.code()}"
    async with visiting(browser) as visit:
        await visit.page.goto(link)
        await expect(visit.page.get_by_role("heading", level=2)).to_contain_text("Good ")
        assert "once" not in visit.page.url
        assert visit.complaints == []
        await visit.page.reload()
        await expect(visit.page.get_by_role("textbox")).to_be_visible()
    async with visiting(browser) as visit:
        await visit.page.goto(link)
        await expect(visit.page.get_by_role("heading")).to_have_text("This link was used before")
        await expect(visit.page.get_by_role("main")).to_contain_text("skep chat --link")
        assert "once" not in visit.page.url
        assert await visit.axe() == []


@pytest.mark.parametrize(
    ("fragment", "says"),
    [("#once=nonsense", "This link is not right"), ("", "Not signed in")],
    ids=["wrong", "no link"],
)
async def test_refused_sign_in_says_which_and_what_to_do(
    edge: Edge, browser: Browser, fragment: str, says: str
) -> None:
    """One page each, with the command that gets a new link."""
    async with visiting(browser) as visit:
        await visit.page.goto(f"{edge.url}/{fragment}")
        await expect(visit.page.get_by_role("heading")).to_have_text(says)
        await expect(visit.page.get_by_role("main")).to_contain_text("skep chat --link")


async def test_expired_link_says_so(edge: Edge, browser: Browser) -> None:
    """A link that is too old is told from a wrong one."""
    code = await edge.code(ttl_s=1)

    async def is_expired() -> bool:
        async with edge.http.post(f"{edge.url}/api/session", json={"once": "x", "bearer": True}):
            return (edge.clock.now_ms() - made) > 1_050

    made = edge.clock.now_ms()
    await eventually(is_expired, within=3)
    async with visiting(browser) as visit:
        await visit.page.goto(f"{edge.url}/#once={code}")
        await expect(visit.page.get_by_role("heading")).to_have_text("This link is too old")


async def test_signing_out_ends_every_tab_and_forgets_the_names(room: Room) -> None:
    """The other tab is told by its socket; nothing of the account is left in the browser."""
    await room.write("a secret name")
    await room.heard()
    other = await room.visit.another_tab()
    await other.page.goto(room.page.url)
    await expect(other.page.locator(".own")).to_have_count(1)
    await room.page.get_by_role("button", name="Settings").click()
    await room.page.get_by_role("button", name="Sign out").click()
    for page in (room.page, other.page):
        await expect(page.get_by_role("heading")).to_have_text("Not signed in")
    kept: list[str] = await room.page.evaluate("Object.keys(localStorage)")
    assert [key for key in kept if key != "skep.theme"] == []


# Writing and reading.


async def test_an_answer_streams_and_the_ticks_tell_the_truth(room: Room) -> None:
    """Sent, then seen, then answered: each when it is so, never before. Honey while it lives."""
    await room.write("who has them on stock?")
    state = ticks(room.page).last
    await expect(state).to_contain_text("sent")
    event = await room.heard()
    assert event["text"] == "who has them on stock?"
    await expect(state.get_by_role("img", name="kept in the hive")).to_be_visible()
    await expect(state).to_contain_text("sent")
    assert await room.visit.coloured(HONEY) == []

    await room.begin(event)
    await expect(state).to_contain_text("seen")
    await expect(room.page.locator(".said .now")).to_contain_text("at work")
    for end in (40, 120, 200, len(TABLE)):
        await room.draft(event, TABLE[:end])
    await expect(room.page.locator(".said .now")).to_contain_text("writing")
    await expect(room.page.locator(".said table tbody tr")).to_have_count(2)
    await expect(room.page.locator(".said .caret")).to_have_count(1)
    await expect(state).to_contain_text("seen")
    assert await room.visit.coloured(HONEY) != []

    await room.answer(event, f"{TABLE} 7 € more.")
    await expect(state).to_contain_text("answered")
    await expect(room.page.locator(".caret, .now")).to_have_count(0)
    await expect(room.page.locator(".said .text")).to_contain_text("7 € more.")
    assert await room.visit.coloured(HONEY) == []
    assert await room.visit.coloured(MADDER) == []
    link = room.page.get_by_role("link", name="a link")
    assert await link.get_attribute("rel") == "noopener noreferrer"
    assert room.visit.complaints == []


async def test_enter_sends_and_shift_enter_does_not(room: Room) -> None:
    """A new line is words; Enter is the end of them."""
    await room.page.get_by_role("textbox").focus()
    await room.page.keyboard.type("one")
    await room.page.keyboard.press("Shift+Enter")
    await room.page.keyboard.type("two")
    await room.page.keyboard.press("Enter")
    assert (await room.heard())["text"] == "one\ntwo"
    await expect(room.page.get_by_role("textbox")).to_have_value("")


async def test_typing_goes_on_while_a_conversation_begins(room: Room) -> None:
    """The first words make the conversation; the next are being typed meanwhile, and stay where they are."""
    await room.page.get_by_role("textbox").focus()
    await room.page.keyboard.type("first")
    await room.page.keyboard.press("Enter")
    await room.page.keyboard.type("the next words are typed at once", delay=8)
    await room.heard()
    await expect(room.page.locator(".own .state")).to_contain_text("sent")
    await expect(room.page.get_by_role("textbox")).to_have_value("the next words are typed at once")


async def test_text_over_the_limit_is_counted_and_not_sent(room: Room) -> None:
    """The line says by how much; at the limit it goes."""
    box = room.page.get_by_role("textbox")
    await box.fill("x" * (64 * 1024 + 212))
    await expect(room.page.locator(".line-state")).to_have_text("too long by 212 characters")
    await room.page.keyboard.press("Enter")
    await expect(room.page.locator(".own")).to_have_count(0)
    await box.fill("x" * 64 * 1024)
    await room.page.keyboard.press("Enter")
    assert len((await room.heard())["text"]) == 64 * 1024


async def test_conversations_are_made_renamed_archived_and_brought_back(room: Room) -> None:
    """Each by its own act; what was archived comes back by Undo."""
    await room.write("first words of it")
    await room.heard()
    rail = room.page.get_by_role("navigation", name="Conversations")
    await expect(rail.get_by_text("first words of it", exact=True)).to_be_visible()

    await room.page.get_by_role("button", name="More").click()
    await room.page.get_by_role("button", name="Rename").click()
    await room.page.get_by_label("Name of the conversation").fill("Bearings")
    await room.page.keyboard.press("Enter")
    await expect(rail.get_by_text("Bearings", exact=True)).to_be_visible()
    await room.page.reload()
    await expect(room.page.get_by_role("heading", level=1)).to_have_text("Bearings")

    await room.page.get_by_role("button", name="More").click()
    await room.page.get_by_role("button", name="Archive").click()
    await expect(rail.get_by_text("Bearings", exact=True)).to_have_count(0)
    await room.page.get_by_role("button", name="Undo").click()
    await expect(rail.get_by_text("Bearings", exact=True)).to_be_visible()
    await expect(room.page.get_by_role("heading", level=1)).to_have_text("Bearings")


async def test_news_elsewhere_is_counted_until_it_is_read(room: Room) -> None:
    """Another conversation says how many are new, also after a reload; opening it is reading it."""
    await room.write("the first")
    first = await room.heard()
    await room.page.get_by_role("link", name="New conversation", exact=True).click()
    await room.write("the second")
    await room.heard()
    await room.answer(first, "an answer to the first")
    new = room.page.locator(".conv .count")
    await expect(new).to_contain_text("1")
    await room.page.reload()
    await expect(new).to_contain_text("1")
    async with visiting(room.browser, width=390) as elsewhere:  # it has heard nothing, and opens nothing
        await sign_in(room.edge, elsewhere)
        await expect(elsewhere.page.locator(".conv .count")).to_contain_text("1")
        await expect(elsewhere.page.locator(".conv")).to_have_count(2)
    await room.page.locator(".conv.fresh").click()
    await expect(room.page.locator(".said")).to_contain_text("an answer to the first")
    await expect(new).to_have_count(0)
    await eventually(lambda: unread_of(room.edge, room.page.url), within=3)


async def unread_of(edge: Edge, url: str) -> bool:
    """Return whether the server knows that the conversation at `url` was read."""
    async with edge.http.get(f"{edge.url}/api/conversations", headers=await edge.bearer()) as answer:
        rows: list[dict[str, Any]] = await answer.json()
    return next(row for row in rows if row["id"] == url.partition("#")[2])["unread"] == 0


async def test_wc_04_escape_asks_once_and_then_stops(room: Room) -> None:
    """The gateway hears of it within a second; the page shows it as asked until it is so."""
    await room.write("a slow one")
    event = await room.heard()
    await room.begin(event)
    await room.draft(event, "I begin, and I go on")
    await expect(room.page.get_by_role("button", name="Stop scout")).to_be_visible()
    await room.page.keyboard.press("Escape")
    await expect(room.page.locator(".line-state")).to_contain_text("again to stop scout")
    await room.page.keyboard.press("Escape")
    await room.gateway.hear("interrupt_inbound", within=1_000 * MS)
    await room.answer(event, "I begin, and I go on (stopped)")
    await expect(room.page.get_by_role("button", name="Stop scout")).to_have_count(0)


# The line.


async def away(visit: Visit, *, is_away: bool) -> None:
    """Take the network from the browser, or give it back."""
    await visit.context.set_offline(is_away)


async def test_wc_01_words_written_while_away_go_once_in_order_and_survive_a_reload(room: Room) -> None:
    """They wait in sight, honey goes out, and nothing is lost or doubled."""
    await room.write("before")
    event = await room.heard()
    await room.begin(event)
    await room.draft(event, "I was writing")
    await expect(room.page.locator(".caret")).to_have_count(1)

    await away(room.visit, is_away=True)
    await expect(room.page.locator(".line-state")).to_contain_text("Your words are kept")
    assert await room.visit.coloured(HONEY) == []
    for text in ("one", "two", "three"):
        await room.write(text)
    await expect(room.page.locator(".own.kept")).to_have_count(3)
    await room.page.get_by_role("textbox").fill("not sent, only typed")

    tab = await room.visit.another_tab()
    await away(room.visit, is_away=False)
    await tab.page.goto(room.page.url)
    assert [(await room.heard())["text"] for _ in range(3)] == ["one", "two", "three"]
    await expect(room.page.locator(".own.kept")).to_have_count(0)
    for page in (room.page, tab.page):
        await expect(page.locator(".own p")).to_have_text(["before", "one", "two", "three"])
    await room.page.reload()
    await expect(room.page.get_by_role("textbox")).to_have_value("not sent, only typed")
    assert await room.gateway.hears_nothing()


async def test_words_survive_a_page_that_is_closed_while_away(room: Room) -> None:
    """The next page of this browser sends them."""
    await room.write("before")
    await room.heard()
    await expect(room.page.locator(".own.kept")).to_have_count(0)  # the page knows that it is stored
    await away(room.visit, is_away=True)
    await expect(room.page.locator(".line-state")).to_contain_text("Your words are kept")
    await room.write("kept over night")
    await expect(room.page.locator(".own.kept")).to_have_count(1)
    url = room.page.url
    await room.page.goto("about:blank")
    await away(room.visit, is_away=False)
    tab = await room.visit.another_tab()
    await tab.page.goto(url)
    assert (await room.heard())["text"] == "kept over night"
    await expect(tab.page.locator(".own p")).to_have_text(["before", "kept over night"])


async def test_up_arrow_takes_back_what_was_not_sent(room: Room) -> None:
    """The last unsent words are in the box again, and nowhere else."""
    await room.write("before")
    await room.heard()
    await expect(room.page.locator(".own.kept")).to_have_count(0)  # the page knows that it is stored
    await away(room.visit, is_away=True)
    await expect(room.page.locator(".line-state")).to_contain_text("Your words are kept")
    await room.write("with a mistaek")
    await room.page.keyboard.press("ArrowUp")
    await expect(room.page.get_by_role("textbox")).to_have_value("with a mistaek")
    await expect(room.page.locator(".own")).to_have_count(1)


class Wire:
    """The sockets of a page, to be cut between any two messages.

    Attributes:
        cut_at: The way, and which message that goes it, counted from 1.
    """

    def __init__(self, cut_at: set[tuple[Way, int]]) -> None:
        self.cut_at: Final = cut_at
        self.cuts = 0
        self._count: Final = {"up": 0, "down": 0}

    async def install(self, context: BrowserContext) -> None:
        """Stand between every page of `context` and its server."""
        await context.route_web_socket("**/api/socket", self._route)

    def _route(self, socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        async def passes(way: Way, data: str | bytes, to: WebSocketRoute) -> None:
            self._count[way] += 1
            is_cut = (way, self._count[way]) in self.cut_at
            if not is_cut or way == "up":  # what goes up arrives, and what it answers does not
                to.send(data)
            if is_cut:
                self.cuts += 1
                await socket.close()
                await server.close()

        socket.on_message(lambda data: passes("up", data, server))
        server.on_message(lambda data: passes("down", data, socket))


@pytest.mark.parametrize("way", ["up", "down"])
async def test_wc_02_cut_at_every_point_and_resumed(edge: Edge, browser: Browser, way: Way) -> None:
    """The line breaks again and again, between any two messages: nothing is lost, nothing is there twice."""
    gateway = await edge.gateway()
    wire = Wire({(way, n) for n in range(2, 40, 3)})
    async with visiting(browser, before=wire.install) as visit:
        await sign_in(edge, visit)
        room = Room(edge=edge, gateway=gateway, browser=browser, visit=visit)
        texts = [f"words {i}" for i in range(6)]
        for text in texts:
            await room.write(text)
        events = [await room.heard(within=30_000 * MS) for _ in texts]
        assert [event["text"] for event in events] == texts
        for event in events:
            await room.begin(event)
            await room.draft(event, "I answer")
            await room.answer(event, f"I answer {event['text']}")
        answers = visit.page.locator(".said .text")
        await expect(answers).to_have_text([f"I answer {text}" for text in texts], timeout=30_000)
        await expect(visit.page.locator(".own p")).to_have_text(texts)
        await expect(ticks(visit.page)).to_contain_text(["answered"] * len(texts))
        tab = await visit.another_tab()
        await tab.page.goto(visit.page.url)
        await expect(tab.page.locator(".said .text")).to_have_text([f"I answer {text}" for text in texts])
        assert wire.cuts > 3


async def test_tabs_say_the_same(room: Room) -> None:
    """Three tabs: what one writes is in all, once, with the same ticks."""
    await room.write("from the first")
    event = await room.heard()
    tabs = [room.visit, await room.visit.another_tab(), await room.visit.another_tab()]
    for tab in tabs[1:]:
        await tab.page.goto(room.page.url)
        await expect(tab.page.locator(".own")).to_have_count(1)
    await room.begin(event)
    await room.draft(event, "I am wri")
    for tab in tabs:
        await expect(tab.page.locator(".said .text")).to_have_text("I am wri")
        await expect(ticks(tab.page)).to_contain_text(["seen"])
    await room.answer(event, "I am written")
    box = tabs[2].page.get_by_role("textbox")
    await box.fill("from the third")
    await box.press("Enter")
    await room.heard()
    for tab in tabs:
        await expect(tab.page.locator(".own p")).to_have_text(["from the first", "from the third"])
        await expect(tab.page.locator(".said .text")).to_have_text("I am written")
        assert await tab.refusals() == []


# What stays where it is.


async def test_nothing_moves_for_whoever_reads_further_up(room: Room) -> None:
    """Scrolled up at each tenth of a long answer: the first visible line never moves, until the person wants it."""
    paragraphs = [f"Paragraph {i}. " + "word " * 60 for i in range(20)]
    text = "\n\n".join([*paragraphs, TABLE, *paragraphs])
    await room.write("a long one")
    event = await room.heard()
    await room.begin(event)
    await room.draft(event, text[: len(text) // 2])
    await expect(room.page.locator(".said")).to_contain_text("Paragraph 15")
    await room.page.mouse.move(640, 400)
    before = 0.0
    for tenth in range(6, 10):
        await room.page.mouse.wheel(0, -120)
        await expect(room.page.get_by_role("button", name="Newest")).to_be_visible()
        before = await settled(room.page, TOP)
        size = await room.page.locator(".said .text").inner_text()
        await room.draft(event, text[: len(text) * tenth // 10])
        await expect(room.page.locator(".said .text")).not_to_have_text(size)
        assert await settled(room.page, TOP) == before
    await room.answer(event, text)
    await expect(room.page.get_by_role("button", name="1 new")).to_be_visible()
    assert await settled(room.page, TOP) == before
    await room.page.get_by_role("button", name="1 new").click()
    await expect(room.page.get_by_role("button", name="new")).to_have_count(0)
    assert (
        await room.page.evaluate(
            "(({ scrollTop, scrollHeight, clientHeight }) => scrollHeight - clientHeight - scrollTop)"
            "(document.querySelector('.flow'))"
        )
        < 2
    )


async def settled(page: Page, expression: str) -> float:
    """Return the value of `expression` once two frames agree on it."""
    return await page.evaluate(
        f"""async () => {{
          let last;
          for (;;) {{
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const value = {expression};
            if (value === last) return value;
            last = value;
          }}
        }}"""
    )


async def test_own_words_rest_in_the_top_third(room: Room) -> None:
    """The answer grows below them into free space, and the words stay where they are."""
    for i in range(4):
        await room.write(f"question {i}")
        event = await room.heard()
        await room.answer(event, "A short answer.\n\n" * 3)
        await expect(room.page.locator(".said")).to_have_count(i + 1)
    await room.write("the last question")
    event = await room.heard()
    where = """(() => { const box = document.querySelector('.flow').getBoundingClientRect();
        const own = [...document.querySelectorAll('.own')].at(-1).getBoundingClientRect();
        return (own.top - box.top) / box.height; })()"""
    at = await settled(room.page, where)
    assert 0.25 < at < 0.42
    await room.begin(event)
    await room.draft(event, "It grows.\n\nAnd grows.")
    await expect(room.page.locator(".said").last).to_contain_text("And grows.")
    assert await settled(room.page, where) == pytest.approx(at, abs=0.005)
    assert await room.visit.moved() < 0.1


# What others write.


async def test_hostile_text_is_text(room: Room) -> None:
    """No script runs, nothing is fetched, the layout holds, in the words, the name and the title."""
    fetched: list[str] = []
    room.page.on("request", lambda request: fetched.append(request.url))
    await room.write("<img src=x onerror='window.hit = 3'> " + "n" * 200)
    event = await room.heard()
    await room.do(
        event,
        "send",
        content=HOSTILE,
        metadata={"idem": "r:1", "agent": "a" * 200, "answers": [event["message_id"]]},
    )
    await expect(room.page.locator(".said")).to_contain_text("<script>window.hit = 1</script>")
    for width, height in WIDTHS.items():
        await room.page.set_viewport_size({"width": width, "height": height})
        assert not await room.visit.is_sideways(), width
    assert await room.page.evaluate("window.hit") is None
    assert await room.page.locator(".said img, .said script, .said a[href^='javascript']").count() == 0
    assert [url for url in fetched if not url.startswith((room.edge.url, "ws://127.0.0.1"))] == []
    assert room.visit.complaints == []


# How it looks, and for whom.


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_state_at_every_width(room: Room, theme: Literal["light", "dark"]) -> None:
    """Axe finds nothing and nothing scrolls sideways: while an agent writes, away, empty, the list."""
    await room.write("We need about 40 bearings, 6902-2RS, for the e-bikes. Who has them on stock?")
    event = await room.heard()
    await room.answer(event, "Five shops list them. The seal matters more than the price on your hubs.")
    await room.write("only suppliers inside the EU, please")
    event = await room.heard()
    await room.begin(event)
    await room.draft(event, TABLE)
    await expect(room.page.locator(".caret")).to_have_count(1)
    await room.page.emulate_media(color_scheme=theme)
    url = room.page.url.partition("#")[0]
    talk = room.page.url

    async def look(name: str) -> None:
        for width, height in WIDTHS.items():
            await room.page.set_viewport_size({"width": width, "height": height})
            await room.page.evaluate("document.fonts.ready")
            assert not await room.visit.is_sideways(), (name, width)
            if width in (1440, 390):  # between them nothing else is drawn
                assert await room.visit.axe() == [], (name, width)
            await room.visit.picture(f"chat-{name}-{theme}-{width}")

    await look("writing")
    await room.page.goto(f"{url}#list")
    await look("list")
    await room.page.goto(f"{url}#new")
    await expect(room.page.locator(".hello")).to_be_visible()
    await look("empty")
    await room.page.goto(talk)
    await room.answer(event, f"{TABLE} 7 € more.")
    await away(room.visit, is_away=True)
    await expect(room.page.locator(".line-state")).to_contain_text("Your words are kept")
    await room.write("and can Jonas look at the front brake too?")
    await look("away")


async def test_large_text_reflows(edge: Edge, browser: Browser) -> None:
    """Text of twice the size: all is there, nothing scrolls sideways."""
    async with visiting(browser, width=640, height=400) as visit:
        await sign_in(edge, visit)
        await visit.page.evaluate("document.documentElement.style.fontSize = '200%'")
        await visit.page.goto(f"{edge.url}/#new")
        await expect(visit.page.get_by_role("textbox")).to_be_visible()
        assert not await visit.is_sideways()


async def test_keyboard_alone(room: Room) -> None:
    """Find, move, write, read the keys, open the menu: without a pointer."""
    page = room.page
    await room.write("the first one")
    await room.heard()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("new conv")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("New conversation")
    await expect(page.get_by_role("textbox")).to_be_focused()
    await page.keyboard.type("the second one")
    await page.keyboard.press("Enter")
    await room.heard()
    await expect(page.get_by_role("heading", level=1)).to_have_text("the second one")
    await page.keyboard.press("Alt+ArrowDown")
    await expect(page.get_by_role("heading", level=1)).to_have_text("the first one")
    await page.keyboard.press("Alt+ArrowUp")
    await expect(page.get_by_role("heading", level=1)).to_have_text("the second one")
    await page.get_by_role("button", name="More").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Rename")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="More")).to_be_focused()
    await page.get_by_role("region", name="Messages").focus()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


async def test_theme_is_kept_and_there_before_the_first_paint(room: Room) -> None:
    """Chosen once; after a reload the first frame is already in it."""
    await room.page.get_by_role("button", name="Settings").click()
    await room.page.get_by_role("button", name="Dark").click()
    dark = "rgb(19, 18, 14)"
    assert await room.page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    await room.page.reload(wait_until="commit")
    assert await room.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert await room.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_weight() -> None:
    """First load, compressed: script at most 120 kB, style 20 kB, fonts 45 kB."""
    built("chat")
    index = (WEB / "index.html").read_text(encoding="utf-8")
    assets = [path for path in (WEB / "assets").iterdir() if path.name in index]

    def weight(suffix: str) -> int:
        return sum(len(gzip.compress(path.read_bytes())) for path in assets if path.suffix == suffix)

    fonts = list((WEB / "assets").glob("*-latin-[w4]*-normal-*.woff2"))
    assert len(fonts) == 2
    assert 0 < weight(".js") <= 120_000
    assert 0 < weight(".css") <= 20_000
    assert 0 < sum(path.stat().st_size for path in fonts) <= 45_000
    assert "<style" not in index
    assert "style=" not in index
    assert index.count("<script") == index.count("<script src=") + index.count("<script type=")
