"""Parse and set the resource limits of a process (setrlimit(2), runtime-spec config.md "POSIX process").

Raising a hard limit needs CAP_SYS_RESOURCE. If the runtime lacks it, the limit stays at the runtime's own, with a
warning. So a container that requests more open files than that still runs.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any

from runtime.errors import SpecError, SyscallError
from runtime.syscalls import prlimit

RLIMITS: dict[str, int] = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
_INFINITY = (1 << 64) - 1  # RLIM_INFINITY; unsigned in the specification, but some callers write -1


def parse(rlimits: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """OCI process.rlimits → (name, soft, hard), with -1 for unlimited. SpecError for an unknown type, a duplicate, or a
    soft limit above the hard limit."""
    found: dict[str, tuple[str, int, int]] = {}
    for entry in rlimits:
        name = str(entry.get("type"))
        if name not in RLIMITS:
            raise SpecError(f"process.rlimits: unknown type {name!r}")
        if name in found:
            raise SpecError(f"process.rlimits: {name} is specified twice")
        soft, hard = (_value(name, entry, key) for key in ("soft", "hard"))
        if _order(soft) > _order(hard):
            raise SpecError(f"process.rlimits: {name} has a soft limit {soft} above its hard limit {hard}")
        found[name] = (name, soft, hard)
    return list(found.values())


def apply(rlimits: Iterable[Mapping[str, Any]], *, pid: int = 0) -> list[str]:
    """Set the limits for `pid` (0: the caller). Returns a warning for each limit that had to be reduced to our own hard
    limit."""
    warnings = []
    for name, soft, hard in parse(rlimits):
        try:
            prlimit(pid, RLIMITS[name], (soft, hard))
        except SyscallError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            _, ceiling = prlimit(pid, RLIMITS[name])
            lower = tuple(value if _order(value) <= _order(ceiling) else ceiling for value in (soft, hard))
            prlimit(pid, RLIMITS[name], (lower[0], lower[1]))
            warnings.append(
                f"{name} is {lower[0]}:{lower[1]} instead of {soft}:{hard}: "
                "raising it needs CAP_SYS_RESOURCE, which this runtime does not have"
            )
    return warnings


def _value(name: str, entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or not -1 <= value <= _INFINITY:
        raise SpecError(f"process.rlimits: {name} needs a number as {key!r}")
    return -1 if value in (-1, _INFINITY) else value


def _order(value: int) -> int:
    return _INFINITY if value == -1 else value
