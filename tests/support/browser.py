"""A real Chromium: pages whose every complaint is kept, and the questions that tests ask of them.

A refusal of the content policy, an error in the console and an uncaught exception are complaints. Nothing is
loaded from elsewhere: axe comes from the libraries of the web pages.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from support.parts import missing, need

__all__ = ["HONEY", "MADDER", "SCREENS", "Visit", "built", "chromium", "visiting"]

ROOT: Final = Path(__file__).parents[2]
SCREENS: Final = ROOT / "test-results" / "screens"
"""Where pictures are left for a person to look at."""
AXE: Final = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

HONEY: Final = ("178, 119, 10", "223, 166, 58", "226, 170, 60", "122, 82, 0", "235, 187, 92")
"""The colours that say "alive now", in both themes, as a browser computes them."""
MADDER: Final = ("173, 42, 58", "226, 97, 107", "156, 34, 50", "240, 134, 140")
"""The colours that say "needs you"."""

_WATCH: Final = """
window.refusals = [];
document.addEventListener('securitypolicyviolation', (e) =>
  window.refusals.push(`${e.effectiveDirective} ${e.blockedURI} ${e.sample}`));
window.shifts = [];
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifts.push(shift.value);
}).observe({ type: 'layout-shift', buffered: true });
"""
_COLOURED: Final = """(wanted) => [...document.body.querySelectorAll('*')].filter((node) => {
  if (!node.checkVisibility() || node.closest('.brand, .hello')) return false;
  const style = getComputedStyle(node);
  const drawn = [style.backgroundColor, style.borderTopColor, style.fill, style.stroke];
  const hasWords = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (hasWords) drawn.push(style.color);
  return drawn.some((colour) => wanted.some((w) => colour === `rgb(${w})`));
}).map((node) => node.outerHTML.slice(0, 120))"""


class Visit:
    """One browser profile, and a page of it.

    Attributes:
        complaints: What the console and uncaught exceptions said, oldest first.
    """

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.context: Final = context
        self.page: Final = page
        self.complaints: Final[list[str]] = []
        self._listen(page)

    async def another_tab(self) -> Visit:
        """Open another page of the same profile."""
        return Visit(self.context, await self.context.new_page())

    async def refusals(self) -> list[str]:
        """Return what the content policy refused on this page."""
        return await self.page.evaluate("window.refusals")

    async def is_sideways(self) -> bool:
        """Return whether the page can be scrolled sideways."""
        return await self.page.evaluate("document.documentElement.scrollWidth > innerWidth")

    async def coloured(self, colours: tuple[str, ...]) -> list[str]:
        """Return the beginnings of the elements that are drawn in one of `colours`; the mark does not count."""
        return await self.page.evaluate(_COLOURED, list(colours))

    async def moved(self) -> float:
        """Return how far things moved by themselves since the page began (CLS)."""
        return await self.page.evaluate("window.shifts.reduce((a, b) => a + b, 0)")

    async def axe(self) -> list[str]:
        """Return what axe finds against WCAG 2.2 AA."""
        if not AXE.is_file():
            missing("axe is not here; get it: make web")
        await self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = await self.page.evaluate(
            "(rules) => axe.run({ runOnly: { type: 'tag', values: rules } })", RULES
        )
        return [
            f"{violation['id']}: {node['html'][:160]} {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    async def picture(self, name: str) -> None:
        """Leave a picture of the page for a person to look at."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SCREENS / f"{name}.png")

    def _listen(self, page: Page) -> None:
        def console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.complaints.append(message.text)

        page.on("console", console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


def built(page: Literal["chat", "dashboard"]) -> None:
    """Skip the test when the web pages are not built; fail it where every part must be there."""
    if not (ROOT / "src" / "skep" / "_web" / page / "index.html").is_file():
        missing("the web pages are not built; build them: make web")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Yield a browser."""
    path = need("chromium")
    async with async_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visiting(
    browser: Browser,
    *,
    width: int = 1280,
    height: int = 800,
    theme: Literal["light", "dark"] = "light",
    before: Callable[[BrowserContext], Awaitable[None]] | None = None,
    **options: Any,
) -> AsyncIterator[Visit]:
    """Yield a page of a new profile."""
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, **options
    )
    await context.add_init_script(_WATCH)
    if before is not None:
        await before(context)
    try:
        yield Visit(context, await context.new_page())
    finally:
        await context.close()
