"""Every client, with every operation that it has, on one node."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients import results
from tests.clients.conftest import PLACE, Served, needed
from tests.clients.operations import OPERATIONS
from tests.e2e.node import PATIENCE
from tests.programs import missing

CALLS = Path(__file__).with_name("calls")


class Client(NamedTuple):
    """How a client is run: a Python module of `calls` with the clients' Python, or a program with its own."""

    calls: str
    package: str = ""  # whose version is shown


CLIENTS = {
    "kr8s": Client("with_kr8s.py", "kr8s"),
    "kubernetes": Client("with_kubernetes.py", "kubernetes"),
    "kubernetes_asyncio": Client("with_kubernetes_asyncio.py", "kubernetes_asyncio"),
    "lightkube": Client("with_lightkube.py", "lightkube"),
    "pykube-ng": Client("with_pykube.py", "pykube-ng"),
}


def called(served: Served, client: str, command: list[str], **more: str) -> set[str]:
    """Run the calls of a client. Return the names of those that succeed; fails with the errors of the others."""
    label = re.sub("[^a-z0-9]+", "-", client).strip("-")
    done = subprocess.run(
        served.node.in_netns(*command), env=served.environ(label, **more), cwd=CALLS,
        capture_output=True, text=True, timeout=100 * PATIENCE, check=False,
    )  # fmt: skip
    said = [json.loads(line) for line in done.stdout.splitlines()]
    failed = {one["operation"]: one["error"] for one in said if not one["ok"]}
    assert done.returncode == 0 and not failed, f"{failed}\n{done.stderr}\n-- daemon:\n{served.node.tail()}"
    found = {one["operation"] for one in said}
    assert found and found <= OPERATIONS.keys()
    return found


def ordered(found: set[str]) -> list[str]:
    return [name for name in OPERATIONS if name in found]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_python_client(served: Served, client: str) -> None:
    python = needed(PLACE / "bin/python")
    code = f"import importlib.metadata as m; print(m.version({CLIENTS[client].package!r}))"
    version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    results.check(client, version, ordered(called(served, client, [python, CLIENTS[client].calls])))


def test_the_javascript_client(served: Served) -> None:
    if missing("node", "npm"):
        pytest.skip("needs npm")
    modules = Path(needed(PLACE / "npm"))
    package = modules / "node_modules/@kubernetes/client-node/package.json"
    version = json.loads(package.read_text())["version"]
    found = called(served, "client-node", ["node", "with_client_node.mjs"], CLIENT_MODULES=str(modules))
    results.check("@kubernetes/client-node", version, ordered(found))


@pytest.mark.parametrize("which", ["kubectl", "kubectl (newest)"])
def test_kubectl(served: Served, which: str) -> None:
    program = kubectl(which)
    python = ["python3", "with_kubectl.py"]
    found = called(served, which, python, KUBECTL=program)
    results.check(which, kubectl_version(program), ordered(found))


def kubectl(which: str) -> str:
    """The path of a kubectl. Skips the test where there is none."""
    if which == "kubectl (newest)":
        return needed(PLACE / "bin/kubectl-newest")
    if missing("kubectl"):
        pytest.skip("needs kubectl")
    return "kubectl"


def kubectl_version(program: str) -> str:
    """Major and minor version: distributions update the rest."""
    done = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, check=True)
    found = json.loads(done.stdout)["clientVersion"]
    return f"{found['major']}.{found['minor']}"
