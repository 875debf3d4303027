"""The checks that the level `restricted` adds, or makes stricter (policy/check_*.go)."""

from __future__ import annotations

from kubelite.node.decide.pod_security import baseline
from kubelite.node.decide.pod_security.containers import contexts, listed, plural, quoted, set_by
from manifests.types.core import Pod

VOLUMES = frozenset(
    {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    }
)  # fmt: skip


def allow_privilege_escalation(pod: Pod) -> tuple[str, str] | None:
    containers = [name for name, c in contexts(pod) if c.allow_privilege_escalation is not False]
    said = f"{listed(containers)} must set securityContext.allowPrivilegeEscalation=false"
    return ("allowPrivilegeEscalation != false", said) if containers else None


def capabilities(pod: Pod) -> tuple[str, str] | None:
    missing = [
        name for name, c in contexts(pod) if c.capabilities is None or "ALL" not in c.capabilities.drop
    ]
    said = [f'{listed(missing)} must set securityContext.capabilities.drop=["ALL"]'] if missing else []
    if added := baseline.added_capabilities(pod, frozenset({"NET_BIND_SERVICE"}), ""):
        said.append(added[1])
    return ("unrestricted capabilities", "; ".join(said)) if said else None


def volumes(pod: Pod) -> tuple[str, str] | None:
    kinds = {}
    for volume in pod.spec.volumes:
        kind = next(
            (key for key, value in volume.to_json().items() if key != "name" and value is not None), "unknown"
        )
        if kind not in VOLUMES:
            kinds[volume.name] = kind
    if not kinds:
        return None
    uses, types = "uses" if len(kinds) == 1 else "use", sorted(set(kinds.values()))
    names = f"{plural('volume', len(kinds))} {quoted(kinds)}"
    return (
        "restricted volume types",
        f"{names} {uses} {plural('restricted volume type', len(types))} {quoted(types)}",
    )


def run_as_non_root(pod: Pod) -> tuple[str, str] | None:
    security = pod.spec.security_context
    of_pod = security.run_as_non_root if security is not None else None
    set_to = {name: context.run_as_non_root for name, context in contexts(pod)}
    bad = [name for name, value in set_to.items() if value is False]
    reason = "runAsNonRoot != true"
    if of_pod is False or bad:
        return reason, f"{set_by(of_pod is False, bad)} must not set securityContext.runAsNonRoot=false"
    silent = [name for name, value in set_to.items() if value is None and of_pod is not True]
    said = f"pod or {listed(silent)} must set securityContext.runAsNonRoot=true"
    return (reason, said) if silent else None


def run_as_user(pod: Pod) -> tuple[str, str] | None:
    security = pod.spec.security_context
    of_pod = security is not None and security.run_as_user == 0
    containers = [name for name, context in contexts(pod) if context.run_as_user == 0]
    said = f"{set_by(of_pod, containers)} must not set runAsUser=0"
    return ("runAsUser=0", said) if of_pod or containers else None


def seccomp(pod: Pod) -> tuple[str, str] | None:
    if (found := baseline.seccomp(pod)) is not None:
        return found
    security = pod.spec.security_context
    if security is not None and security.seccomp_profile is not None:
        return None
    silent = [name for name, context in contexts(pod) if context.seccomp_profile is None]
    said = f'pod or {listed(silent)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return ("seccompProfile", said) if silent else None
