"""Make the kernel count each cgroup's block I/O on cgroup v1.

Since Linux 5.0 removed the CFQ scheduler, blkio.throttle.io_service_bytes is the only count of bytes. The kernel counts
a disk's I/O, for all cgroups, only once some cgroup has had a throttle rule for that disk (block/blk-throttle.h,
blk_should_throtl). A rule with the rate 0 removes a limit (block/blk-throttle.c, tg_set_conf), so it limits nothing.
The count stays on when the cgroup of the rule is gone.
"""

from __future__ import annotations

import contextlib
import os

from runtime.cgroups import files
from runtime.cgroups.layout import Layout, layout
from runtime.errors import SyscallError

RULE = "blkio.throttle.read_bps_device"
DISKS = "/sys/block"


class IoAccounting:
    """`path`: a cgroup that exists only while a rule is written."""

    def __init__(self, path: str, found: Layout | None = None) -> None:
        mount = (found or layout()).v1.get("blkio")
        self._directory = f"{mount}{path}" if mount is not None else ""
        self._done: set[str] = set()

    def enable(self) -> None:
        """Turn the count on for each disk that is new since the last call. No effect on cgroup v2, which always counts.
        Each disk is tried once: if its rule cannot be written, it is not counted."""
        if not self._directory or not (new := _disks() - self._done):
            return
        self._done |= new
        with contextlib.suppress(OSError, SyscallError):
            os.makedirs(self._directory, exist_ok=True)
            try:
                for device in sorted(new):
                    with contextlib.suppress(SyscallError):
                        files.write(f"{self._directory}/{RULE}", f"{device} 0")
            finally:
                os.rmdir(self._directory)


def _disks() -> set[str]:
    """Return the disks that have a size, as MAJOR:MINOR, without partitions, for which no rule is possible."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(DISKS):
            if files.read_or(f"{DISKS}/{name}/size", "0").strip() != "0":
                found.add(files.read_or(f"{DISKS}/{name}/dev").strip())
    return found - {""}
