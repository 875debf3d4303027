"""Misbehaving containers do not affect the node and other pods."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import lens, pods
from tests.chaos.machine import Machine
from tests.e2e.manifests import container, pod
from tests.e2e.node import PATIENCE

FLOOD_MB = 1024


def _beside(machine: Machine, mischief: Callable[[], None]) -> None:
    """Run `mischief`; another pod answers during it and afterwards."""
    machine.apply("other.yaml", pods.manifest("other"))
    machine.wait_status("other", "Running")
    before = [one for one in lens.instances(machine) if one.pod == "other"]
    mischief()
    assert machine.cli("exec", "other", "--", "echo", "hello").out == "hello\n"
    assert [one for one in lens.instances(machine) if one.pod == "other"] == before
    uid = before[0].uid
    assert lens.out_of_order(lens.log_lines(machine, "other", uid, "main")[0]) == ""


def test_an_entrypoint_that_does_not_exist(machine: Machine) -> None:
    def mischief() -> None:
        broken = {**container(), "command": ["/no/such/program"]}
        machine.apply("p.yaml", pod("p", broken))
        machine.wait_status("p", "CrashLoopBackOff", "RunContainerError", "StartError")
        machine.wait(lambda: machine.container("p").get("restartCount", 0) >= 2, "further tries")
        last = machine.container("p")["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("StartError", 128)
        assert 'exec: "/no/such/program": stat /no/such/program: no such file or directory' in last["message"]
        uid = machine.pod("p")["metadata"]["uid"]
        machine.apply("p.yaml", pod("p"))
        machine.wait_status("p", "Running")
        assert machine.pod("p")["metadata"]["uid"] == uid

    _beside(machine, mischief)


def test_a_flood_of_log_lines(machine: Machine) -> None:
    def mischief() -> None:
        text = "x" * 120
        flood = container(script=f"yes {text} | head -c {FLOOD_MB << 20}; echo; echo the-end")
        machine.apply("flood.yaml", pod("flood", flood, restartPolicy="Never"))
        until = time.monotonic() + 60 * PATIENCE
        while machine.status_of("flood") != "Completed":
            assert time.monotonic() < until, machine.status_of("flood")
            assert machine.cli("exec", "other", "--", "echo", "hello").out == "hello\n"
        assert machine.cli("logs", "flood", "--tail=1").out == "the-end\n"
        uid = machine.pod("flood")["metadata"]["uid"]
        directory = machine.log_dir / "pods" / f"default_flood_{uid}" / "main"
        sizes = [path.stat().st_size for path in directory.iterdir()]
        assert len(sizes) <= 5 and max(sizes) <= 10 * 1024 * 1024
        kept = [line for lines in lens.log_lines(machine, "flood", uid, "main").values() for line in lines]
        assert set(kept[:-2]) <= {text, text[:0]} | {text[:n] for n in range(121)}
        assert kept[-1] == "the-end"

    _beside(machine, mischief)


def test_a_fork_bomb_inside_a_pids_limit(machine: Machine) -> None:
    """The limit is set on the pod's cgroup, because pods have no field for it (kubelet's podPidsLimit is a node
    setting)."""

    def mischief() -> None:
        bomb = container(
            script="trap 'exit 0' TERM; while [ ! -e /go ]; do sleep 0.05; done; bomb() { bomb | bomb & }; bomb; "
            "while :; do sleep 0.2 || :; done"
        )
        machine.apply("bomb.yaml", pod("bomb", bomb))
        machine.wait_status("bomb", "Running")
        uid = machine.pod("bomb")["metadata"]["uid"]
        limits = [at for top in machine.cgroup_tops() for at in top.glob(f"*/pod{uid}/pids.max")]
        assert limits, "no pids controller"
        for limit in limits:
            limit.write_text("60")
        machine.cli("exec", "bomb", "--", "touch", "/go")
        machine.wait(lambda: _hit(limits) > 5, "forks to be refused")
        for _ in range(3):
            began = time.monotonic()
            assert machine.cli("exec", "other", "--", "echo", "hello").out == "hello\n"
            assert time.monotonic() - began < 5.0
        (machine.manifests / "bomb.yaml").unlink()
        machine.wait_gone("bomb", timeout=30)

    _beside(machine, mischief)


def _hit(limits: list[Path]) -> int:
    """The number of refused forks. Some kernels count them in the cgroup with the limit, others in that of the fork."""
    counts = [*(path.with_name("pids.events") for path in limits)]
    counts += [count for path in limits for count in path.parent.glob("*/pids.events")]
    return sum(int(count.read_text().split()[1]) for count in counts)


def test_a_memory_hog_inside_a_memory_limit(machine: Machine) -> None:
    def mischief() -> None:
        hog = container(script="trap 'exit 0' TERM; tail /dev/zero", resources={"limits": {"memory": "24Mi"}})
        machine.apply("hog.yaml", pod("hog", hog))
        machine.wait(
            lambda: machine.container("hog").get("restartCount", 0) >= 3, "it to be killed, again and again"
        )
        last = machine.container("hog")["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("OOMKilled", 137)

    _beside(machine, mischief)


def test_a_container_that_stops_its_own_processes(machine: Machine) -> None:
    """It stops every process that it can signal and ignores SIGTERM. After its grace period it is gone nevertheless."""

    def mischief() -> None:
        frozen = container(
            script="trap '' TERM; sleep 1000 & kill -STOP $!; echo stopped; kill -STOP 1; wait"
        )
        machine.apply("frozen.yaml", pod("frozen", frozen, terminationGracePeriodSeconds=1))
        machine.wait(lambda: "stopped" in machine.logs("frozen"), "it to run")
        (machine.manifests / "frozen.yaml").unlink()
        machine.wait_gone("frozen", timeout=15)  # the default grace period is half a minute

    _beside(machine, mischief)
