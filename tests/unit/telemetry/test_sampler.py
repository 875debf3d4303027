"""Which cgroups a sample reads, with files that imitate the kernel's."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from kubelite.telemetry.sampling import sampler as samplers
from kubelite.telemetry.sampling.sampler import Sample, Sampler
from kubelite.telemetry.sampling.targets import Target, Targets
from runtime.cgroups.reading.reader import V2, Reader

QUIET = {
    "cpu.stat": "usage_usec 10\n",
    "memory.current": "1000\n",
    "memory.stat": "inactive_file 100\n",
    "memory.peak": "1000\n",
    "pids.current": "1\n",
    "io.pressure": "some total=5\n",
    "memory.max": "max\n",
}


@dataclass
class Group:
    place: Path
    asked: ClassVar[list[str]] = []  # whose processes were listed

    def reader(self) -> Reader:
        return Reader(str(self.place), {name: str(self.place / name) for name in QUIET}, V2)

    def pids(self, recursive: bool = True) -> list[int]:
        assert not recursive
        self.asked.append(self.place.name)
        found = self.place / "cgroup.procs"
        return [int(pid) for pid in found.read_text().split()] if found.exists() else []

    def directory(self, _controller: str) -> str:
        return str(self.place)


class Node:
    """Pods by the names of their containers; each is a directory."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch, **pods: str) -> None:
        self.base, self.now = base, 1000.0
        places = [base / pod for pod in pods] + [base / pod / c for pod, names in pods.items() for c in names]
        for place in places:
            place.mkdir()
            for name, text in QUIET.items():
                (place / name).write_text(text)
        monkeypatch.setattr(samplers, "open_cgroup", lambda path: Group(Path(path)))
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        targets = Targets(
            tuple(Target(str(base / p / c), "ns", p, p, c) for p, names in pods.items() for c in names),
            tuple(Target(str(base / p), "ns", p, p) for p in pods),
            (),
            (),
        )
        self.sampler = Sampler(lambda: targets, descriptors=10_000)

    def write(self, place: str, name: str, text: str) -> None:
        (self.base / place / name).write_text(text)

    def look(self) -> dict[str, Sample]:
        self.now += 10.0
        found = self.sampler.sample()
        return {s.target.cgroup.removeprefix(f"{self.base}/"): s for s in (*found.pods, *found.containers)}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(tmp_path, monkeypatch, one="a", two="ab")
    made.look()
    made.look()
    return made


def test_unchanged_samples_are_the_same_object(node: Node) -> None:
    first, second = node.look(), node.look()
    assert [second[place] is first[place] for place in ("one/a", "two/a", "two/b")] == [True] * 3


def test_an_idle_pods_only_container_is_not_read(node: Node) -> None:
    node.write("one/a", "memory.stat", "inactive_file 300\n")  # which the kernel would also count in the pod
    node.write(
        "two/a", "memory.stat", "inactive_file 300\n"
    )  # and here another container may have lost what this one gained
    seen = node.look()
    assert (seen["one/a"].stats.memory.working_set, seen["two/a"].stats.memory.working_set) == (900, 700)


@pytest.mark.parametrize(
    ("name", "text"), [("cpu.stat", "usage_usec 11\n"), ("memory.stat", "inactive_file 300\n")]
)
def test_a_container_is_read_if_its_pod_changed(node: Node, name: str, text: str) -> None:
    for place in ("one", "one/a"):
        node.write(place, name, text)
    node.write("one/a", "memory.stat", "inactive_file 300\n")
    assert node.look()["one/a"].stats.memory.working_set == 700


def test_a_container_is_read_until_its_counters_settle(node: Node) -> None:
    for place in ("one", "one/a"):
        node.write(place, "cpu.stat", "usage_usec 11\n")
    node.look()
    for place in ("one", "one/a"):
        node.write(place, "memory.peak", "2000\n")
    seen = node.look()
    assert [seen[place].stats.memory.max_usage for place in ("one", "one/a")] == [2000, 2000]


def test_changed_limits_are_noticed_eventually(node: Node) -> None:
    for place in ("one", "one/a"):
        node.write(place, "memory.max", "5000\n")
    node.now += samplers.SPEC_AGE
    assert node.look()["one/a"].stats.memory.limit == 5000


def test_processes_are_listed_if_they_may_have_changed(node: Node) -> None:
    children = [subprocess.Popen(["sleep", "100"]) for _ in range(2)]
    try:
        pids = [child.pid for child in children]

        def look(number: int, *members: int) -> tuple[int, list[str]]:
            """Sample after it ran with `number` tasks."""
            node.write("two/a", "cgroup.procs", " ".join(map(str, members)))
            node.write("two/a", "pids.current", f"{number}\n")
            node.write("two/a", "cpu.stat", f"usage_usec {node.now}\n".replace(".", ""))
            Group.asked.clear()
            return node.look()["two/a"].processes, [name for name in Group.asked if name == "a"]

        assert look(2, *pids) == (2, ["a"])
        assert look(2, *pids) == (2, [])
        assert look(3, *pids) == (2, ["a"])  # a thread, or a process
        children[0].kill()
        children[0].wait()
        assert look(2, pids[1]) == (1, ["a"])  # one has exited, another may have started
        assert look(1, pids[1]) == (1, [])
    finally:
        for child in children:
            child.kill()
            child.wait()
