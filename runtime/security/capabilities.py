"""Capabilities: names and numbers, docker's default set, and giving a process exactly the sets a specification says.

capabilities(7), runtime-spec config.md "process.capabilities". What the runtime's own bounding set lacks cannot be
given: it is left out, with a warning, as runc and crun do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from runtime.cgroups.files import read_or
from runtime.errors import SpecError, SyscallError
from runtime.security.capability_names import NAMES, NUMBERS
from runtime.syscalls import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    capset,
    prctl,
)


class CapSets(NamedTuple):
    """The five sets of a process as bit masks; bit n is capability n."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


def mask(names: Iterable[str]) -> int:
    """Names → bits. Raises SpecError for a name that no kernel has."""
    bits = 0
    for name in names:
        number = NUMBERS.get(name)
        if number is None:
            raise SpecError(f"unknown capability {name!r}")
        bits |= 1 << number
    return bits


def names(bits: int) -> list[str]:
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


@cache
def last_cap() -> int:
    """The highest capability this kernel knows."""
    return int(read_or("/proc/sys/kernel/cap_last_cap", str(len(NAMES) - 1)))


def bounding() -> int:
    """Our own bounding set: what can be given at all. (/proc/self/status shows it without 41 system calls.)"""
    for line in read_or("/proc/self/status").splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    bits = 0
    for number in range(last_cap() + 1):
        with contextlib.suppress(SyscallError):  # EINVAL: past the last
            bits |= prctl(PR_CAPBSET_READ, number) << number
    return bits


def plan(caps: Mapping[str, Iterable[str]] | None, *, available: int) -> tuple[CapSets, list[str]]:
    """OCI process.capabilities → the sets that can really be had of `available` (our bounding set). Pure.

    Absent or None is no capability at all. Unknown names are a warning too (runc: a newer engine's specification on
    an older machine). Ambient is cut to what is permitted and inheritable: the kernel refuses the rest.
    """
    warnings: dict[str, None] = {}
    wanted = {}
    for kind in CapSets._fields:
        bits = 0
        for name in (caps or {}).get(kind) or ():
            number = NUMBERS.get(name)
            if number is None:
                warnings[f"{name} was not given: there is no such capability"] = None
            elif not available >> number & 1:
                warnings[f"{name} was not given: the runtime's own bounding set does not have it"] = None
            else:
                bits |= 1 << number
        wanted[kind] = bits
    had = wanted["permitted"] & wanted["inheritable"]
    for name in (caps or {}).get("ambient") or ():
        number = NUMBERS.get(name)
        if number is not None and available >> number & 1 and not had >> number & 1:
            warnings[f"can't raise ambient capability {name}: it is not permitted and inheritable"] = None
    wanted["ambient"] &= had
    wanted["effective"] &= wanted["permitted"]
    return CapSets(**wanted), list(warnings)


def drop_bounding(keep: int, *, available: int) -> None:
    """prctl(PR_CAPBSET_DROP) of all but `keep`; needs CAP_SETPCAP, so before the user changes."""
    for number in range(last_cap() + 1):
        if available >> number & 1 and not keep >> number & 1:
            prctl(PR_CAPBSET_DROP, number)


def set_process(sets: CapSets) -> None:
    """capset(2), then the ambient set. After setuid, with PR_SET_KEEPCAPS on during it."""
    capset(sets.effective, sets.permitted, sets.inheritable)
    with contextlib.suppress(SyscallError):  # EINVAL: before Linux 4.3 there is no ambient set to clear
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(last_cap() + 1):
        if sets.ambient >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def raise_ambient(bits: int) -> None:
    """Let `bits` (permitted and inheritable already) go over an execve."""
    for number in range(last_cap() + 1):
        if bits >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def apply(caps: Mapping[str, Iterable[str]] | None) -> list[str]:
    """All of it on the calling thread, user unchanged: bounding, then the other sets. Returns warnings.

    A process that also changes its user calls the parts: `plan` and `drop_bounding`, then KEEPCAPS and setuid, then
    `set_process`.
    """
    available = bounding()
    sets, warnings = plan(caps, available=available)
    drop_bounding(sets.bounding, available=available)
    set_process(sets)
    return warnings
