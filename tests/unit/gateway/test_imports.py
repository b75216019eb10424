"""do-06 and invariant 13: what the gateway package may know."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import skep.gateway

PACKAGE = Path(skep.gateway.__file__).parent


def _imported() -> set[str]:
    found: set[str] = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
    return found


def test_do_06_gateway_imports_only_wire_and_foundation() -> None:
    """Of Skep nothing else: no store, no identity, no broker, no neighbour."""
    ours = {name for name in _imported() if name.split(".")[0] == "skep"}

    allowed = ("skep.wire.", "skep.foundation.", "skep.gateway")
    assert ours
    assert all(name.startswith(allowed) for name in ours), ours


def test_invariant_13_gateway_holds_no_platform_crypto() -> None:
    """No library that verifies or decrypts for a platform, and none that speaks to one."""
    foreign = {name.split(".")[0] for name in _imported()} - sys.stdlib_module_names - {"skep"}

    assert foreign == {"aiohttp", "msgspec"}
