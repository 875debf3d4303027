"""Paths in /proc and /sys that a container must not read (masked) or must not write (read-only).

These are kubelet's lists (pkg/securitycontext/util.go: ProcMount Default): those of docker and containerd plus
/proc/interrupts and the thermal throttle counters. `procMount: Unmasked` clears both.
"""

from __future__ import annotations

import os

MASKED_PATHS: tuple[str, ...] = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS: tuple[str, ...] = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

_CPUS = "/sys/devices/system/cpu"


def masked_paths() -> list[str]:
    """MASKED_PATHS and the existing /sys/devices/system/cpu/cpu*/thermal_throttle."""
    try:
        entries = sorted(os.listdir(_CPUS))
    except OSError:
        entries = []
    throttles = [
        f"{_CPUS}/{name}/thermal_throttle" for name in entries if name[:3] == "cpu" and name[3:].isdigit()
    ]
    return [*MASKED_PATHS, *filter(os.path.isdir, throttles)]
