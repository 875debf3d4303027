"""Paths of /proc and /sys that a container must not see, or not write.

kubelet's lists (pkg/securitycontext/util.go: ProcMount Default), which are docker's and containerd's with
/proc/interrupts and the thermal throttle counters added. procMount: Unmasked clears both.
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
    """MASKED_PATHS and what this machine has of /sys/devices/system/cpu/cpu*/thermal_throttle."""
    try:
        entries = sorted(os.listdir(_CPUS))
    except OSError:
        entries = []
    throttles = [
        f"{_CPUS}/{name}/thermal_throttle" for name in entries if name[:3] == "cpu" and name[3:].isdigit()
    ]
    return [*MASKED_PATHS, *filter(os.path.isdir, throttles)]
