"""The parts of a container's status that tell how its newest instance was created: its user, its mounts and its stop
signal.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from kubelite.node.model.actions import Facts, signal_number
from kubelite.node.model.cri import ObservedContainer
from kubelite.node.spec.container_spec import fixed_volumes
from manifests.types.core import Container, Pod
from manifests.types.status import (
    ContainerUser,
    ImageVolumeStatus,
    LinuxContainerUser,
    VolumeMountStatus,
    VolumeStatus,
)


def user_text(user: dict[str, object]) -> str:
    """The `process.user` of a config.json as an instance's record stores it: uid:gid:group,group. The groups include
    the primary group, as with containerd."""
    gid, groups = user.get("gid", 0), user.get("additionalGids") or ()
    assert isinstance(groups, list | tuple)
    every = sorted({int(gid), *(int(group) for group in groups)})  # type: ignore[call-overload]
    return f"{user.get('uid', 0)}:{gid}:{','.join(map(str, every))}"


def user_of(instance: ObservedContainer) -> ContainerUser | None:
    """The user of the instance's first process at the start; None if an older version of kubelite started it."""
    uid, colon, rest = instance.user.partition(":")
    gid, _, groups = rest.partition(":")
    if not colon:
        return None
    found = [int(group) for group in groups.split(",") if group]
    return ContainerUser(linux=LinuxContainerUser(uid=int(uid), gid=int(gid), supplemental_groups=found))


def stop_signal(container: Container | None, instance: ObservedContainer, facts: Facts) -> int:
    """The number of the signal that stops it: the manifest's stopSignal, else the image's STOPSIGNAL, else SIGTERM."""
    if container is not None and container.lifecycle is not None and container.lifecycle.stop_signal:
        return signal_number(container.lifecycle.stop_signal)
    image = facts.images.get(instance.image)
    return signal_number(image.config.get("StopSignal") if image is not None else None)


def signal_name(number: int) -> str:
    """The name of a signal as in core/v1 Signal: SIGTERM, SIGRTMIN+3, SIGRTMAX-2."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    low, high = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
    return f"SIGRTMIN+{number - low}" if number - low <= 15 else f"SIGRTMAX-{high - number}"


def mounts_of(pod: Pod, container: Container, facts: Facts) -> Iterator[VolumeMountStatus]:
    """The status of the container's volumeMounts (Kubernetes pkg/kubelet/kubelet_pods.go): for a read-only mount,
    whether it is recursively read-only; for an image volume, its image."""
    volumes = {volume.name: volume for volume in pod.spec.volumes}
    fixed = fixed_volumes(pod)
    for mount in container.volume_mounts:
        status = VolumeMountStatus(name=mount.name, mount_path=mount.mount_path)
        if mount.read_only or mount.name in fixed:
            status.read_only = True
            wanted = mount.recursive_read_only in ("Enabled", "IfPossible") and mount.read_only
            status.recursive_read_only = "Enabled" if wanted else "Disabled"
        volume = volumes.get(mount.name)
        image = facts.images.get(volume.image.reference or "") if volume and volume.image else None
        if image is not None:
            reference = image.repo_digests[0] if image.repo_digests else image.id
            status.volume_status = VolumeStatus(image=ImageVolumeStatus(image_ref=reference))
        yield status
