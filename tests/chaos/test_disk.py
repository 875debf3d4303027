"""The disk is full, and has space again later."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import lens, pods
from tests.chaos.machine import Machine
from tests.e2e.manifests import container, pod


@pytest.fixture
def small(tmp_path: Path, images: Path) -> Iterator[Machine]:
    with Machine.running(tmp_path, images, disk_mb=24) as found:
        yield found


def _instances(machine: Machine, name: str) -> list[lens.Instance]:
    return [one for one in lens.instances(machine) if one.pod == name]


def test_a_full_disk_is_reported_and_recovered_from(small: Machine) -> None:
    small.apply("a.yaml", pods.manifest("a"))
    small.apply("gone.yaml", pods.manifest("gone"))
    small.wait(lambda: _instances(small, "a") and _instances(small, "gone"), "both to run")
    small.wait_status("a", "Running")
    before = _instances(small, "a")
    small.fill_disk()
    small.apply("b.yaml", pods.manifest("b"))
    (small.manifests / "gone.yaml").unlink()
    small.wait(lambda: "full" in _said(small) or "No space left on device" in _said(small), "it to be said")
    assert small.cli("exec", "a", "--", "echo", "hello").out == "hello\n"
    assert _instances(small, "a") == before
    small.free_disk()
    small.wait(lambda: _instances(small, "b"), "the new pod to run", timeout=30)
    small.wait_status("b", "Running")
    small.wait_gone("gone")
    assert _instances(small, "a") == before
    assert small.container("a")["restartCount"] == 0
    assert small.container("b")["restartCount"] == 0


def _said(machine: Machine) -> str:
    """What a user would look at: the pods, the manifests, the events."""
    looks = (("get", "manifests"), ("get", "pods"), ("get", "events"), ("describe", "pods"))
    return "".join(f"{done.out}{done.err}" for look in looks if (done := machine.cli(*look, check=False)))


def test_a_daemon_on_a_full_disk(small: Machine) -> None:
    """It starts, adopts pods and answers, or says why it cannot and does so when there is space. Nothing is lost."""
    small.apply("a.yaml", pods.manifest("a"))
    small.wait_status("a", "Running")
    before, uid = _instances(small, "a"), small.pod("a")["metadata"]["uid"]
    small.kill(signal.SIGKILL)
    small.fill_disk()
    small.apply("b.yaml", pods.manifest("b"))
    small.start(wait=False)
    time.sleep(2.0)
    assert small.daemon is not None
    if small.daemon.poll() is not None:
        assert "full" in small.tail(5) or "No space left on device" in small.tail(5)
    small.free_disk()
    if small.daemon.poll() is not None:
        small.start()
    small.wait(small.answers, "the daemon")
    small.wait_status("b", "Running", timeout=30)
    small.wait_status("a", "Running")
    assert _instances(small, "a") == before
    assert small.pod("a")["metadata"]["uid"] == uid
    assert small.container("a")["restartCount"] == 0


def test_a_pod_that_fills_the_disk_by_itself(small: Machine) -> None:
    """One pod fills its own layer and the other continues. Removing the first frees the space."""
    hog = container(script="trap 'exit 0' TERM; cat /dev/zero > /big; echo full; while :; do sleep 0.1; done")
    small.apply("a.yaml", pods.manifest("a"))
    small.wait_status("a", "Running")
    small.apply("hog.yaml", pod("hog", hog))
    small.wait(lambda: "full" in small.logs("hog"), "the disk to be full")
    before = _instances(small, "a")
    (small.manifests / "hog.yaml").unlink()
    small.wait_gone("hog", timeout=30)
    small.apply("b.yaml", pods.manifest("b"))
    small.wait_status("b", "Running")
    assert _instances(small, "a") == before


def test_logs_on_a_full_disk_block_nothing(tmp_path: Path, images: Path) -> None:
    """The logs are on the small disk, too: lost lines are counted, and the container never waits."""
    with Machine.running(tmp_path, images, disk_mb=24) as found:
        found.stop()
        found.settings["LOG_DIR"] = str(found.root / "log")
        found.start()
        found.apply("a.yaml", pods.manifest("a").replace("${CHAOS_PACE:-0.5}", "0.02"))
        found.wait_status("a", "Running")
        before = _instances(found, "a")
        found.wait(lambda: _grows_not(found), "its log to stand still")
        found.free_disk()
        found.wait(
            lambda: "were lost here: No space left on device]" in found.cli("logs", "a").out,
            "the loss to be said",
        )
        assert _instances(found, "a") == before
        lines = [line for line in found.cli("logs", "a").out.splitlines() if line.isdigit()]
        numbers = [int(line) for line in lines]
        assert numbers == sorted(set(numbers)), "no line twice"
        assert len(numbers) < numbers[-1] + 1, "some were lost"


def _grows_not(machine: Machine) -> bool:
    def size() -> int:
        return sum(path.stat().st_size for path in (machine.root / "log" / "pods").glob("*/*/*.log"))

    machine.fill_disk()  # again, because a commit may just have released a part of the reserve
    before = size()
    time.sleep(0.3)
    return size() == before
