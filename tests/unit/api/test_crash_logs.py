"""The last log lines of failed containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from kubelite.api.kube.crash_logs import WIDTH, crash_log_lines
from kubelite.api.node import NodeApi


class Node:
    """Logs in a directory."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def container_log_dir(self, _pod: dict[str, Any], container: str) -> str:
        return str(self._base / container)

    def write(self, container: str, attempt: int, *lines: str) -> None:
        place = self._base / container
        place.mkdir(exist_ok=True)
        stamp = "2026-01-01T00:00:00.000000000Z stderr F"
        (place / f"{attempt}.log").write_text("".join(f"{stamp} {line}\n" for line in lines))


def pod(**states: dict[str, Any]) -> dict[str, Any]:
    statuses = [{"name": name, **state} for name, state in states.items()]
    return {"metadata": {"name": "web"}, "spec": {}, "status": {"containerStatuses": statuses}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def said(node: Node, **states: dict[str, Any]) -> list[str]:
    return await crash_log_lines(cast(NodeApi, node), pod(**states))


async def test_the_last_lines_of_the_instance_that_ended_last(node: Node) -> None:
    node.write("main", 0, "old")
    node.write("main", 1, "one", "two", "", "three", "cannot open /etc/app.conf")
    loops = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(3)}
    assert await said(node, main=loops) == ["main: three", "main: cannot open /etc/app.conf"]
    assert (await said(node, main={"state": ended(3)}))[-1] == "main: cannot open /etc/app.conf"


async def test_only_failed_containers_are_quoted(node: Node) -> None:
    for name in ("fine", "runs", "never", "gone"):
        node.write(name, 0, "x")
    states: dict[str, Any] = {
        "fine": {"state": ended(0)},
        "runs": {"state": {"running": {}}, "lastState": ended(1)},
    }
    assert await said(node, **states, never={"state": ended(128)}, lost={"state": ended(1)}) == []


async def test_control_characters_are_replaced(node: Node) -> None:
    node.write("main", 0, "\x1b[2J\x07red\there", "y" * 1000)
    lines = await said(node, main={"state": ended(1)})
    assert lines == ["main: ?[2J?red here", "main: " + "y" * WIDTH]
