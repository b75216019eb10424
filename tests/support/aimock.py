"""The fake of many endpoints that aimock is, with models of ours: a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from support.npm_parts import NODE, npm_part

__all__ = ["KEY", "Aimock", "aimock_server"]

KEY: Final = "canary-key-Zx93-0123456789"
_STARTS_IN_S: Final = 20
_SCRIPT: Final = Path(__file__).with_name("aimock.mjs")


class Aimock:
    """A running server.

    Attributes:
        base_url: Of its models.
    """

    def __init__(self, site: str) -> None:
        self.site: Final = site
        self.base_url: Final = f"{site}/v1"

    def raw(self, name: str) -> str:
        """Return the base URL under which the answer `name` is given to everything."""
        return f"{self.site}/raw/{name}/v1"

    @contextmanager
    def chaos(self, **rates: float) -> Iterator[None]:
        """Let every request suffer, by aimock's own names: `malformedRate`, `disconnectRate`, …."""
        header = {"authorization": f"Bearer {KEY}"}
        httpx.post(f"{self.site}/__aimock/chaos", json=rates, headers=header).raise_for_status()
        try:
            yield
        finally:
            httpx.delete(f"{self.site}/__aimock/chaos", headers=header).raise_for_status()


@contextmanager
def aimock_server(folder: Path, answers: Mapping[str, Mapping[str, Any]]) -> Iterator[Aimock]:
    """Serve the models of aimock.mjs and `answers`, each a status, a content type and a body."""
    file = folder / "answers.json"
    file.write_text(json.dumps(answers))
    package = npm_part("@copilotkit/aimock")
    said = folder / "aimock.log"
    with said.open("wb") as log:
        words = [str(NODE), str(_SCRIPT), str(package), KEY, str(file)]
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(_STARTS_IN_S * 20):
            if said.read_text().endswith("\n") or child.poll() is not None:
                break
            time.sleep(0.05)
        site = said.read_text().strip()
        assert site.startswith("http://"), f"aimock did not start: {site[:500]}"
        yield Aimock(site)
    finally:
        # What was started only starts Node: the group ends with it. It has nothing to lose.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
