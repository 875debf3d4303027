"""Which checks a level of the Pod Security Standards has, in each version of Kubernetes (policy/registry.go).

A check belongs to the versions from `minor` on, until another one with the same id takes its place. At the level
`restricted`, a check may replace the one of `baseline` that it makes stricter. Versions of the future have the checks
of the latest version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from kubelite.kube.pod_security import Level, Policy
from kubelite.node.decide.pod_security import baseline, restricted
from kubelite.node.decide.pod_security.containers import Check, in_user_namespace, of_windows


@dataclass(frozen=True, slots=True)
class Since:
    """A check, and the minor version of Kubernetes 1 that began to have it. `replaces`: the id of a check of the level
    `baseline`, "" = none."""

    minor: int
    check: Check
    replaces: str = ""


def _except_windows(check: Check) -> Check:
    """From 1.25 on, a pod for Windows is spared what it cannot set."""
    return lambda pod: None if of_windows(pod) else check(pod)


def _except_user_namespaces(check: Check) -> Check:
    """From 1.35 on, root in a user namespace may be root (KEP-127)."""
    return lambda pod: None if in_user_namespace(pod) else check(pod)


_SELINUX_0 = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
_SYSCTLS_0 = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_syncookies",
    }
)
_SYSCTLS_27 = _SYSCTLS_0 | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_29 = _SYSCTLS_27 | {
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
}
_SYSCTLS_32 = _SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}

#: By Kubernetes' id, in the order in which it runs them: the versions of a check, oldest first.
BASELINE: dict[str, tuple[Since, ...]] = {
    "appArmorProfile": (Since(0, baseline.app_armor),),
    "capabilities_baseline": (Since(0, baseline.capabilities),),
    "hostNamespaces": (Since(0, baseline.host_namespaces),),
    "hostPathVolumes": (Since(0, baseline.host_path_volumes),),
    "hostPorts": (Since(0, baseline.host_ports),),
    "hostProbesAndHostLifecycle": (Since(34, baseline.host_probes),),
    "privileged": (Since(0, baseline.privileged),),
    "procMount": (
        Since(0, baseline.proc_mount),
        Since(35, _except_user_namespaces(baseline.proc_mount)),
    ),
    "seLinuxOptions": (
        Since(0, baseline.selinux(_SELINUX_0)),
        Since(31, baseline.selinux(_SELINUX_0 | {"container_engine_t"})),
    ),
    "seccompProfile_baseline": (Since(0, baseline.seccomp_annotations), Since(19, baseline.seccomp)),
    "sysctls": (
        Since(0, baseline.sysctls(_SYSCTLS_0)),
        Since(27, baseline.sysctls(_SYSCTLS_27)),
        Since(29, baseline.sysctls(_SYSCTLS_29)),
        Since(32, baseline.sysctls(_SYSCTLS_32)),
    ),
    "windowsHostProcess": (Since(0, baseline.windows_host_process),),
}
RESTRICTED: dict[str, tuple[Since, ...]] = {
    "allowPrivilegeEscalation": (
        Since(8, restricted.allow_privilege_escalation),
        Since(25, _except_windows(restricted.allow_privilege_escalation)),
    ),
    "capabilities_restricted": (
        Since(22, restricted.capabilities, "capabilities_baseline"),
        Since(25, _except_windows(restricted.capabilities), "capabilities_baseline"),
    ),
    "procMount_restricted": (Since(35, baseline.proc_mount, "procMount"),),
    "restrictedVolumes": (Since(0, restricted.volumes, "hostPathVolumes"),),
    "runAsNonRoot": (
        Since(0, restricted.run_as_non_root),
        Since(35, _except_user_namespaces(restricted.run_as_non_root)),
    ),
    "runAsUser": (
        Since(23, restricted.run_as_user),
        Since(35, _except_user_namespaces(restricted.run_as_user)),
    ),
    "seccompProfile_restricted": (
        Since(19, restricted.seccomp, "seccompProfile_baseline"),
        Since(25, _except_windows(restricted.seccomp), "seccompProfile_baseline"),
    ),
}


@cache
def checks(policy: Policy) -> tuple[Check, ...]:
    """Return the checks of a level, in Kubernetes' order."""
    if policy.level is Level.PRIVILEGED:
        return ()
    found = _at(BASELINE, policy.minor)
    if policy.level is Level.RESTRICTED:
        stricter = _at(RESTRICTED, policy.minor)
        replaced = {one.replaces for one in stricter.values()}
        found = {name: one for name, one in found.items() if name not in replaced} | stricter
    return tuple(one.check for one in found.values())


def _at(versions: dict[str, tuple[Since, ...]], minor: int | None) -> dict[str, Since]:
    """Return the check of each id in a minor version (None: the latest), without those that are younger."""
    found = {
        name: [one for one in every if minor is None or one.minor <= minor]
        for name, every in versions.items()
    }
    return {name: every[-1] for name, every in found.items() if every}
