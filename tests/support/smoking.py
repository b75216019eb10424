"""Run the smoke in this process, and `skep provider` as a program."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

from skep.foundation.clock import SYSTEM_CLOCK
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.providers.endpoint import LIMITS, Endpoint, Limits
from skep.providers.presets import Api
from skep.providers.report import Check, Report, line_of, report_schema
from skep.providers.smoke import Plan, run_smoke

__all__ = ["Smoke", "run_provider", "smoke"]


class Smoke:
    """A report, and its lines by check."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.checks: dict[str, Check] = {check.name: check for check in report.checks}
        self.lines: dict[str, str] = {check.name: line_of(check, report.json) for check in report.checks}


async def smoke(
    base_url: str,
    model: str,
    plan: Plan,
    *,
    key: str | None = None,
    api: Api = "openai",
    limits: Limits = LIMITS,
) -> Smoke:
    """Return what the smoke of an endpoint reports."""
    secret = None if key is None else Secret("key", key)
    endpoint = Endpoint(base_url=base_url, model=model, api=api, key=secret)
    return Smoke(await run_smoke(endpoint, plan, redactor=Redactor(), clock=SYSTEM_CLOCK, limits=limits))


async def run_provider(
    home: Path, words: Sequence[str], *, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `skep provider` with `words`, apart from the loop of the test; a report it prints fits its schema."""
    return await asyncio.to_thread(_run, home, words, environ or {})


def _run(home: Path, words: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SKEP_")}
    done = subprocess.run(
        [sys.executable, "-m", "skep", "provider", *words],
        env={**inherited, "SKEP_HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if words[0] == "test" and "--json" in words and done.stdout:
        answer: dict[str, Any] = json.loads(done.stdout)
        if "format" in answer:
            jsonschema.validate(answer, report_schema())
    return done
