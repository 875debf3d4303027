"""The real kubectl as a client of a test node."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import KUBELITE, PATIENCE, REPO, Finished, Node
from tests.programs import missing

PORT = 18001  # of the node, because pods may use well-known ports


@dataclass(slots=True)
class Kubectl:
    node: Node
    kubeconfig: Path

    def command(self, *arguments: str) -> list[str]:
        # kubectl replaces the whole path of the server's URL by that of --raw, and with it the secret.
        server = json.loads(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        secret = f"/{server.rpartition('/')[2]}"
        raw = [at for at, word in enumerate(arguments, 1) if word == "--raw"]
        words = [secret + word if at in raw else word for at, word in enumerate(arguments)]
        return self.node.in_netns("kubectl", *words)

    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.node.base),
            "TERM": "xterm",
        }

    def __call__(self, *arguments: str) -> Finished:
        command, environ = self.command(*arguments), self.environ()
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=30 * PATIENCE, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def forwarded(node: Node) -> Iterator[Kubectl]:
    """kubectl speaks TCP only: `kubelite proxy` serves the API on loopback meanwhile. Skips without kubectl."""
    if missing("kubectl"):
        pytest.skip("needs kubectl")
    kubeconfig = node.base / "kubeconfig"
    proxy = ("proxy", "--port", str(PORT), "--kubeconfig", str(kubeconfig))
    command = node.in_netns(*KUBELITE, "--socket", str(node.run_dir / "kubelite.sock"), *proxy)
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None and b"Starting to serve" in running.stdout.readline()
            yield Kubectl(node, kubeconfig)
        finally:
            running.terminate()
            assert running.wait(10 * PATIENCE) == 0
    assert not kubeconfig.exists()


def one_by_one(text: str) -> Iterator[dict[str, Any]]:
    """The concatenated JSON documents."""
    position = 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        found, position = json.JSONDecoder().raw_decode(text, position)
        yield found
