"""The clock is changed while pods run, crash and stop."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.chaos import lens, pods
from tests.chaos.machine import Machine
from tests.e2e.manifests import container, pod

DAY = 86400.0


@pytest.mark.usefixtures("cc")
@pytest.mark.parametrize("step", [-DAY, DAY], ids=["back", "forth"])
def test_a_changed_clock(tmp_path: Path, images: Path, step: float) -> None:
    with Machine.running(tmp_path, images, clock=True) as machine:
        machine.apply("a.yaml", pods.manifest("a"))
        machine.apply("crash.yaml", pod("crash", container(script="exit 3")))
        machine.wait_status("a", "Running")
        machine.wait(lambda: machine.container("crash").get("restartCount", 0) >= 1, "a crash")
        before = [one for one in lens.instances(machine) if one.pod == "a"]
        machine.step_clock(step)
        count = machine.container("crash")["restartCount"]
        machine.wait(lambda: machine.container("crash")["restartCount"] > count + 1, "it to go on crashing")
        machine.restart(signal.SIGKILL)
        machine.step_clock(0.0)
        count = machine.container("crash")["restartCount"]
        machine.wait(lambda: machine.container("crash")["restartCount"] > count + 1, "it to go on crashing")
        lens.kill(before[0].pid, before[0].start)
        machine.wait(lambda: machine.container("a")["restartCount"] == 1, "a restart")
        machine.step_clock(step)
        machine.apply("b.yaml", pods.manifest("b"))
        machine.wait_status("b", "Running")
        stubborn = container(script="trap '' TERM; echo ready; while :; do sleep 0.1; done")
        machine.apply("stubborn.yaml", pod("stubborn", stubborn, terminationGracePeriodSeconds=1))
        machine.wait(lambda: "ready" in machine.logs("stubborn"), "it to run")
        (machine.manifests / "stubborn.yaml").unlink()
        machine.step_clock(-step)
        machine.wait_gone("stubborn", timeout=20)
        (machine.manifests / "b.yaml").unlink()
        machine.wait_gone("b", timeout=20)
