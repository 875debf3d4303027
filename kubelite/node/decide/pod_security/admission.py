"""Pod Security admission: the Pod Security Standards, applied at the levels and versions of a pod's namespace.

Checks, messages and their order are those of Kubernetes 1.36 (staging/src/k8s.io/pod-security-admission). Windows
fields are checked as well: they have no effect here, but a manifest must get the same answer as on a cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from kubelite.kube.json import Json
from kubelite.kube.objects import template_of
from kubelite.kube.pod_security import PodSecurity, Policy
from kubelite.node.decide.pod_security.standards import checks
from kubelite.node.model.ephemeral import every_container
from manifests.types.core import Pod


def violations(pod: Pod, policy: Policy) -> str:
    """Return the violations of the policy, comma-separated; "" if there are none."""
    return ", ".join(
        f"{reason} ({detail})" if detail else reason for reason, detail in _violated(pod, policy)
    )


def _violated(pod: Pod, policy: Policy) -> list[tuple[str, str]]:
    """Return the reason and the detail of each violation."""
    return [said for check in checks(policy) if (said := check(pod)) is not None]


def forbidden(pod: Pod, security: PodSecurity) -> str:
    """Return why a pod is not admitted; "" if it is. The namespace's level `enforce`, the allowed host paths and the
    setting that requires digests can forbid it."""
    namespace, name = pod.metadata.namespace or "default", pod.metadata.name
    policy = security.levels(namespace).enforce
    if found := violations(pod, policy):
        return f'pods "{name}" is forbidden: violates PodSecurity "{policy}": {found}'
    found = host_paths(pod, security.host_paths) or (tags(pod) if security.digests_only else "")
    return f'pods "{name}" is forbidden: {found}' if found else ""


def tags(pod: Pod) -> str:
    """Return a message about the first image that is not named by its digest; "" if there is none."""
    images = {f'container "{one.name}"': one.image for one in every_container(pod)}
    images |= {
        f'volume "{one.name}"': one.image.reference for one in pod.spec.volumes if one.image is not None
    }
    for what, image in images.items():
        if not re.search(r"@sha256:[0-9a-f]{64}$", image or ""):
            return f"{what}: image {json.dumps(image or '')} must be named by its digest"
    return ""


def warning(pod: Pod, security: PodSecurity) -> str:
    """Return the pod's violations of its namespace's level `warn`; "" if there are none."""
    return _would(pod, security.levels(pod.metadata.namespace or "default").warn)


def workload_pod(workload: Json) -> Pod:
    """Return a pod of the workload's template, for `warning` and `audited`. The workload itself is not refused
    (Kubernetes: ValidatePodController in pod-security-admission/admission/admission.go)."""
    template = template_of(workload)
    metadata = {**(template.get("metadata") or {}), "name": workload["metadata"]["name"]}
    metadata["namespace"] = workload["metadata"].get("namespace", "default")
    spec = template.get("spec") or {}
    return Pod.parse({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def audited(pod: Pod, security: PodSecurity) -> str:
    """Return the pod's violations of its namespace's level `audit`; "" if there are none."""
    return _would(pod, security.levels(pod.metadata.namespace or "default").audit)


def existing(pods: Iterable[Pod], namespace: str, policy: Policy) -> list[str]:
    """Return warnings about the pods of a namespace that violate the policy that it enforces from now on (Kubernetes:
    EvaluatePodsInNamespace in pod-security-admission/admission/admission.go)."""
    found: dict[str, list[str]] = {}
    for pod in pods:
        if reasons := ", ".join(reason for reason, _ in _violated(pod, policy)):
            found.setdefault(reasons, []).append(pod.metadata.name or "")
    if not found:
        return []
    head = f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{policy}"'
    return [head, *sorted(f"{_pods(names)}: {reasons}" for reasons, names in found.items())]


def _pods(names: list[str]) -> str:
    others = len(names) - 1
    return f"{min(names)} (and {others} other pod{'s' * (others > 1)})" if others else names[0]


def _would(pod: Pod, policy: Policy) -> str:
    found = violations(pod, policy)
    return f'would violate PodSecurity "{policy}": {found}' if found else ""


def host_paths(pod: Pod, allowed: Iterable[str] | None) -> str:
    """Return PodSecurityPolicy's message about the first hostPath volume outside the allowed paths; "" if there is
    none. A path in `allowed` includes everything below it. With the suffix `:ro`, it allows only read-only mounts. None
    allows all paths."""
    if allowed is None:
        return ""
    rules = [(path.removesuffix(":ro").rstrip("/") or "/", path.endswith(":ro")) for path in allowed]
    for index, volume in enumerate(pod.spec.volumes):
        if volume.host_path is None:
            continue
        path = "/" + "/".join(part for part in volume.host_path.path.split("/") if part not in ("", "."))
        fits = [only for root, only in rules if root in ("/", path) or path.startswith(f"{root}/")]
        where = (
            f"spec.volumes[{index}].hostPath.pathPrefix: Invalid value: {json.dumps(volume.host_path.path)}"
        )
        if not fits or ".." in path.split("/"):
            return f"{where}: is not allowed to be used"
        if all(fits) and not _mounted_read_only(pod, volume.name):
            return f"{where}: must be read-only"
    return ""


def _mounted_read_only(pod: Pod, name: str) -> bool:
    mounts = [mount for one in every_container(pod) for mount in one.volume_mounts if mount.name == name]
    return all(mount.read_only for mount in mounts)
