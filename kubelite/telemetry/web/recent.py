"""The last measurements of pods, which the web page draws. They are taken only when a client requests a page."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import NamedTuple

from kubelite.telemetry.sampling.sampler import Snapshot

KEEP = 60  # number of measurements that are kept
APART = 1.0  # minimum seconds between two measurements
_TURN = KEEP + 1  # slots of a ring: one more, so that the slot that is being written is never read


class Point(NamedTuple):
    """A measurement. `at`: Unix seconds; `cores`: CPUs used since the previous measurement; `memory`: bytes."""

    at: float
    cores: float
    memory: int


class _Line:
    """A ring buffer of a pod's measurements. It is allocated in full at first and never grows."""

    __slots__ = ("cpu", "memory", "since")

    def __init__(self, since: int) -> None:
        self.since = since  # number of the first measurement
        self.cpu, self.memory = (array("Q", bytes(8 * _TURN)) for _ in range(2))


class Recent:
    """The last measurements of CPU and memory by pod uid; "" is the node. One thread may write while others read,
    because a slot is only overwritten when it no longer belongs to the last `KEEP` measurements."""

    def __init__(self) -> None:
        self._count = 0
        self._times = array("d", bytes(8 * _TURN))
        self._lines: dict[str, _Line] = {}

    def note(self, snapshot: Snapshot) -> None:
        count, root = self._count, snapshot.root
        if count and snapshot.now - self._times[(count - 1) % _TURN] < APART:
            return
        place, known, lines = count % _TURN, self._lines, {}
        values = [(s.target.uid, s.stats.cpu.usage_ns, s.stats.memory.working_set) for s in snapshot.pods]
        for uid, cpu, memory in (*values, ("", int(root.cpu * 1e9), root.working_set)):
            line = lines[uid] = known.get(uid) or _Line(count)
            line.cpu[place], line.memory[place] = cpu, memory
        self._times[place] = snapshot.now
        self._lines, self._count = lines, count + 1

    def points(self, uid: str) -> list[Point]:
        """Return a pod's measurements, oldest first, without the very first one, which has no predecessor."""
        found = [
            (self._times[place], line.cpu[place], line.memory[place]) for line, place in self._places(uid)
        ]
        return [
            Point(at, max(0, cpu - before) / 1e9 / max(at - since, 1e-6), memory)
            for (since, before, _), (at, cpu, memory) in pairwise(found)
        ]

    def memory(self, uid: str) -> int | None:
        """Return the newest measurement of memory in bytes; None if there is none."""
        newest = self._places(uid)[-1:]
        return next((line.memory[place] for line, place in newest), None)

    def _places(self, uid: str) -> list[tuple[_Line, int]]:
        """Return the slots of a pod's measurements, oldest first."""
        line, count = self._lines.get(uid), self._count
        if line is None:
            return []
        return [(line, number % _TURN) for number in range(max(line.since, count - KEEP), count)]
