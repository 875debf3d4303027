"""The controllers start with the node's first workload, and cost nothing before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubelite.daemon.workloads import _needed, follow_clock
from kubelite.ingress.proxy_pod import PodOptions, proxy_pod
from kubelite.kube.objects import CONTROLLED
from state.store import Store
from tests.unit.controllers.manager_kit import pod, replica_set


def test_a_node_without_workloads_imports_no_controllers() -> None:
    code = "import sys, kubelite.daemon.assembly; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "kubelite.daemon.workloads" in loaded
    assert [name for name in loaded if name.startswith("kubelite.controllers")] == []


def test_each_controller_manages_a_kind_that_starts_the_manager() -> None:
    from kubelite.controllers.registry import CONTROLLERS

    assert {found.kind for found in CONTROLLERS} <= CONTROLLED


@pytest.mark.parametrize("recorded", [True, False])
async def test_they_start_with_a_workload(tmp_path: Path, recorded: bool) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    if recorded:
        await store.create("ReplicaSet", replica_set())
    waiting = asyncio.create_task(_needed(store))
    await store.create("Pod", pod("bare"))
    await asyncio.sleep(0)
    assert waiting.done() is recorded
    if not recorded:
        await store.create("ReplicaSet", replica_set())
    await asyncio.wait_for(waiting, 5.0)
    await store.close()


async def test_they_start_for_what_a_killed_daemon_left(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    gone = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "gone", "controller": True}
    await store.create("Pod", pod("web-1", owners=[gone]))
    await asyncio.wait_for(_needed(store), 5.0)
    await store.close()


async def test_they_do_not_start_for_the_proxy_of_ingresses(tmp_path: Path) -> None:
    """The node owns it, which no controller looks after."""
    store = Store.open(str(tmp_path / "state.db"))
    proxy = proxy_pod(PodOptions("node", "haproxy:3.0", 80, 443, "/root/ingress"))
    await store.create("Pod", {**proxy, "metadata": {**proxy["metadata"], "uid": "proxy"}})
    waiting = asyncio.create_task(_needed(store))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await store.close()


async def test_a_clock_that_is_set_or_went_on_during_sleep_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shift, told = 0.0, asyncio.Event()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    following = asyncio.create_task(follow_clock(told.set, seconds=0.01))
    await asyncio.sleep(0.1)
    assert not told.is_set()
    for step in (3600.0, -7200.0):
        shift += step
        await asyncio.wait_for(told.wait(), 5.0)
        told.clear()
        await asyncio.sleep(0.05)
        assert not told.is_set(), "once"
    following.cancel()
