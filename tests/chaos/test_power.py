"""The machine loses power at a bad moment and restarts: the desired pods run, once, and nothing else is left."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.chaos import lens, pods
from tests.chaos.machine import Machine


def _running(machine: Machine, *names: str) -> bool:
    found = sorted(one.pod for one in lens.instances(machine) if one.container == "main")
    ready = [
        name for name, doc in lens.pods(machine).items() if doc.get("status", {}).get("phase") == "Running"
    ]
    return found == sorted(names) and set(names) <= set(ready)


def _restarted_once(machine: Machine, name: str, container: str) -> None:
    """Wait for the status of the new daemon: the earlier status also says Running."""
    machine.wait(lambda: machine.container(name, container)["restartCount"], "the restart on record")
    assert machine.container(name, container)["restartCount"] == 1


@pytest.mark.parametrize("run_dir_stays", [False, True], ids=["run on tmpfs", "run on disk"])
def test_a_power_failure(machine: Machine, run_dir_stays: bool) -> None:
    machine.apply("always.yaml", pods.manifest("always"))
    machine.apply("pair.yaml", pods.manifest("pair", pods.PAIR))
    machine.apply("never.yaml", pods.manifest("never", pods.NEVER))
    machine.apply("removed.yaml", pods.manifest("removed"))
    machine.wait_status("never", "Completed")
    machine.wait(lambda: _running(machine, "always", "pair", "removed"), "all to run")
    before = {name: doc["metadata"]["uid"] for name, doc in lens.pods(machine).items()}
    machine.apply("late.yaml", pods.manifest("late", restartPolicy="Never"))
    machine.wait_status("late", "Running")  # recorded: what was not recorded may be repeated
    machine.cut_power(run_dir_stays=run_dir_stays)
    said = len(machine.log.read_text())
    (machine.manifests / "removed.yaml").unlink()
    machine.apply("new.yaml", pods.manifest("new"))
    machine.start()
    machine.wait(lambda: _running(machine, "always", "pair", "new"), "what is wanted to run")
    machine.wait_gone("removed")
    events = [line for line in machine.log.read_text()[said:].splitlines() if "pod/default/removed " in line]
    assert not [line for line in events if "reason=Started" in line], "it was not started once more"
    after = lens.pods(machine)
    assert after["always"]["metadata"]["uid"] == before["always"]
    for name, container in (("always", "main"), ("pair", "main"), ("pair", "side")):
        _restarted_once(machine, name, container)
        assert pods.begun(machine, before[name], container, 2) == 2, "its volume is on the disk"
    assert machine.status_of("never") == "Completed"
    assert pods.starts(machine, before["never"], "main") == 1
    # as in Kubernetes: a pod that must never run again and whose end was not observed
    machine.wait_status("late", "Error", "ContainerStatusUnknown")
    assert pods.starts(machine, after["late"]["metadata"]["uid"], "main") == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_power_failure_during_starts_and_stops(machine: Machine, seed: int) -> None:
    rng = random.Random(seed)
    for turn in range(3):
        for number in range(8):
            file = f"p{number}.yaml"
            if rng.random() < 0.5:
                machine.apply(
                    file, pods.manifest(f"p{number}", rng.choice((pods.ALWAYS, pods.PAIR)), generation=turn)
                )
            else:
                (machine.manifests / file).unlink(missing_ok=True)
        time.sleep(rng.uniform(0.0, 0.4))
        machine.cut_power(run_dir_stays=rng.random() < 0.5)
        machine.start(wait=False)
    machine.wait(machine.answers, "the daemon")
    names = [path.stem for path in machine.manifests.glob("*.yaml")]
    machine.wait(lambda: _running(machine, *names), f"{names} to run", timeout=30)
    machine.wait(lambda: sorted(lens.pods(machine)) == sorted(names), "only those")
    uids = {doc["metadata"]["uid"] for doc in lens.pods(machine).values()}
    machine.wait(lambda: lens.directories(machine) == uids, "no other directory")
    machine.wait(lambda: lens.cgroups(machine) == uids, "no other cgroup")


def test_a_clean_stop_and_a_power_failure(machine: Machine) -> None:
    machine.apply("a.yaml", pods.manifest("a"))
    machine.wait(lambda: _running(machine, "a"), "it to run")
    uid = machine.pod("a")["metadata"]["uid"]
    machine.kill(signal.SIGTERM)
    machine.cut_power()
    machine.start()
    machine.wait(lambda: _running(machine, "a"), "it to run again")
    assert machine.pod("a")["metadata"]["uid"] == uid
    _restarted_once(machine, "a", "main")
