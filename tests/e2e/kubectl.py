"""The real kubectl, as a client of a test's node."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import PATIENCE, Finished, Node
from tests.programs import missing

PORT = 18001  # of the node, where pods may have well-known ones


@dataclass(slots=True)
class Kubectl:
    node: Node

    def command(self, *arguments: str) -> list[str]:
        return self.node.in_netns("kubectl", "-s", f"http://127.0.0.1:{PORT}", *arguments)

    def environ(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": "/dev/null", "HOME": str(self.node.base), "TERM": "xterm"}

    def __call__(self, *arguments: str) -> Finished:
        command, environ = self.command(*arguments), self.environ()
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=30 * PATIENCE, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def forwarded(node: Node) -> Iterator[Kubectl]:
    """kubectl speaks TCP only: the node's socket is a port of its loopback meanwhile. Skips without kubectl."""
    if missing("kubectl"):
        pytest.skip("needs kubectl")
    script = str(Path(__file__).with_name("forward.py"))
    command = node.in_netns(sys.executable, script, str(PORT), str(node.run_dir / "kubelite.sock"))
    forward = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert forward.stdout is not None and forward.stdout.readline() == b"up\n"
        yield Kubectl(node)
    finally:
        forward.kill()
        forward.wait()
        if forward.stdout is not None:
            forward.stdout.close()


def one_by_one(text: str) -> Iterator[dict[str, Any]]:
    """The JSON documents that stand behind each other."""
    position = 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        found, position = json.JSONDecoder().raw_decode(text, position)
        yield found
