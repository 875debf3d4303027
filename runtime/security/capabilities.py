"""Capabilities: compute the sets for a process from a specification, and set them.

Sources: capabilities(7), runtime-spec config.md "process.capabilities". A capability that the runtime's own bounding
set lacks cannot be granted. It is left out with a warning, as in runc and crun.
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
    """The five capability sets of a process as bit masks; bit n is capability n."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


def mask(names: Iterable[str]) -> int:
    """Names → bit mask. Raises SpecError for an unknown name."""
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
    """The number of the highest capability that this kernel supports."""
    return int(read_or("/proc/sys/kernel/cap_last_cap", str(len(NAMES) - 1)))


def bounding() -> int:
    """Our own bounding set, which limits what can be granted. (/proc/self/status shows it without 41 system calls.)"""
    for line in read_or("/proc/self/status").splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    bits = 0
    for number in range(last_cap() + 1):
        with contextlib.suppress(SyscallError):  # EINVAL: past the last capability
            bits |= prctl(PR_CAPBSET_READ, number) << number
    return bits


def plan(caps: Mapping[str, Iterable[str]] | None, *, available: int) -> tuple[CapSets, list[str]]:
    """Translate OCI process.capabilities to the sets that can be granted from `available` (our bounding set), and
    warnings. Pure.

    Absent or None means no capabilities. Unknown names also give a warning (as in runc: the specification may come from
    a newer engine). The ambient set is reduced to permitted and inheritable capabilities, because the kernel refuses
    others.
    """
    warnings: dict[str, None] = {}
    wanted = {}
    for kind in CapSets._fields:
        bits = 0
        for name in (caps or {}).get(kind) or ():
            number = NUMBERS.get(name)
            if number is None:
                warnings[f"{name} was not granted: there is no such capability"] = None
            elif not available >> number & 1:
                warnings[f"{name} was not granted: the runtime's own bounding set lacks it"] = None
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
    """Drop all capabilities except `keep` from the bounding set (prctl(PR_CAPBSET_DROP)). It needs CAP_SETPCAP, so call
    it before the user changes."""
    for number in range(last_cap() + 1):
        if available >> number & 1 and not keep >> number & 1:
            prctl(PR_CAPBSET_DROP, number)


def set_process(sets: CapSets) -> None:
    """Set all but the bounding set with capset(2) and prctl(2). Call it after setuid, which must run with
    PR_SET_KEEPCAPS."""
    capset(sets.effective, sets.permitted, sets.inheritable)
    clear_ambient()
    for number in range(last_cap() + 1):
        if sets.ambient >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def raise_ambient(bits: int) -> None:
    """Add `bits`, which must be permitted and inheritable, to the ambient set, so that they survive execve."""
    for number in range(last_cap() + 1):
        if bits >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def clear_ambient() -> None:
    """Empty the ambient set."""
    with contextlib.suppress(SyscallError):  # EINVAL: before Linux 4.3 there is no ambient set
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def apply(caps: Mapping[str, Iterable[str]] | None) -> list[str]:
    """Set all sets of the calling thread without changing its user: first bounding, then the others. Returns warnings.

    A process that also changes its user calls the parts itself: `plan` and `drop_bounding`, then KEEPCAPS and setuid,
    then `set_process`.
    """
    available = bounding()
    sets, warnings = plan(caps, available=available)
    drop_bounding(sets.bounding, available=available)
    set_process(sets)
    return warnings


def calls(sets: CapSets) -> list[str]:
    """The system calls that `set_process` makes."""
    return ["capset", *["prctl"] * (1 + sets.ambient.bit_count())]
