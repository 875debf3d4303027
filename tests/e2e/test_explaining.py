"""`trace` and `inspect`: how containers were started, and their state in the kernel."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.programs import BUSYBOX


@pytest.mark.either_cgroup
def test_a_start_as_a_trace_for_perfetto(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    document = json.loads(node.cli("trace", "p", "-o", "chrome").out)
    names = [e["name"] for e in document["traceEvents"] if e["ph"] == "X"]
    assert {"shim", "network", "create", "start"} <= set(names)
    # whole microseconds: shorter steps may round to 0
    assert [
        e for e in document["traceEvents"] if e["ph"] == "X" and not (e["dur"] >= 0 and e["ts"] > 0)
    ] == []
    assert {"clone3", "pivot_root", "capabilities", "seccomp", "mount proc on /proc"} <= set(names)
    inside_the_init(node.json("trace", "p", "-o", "json")["steps"])
    wide = node.cli("trace", "p", "-o", "wide").out
    assert "  pivot_root" in wide and "fchdir ×2, pivot_root, mount, umount2, chdir" in wide
    assert "no_new_privs" not in wide and "hooks" not in wide, "they did nothing"
    assert "pivot_root" not in node.cli("trace", "p").out


def inside_the_init(steps: list[dict[str, Any]]) -> None:
    """The steps of the init are in order, without overlap, and within the daemon's create and start steps."""
    for outer, first in (("create", "config.json"), ("start", "start")):
        begin, took = next((s["at"], s["took"]) for s in steps if s["step"] == outer and "call" not in s)
        inner = [s for s in steps if "call" in s and begin - 0.001 <= s["at"] < begin + took]
        assert inner[0]["step"] == first
        for step, following in pairwise(inner):
            assert step["at"] + step["took"] <= following["at"] + 1e-5
        assert inner[-1]["at"] + inner[-1]["took"] <= begin + took + 0.001
    order = [s["step"] for s in steps if "call" in s]
    wanted = (
        "cgroup made",
        "clone3",
        "cgroup",
        "rootfs",
        "mount proc on /proc",
        "pivot_root",
        "user",
        "seccomp",
    )
    places = [order.index(step) for step in wanted]
    assert places == sorted(places)


def test_inspect_shows_the_kernels_side(node: Node) -> None:
    limits = {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
    node.apply("two.yaml", pod("two", container("a", resources=limits), container("b")))
    node.wait_status("two", "Running")
    found = json.loads(node.cli("inspect", "default/two").out)
    by_name = {c["name"]: c for c in found["containers"]}
    kernel = by_name["a"]["kernel"]
    shown = {entry["limit"]: entry for entry in kernel["limits"]}
    for entry in kernel["limits"]:
        assert Path(entry["file"]).read_text().strip() == entry["value"]
    assert shown["memory limit"]["value"] == str(64 << 20)
    assert shown["memory limit"]["from"] == "limits.memory 64Mi = 67108864 bytes"
    assert shown["cpu limit"]["value"].split()[0] == "50000"
    assert "50000 µs" in shown["cpu limit"]["from"]
    assert "b" in kernel["namespaces"]["net"]["sharedWith"]
    assert "the pod's shim" in kernel["namespaces"]["net"]["sharedWith"]
    assert kernel["namespaces"]["mnt"]["sharedWith"] == []
    assert kernel["seccomp"] == "filter"
    assert any(m["target"] == "/" and m["type"] == "overlay" for m in kernel["mounts"])
    veth, pid = found["sandbox"]["veth"], by_name["a"]["pid"]
    inside = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", BUSYBOX, "ip", "-o", "link", "show", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout  # 2: eth0@if7: …
    assert inside.startswith(f"{veth['container']['ifindex']}: eth0@if{veth['host']['ifindex']}:")
    assert veth["host"]["bridge"] == node.bridge
