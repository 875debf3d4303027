"""Capability names: Linux's list, docker's default set, and adding to and dropping from a set. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.errors import SpecError

# include/uapi/linux/capability.h, in number order
NAMES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}
ALL_CAPS: frozenset[str] = frozenset(NAMES)
# The default in docker and containerd (containerd pkg/oci/spec.go)
DEFAULT_CAPS: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def normalize(name: str) -> str:
    """`net_admin`, `NET_ADMIN`, `cap_net_admin` → `CAP_NET_ADMIN`: the spellings that Kubernetes manifests may use.
    Does not check that it exists."""
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def adjust(add: Iterable[str], drop: Iterable[str], *, base: Iterable[str] = DEFAULT_CAPS) -> list[str]:
    """Apply securityContext.capabilities to a base set; the result is in number order.

    ALL in `add` fills the set, and ALL in `drop` empties it. Then named capabilities are added and dropped; one in both
    lists is dropped (containerd's order: ALL first, then add, then drop). Raises SpecError for an unknown name.
    """
    added, dropped = ({normalize(name) for name in names} for names in (add, drop))
    if unknown := sorted((added | dropped) - ALL_CAPS - {"CAP_ALL"}):
        raise SpecError(f"unknown capability {', '.join(unknown)}")
    have = set(base)
    if "CAP_ALL" in added:
        have = set(ALL_CAPS)
    if "CAP_ALL" in dropped:
        have = set()
    have = (have | (added - {"CAP_ALL"})) - (dropped - {"CAP_ALL"})
    return [name for name in NAMES if name in have]
