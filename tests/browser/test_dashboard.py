"""The dashboard's page in a real Chromium, over the real server, against the interface rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.health import Finding
from skep.foundation.paths import Home
from skep.foundation.rpc import RpcError
from skep.wire.control import operator, rows
from support.dashboard import Running, running_dashboard
from support.fake_daemon import FakeDaemon
from support.parts import missing, need
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
BUILT = ROOT / "src" / "skep" / "_web" / "dashboard" / "index.html"
MINUTE = 60_000
HOSTILE = (
    "<script>window.bad = 1</script><img src=x onerror=window.bad=1> \u202egnp.exe \x1b[31m " + "😀" * 60
)
SIZES = [(1440, 900), (1024, 800), (390, 844), (320, 640)]
HONEY = {"rgb(178, 119, 10)", "rgb(226, 170, 60)", "rgb(122, 82, 0)", "rgb(249, 237, 204)"}
MADDER = {"rgb(173, 42, 58)", "rgb(156, 34, 50)", "rgb(247, 226, 223)"}
COLOURS = """() => [...document.querySelectorAll('main *, nav .dot')].flatMap(e => {
  const box = e.getBoundingClientRect(), s = getComputedStyle(e);
  return box.width && box.height ? [s.color, s.backgroundColor, s.fill] : [];
})"""
SHIFTS = """window.shift = 0; new PerformanceObserver(list => {
  for (const e of list.getEntries()) if (!e.hadRecentInput) window.shift += e.value;
}).observe({type: 'layout-shift', buffered: true});"""


@dataclass
class Hive:
    """What the daemon tells; a test changes it and emits an event."""

    now: int
    agents: list[operator.AgentRow] = field(default_factory=list[operator.AgentRow])
    threads: list[rows.ThreadRow] = field(default_factory=list[rows.ThreadRow])
    messages: list[rows.MessageRow] = field(default_factory=list[rows.MessageRow])
    asks: list[rows.AskRow] = field(default_factory=list[rows.AskRow])
    reminders: list[rows.ReminderRow] = field(default_factory=list[rows.ReminderRow])
    findings: list[Finding] = field(default_factory=list[Finding])

    def query(self, args: operator.QueryArgs) -> operator.QueryResult:
        """Answer a named query."""
        by_name: dict[str, list[Any]] = {
            "threads": self.threads,
            "thread": self.messages,
            "asks": self.asks,
            "reminders": self.reminders,
        }
        found = tuple(msgspec.to_builtins(row) for row in by_name.get(args.name, []))
        return operator.QueryResult(rows=found, names={"person:1": HOSTILE})


def quiet_hive(now: int) -> Hive:
    """Two agents that nobody has written to."""
    return Hive(
        now=now,
        agents=[
            operator.AgentRow(
                name="concierge",
                role="manager",
                runtime="rehearsal",
                state="up",
                up_since=now,
                is_default=True,
            ),
            operator.AgentRow(name="scribe", role="agent", runtime="rehearsal", state="up", up_since=now),
        ],
    )


def busy_hive(now: int) -> Hive:
    """Every state that the page draws, with hostile text in each field that people write."""
    hive = quiet_hive(now)
    hours = tuple((i % 4, i % 3) for i in range(24))
    hive.agents = [
        msgspec.structs.replace(
            hive.agents[0],
            busy=1,
            turn_started_at=now - 21_000,
            turns_today=12,
            queue=2,
            oldest_at=now - 4000,
            reminders_sent=23,
            reminders_tried=26,
            reminder_hours=hours,
        ),
        msgspec.structs.replace(hive.agents[1], state="failed", note="exit 3", missed_starts=2, dead=1),
    ]
    hive.findings = [
        Finding(id="agent.scribe.failed", severity="broken", problem="scribe is down", fix="skep agent list"),
        Finding(
            id="queue.old", severity="soon", problem="a queue is old", depends_on=("agent.scribe.failed",)
        ),
    ]
    ends: list[tuple[rows.DeliveryState, int]] = [("ready", 1), ("leased", 1), ("shown", 2), ("done", 1)]
    deliveries = tuple(
        rows.DeliveryRow(
            delivery_id=i, to=f"agent:{state}", state=state, lane=i, attempt=attempt, done_at=now
        )
        for i, (state, attempt) in enumerate(ends)
    )
    hive.asks = [
        rows.AskRow(
            id=f"a{i}",
            asker="agent:scribe",
            target="person:1",
            question=HOSTILE if i else "May I go on?",
            state="open",
            asked_at=now - MINUTE,
            thread="t1",
        )
        for i in range(2)
    ]
    hive.reminders = [
        rows.ReminderRow(
            id="r1",
            owner="agent:scribe",
            session="s",
            body="stretch",
            due_at=now + MINUTE,
            state="armed",
            created_at=now,
        )
    ]
    hive.messages = [
        rows.MessageRow(
            id="t1",
            kind="message",
            from_="person:1",
            to="*",
            body=HOSTILE,
            created_at=now - MINUTE,
            broadcast=True,
            deliveries=deliveries,
        ),
        rows.MessageRow(
            id="a0",
            kind="ask",
            from_="agent:scribe",
            to="person:1",
            body="May I go on?",
            created_at=now - MINUTE,
            deliveries=deliveries[3:],
            ask=hive.asks[0],
        ),
    ]
    hive.threads = [
        rows.ThreadRow(
            id="t1",
            kind="message",
            from_="person:1",
            to="*",
            opening=HOSTILE,
            stage="stuck",
            messages=2,
            started_at=now - MINUTE,
            last_at=now,
            waiting=3,
            dead=1,
            people=("person:1", "agent:scribe"),
        )
    ]
    return hive


@dataclass
class Watched:
    """A page, and what its console complained about."""

    page: Page
    hive: Hive
    running: Running
    complaints: list[str]

    async def sign_in(self) -> None:
        """Open the link and wait for the page."""
        await self.page.goto(f"{self.running.origin}/#once=good")
        await self.page.wait_for_selector("#agents tbody tr")

    async def axe(self) -> list[str]:
        """Return what axe finds."""
        await self.page.evaluate(AXE.read_text())
        found = await self.page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
        )
        return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found["violations"]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A prepared home."""
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The machine's Chromium."""
    path = need("chromium")
    if not BUILT.is_file() or not AXE.is_file():
        missing("the web pages are not built; run: make web")
    async with async_playwright() as tools:
        chromium = await tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        await chromium.close()


@pytest.fixture
async def running(home: Home) -> AsyncIterator[Running]:
    """A dashboard; `opened` gives it its hive."""
    daemon = FakeDaemon()
    daemon.expires_at = SYSTEM_CLOCK.now_ms() + 3_600_000
    async with running_dashboard(home, daemon, clock=SYSTEM_CLOCK) as dashboard:
        yield dashboard


def serve(running: Running, hive: Hive) -> None:
    """Have the daemon tell of `hive`."""

    def cancel(args: operator.CancelArgs) -> object:
        if args.id == "a1":
            return RpcError("conflict", "it was answered a moment ago")
        hive.asks = [ask for ask in hive.asks if ask.id != args.id]
        hive.reminders = [reminder for reminder in hive.reminders if reminder.id != args.id]
        return operator.CancelResult(state="cancelled")

    def always(make: Callable[[], object]) -> Callable[[object], object]:
        return lambda _args: make()

    running.daemon.answers = {
        "status.get": always(
            lambda: operator.Status(
                build="0.1.0",
                boot_epoch=1,
                started_at=hive.now,
                gateway_attached=True,
                now=SYSTEM_CLOCK.now_ms(),
            )
        ),
        "health.list": always(
            lambda: operator.Findings(
                findings=tuple(hive.findings), passed=("store.integrity", "clock"), not_checked=("memory",)
            )
        ),
        "agent.list": always(lambda: operator.AgentRows(agents=tuple(hive.agents))),
        "hive.query": hive.query,
        "ask.cancel": cancel,
        "reminder.cancel": cancel,
    }


async def opened(browser: Browser, running: Running, hive: Hive, **context: Any) -> Watched:
    """Return a page that is signed in and shows `hive`."""
    serve(running, hive)
    page = await (await browser.new_context(**context)).new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.add_init_script(SHIFTS)
    watched = Watched(page=page, hive=hive, running=running, complaints=complaints)
    await watched.sign_in()
    return watched


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
async def test_page_has_no_finding_at_any_size(
    browser: Browser, running: Running, theme: Any, width: int, height: int
) -> None:
    """Axe finds nothing, nothing is refused by the policy, nothing scrolls sideways; hostile text is text."""
    hive = busy_hive(SYSTEM_CLOCK.now_ms())
    size: Any = {"width": width, "height": height}
    watched = await opened(browser, running, hive, viewport=size, color_scheme=theme)
    page = watched.page
    home_findings = await watched.axe()
    await page.click(".item")
    await page.wait_for_selector(".msg .ticks")

    assert home_findings == []
    assert await watched.axe() == []
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert await page.evaluate("window.bad") is None
    assert watched.complaints == []


async def test_ticks_are_drawn_at_the_state_that_the_hive_told(browser: Browser, running: Running) -> None:
    """Stored, taken, in its turn, done: each in its own word, none ahead of the others."""
    watched = await opened(browser, running, busy_hive(SYSTEM_CLOCK.now_ms()))
    await watched.page.click(".item")
    await watched.page.wait_for_selector(".msg .ticks")
    ticks = watched.page.locator(".msg").first.locator(".ticks li")

    said = [" ".join((await ticks.nth(i).inner_text()).split()) for i in range(await ticks.count())]

    assert said[0] == "ready stored"
    assert said[1] == "leased taken, not yet seen"
    assert said[2] == "shown in its turn now, try 2"
    assert said[3].startswith("done done ")


async def test_cancel_is_drawn_as_asked_and_back_with_its_reason(browser: Browser, running: Running) -> None:
    """A good one goes when the hive says so; a refused one stays, with why."""
    watched = await opened(browser, running, busy_hive(SYSTEM_CLOCK.now_ms()))
    page = watched.page

    await page.click("[aria-label^='Cancel the reminder']")
    await page.wait_for_selector(".gone:has-text('cancelled')")
    await page.mouse.move(0, 0)
    await page.wait_for_selector("text=No reminder is armed")
    await page.locator("[aria-label^='Cancel the ask']").nth(1).click()
    await page.wait_for_selector("text=not cancelled: it was answered a moment ago")
    await page.locator("[aria-label^='Cancel the ask']").first.click()
    await page.mouse.move(0, 0)

    async def left() -> bool:
        return await page.locator("[aria-labelledby='asks-title'] li").count() == 1

    await eventually(left)


async def test_first_run_says_what_to_do_and_links_nowhere_else(browser: Browser, running: Running) -> None:
    """One thing to do; the navigation has only what is on the page; no madder in a healthy hive."""
    watched = await opened(browser, running, quiet_hive(SYSTEM_CLOCK.now_ms()))
    page = watched.page

    await page.wait_for_selector("text=concierge is waiting for its first message")
    targets: list[str] = await page.eval_on_selector_all(
        "nav a", "links => links.map(a => a.getAttribute('href'))"
    )
    dead = [target for target in targets if await page.locator(target).count() == 0]

    assert dead == []
    assert MADDER.isdisjoint(await page.evaluate(COLOURS))


async def test_away_puts_the_honey_out_and_comes_back_without_reload(
    browser: Browser, running: Running
) -> None:
    """The last data stays with its time, acts say why they are off, and all heals by itself."""
    watched = await opened(browser, running, busy_hive(SYSTEM_CLOCK.now_ms()), color_scheme="light")
    page = watched.page
    alive = set(await page.evaluate(COLOURS)) & HONEY
    await running.daemon.stop()
    await page.wait_for_selector("text=No answer from the daemon since")
    await page.wait_for_timeout(200)  # colours fade for 120 ms

    assert alive
    assert HONEY.isdisjoint(await page.evaluate(COLOURS))
    assert await page.locator("#agents tbody tr").count() == 2
    assert await page.locator("[aria-label^='Cancel']:not([disabled])").count() == 0

    running.daemon.epoch = 2
    await running.daemon.start(running.home.web_socket)
    await page.wait_for_selector("text=back after", timeout=10_000)
    assert await page.locator(".away-line").count() == 0


async def test_events_change_the_page_and_move_nothing(browser: Browser, running: Running) -> None:
    """Numbers change where they stand; a busy stream shifts no layout and asks the daemon now and then."""
    watched = await opened(browser, running, busy_hive(SYSTEM_CLOCK.now_ms()))
    page, hive = watched.page, watched.hive
    await page.wait_for_timeout(700)
    running.daemon.calls.clear()
    before = await page.evaluate("window.shift")
    for i in range(200):
        hive.agents[0] = msgspec.structs.replace(hive.agents[0], queue=i, turns_today=100 + i)
        running.daemon.emit("delivery", id=i)
        running.daemon.emit("turn", turn_id="turn-1", state="text", agent="concierge", text="x" * i)
        await page.wait_for_timeout(5)

    async def shows_the_last() -> bool:
        return await page.locator("#agents .c-queue >> text=199").count() == 1

    await eventually(shows_the_last)
    assert await page.evaluate("window.shift") - before == 0
    assert len([name for name, _, _ in running.daemon.calls if name == "agent.list"]) < 20


async def test_order_stands_still_under_the_pointer(browser: Browser, running: Running) -> None:
    """Rows change places only when neither pointer nor focus is among them."""
    watched = await opened(browser, running, quiet_hive(SYSTEM_CLOCK.now_ms()))
    page, hive = watched.page, watched.hive
    names = page.locator("#agents .c-who b")
    before = await names.all_inner_texts()
    await page.hover("#agents tbody tr >> nth=0")
    hive.agents[1] = msgspec.structs.replace(hive.agents[1], state="failed")
    running.daemon.emit("agent", name="scribe", state="failed")
    await page.wait_for_selector("#agents >> text=Down")
    held = await names.all_inner_texts()
    await page.mouse.move(0, 0)
    running.daemon.emit("agent", name="scribe", state="failed")

    async def is_sorted() -> bool:
        return await names.all_inner_texts() == ["scribe", "concierge"]

    await eventually(is_sorted)
    assert before == held == ["concierge", "scribe"]


async def test_every_part_is_reached_by_key(browser: Browser, running: Running) -> None:
    """Go to each part, walk its rows, open and close; no key acts while single keys are off."""
    watched = await opened(browser, running, busy_hive(SYSTEM_CLOCK.now_ms()))
    page = watched.page
    focused = "document.activeElement.textContent.trim()"
    places: list[str] = []
    for key in "haitr":
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        places.append(await page.evaluate(focused))
    await page.keyboard.press("g")
    await page.keyboard.press("t")
    for _ in range(6):
        await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".msg")
    await page.keyboard.press("Escape")
    await page.wait_for_selector(".msg", state="detached")
    back = await page.evaluate("document.activeElement.dataset.thread")
    await page.keyboard.press("?")
    await page.click("text=Switch single keys off")
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")

    assert places == ["Home", "Agents", "Open asks", "Threads", "Reminders"]
    assert back == "t1"
    assert await page.locator("dialog[open]").count() == 0


LINKS = {
    "without a link": ("", "Not signed in"),
    "wrong": ("#once=guess", "This link is not right"),
    "used": ("#once=spent", "This link was used before"),
}


@pytest.mark.parametrize(("fragment", "title"), LINKS.values(), ids=LINKS.keys())
async def test_sign_in_page_says_what_is_wrong_and_how_to_get_in(
    browser: Browser, running: Running, fragment: str, title: str
) -> None:
    """Each refusal is told by itself, with the command; the code does not stay in the address."""
    running.daemon.used.add("spent")
    page = await browser.new_page()

    await page.goto(f"{running.origin}/{fragment}")
    await page.wait_for_selector(f"h1:has-text('{title}')")

    assert await page.locator(".cmd:has-text('skep web link')").count() == 1
    assert "once" not in page.url


async def test_sign_in_waits_for_a_daemon_that_is_away(browser: Browser, running: Running) -> None:
    """The code is not used up: the page asks again by itself."""
    serve(running, quiet_hive(SYSTEM_CLOCK.now_ms()))
    await running.daemon.stop()
    page = await browser.new_page()
    await page.goto(f"{running.origin}/#once=good")
    await page.wait_for_selector("text=Skep does not answer")

    await running.daemon.start(running.home.web_socket)

    await page.wait_for_selector("#agents tbody tr", timeout=10_000)


async def test_sign_out_leaves_nothing(browser: Browser, running: Running) -> None:
    """The session is gone at the daemon; a reload shows the way in, not the page."""
    watched = await opened(browser, running, quiet_hive(SYSTEM_CLOCK.now_ms()))
    page = watched.page
    await page.click(".self")
    await page.click("text=Sign out")
    await page.wait_for_selector("h1:has-text('Not signed in')")
    await page.reload()
    await page.wait_for_selector("h1:has-text('Not signed in')")

    assert running.daemon.sessions == set()
    assert await page.context.cookies() == []


@dataclass
class Neighbour:
    """Another server on this machine, as the chat is, or as something hostile may be."""

    port: int = 0
    cookies: list[str] = field(default_factory=list[str])
    page: str = "<!doctype html><title>neighbour</title>"

    async def answer(self, request: web.Request) -> web.Response:
        """Note the cookies that came, and give the page."""
        self.cookies.append(request.headers.get("Cookie", ""))
        return web.Response(text=self.page, content_type="text/html")


@pytest.fixture
async def neighbour() -> AsyncIterator[Neighbour]:
    """A server on both names."""
    there = Neighbour()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", there.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there.port = int(runner.addresses[0][1])
    yield there
    await runner.cleanup()


async def test_bo_07_the_chats_name_never_gets_the_cookie(
    browser: Browser, running: Running, neighbour: Neighbour
) -> None:
    """Cookies ignore ports, so the chat has another name: nothing of the dashboard's goes there."""
    watched = await opened(browser, running, quiet_hive(SYSTEM_CLOCK.now_ms()))
    names = {cookie.get("name") for cookie in await watched.page.context.cookies(running.origin)}
    await watched.page.goto(f"http://127.0.0.1:{neighbour.port}/")

    assert names == {"skep_dashboard"}
    assert set(neighbour.cookies) == {""}


ATTACK = """async origin => {
  const tried = [];
  const note = async (name, work) => {
    try { tried.push([name, await work()]); } catch (error) { tried.push([name, error.name]); }
  };
  const post = (headers, body) => fetch(`${origin}/api/call/ask.cancel`,
    {method: 'POST', credentials: 'include', mode: headers ? 'cors' : 'no-cors', headers, body})
    .then(answer => answer.type);
  await note('json', () => post({'Content-Type': 'application/json'}, '{"id":"a0"}'));
  await note('simple', () => post(undefined, '{"id":"a0"}'));
  await note('events', () => new Promise(done => {
    const source = new EventSource(`${origin}/api/events`, {withCredentials: true});
    source.onopen = () => done('open');
    source.onerror = () => { source.close(); done('refused'); };
  }));
  await note('sign out', () => fetch(`${origin}/api/session`, {method: 'DELETE', credentials: 'include'})
    .then(answer => answer.type));
  return Object.fromEntries(tried);
}"""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_ps_05_page_of_another_port_changes_nothing(
    browser: Browser, running: Running, neighbour: Neighbour, name: str
) -> None:
    """A page of the same name (it has the cookie) or of another one: no call, no stream, no sign-out."""
    watched = await opened(browser, running, busy_hive(SYSTEM_CLOCK.now_ms()))
    page = await watched.page.context.new_page()
    await page.goto(f"http://{name}:{neighbour.port}/")
    running.daemon.calls.clear()
    streams = len(running.daemon.subscribed_after)

    got = await page.evaluate(ATTACK, running.origin)

    acts = [name for name, _, _ in running.daemon.calls if name in {"ask.cancel", "auth.logout"}]
    assert acts == []
    assert got["events"] == "refused"
    assert len(running.daemon.subscribed_after) == streams
    assert running.daemon.sessions == {"session-1"}
