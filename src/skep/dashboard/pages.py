"""The built page, held in memory: the only files that the dashboard reads.

Nothing is looked up by a path from outside: a request names a key of a dictionary.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["NOT_BUILT", "Page", "Pages"]

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_DENSE: Final = frozenset({".png", ".woff2", ".ico"})
_IMMUTABLE: Final = "public, max-age=31536000, immutable"

NOT_BUILT: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Skep</title>
<h1>The dashboard's page is not built</h1>
<p>In a checkout, run <code>make web</code>, then reload. Until then there is <code>skep status</code>.</p>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One file, ready to send. `packed` is the same with gzip, where that is smaller."""

    body: bytes
    packed: bytes | None
    media_type: str
    etag: str
    cache_control: str


class Pages:
    """All files of the build under `root`, by the path that a browser asks for."""

    def __init__(self, root: Path) -> None:
        self._root: Final = root
        self._pages: dict[str, Page] = {}

    def get(self, path: str) -> Page | None:
        """Return the page at `path` (`/` is the start page)."""
        if "/" not in self._pages:
            self._pages = _load(self._root)  # the build may come after the start
        return self._pages.get(path)


def _load(root: Path) -> dict[str, Page]:
    pages: dict[str, Page] = {}
    for file in sorted(root.rglob("*")):
        media_type = _TYPES.get(file.suffix)
        if media_type is None or file.is_symlink() or not file.is_file():
            continue
        name = file.relative_to(root).as_posix()
        body = file.read_bytes()
        packed = None if file.suffix in _DENSE else gzip.compress(body, mtime=0)
        pages["/" if name == "index.html" else f"/{name}"] = Page(
            body=body,
            packed=packed if packed is not None and len(packed) < len(body) else None,
            media_type=media_type,
            etag=f'"{hashlib.sha256(body).hexdigest()[:16]}"',
            cache_control=_IMMUTABLE if name.startswith("assets/") else "no-cache",
        )
    return pages
