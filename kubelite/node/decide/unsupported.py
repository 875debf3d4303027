"""Fields that are valid in Kubernetes but have no effect on this node.

Each such field causes a Warning event that names it. If a program cannot work as intended without the field (a missing
volume, a security setting that would not be enforced), it also blocks the containers that need it: they wait with
CreateContainerConfigError.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from kubelite.kube.jobs import TRACKING_FINALIZER
from kubelite.kube.objects import is_of_cluster
from kubelite.node.decide.back_off import BACK_OFF_INITIAL, BACK_OFF_MAX, back_off_annotation
from kubelite.node.model.spec_cache import once_a_spec
from kubelite.node.spec import lsm
from manifests.types.annotations import SECCOMP, SECCOMP_POD
from manifests.types.core import Container, Pod, Volume, VolumeProjection
from manifests.types.priority import SYSTEM_CLASSES


class Unsupported(NamedTuple):
    path: str  # spec.containers[0].livenessProbe
    sentence: str
    blocks: bool  # whether the containers that it concerns cannot start


WORKING_VOLUMES = frozenset(
    {
        "emptyDir",
        "hostPath",
        "configMap",
        "secret",
        "downwardAPI",
        "projected",
        "image",
        "persistentVolumeClaim",
        "ephemeral",
        "nfs",
    }
)
NO_CLAIMS = "this node has no driver that allocates ResourceClaims (dynamic resource allocation)"
NO_APPARMOR = "AppArmor is not enabled on the host"
NO_DEFAULT_PROFILE = "the default AppArmor profile is not loaded; kubelite doctor says why"
_SPEC_FIELDS = {  # fields of PodSpec without effect here, and what that means
    "resourceClaims": NO_CLAIMS,
    "schedulingGroup": "the pods of a group are scheduled one by one",
}


@once_a_spec
def unsupported_fields(pod: Pod) -> list[Unsupported]:
    """All fields of the pod without effect, in the order of the manifest. Callers must not change the list."""
    return [
        *_of_spec(pod),
        *_of_security(pod),
        *(found for index, volume in enumerate(pod.spec.volumes) for found in _of_volume(pod, index, volume)),
        *(found for path, container in _containers(pod) for found in _of_container(pod, path, container)),
    ]


def blocked_containers(pod: Pod) -> dict[str, str]:
    """The containers that must not start, and the reason for each."""
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


def unenforceable(pod: Pod) -> str:
    """Return kubelet's message if the host has no AppArmor to enforce a profile that the pod loads, else "".

    kubelet does not run such a pod (Kubernetes pkg/security/apparmor/validate.go). It refuses `RuntimeDefault`, too;
    here a pod that names it runs without, as one that names no profile does."""
    fields = [found for found in unsupported_fields(pod) if found.sentence == NO_APPARMOR]
    return f"Cannot enforce AppArmor: {NO_APPARMOR}" if fields else ""


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
    if pod.spec.host_users is False and pod.spec.host_network:
        yield Unsupported("spec.hostUsers", "a user namespace cannot have the host's network", True)
    own = not is_of_cluster(pod.metadata.annotations)  # the cluster's scheduler has scheduled the others
    if own and (scheduler := pod.spec.scheduler_name) not in (None, "", "default-scheduler"):
        yield Unsupported(
            "spec.schedulerName", f"{scheduler} is ignored: this node schedules its pods itself", False
        )
    if set(pod.metadata.finalizers) - {TRACKING_FINALIZER}:
        yield Unsupported(
            "metadata.finalizers", "they are ignored: a deleted pod is removed when it has ended", False
        )
    for key in (BACK_OFF_INITIAL, BACK_OFF_MAX):
        if key in pod.metadata.annotations and back_off_annotation(pod, key) is None:
            yield Unsupported(f"metadata.annotations[{key}]", "is not a duration such as 30s or 2m", False)
    yield from _of_annotations(pod)
    rank = pod.spec.priority_class_name
    if (
        rank and pod.spec.priority is None and rank not in SYSTEM_CLASSES
    ):  # an existing class sets the priority
        yield Unsupported("spec.priorityClassName", f"no PriorityClass with name {rank} was found", False)
    if pod.spec.os is not None and pod.spec.os.name != "linux":
        yield Unsupported("spec.os.name", "only linux pods run here", True)


def _of_annotations(pod: Pod) -> Iterator[Unsupported]:
    """The obsolete seccomp annotations, unless a field replaces them (Kubernetes pkg/api/pod/warnings.go)."""
    sentence = 'non-functional in v1.27+; use the "seccompProfile" field instead'
    shared = pod.spec.security_context
    if SECCOMP_POD in pod.metadata.annotations and (shared is None or shared.seccomp_profile is None):
        yield Unsupported(f"metadata.annotations[{SECCOMP_POD}]", sentence, False)
    for _, container in _containers(pod):
        own, key = container.security_context, f"{SECCOMP}{container.name}"
        if key in pod.metadata.annotations and (own is None or own.seccomp_profile is None):
            yield Unsupported(f"metadata.annotations[{key}]", sentence, False)


def _of_security(pod: Pod) -> Iterator[Unsupported]:
    security = pod.spec.security_context
    if security is None:
        return
    path = "spec.securityContext"
    yield from _of_profiles(path, security)


def _of_profiles(path: str, security: Any) -> Iterator[Unsupported]:
    profile = security.app_armor_profile
    if profile is not None and profile.type == "Localhost" and not lsm.apparmor():
        yield Unsupported(f"{path}.appArmorProfile", NO_APPARMOR, True)
    if (
        profile is not None
        and profile.type == "RuntimeDefault"
        and lsm.apparmor()
        and not lsm.default_profile()
    ):
        yield Unsupported(f"{path}.appArmorProfile", NO_DEFAULT_PROFILE, True)
    if security.se_linux_options is not None:
        on = "only processes get the label: volumes keep their own labels"
        off = "SELinux is not enabled on the host"
        yield Unsupported(f"{path}.seLinuxOptions", on if lsm.selinux() else off, False)
    if security.windows_options is not None:
        yield Unsupported(f"{path}.windowsOptions", "only linux containers run here", True)


def _of_volume(pod: Pod, index: int, volume: Volume) -> Iterator[Unsupported]:
    sources = [name for name in volume.to_json() if name != "name"]
    for source in sources:
        path = f"spec.volumes[{index}].{source}"
        if source not in WORKING_VOLUMES:
            yield Unsupported(path, "volumes of this kind need a driver that this node does not have", True)
    if volume.projected is not None:
        for position, projection in enumerate(volume.projected.sources):
            yield from _of_projection(f"spec.volumes[{index}].projected.sources[{position}]", projection)


def _of_projection(path: str, projection: VolumeProjection) -> Iterator[Unsupported]:
    if projection.pod_certificate is not None:
        sentence = "this node has no signer for a PodCertificateRequest: use a Secret with the key"
        yield Unsupported(f"{path}.podCertificate", sentence, True)


def _of_container(pod: Pod, path: str, container: Container) -> Iterator[Unsupported]:
    if container.volume_devices and pod.spec.host_users is False:
        sentence = "a block device is not accessible to a pod with hostUsers: false"
        yield Unsupported(f"{path}.volumeDevices", sentence, True)
    if container.resources is not None:
        yield from _of_resources(path, container)
    if container.security_context is not None:
        yield from _of_profiles(f"{path}.securityContext", container.security_context)


def _of_resources(path: str, container: Container) -> Iterator[Unsupported]:
    assert container.resources is not None
    if container.resources.claims:
        yield Unsupported(f"{path}.resources.claims", NO_CLAIMS, True)
