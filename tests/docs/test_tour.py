"""The pages with examples: each command is run, and prints what the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from support.console import read_blocks, run_page

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(page for page in (ROOT / "docs").rglob("*.md") if read_blocks(page.read_text()))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_tells_the_truth(page: Path, tmp_path: Path) -> None:
    """A reader who types what the page says sees what the page shows."""
    environ = {
        "HOME": str(tmp_path),
        "SKEP_HOME": str(tmp_path / "skep"),
        "SKEP_CONNECTOR_LISTEN": "127.0.0.1:0",
        "SKEP_WEB_LISTEN": "localhost:0",
        "PATH": f"{ROOT / '.venv/bin'}:/usr/local/bin:/usr/bin:/bin",
        "NO_COLOR": "1",
    }

    assert run_page(page, folder=tmp_path, environ=environ) > 0
