"""Shared by the tests of builds: a context, a build, and its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.node import IMAGE, Node

FROM = f"FROM {IMAGE}\n"


def context(base: Path, containerfile: str, **files: str) -> str:
    base.mkdir(exist_ok=True)
    for name, text in files.items():
        (base / name).write_text(text)
    (base / "Containerfile").write_text(containerfile)
    return str(base)


def build(node: Node, *words: str, check: bool = True) -> tuple[list[dict[str, Any]], str]:
    """Run a build. Return its events and its output."""
    done = node.cli("build", "--progress", "json", *words, check=check, timeout=60)
    return [json.loads(line) for line in done.err.splitlines() if line.startswith("{")], done.out


def states(events: list[dict[str, Any]]) -> dict[str, str]:
    """The result of each step that creates files, by the step's text."""
    names = {e["id"]: e["name"].partition("] ")[2] for e in events if e.get("state") == "begin"}
    ends = [e for e in events if e.get("state") in ("done", "cached", "error", "cancelled")]
    return {names[e["id"]]: e["state"] for e in ends if not names[e["id"]].startswith("FROM")}


def logged(events: list[dict[str, Any]]) -> str:
    return "".join(e["text"] for e in events if e.get("event") == "log")


def identity(node: Node, name: str) -> str:
    (about,) = json.loads(node.cli("image", "inspect", name).out)
    return str(about["Id"])


def left_over(node: Node) -> list[str]:
    """What may exist only while a build runs."""
    found = [str(path) for path in (node.root / "images/ingest").glob("*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{node.cgroup_parent}/build-*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"{node.cgroup_parent}/build-*")]
    return found + [str(path) for path in (node.run_dir / "network").rglob("build-*")]


def check_nothing_left(node: Node) -> None:
    """A build has ended. The node releases its network when it notices that: that alone may take a moment."""
    network = f"{node.run_dir}/network/"
    assert [path for path in left_over(node) if not path.startswith(network)] == []
    node.wait(lambda: not left_over(node), "the network of the build to be released")
