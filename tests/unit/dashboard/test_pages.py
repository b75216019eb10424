"""skep.dashboard.pages: the built page, from memory."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from skep.dashboard.pages import Pages


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A build of three files, and two that are none of it."""
    build = tmp_path / "build"
    (build / "assets").mkdir(parents=True)
    (build / "index.html").write_text("<!doctype html><title>Skep</title>" + " " * 500)
    (build / "assets" / "index-abc.js").write_text("export{}")
    (build / "assets" / "font-abc.woff2").write_bytes(b"wOF2" + bytes(64))
    (build / "notes.md").write_text("not served")
    (tmp_path / "secret.txt").write_text("outside")
    (build / "assets" / "link.txt").symlink_to(tmp_path / "secret.txt")
    return build


def test_start_page_is_asked_for_anew_and_assets_never(root: Path) -> None:
    """The start page names the assets; an asset's name changes with its content."""
    pages = Pages(root)

    start, script = pages.get("/"), pages.get("/assets/index-abc.js")

    assert start is not None
    assert script is not None
    assert start.cache_control == "no-cache"
    assert start.media_type == "text/html; charset=utf-8"
    assert "immutable" in script.cache_control
    assert script.media_type == "text/javascript; charset=utf-8"


def test_packed_form_is_the_same_page(root: Path) -> None:
    """What goes out with gzip is the file; what is dense already goes out as it is."""
    pages = Pages(root)

    start, font = pages.get("/"), pages.get("/assets/font-abc.woff2")

    assert start is not None
    assert start.packed is not None
    assert font is not None
    assert gzip.decompress(start.packed) == start.body
    assert font.packed is None


@pytest.mark.parametrize(
    "path",
    ["/notes.md", "/assets/link.txt", "/../secret.txt", "/assets/../../secret.txt", "/index.html", "//", ""],
)
def test_nothing_else_has_a_path(root: Path, path: str) -> None:
    """A path is a key, not a place: nothing outside the build, no link out of it."""
    assert Pages(root).get(path) is None


def test_a_build_that_comes_later_is_found(tmp_path: Path) -> None:
    """`make web` while the dashboard runs is enough."""
    pages = Pages(tmp_path)
    before = pages.get("/")
    (tmp_path / "index.html").write_text("<!doctype html>")

    assert before is None
    assert pages.get("/") is not None
