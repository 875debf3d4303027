"""A node that the clients share, and where the clients are: `make clients` installs them into .clients."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import programs
from tests.clients.calls.harness import NAMESPACE
from tests.clients.manifests import MANIFEST
from tests.e2e.conftest import builder, images
from tests.e2e.node import REPO, Node

__all__ = ["builder", "images"]

PLACE = REPO / ".clients"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = "root" if os.geteuid() != 0 else programs.missing("busybox", "nsenter")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if lacking:
                item.add_marker(pytest.mark.skip(reason=f"needs {lacking}"))


def needed(path: Path) -> str:
    """The path of a client. Skips the test where it is not installed."""
    if not path.exists():
        pytest.skip(
            "needs the clients that `make clients` installs" if path != PLACE / "npm" else "needs npm"
        )
    return str(path)


class Served(NamedTuple):
    """A node whose API clients use."""

    node: Node
    kubeconfig: Path

    def environ(self, client: str, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        own = {"KUBECONFIG": str(self.kubeconfig), "CLIENT": client, "HOME": str(self.node.base)}
        return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **own, **more}


@pytest.fixture(scope="module")
def served(builder: Node) -> Iterator[Served]:
    builder.apply("clients.yaml", MANIFEST)
    kubeconfig = builder.base / "kubeconfig"
    builder.cli("kubeconfig", "--file", str(kubeconfig))

    def running() -> bool:
        code, body = builder.ask(f"/api/v1/namespaces/{NAMESPACE}/pods")
        pods = json.loads(body)["items"] if code == 200 else []
        return [pod["status"].get("phase") for pod in pods] == ["Running"] * 3

    builder.wait(running, "the pods that clients use")
    yield Served(builder, kubeconfig)
