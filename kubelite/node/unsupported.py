"""PURE: fields that are valid and mean something, but that this node does not act on yet.

None is silent: each gives the pod a Warning event naming it. Where a program could not run as meant without it (a
volume that is missing, a security promise that would not be kept), it also blocks the containers that need it, which
then wait with CreateContainerConfigError.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from kubelite.node.memo import once_a_spec
from manifests.core import Container, EnvVar, Pod, Volume, VolumeProjection


class Unsupported(NamedTuple):
    path: str  # spec.containers[0].livenessProbe
    sentence: str
    blocks: bool  # the containers it is about cannot start


WORKING_VOLUMES = frozenset({"emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected"})
_SPEC_FIELDS = {  # fields of PodSpec that change nothing here, and what that means
    "affinity": "there is one node: pods are not placed by affinity",
    "ephemeralContainers": "ephemeral containers are not run",
    "overhead": "is not added to the pod's limits",
    "preemptionPolicy": "there is no preemption",
    "resourceClaims": "dynamic resource allocation is not available",
    "schedulingGates": "the pod is run at once",
    "schedulingGroup": "pods are run one by one",
    "topologySpreadConstraints": "there is one node",
}


@once_a_spec
def unsupported_fields(pod: Pod) -> list[Unsupported]:
    """Every field of the pod that is not acted on, in the order of the manifest. Not to be altered."""
    return [
        *_of_spec(pod),
        *_of_security(pod),
        *(found for index, volume in enumerate(pod.spec.volumes) for found in _of_volume(index, volume)),
        *(found for path, container in _containers(pod) for found in _of_container(path, container)),
    ]


def blocked_containers(pod: Pod) -> dict[str, str]:
    """The containers that must not start, each with the sentence of why."""
    blocked: dict[str, str] = {}
    found = [field for field in unsupported_fields(pod) if field.blocks]
    if not found:
        return blocked
    for path, container in _containers(pod):
        mounted = {mount.name for mount in container.volume_mounts}
        for field in found:
            if _concerns(field.path, path, mounted, pod):
                blocked.setdefault(container.name, f"{field.path}: {field.sentence}")
    return blocked


def _concerns(field: str, container: str, mounted: set[str], pod: Pod) -> bool:
    if field.startswith("spec.volumes["):
        index = int(field.split("[", 1)[1].split("]", 1)[0])
        return pod.spec.volumes[index].name in mounted
    if field.startswith(("spec.containers[", "spec.initContainers[")):
        return field.startswith(f"{container}.")
    return True


def _containers(pod: Pod) -> Iterator[tuple[str, Container]]:
    for index, container in enumerate(pod.spec.init_containers):
        yield f"spec.initContainers[{index}]", container
    for index, container in enumerate(pod.spec.containers):
        yield f"spec.containers[{index}]", container


def _of_spec(pod: Pod) -> Iterator[Unsupported]:
    given = pod.spec.to_json()
    for name, sentence in _SPEC_FIELDS.items():
        if given.get(name):
            yield Unsupported(f"spec.{name}", sentence, False)
    if pod.spec.share_process_namespace:
        yield Unsupported("spec.shareProcessNamespace", "each container has its own process namespace", True)
    if pod.spec.host_users is False:
        yield Unsupported("spec.hostUsers", "user namespaces are not available", True)
    if pod.spec.runtime_class_name:
        yield Unsupported("spec.runtimeClassName", "only the built-in runtime is available", True)
    if pod.spec.os is not None and pod.spec.os.name != "linux":
        yield Unsupported("spec.os.name", "only linux pods run here", True)


def _of_security(pod: Pod) -> Iterator[Unsupported]:
    security = pod.spec.security_context
    if security is None:
        return
    path = "spec.securityContext"
    yield from _of_profiles(path, security)


def _of_profiles(path: str, security: Any) -> Iterator[Unsupported]:
    profile = security.app_armor_profile
    if profile is not None and profile.type == "Localhost":
        yield Unsupported(f"{path}.appArmorProfile", "AppArmor profiles are not applied", True)
    if security.se_linux_options is not None:
        yield Unsupported(f"{path}.seLinuxOptions", "SELinux labels are not applied", False)
    if security.windows_options is not None:
        yield Unsupported(f"{path}.windowsOptions", "has no meaning on Linux", False)


def _of_volume(index: int, volume: Volume) -> Iterator[Unsupported]:
    sources = [name for name in volume.to_json() if name != "name"]
    for source in sources:
        path = f"spec.volumes[{index}].{source}"
        if source not in WORKING_VOLUMES:
            yield Unsupported(path, "volumes of this kind are not available", True)
    if volume.projected is not None:
        for position, projection in enumerate(volume.projected.sources):
            yield from _of_projection(f"spec.volumes[{index}].projected.sources[{position}]", projection)


def _of_projection(path: str, projection: VolumeProjection) -> Iterator[Unsupported]:
    for source in projection.to_json():
        if source not in ("configMap", "secret", "downwardAPI"):
            yield Unsupported(f"{path}.{source}", "there is no issuer for it on this node", True)


def _of_container(path: str, container: Container) -> Iterator[Unsupported]:
    for index, rule in enumerate(container.restart_policy_rules):
        if rule.action != "Restart":
            where = f"{path}.restartPolicyRules[{index}].action"
            yield Unsupported(where, "the only action that is followed is Restart", False)
    if container.volume_devices:
        yield Unsupported(f"{path}.volumeDevices", "block devices are not available", True)
    if container.resources is not None:
        yield from _of_resources(path, container)
    if container.security_context is not None:
        yield from _of_profiles(f"{path}.securityContext", container.security_context)
    for index, env in enumerate(container.env):
        yield from _of_env(f"{path}.env[{index}]", env)


def _of_resources(path: str, container: Container) -> Iterator[Unsupported]:
    assert container.resources is not None
    if container.resources.claims:
        yield Unsupported(f"{path}.resources.claims", "dynamic resource allocation is not available", True)
    for kind, amounts in (("limits", container.resources.limits), ("requests", container.resources.requests)):
        for name in amounts:
            if name not in ("cpu", "memory"):
                yield Unsupported(f"{path}.resources.{kind}.{name}", "only cpu and memory are limited", False)


def _of_env(path: str, env: EnvVar) -> Iterator[Unsupported]:
    if env.value_from is not None and env.value_from.file_key_ref is not None:
        yield Unsupported(f"{path}.valueFrom.fileKeyRef", "values are not read from files", True)
