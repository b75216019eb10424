"""The chat's own page: static files out of the package.

Source: control protocol, section 13. Only files that were found in the directory are served, by their exact
name; a path never reaches the file system. Without the build there is a plain page that says how to get it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

__all__ = ["PAGES_DIR", "Pages"]

PAGES_DIR: Final = Path(__file__).parents[3] / "_web" / "chat"

_FOREVER: Final = "public, max-age=31536000, immutable"
_NOT_BUILT: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Skep</title>
<h1>The chat page is not built</h1>
<p>Build it with <code>make web</code>, then reload this page.</p>
<p>The chat itself is running: <code>skep chat</code> talks to it from a terminal.</p>
</html>
"""
_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain",
}


class Pages:
    """Serves the files of one directory."""

    def __init__(self, directory: Path = PAGES_DIR) -> None:
        self._directory: Final = directory
        self._files: dict[str, Path] = {}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the page at `/` and its files beside it."""
        router.add_get("/", self._index)
        router.add_get("/{file:[A-Za-z0-9._-]+}", self._file)
        router.add_get("/{file:assets/[A-Za-z0-9._-]+}", self._file)

    async def _index(self, _request: web.Request) -> web.StreamResponse:
        page = self._find("index.html")
        if page is None:
            return web.Response(text=_NOT_BUILT, content_type="text/html", charset="utf-8")
        return _served(page, cache="no-cache")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        found = self._find(name)
        if found is None:
            raise web.HTTPNotFound
        return _served(found, cache=_FOREVER if name.startswith("assets/") else "no-cache")

    def _find(self, name: str) -> Path | None:
        found = self._files.get(name)
        if found is None or not found.is_file():  # built, or built again, since the last look
            self._files = {
                path.relative_to(self._directory).as_posix(): path
                for path in self._directory.rglob("*")
                if path.is_file() and not path.is_symlink()
            }
            found = self._files.get(name)
        return found


def _served(path: Path, *, cache: str) -> web.FileResponse:
    kind = _TYPES.get(path.suffix, "application/octet-stream")
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: kind + charset, hdrs.CACHE_CONTROL: cache})
