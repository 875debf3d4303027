"""`make load`: a kubelite node with 50, 100, 250 and 500 pods, and whether time and memory per pod stay the same.

python -m tests.bench.load [--pods 500] [--idle 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.__main__ import build, directory, guarded, machine, missing, progress
from tests.bench.account import command_line, containers, pss_kib
from tests.bench.measure import FAILURES
from tests.bench.node_peer import Kubelite
from tests.bench.record import record

STAGES = (50, 100, 250, 500)
FLAT = 1.3  # value per pod at the last stage relative to the first: more is not flat
ADOPTION_S = 3.0  # targets with all pods


@dataclass(frozen=True, slots=True)
class Line:
    """`flat`: the value is per pod (or of a single pod) and must not grow with the number of pods."""

    key: str
    title: str
    digits: int = 1
    flat: bool = False


LINES = (
    Line("start", "start the added pods: all running, s", 2),
    Line("start_pod", "  per added pod, ms"),
    Line("start_cpu", "  CPU per added pod, ms", flat=True),
    Line("start_daemon", "    of the daemon", flat=True),
    Line("start_helper", "    of the network helper", flat=True),
    Line("memory", "memory of all kubelite processes (PSS), MB"),
    Line("memory_pod", "  of each further pod, MB", 2, flat=True),
    Line("shim", "  of a shim (PSS), MB", 2, flat=True),
    Line("daemon", "  of the daemon (PSS), MB"),
    Line("idle", "idle CPU, % of a core", 2),
    Line("idle_pod", "  for 100 pods, %", 2, flat=True),
    Line("scrape", "scrape of container metrics, ms"),
    Line("scrape_cpu", "  CPU per pod, ms", 2, flat=True),
    Line("list", "`get pods`, whole process, ms"),
    Line("edit", "edit one pod → new container, ms"),
    Line("edit_cpu", "  CPU, ms"),
    Line("adopt", "restart a killed daemon: start → all ready, s", 2),
    Line("adopt_cpu", "  CPU, s", 2),
    Line("adopt_pod", "  CPU per pod, ms"),
    Line("files", "open descriptors of the daemon", 0),
    Line("edit_all", "edit all pods → all new containers, s", 2),
    Line("edit_all_cpu", "  CPU per pod, ms"),
    Line("remove", "remove all pods: nothing left, s", 2),
    Line("remove_cpu", "  CPU per pod, ms"),
    Line("daemon_after", "memory of the daemon after that, MB"),
)


class Watch:
    """CPU milliseconds since its creation: total, of the daemon, of its network helper."""

    def __init__(self, node: Kubelite, daemon: int) -> None:
        self._node = node
        self._pids = (daemon, *_helpers(daemon))
        self._before = self._now()

    def _now(self) -> list[float]:
        return [self._node.account.used_ms(), *map(_cpu_ms, self._pids)]

    def took(self) -> list[float]:
        return [now - before for now, before in zip(self._now(), self._before, strict=True)]


def _helpers(daemon: int) -> list[int]:
    children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    return [int(pid) for pid in children if any("network.helper" in word for word in command_line(int(pid)))]


def _cpu_ms(pid: int) -> float:
    """User and system time of a running process; in ticks, so it is meaningful only for many pods."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
    return 0.0


@dataclass(slots=True)
class Load:
    """The measurements, by stage."""

    node: Kubelite
    idle_seconds: float
    found: dict[int, dict[str, float]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    edits: int = 0

    def grow(self, count: int) -> None:
        """Start pods until there are `count`, then measure their cost."""
        node, at = self.node, self.found.setdefault(count, {})
        before_kib, before = node.memory_kib(), len(self.names)
        added = [f"load{number}" for number in range(before, count)]
        watch = self._watch()
        began = node.start(added)
        at["start"] = (max(node.wait_stamps(added, patience=600)) - began) / 1e9
        at["start_pod"] = at["start"] * 1000 / len(added)
        node.wait_ready(count)
        time.sleep(2)
        for key, took in zip(("start_cpu", "start_daemon", "start_helper"), watch.took(), strict=False):
            at[key] = took / len(added)
        self.names += added
        at["memory"] = node.memory_kib() / 1024
        at["memory_pod"] = (at["memory"] - before_kib / 1024) / len(added)
        at["shim"] = statistics.mean(map(pss_kib, self._shims())) / 1024
        at["daemon"] = pss_kib(self._daemon()) / 1024
        self._idle(at, count)
        node.scrape_ms()
        watch = self._watch()
        at["scrape"] = statistics.median(node.scrape_ms() for _ in range(3))
        at["scrape_cpu"] = watch.took()[0] / 3 / count
        at["list"] = statistics.median(node.list_ms() for _ in range(3))
        edits = [self._edit() for _ in range(3)]
        at["edit"], at["edit_cpu"] = (statistics.median(values) for values in zip(*edits, strict=True))
        at["adopt"] = node.adopt_ms(self.names) / 1000
        time.sleep(2)
        at["adopt_cpu"] = self._cpu_of_daemon() / 1000
        at["adopt_pod"] = at["adopt_cpu"] * 1000 / count
        at["files"] = len(os.listdir(f"/proc/{self._daemon()}/fd"))
        assert len(containers()) >= count, f"{len(containers())} containers run, not {count}"

    def _idle(self, at: dict[str, float], count: int) -> None:
        used, began = self.node.account.used_ms(), time.monotonic()
        time.sleep(self.idle_seconds)
        at["idle"] = (self.node.account.used_ms() - used) / (time.monotonic() - began) / 10
        at["idle_pod"] = at["idle"] * 100 / count

    def _edit(self) -> tuple[float, float]:
        """Edit a pod that has not been edited yet: milliseconds until the new container, and CPU time."""
        name = self.names[self.edits]
        self.edits += 1
        watch = self._watch()
        began = self.node.edit(name)
        took = (self.node.wait_stamps([name], 2)[0] - began) / 1e6
        time.sleep(0.5)
        return took, watch.took()[0]

    def edit_all(self) -> None:
        at, rest, watch = self.found[len(self.names)], self.names[self.edits :], self._watch()
        began = self.node.edit_all(rest)
        at["edit_all"] = (max(self.node.wait_stamps(rest, 2, patience=600)) - began) / 1e9
        self.node.wait_ready(len(self.names))
        time.sleep(2)
        at["edit_all_cpu"] = watch.took()[0] / len(rest)

    def remove_all(self) -> None:
        count, watch = len(self.names), self._watch()
        at = self.found[count]
        at["remove"] = self.node.remove(self.names).ms / 1000
        time.sleep(2)
        at["remove_cpu"] = watch.took()[0] / count
        at["daemon_after"] = pss_kib(self._daemon()) / 1024
        self.names.clear()
        if left := [entry for entry in self.node.node.leftovers() if "/shims/" in entry or "mount" in entry]:
            raise AssertionError(f"left behind: {left[:5]}")

    def _watch(self) -> Watch:
        return Watch(self.node, self._daemon())

    def _cpu_of_daemon(self) -> float:
        """Since it was executed, its helpers' too."""
        daemon = self._daemon()
        children = map(int, Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split())
        return sum(map(_cpu_ms, (daemon, *children)))

    def _daemon(self) -> int:
        return int((self.node.node.run_dir / "kubelite.pid").read_text())

    def _shims(self) -> list[int]:
        states = self.node.node.run_dir.glob("shims/*/state.json")
        return [int(json.loads(path.read_text())["pid"]) for path in states]


def table(found: dict[int, dict[str, float]]) -> str:
    """A column for each stage; the last one marks values that are not flat."""
    stages = sorted(found)
    lines = [f"{'pods':<52}" + "".join(f"{stage:>9}" for stage in stages) + "   last / first"]
    for line in LINES:
        values = [found[stage].get(line.key) for stage in stages]
        if not any(value is not None for value in values):
            continue
        shown = "".join(f"{'–' if v is None else f'{v:.{line.digits}f}':>9}" for v in values)
        lines.append(f"{line.title:<52}{shown}{growth(line, values)}")
    return "\n".join(lines) + "\n"


def growth(line: Line, values: list[float | None]) -> str:
    """The ratio of the last value to the first, for values that should be equal."""
    if not line.flat or len(values) < 2 or not values[0] or values[-1] is None:
        return ""
    ratio = values[-1] / values[0]
    return f"   {ratio:.2f}×" + ("" if ratio <= FLAT else "  NOT flat")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--pods", type=int, default=STAGES[-1], help="the last stage (default 500)")
    parser.add_argument(
        "--idle", type=float, default=20.0, help="seconds that idle CPU is counted at each stage"
    )
    parser.add_argument("--json", default="", help="also write the values to this file")
    parser.add_argument(
        "--record", action="store_true", help="put the table into docs/development/measurements.md"
    )
    options = parser.parse_args()
    if why := missing():
        print(why, file=sys.stderr)
        return 2
    stages = [*(stage for stage in STAGES if stage < options.pods), options.pods]
    found: dict[int, dict[str, float]] = {}
    problem = ""
    began = time.monotonic()
    try:
        with guarded(), directory() as base, contextlib.ExitStack() as stack:
            node = Kubelite(build(base))
            stack.callback(node.close)
            load = Load(node, options.idle, found)
            steps: list[tuple[str, Callable[[], None]]] = [
                *((f"{stage} pods", lambda stage=stage: load.grow(stage)) for stage in stages),
                ("edit of all", load.edit_all),
                ("removal of all", load.remove_all),
            ]
            for what, step in steps:
                progress(what)
                try:
                    step()
                except FAILURES as error:
                    problem = f"stopped at {what}: {error}"
                    break
            progress("cleaning up")
    except KeyboardInterrupt:
        problem = "interrupted"
    progress("")
    shown = f"{machine()}\n{table(found)}"
    adoption = found.get(stages[-1], {}).get("adopt")
    if adoption is not None:
        words = "reached" if adoption < ADOPTION_S else "NOT reached"
        what = f"restart a killed daemon with {stages[-1]} pods: start → all ready"
        shown += f"\n{what}: {adoption:.2f} s, < {ADOPTION_S:.0f}: {words}\n"
    print(f"{shown}\n{time.monotonic() - began:.0f} s in all")
    if options.record and not problem:
        record("load", shown)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "stages": found}, indent=1))
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
