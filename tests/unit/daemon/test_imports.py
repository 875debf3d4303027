"""What a daemon imports before anything asks for more. Each module stays in memory for the daemon's lifetime, so these
lists and numbers grow only on purpose: import what only some nodes need where it is used."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

DAEMON = "import sys, kubelite.daemon.lifecycle, kubelite.daemon.assembly; print(*sys.modules)"
SERVER = """
import asyncio, socket, sys
from kubelite.api.server import listen_unix, serving

async def main():
    async with serving(None, [listen_unix(sys.argv[1])]):
        print(*sys.modules)

asyncio.run(main())
"""
OURS = {"kubelite": 325, "manifests": 42, "runtime": 56, "state": 11}  # at most so many modules
PACKAGES = {
    "annotated_doc", "annotated_types", "anyio", "click", "greenlet", "h11", "idna", "prometheus_client", "pydantic",
    "pydantic_core", "sniffio", "sqlalchemy", "starlette", "typing_extensions", "typing_inspection", "uvicorn",
    "watchfiles", "yaml",
}  # fmt: skip
# Rooms of what most nodes do not use. They are loaded with their first object, setting or command.
LATER = (
    "kubelite.autoscaling", "kubelite.cluster", "kubelite.controllers", "kubelite.ingress",
    "kubelite.network_policies.controller", "kubelite.ui", "runtime.builder.solver", "runtime.dns", "runtime.oci.init",
    "runtime.network.services", "runtime.network.policies",
)  # fmt: skip


def _imported(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_a_daemon_imports_no_more_than_it_did() -> None:
    loaded = _imported(DAEMON)
    counts = Counter(name.partition(".")[0] for name in loaded)
    assert {name: counts[name] for name in OURS if counts[name] > OURS[name]} == {}
    assert [name for name in loaded if name.startswith(LATER)] == []


def test_a_daemon_imports_no_other_packages() -> None:
    # A package's own files: neither the standard library, nor what installers and interpreters add.
    code = DAEMON.replace(
        "print(*sys.modules)",
        "print(*(n for n, m in sys.modules.items() if '-packages' in (getattr(m, '__file__', '') or '')))",
    )
    found = {name.partition(".")[0] for name in _imported(code)}
    assert found - PACKAGES - OURS.keys() - {"_distutils_hack", "_virtualenv"} == set()


def test_the_api_loads_websockets_with_the_first_of_them(tmp_path: Path) -> None:
    loaded = _imported(SERVER, str(tmp_path / "api.sock"))
    assert "uvicorn.server" in loaded
    assert [name for name in loaded if name.startswith("websockets")] == []
