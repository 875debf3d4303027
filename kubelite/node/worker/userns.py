"""Host id ranges for pods with `hostUsers: false`. Each pod has its own range for as long as its directory exists.

The range is recorded in a file in that directory, in kubelet's format (`userns`). So it survives restarts and is
removed with the pod, and the free ranges are found by reading the disk. Ranges of other users in subuid(5) and
subgid(5) are not used. If these files have an entry for kubelite or kubelet, pods get their ranges from it.
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
NAMES = ("kubelite", "kubelet")  # entries of these names in /etc/subuid are for pods
FIRST = ID_RANGE  # lower ids are the host's
LAST = (1 << 32) - ID_RANGE  # the kernel uses the highest ids for "nobody"


class Ids(NamedTuple):
    """The ids from `first` up to, but without, `first + size`."""

    first: int
    size: int

    def overlaps(self, other: Ids) -> bool:
        return self.first < other.first + other.size and other.first < self.first + self.size


def free_range(taken: Iterable[Ids], allowed: Sequence[Ids] = ()) -> int | None:
    """Pure: return the first id of the lowest free range of ID_RANGE ids, aligned to ID_RANGE as in kubelet; None if
    there is none. `allowed`: the ranges that it must be part of."""
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
    """Pure: parse subuid(5). Return the ranges for pods, and those of other users."""
    ours: list[Ids] = []
    others: list[Ids] = []
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if first.isdigit() and count.isdigit():
            (ours if name in NAMES else others).append(Ids(int(first), int(count)))
    return ours, others


def claimed(config: NodeConfig, uid: str) -> int:
    """Return the host id of the pod's root user; 0 if the pod has no range."""
    try:
        with open(f"{config.pod_dir(uid)}/{CLAIM}", encoding="ascii") as file:
            first: int = json.load(file)["uidMappings"][0]["hostId"]
            return first
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CreateError(f"the record of the pod's user ids cannot be read: {error}") from error


def claim(config: NodeConfig, uid: str) -> int:
    """Return the pod's range; choose and record one if it has none. There is no await in here, so two pods cannot
    choose the same range. Raises CreateError if no range is free."""
    if first := claimed(config, uid):
        return first
    taken = [Ids(first, ID_RANGE) for other in _pods(config) if (first := claimed(config, other))]
    ours, others = subordinate(_read("/etc/subuid") + _read("/etc/subgid"))
    found = free_range([*taken, *others], ours)
    if found is None:
        raise CreateError("no range of 65536 user ids is free for the pod's user namespace")
    _record(config, uid, found)
    return found


def in_use(config: NodeConfig, uid: str, pause: int) -> int:
    """Return the first host id of the range that the pod's sandbox has. If the record was removed, the range is read
    from the kernel and recorded again. `pause`: the pid of the pod's pause process. Raises CreateError if neither is
    known: without its range, a container would have the host's ids."""
    if first := claimed(config, uid):
        return first
    fields = _read(f"/proc/{pause}/uid_map").split() if pause else []
    if len(fields) != 3 or fields[0] != "0" or fields[2] != str(ID_RANGE):
        raise CreateError("the record of the pod's user ids was removed, and its sandbox does not have them")
    _record(config, uid, int(fields[1]))
    return int(fields[1])


def _record(config: NodeConfig, uid: str, first: int) -> None:
    entry = [{"hostId": first, "containerId": 0, "length": ID_RANGE}]
    directory = config.pod_dir(uid)
    os.makedirs(directory, mode=0o750, exist_ok=True)
    temporary = f"{directory}/.{CLAIM}.new"
    with open(temporary, "w", encoding="ascii") as file:
        json.dump({"uidMappings": entry, "gidMappings": entry}, file)
        file.flush()
        os.fsync(file.fileno())  # files owned by this range may survive a power failure
    os.rename(temporary, f"{directory}/{CLAIM}")


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
