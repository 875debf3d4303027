"""Which sysctls a pod may set: the safe ones, and those that the node allows (Kubernetes pkg/kubelet/sysctl)."""

from __future__ import annotations

from collections.abc import Iterable

from manifests.types.core import Pod

SYSCTL_FORBIDDEN = "SysctlForbidden"  # the reason in the status of a pod that is rejected for a sysctl
#: Each belongs to one of the pod's namespaces and affects nothing else (safe_sysctls.go, 1.36).
SAFE = frozenset(
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
    """The name with dots as separators. The first dot or slash in a name is its separator (sysctl.d(5))."""
    first = next((char for char in name if char in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def forbidden(pod: Pod, allowed: Iterable[str]) -> str:
    """kubelet's message about the first sysctl that the pod may not set; "" if it may set all of them."""
    security = pod.spec.security_context
    for sysctl in security.sysctls if security is not None else ():
        name = normal(sysctl.name)
        if name not in SAFE and not any(_fits(name, normal(pattern)) for pattern in allowed):
            return f'Pod is rejected: forbidden sysctl: "{sysctl.name}" not allowlisted'
    return ""


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
