"""The invariants at a quiet moment, computed only from what was done to the node.

The model knows every order and every killed process, and never uses the product's opinion. `Seen` (see lens) is what
the kernel, the disk and the API show; `Model.unsettled` and `Model.broken` describe the differences. Those of the first
list may still disappear with time, those of the second cannot.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import lens, pods
from tests.e2e.node import Node


@dataclass(slots=True)
class Seen:
    """One observation of the whole machine."""

    docs: dict[str, dict[str, Any]]
    instances: list[lens.Instance]
    processes: list[lens.Process]
    shims: dict[str, int]
    helpers: set[int]
    ports: list[str]
    cgroups: set[str]
    directories: set[str]
    doctor: list[str]

    @classmethod
    def look(cls, node: Node) -> Seen:
        """Observe the machine. Raises lens.Unreachable."""
        helpers = set(lens.children(node).values())
        return cls(
            lens.pods(node),
            lens.instances(node),
            list(lens.processes(node)),
            lens.shims(node),
            helpers,
            lens.interfaces(node),
            lens.cgroups(node),
            lens.directories(node),
            lens.doctor(node),
        )

    def uid(self, name: str) -> str:
        return str(self.docs[name]["metadata"]["uid"])

    def restarts(self, name: str) -> dict[str, int]:
        statuses = self.docs[name].get("status", {}).get("containerStatuses", ())
        return {status["name"]: int(status["restartCount"]) for status in statuses}


@dataclass(slots=True)
class Wanted:
    """A pod that a manifest defines."""

    name: str
    flavour: str
    generation: int = 0
    label: int = 0
    broken: bool = False  # its file is invalid, so the last valid version counts
    # since the last quiet moment:
    new: bool = True  # it may have been replaced by another pod
    touches: int = 0  # what may have restarted its containers
    killed_before_it_ended: bool = False
    # its state at the last quiet moment:
    uid: str = ""
    restarts: dict[str, int] = field(default_factory=dict)
    pids: dict[str, tuple[int, int]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def stays(self) -> bool:
        return self.flavour in (pods.ALWAYS, pods.PAIR)

    @property
    def untouched(self) -> bool:
        return bool(self.uid) and not self.new and not self.touches


class Model:
    """The desired pods, and the killed containers by the uid of their pod."""

    def __init__(self) -> None:
        self.wanted: dict[str, Wanted] = {}
        self.killed: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)  # this round's
        self.removed: dict[str, Wanted] = {}  # in this round
        self.no_space = False  # the disk was full during this round: starts may have failed

    def want(self, wanted: Wanted) -> None:
        """A manifest was created. If one with the same name was removed a moment ago, the removal may not have been
        noticed: then this is an edit."""
        before = self.removed.get(wanted.name)
        if before is not None:
            wanted.uid, wanted.restarts, wanted.touches = before.uid, before.restarts, before.touches + 1
        self.wanted[wanted.name] = wanted

    def forget(self, name: str) -> None:
        self.removed[name] = self.wanted.pop(name)

    def note_kill(self, instance: lens.Instance) -> None:
        """A container's init was certainly killed."""
        self.killed[instance.uid, instance.container].add((instance.pid, instance.start))
        wanted = self.wanted.get(instance.pod)
        if wanted is not None:
            wanted.touches += 1
            wanted.killed_before_it_ended = True

    def damage(self, uids: frozenset[str]) -> None:
        """Files of these pods were removed or changed: they may be recreated or restarted."""
        for wanted in self.wanted.values():
            if wanted.uid in uids:
                wanted.new, wanted.killed_before_it_ended = True, True
                wanted.touches += 3

    # -- what time may mend -------------------------------------------------------------------------------------

    def unsettled(self, seen: Seen) -> list[str]:
        found = [f"pod {name} is not wanted" for name in seen.docs.keys() - self.wanted.keys()]
        found += [f"pod {name} is missing" for name in self.wanted.keys() - seen.docs.keys()]
        here = [wanted for name, wanted in self.wanted.items() if name in seen.docs]
        for wanted in here:
            found += self._pod_unsettled(wanted, seen)
        uids = {seen.uid(wanted.name) for wanted in here}
        standing = {seen.uid(wanted.name) for wanted in here if wanted.stays}
        found += [f"a {kind} of pod {uid}, which is no pod's" for kind, uid in _foreign(seen, uids)]
        found += [f"pod {uid} has no shim" for uid in standing - seen.shims.keys()]
        strays = [p for p in seen.processes if not p.uid and p.pid not in seen.shims.values()]
        # forkserver, and the spare shim
        strays = [p for p in strays if p.pid not in seen.helpers]
        if len(strays) > 1:
            found.append(f"processes that are nobody's: {strays}")
        if len(seen.ports) != len(seen.shims):
            found.append(f"{len(seen.ports)} ports of the bridge for {len(seen.shims)} sandboxes")
        addresses = Counter(
            doc.get("status", {}).get("podIP") for n, doc in seen.docs.items() if seen.uid(n) in standing
        )
        found += [f"address {ip} {count} times" for ip, count in addresses.items() if count > 1 or not ip]
        return found + [f"doctor: {sentence}" for sentence in seen.doctor]

    def _pod_unsettled(self, wanted: Wanted, seen: Seen) -> list[str]:
        name, doc = wanted.name, seen.docs[wanted.name]
        phase, statuses = (
            doc.get("status", {}).get("phase"),
            doc.get("status", {}).get("containerStatuses", []),
        )
        found = []
        if doc["metadata"].get("deletionTimestamp"):
            found.append(f"pod {name} is being deleted")
        if doc["metadata"]["labels"]["label"] != str(wanted.label):
            found.append(f"pod {name} has label {doc['metadata']['labels']['label']}, wanted {wanted.label}")
        running = sorted((i.container, i.generation) for i in seen.instances if i.pod == name)
        if wanted.stays:
            wants = sorted((container, wanted.generation) for container in pods.containers_of(wanted.flavour))
            if running != wants:
                found.append(f"pod {name} runs {running}, wanted {wants}")
            if phase != "Running" or not all(status["ready"] for status in statuses):
                found.append(f"pod {name} is {phase}: {statuses}")
            return found
        if running:
            found.append(f"pod {name} still runs {running}")
        ends = ("Succeeded", "Failed") if wanted.killed_before_it_ended or self.no_space else ("Succeeded",)
        if phase not in (ends if wanted.flavour == pods.NEVER else ("Succeeded",)):
            found.append(f"pod {name} is {phase}, wanted {ends}: {statuses}")
        return found

    # -- what nothing can mend ----------------------------------------------------------------------------------

    def broken(self, seen: Seen, node: Node) -> list[str]:
        found = []
        for wanted in self.wanted.values():
            uid = seen.uid(wanted.name)
            if wanted.uid and not wanted.new and wanted.uid != uid:
                found.append(f"pod {wanted.name} was {wanted.uid} and is {uid}")
            for container, count in seen.restarts(wanted.name).items():
                found += self._counts(wanted, uid, container, count, node)
                found += self._logs(wanted, uid, container, count, node)
            if wanted.untouched and wanted.stays and wanted.pids != _pids(wanted.name, seen):
                found.append(
                    f"pod {wanted.name}, which nobody touched, was {wanted.pids} and is {_pids(wanted.name, seen)}"
                )
        return found

    def _counts(self, wanted: Wanted, uid: str, container: str, count: int, node: Node) -> list[str]:
        same = uid == wanted.uid
        base = wanted.restarts.get(container, 0) if same else 0
        where, found = f"container {container} of pod {wanted.name} ({uid})", []
        killed = len(self.killed.get((uid, container), ()))
        if wanted.stays and count < base + killed:
            found.append(f"{where} counts {count} restarts: {base} before, and {killed} were killed since")
        most = base + wanted.touches + (2 if wanted.flavour == pods.ON_FAILURE and wanted.new else 0)
        if not self.no_space and count > most:
            found.append(f"{where} counts {count} restarts: {base} before, {wanted.touches} touches since")
        begun = pods.starts(node, uid, container)
        if begun > count + 1:
            found.append(f"{where} began {begun} times and counts {count} restarts")
        if wanted.flavour == pods.NEVER and begun > 1:
            found.append(f"{where} is never to run again and began {begun} times")
        if wanted.untouched and count != base:
            found.append(f"{where}, which nobody touched, counted {base} restarts and counts {count}")
        return found

    def _logs(self, wanted: Wanted, uid: str, container: str, count: int, node: Node) -> list[str]:
        where, found = f"log of container {container} of pod {wanted.name} ({uid})", []
        logs = lens.log_lines(node, wanted.name, uid, container)
        for attempt, lines in logs.items():
            if fault := lens.out_of_order(lines):
                found.append(f"{where}, attempt {attempt}: {fault}")
            if attempt > count:
                found.append(f"{where} has attempt {attempt}, {count} restarts are counted")
        newest = len(logs.get(count, ()))
        if wanted.untouched and wanted.stays and newest <= wanted.lines.get(container, 0):
            found.append(f"{where} has {newest} lines, as at the last quiet moment")
        return found

    # -- on to the next round -----------------------------------------------------------------------------------

    def remember(self, seen: Seen, node: Node) -> None:
        self.killed.clear()
        self.removed.clear()
        self.no_space = False
        for wanted in self.wanted.values():
            wanted.uid, wanted.new, wanted.touches = seen.uid(wanted.name), False, 0
            wanted.killed_before_it_ended = wanted.killed_before_it_ended and not wanted.stays
            wanted.restarts = seen.restarts(wanted.name)
            wanted.pids = _pids(wanted.name, seen)
            wanted.lines = {
                name: len(lens.log_lines(node, wanted.name, wanted.uid, name).get(count, ()))
                for name, count in wanted.restarts.items()
            }


def _pids(name: str, seen: Seen) -> dict[str, tuple[int, int]]:
    return {one.container: (one.pid, one.start) for one in seen.instances if one.pod == name}


def _foreign(seen: Seen, uids: set[str]) -> list[tuple[str, str]]:
    every = {
        "shim": set(seen.shims),
        "process": {process.uid for process in seen.processes if process.uid},
        "cgroup": seen.cgroups,
        "directory": seen.directories,
    }
    return [(kind, uid) for kind, found in every.items() for uid in sorted(found - uids)]
