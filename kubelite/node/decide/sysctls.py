"""PURE: which sysctls a pod may set (K pkg/kubelet/sysctl): the safe ones, and what the node allows beyond them."""

from __future__ import annotations

from collections.abc import Iterable

from manifests.types.core import Pod

SYSCTL_FORBIDDEN = "SysctlForbidden"  # the reason of a pod that is rejected for one
SAFE = frozenset(  # each belongs to a namespace of the pod's and harms nobody else (K safe_sysctls.go, 1.36)
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


def normal(name: str) -> str:
    """With dots as separators: which of dot and slash comes first in a name is its separator (sysctl.d(5))."""
    first = next((char for char in name if char in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def forbidden(pod: Pod, allowed: Iterable[str]) -> str:
    """The sentence about the first one that the pod may not set; "" when it may set them all."""
    security = pod.spec.security_context
    for sysctl in security.sysctls if security is not None else ():
        name = normal(sysctl.name)
        if name not in SAFE and not any(_fits(name, normal(pattern)) for pattern in allowed):
            return f'Pod is rejected: forbidden sysctl: "{sysctl.name}" not allowlisted'
    return ""


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
