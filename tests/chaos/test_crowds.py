"""Many pods at once, and very frequent changes."""

from __future__ import annotations

import time

from tests.chaos import lens, pods
from tests.chaos.machine import Machine

MANY = 200


def _of(machine: Machine, generation: int) -> int:
    return sum(1 for one in lens.instances(machine) if one.generation == generation)


def _rare(manifest: str) -> str:
    """A pod that logs little, so that many of them cause no load."""
    return manifest.replace("${CHAOS_PACE:-0.5}", "30")


def test_200_at_once(machine: Machine) -> None:
    names = [f"p{number:03}" for number in range(MANY)]
    machine.stop()
    machine.settings["POD_CIDR"] = "10.77.0.0/20"
    machine.start()

    def drop(generation: int) -> None:
        for name in names:
            machine.apply(f"{name}.yaml", _rare(pods.manifest(name, generation=generation)))

    drop(0)
    machine.wait(lambda: _of(machine, 0) == MANY, "all of them to run", timeout=40)
    machine.wait(lambda: _all_running(machine) == MANY, "their status to say so")
    uids = {name: doc["metadata"]["uid"] for name, doc in lens.pods(machine).items()}
    drop(1)
    machine.wait(lambda: _of(machine, 1) == MANY and _of(machine, 0) == 0, "all edits to be made", timeout=40)
    machine.wait(lambda: _all_running(machine) == MANY, "their status to say so")
    found = lens.pods(machine)
    assert {name: doc["metadata"]["uid"] for name, doc in found.items()} == uids
    assert {doc["status"]["containerStatuses"][0]["restartCount"] for doc in found.values()} == {1}
    assert lens.doctor(machine) == []
    for name in names:
        (machine.manifests / f"{name}.yaml").unlink()
    machine.wait(lambda: not lens.pods(machine), "all of them to go", timeout=40)
    assert not lens.instances(machine)
    assert lens.interfaces(machine) == []


def _all_running(machine: Machine) -> int:
    found = (doc.get("status", {}).get("containerStatuses", []) for doc in lens.pods(machine).values())
    return sum(1 for states in found if states and states[0]["ready"])


def test_one_file_with_100(machine: Machine) -> None:
    """One file is written three times: with all pods, with half of them, empty."""
    texts = [_rare(pods.manifest(f"p{n}")) for n in range(100)]
    machine.apply("all.yaml", pods.together(*texts))
    machine.wait(lambda: _all_running(machine) == 100, "all to run", timeout=40)
    pids = {one.pod: one.pid for one in lens.instances(machine)}
    machine.apply("all.yaml", pods.together(*texts[:50]))
    machine.wait(lambda: len(lens.pods(machine)) == 50, "half of them to go", timeout=40)
    assert {one.pod: one.pid for one in lens.instances(machine)} == {
        f"p{n}": pids[f"p{n}"] for n in range(50)
    }
    machine.apply("all.yaml", "")
    machine.wait(lambda: not lens.pods(machine), "the rest to go", timeout=40)


def test_a_manifest_rewritten_100_times_a_second(machine: Machine) -> None:
    """By rename and in place. The last version counts."""
    machine.apply("other.yaml", pods.manifest("other"))
    machine.wait_status("other", "Running")
    other = [one for one in lens.instances(machine) if one.pod == "other"]
    generation, uids = 0, set()
    for in_place in (False, True):
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            generation += 1
            text = pods.manifest("p", generation=generation)
            if in_place:
                (machine.manifests / "p.yaml").write_text(text)
            else:
                machine.apply("p.yaml", text)
            time.sleep(0.01)
        _wait_generation(machine, generation)
        machine.wait_status("p", "Running")
        uids.add(machine.pod("p")["metadata"]["uid"])
        time.sleep(0.5)
        assert _generations(machine) == [generation]
    assert len(uids) == 1, "it was one pod all the time"
    uid = uids.pop()
    expected = machine.container("p")["restartCount"] + 1
    assert pods.begun(machine, uid, "main", expected) == expected
    assert [one for one in lens.instances(machine) if one.pod == "other"] == other


def _wait_generation(machine: Machine, last: int) -> None:
    machine.wait(lambda: _generations(machine) == [last], f"generation {last}")


def _generations(machine: Machine) -> list[int]:
    return [one.generation for one in lens.instances(machine) if one.pod == "p"]


def test_a_manifest_that_comes_and_goes_50_times_a_second(machine: Machine) -> None:
    """If it exists at the end, it runs once; otherwise nothing is left."""
    for present in (True, False):
        for _ in range(60):
            path = machine.apply("p.yaml", pods.manifest("p"))
            time.sleep(0.01)
            path.unlink()
            time.sleep(0.01)
        if present:
            machine.apply("p.yaml", pods.manifest("p"))
            machine.wait_status("p", "Running")
            machine.wait(lambda: len(lens.instances(machine)) == 1, "one instance")
        else:
            machine.wait_gone("p")
            machine.wait(lambda: not lens.instances(machine), "nothing to run")
