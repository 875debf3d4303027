"""Which ids of the host a pod with `hostUsers: false` has: a range of its own, kept as long as the pod's directory.

The claim is a file in that directory, in kubelet's form (`userns`), so it survives restarts, goes with the pod, and who
looks for a free range asks the disk. Ranges of people (subuid(5), subgid(5)) are left alone; where one is ours by name,
pods get theirs from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kubelite.node.model.errors import CreateError
from kubelite.node.model.node_config import NodeConfig
from runtime.shim.protocol import ID_RANGE

CLAIM = "userns"
NAMES = ("kubelite", "kubelet")  # whose entries in /etc/subuid are for pods
FIRST = ID_RANGE  # below are the host's own
LAST = (1 << 32) - ID_RANGE  # the last ids of all mean "nobody" to the kernel


class Ids(NamedTuple):
    """[first, first + size)"""

    first: int
    size: int

    def overlaps(self, other: Ids) -> bool:
        return self.first < other.first + other.size and other.first < self.first + self.size


def free_range(taken: Iterable[Ids], allowed: Sequence[Ids] = ()) -> int | None:
    """Pure: the first of the lowest free ID_RANGE, aligned to it as kubelet's are; None when there is none. `allowed`:
    where it has to lie."""
    busy = sorted(ids for ids in taken if ids.size > 0)
    for place in allowed or (Ids(FIRST, LAST - FIRST),):
        start = max(-(-place.first // ID_RANGE) * ID_RANGE, FIRST)
        for ids in busy:
            if Ids(start, ID_RANGE).overlaps(ids):
                start = -(-(ids.first + ids.size) // ID_RANGE) * ID_RANGE
        if start + ID_RANGE <= min(place.first + place.size, LAST):
            return start
    return None


def subordinate(text: str) -> tuple[list[Ids], list[Ids]]:
    """Pure: subuid(5) as (ours by name, everybody else's)."""
    ours: list[Ids] = []
    others: list[Ids] = []
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if first.isdigit() and count.isdigit():
            (ours if name in NAMES else others).append(Ids(int(first), int(count)))
    return ours, others


def claimed(config: NodeConfig, uid: str) -> int:
    """The host id of the pod's root; 0 when it has no range."""
    try:
        with open(f"{config.pod_dir(uid)}/{CLAIM}", encoding="ascii") as file:
            first: int = json.load(file)["uidMappings"][0]["hostId"]
            return first
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CreateError(f"the record of the pod's user ids cannot be read: {error}") from error


def claim(config: NodeConfig, uid: str) -> int:
    """The pod's range, given to it for good when it has none. Never waits: nobody else can choose meanwhile. Raises
    CreateError when no range is left."""
    if first := claimed(config, uid):
        return first
    taken = [Ids(first, ID_RANGE) for other in _pods(config) if (first := claimed(config, other))]
    ours, others = subordinate(_read("/etc/subuid") + _read("/etc/subgid"))
    found = free_range([*taken, *others], ours)
    if found is None:
        raise CreateError("no range of 65536 user ids is free for the pod's user namespace")
    entry = [{"hostId": found, "containerId": 0, "length": ID_RANGE}]
    directory = config.pod_dir(uid)
    os.makedirs(directory, mode=0o750, exist_ok=True)
    temporary = f"{directory}/.{CLAIM}.new"
    with open(temporary, "w", encoding="ascii") as file:
        json.dump({"uidMappings": entry, "gidMappings": entry}, file)
        file.flush()
        os.fsync(file.fileno())  # files of this range may outlive a power cut
    os.rename(temporary, f"{directory}/{CLAIM}")
    return found


def _pods(config: NodeConfig) -> list[str]:
    try:
        return os.listdir(f"{config.root}/pods")
    except FileNotFoundError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read() + "\n"
    except OSError:
        return ""
