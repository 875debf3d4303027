"""Sets up the volumes of one container: directories and files to mount, and block devices.

A claim with `volumeMode: Block` is a device: the PersistentVolume's own (`local.path`), or a loop device over a file of
the volume or of the claim. Loop devices are found by their backing files, so they need not be recorded. `let_go`
detaches those of claims that no pod uses.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from kubelite.node.model.claim_names import claim_name
from kubelite.node.model.cri import ObservedSandbox
from kubelite.node.model.ephemeral import every_container
from kubelite.node.model.errors import ConfigError, MountError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import env, volume_plans
from kubelite.node.spec.container_spec import Device, Source
from kubelite.node.storage import loopdev, mounts
from kubelite.node.storage.block_devices import Disk, is_device, mount_point
from kubelite.node.storage.nfs import Share
from kubelite.node.storage.slow_mounts import SlowMounts
from manifests.types.core import Container, Pod, Volume


def container_volumes(
    pod: Pod,
    container: Container,
    *,
    sandbox: ObservedSandbox,
    sources: env.Sources,
    variables: Mapping[str, str],
    mounted: Callable[[str, float, bool], None],
) -> dict[str, Source]:
    """Set up the volumes. Return mount path → what to mount there. `mounted` is called for each volume with its plugin,
    the seconds that this took, and whether it succeeded. Raises MountError, ConfigError."""
    plans = _plans(pod, [mount.name for mount in container.volume_mounts], sandbox, sources)
    for name, plan in plans.items():
        if plan.disk is not None and is_device(plan.path):
            plans[name] = replace(plan, path=mount_point(sources.config.root, plan.held))
    for volume in pod.spec.volumes:
        if volume.name in plans:
            _set_up(volume_plans.plugin(volume), plans[volume.name], mounted)
    found: dict[str, Source] = {}
    for mount in container.volume_mounts:
        if mount.name not in plans:
            raise ConfigError(f'volumeMount {mount.mount_path}: there is no volume "{mount.name}"')
        sub_path = mount.sub_path or ""
        if mount.sub_path_expr:
            sub_path = env.expand_all(mount.sub_path_expr, variables)
        path = plans[mount.name].path
        if sub_path:
            os.close(mounts.open_sub_path(path, sub_path))
        found[mount.mount_path] = Source(path, sub_path, bool(plans[mount.name].users))
    return found


def missing_content(pod: Pod, sources: env.Sources) -> list[str]:
    """kubelet's message for each mounted volume whose ConfigMap, Secret or key is missing. Volumes that are set up
    already keep their content and are left out (Kubernetes pkg/kubelet/volumemanager, WaitForAttachAndMount)."""
    used = {mount.name for container in every_container(pod) for mount in container.volume_mounts}
    found = []
    for volume in pod.spec.volumes:
        path = volume_plans.content_dir(volume, pod.metadata.uid or "", sources.config)
        if volume.name not in used or not path or volume.downward_api is not None:
            continue
        if _is_set_up(volume, path):
            continue
        try:
            volume_plans.payload(pod, volume, sources)
        except MountError as error:
            found.append(str(error))
    return found


async def mount_slow(pod: Pod, container: Container, sources: env.Sources, slow: SlowMounts) -> None:
    """Mount the volumes that may take long, before the others. Raises MountError."""
    names = {mount.name for mount in container.volume_mounts}
    for volume in pod.spec.volumes:
        if volume.name in names and (volume.nfs is not None or claim_name(pod, volume)):
            plan = volume_plans.plan_volume(pod, volume, sources)
            if plan.share is not None:
                await slow.mount(plan.name, plan.path, Share(*plan.share))
            elif plan.disk is not None and is_device(plan.path):
                await slow.mount(plan.name, mount_point(sources.config.root, plan.held), Disk(*plan.disk))


def _set_up(plugin: str, plan: volume_plans.VolumePlan, mounted: Callable[[str, float, bool], None]) -> None:
    if plan.kind is volume_plans.Kind.BLOCK:
        raise MountError(f"volume {plan.name} has volumeMode Block, but is specified in volumeMounts")
    began, done = time.perf_counter(), False
    try:
        mounts.set_up(plan)
        done = True
    finally:
        mounted(plugin, time.perf_counter() - began, done)


def _plans(
    pod: Pod, names: Collection[str], sandbox: ObservedSandbox, sources: env.Sources
) -> dict[str, volume_plans.VolumePlan]:
    wanted = set(names)
    plans = {volume.name: _plan(pod, volume, sources) for volume in pod.spec.volumes if volume.name in wanted}
    if pod.spec.host_users is False:  # an image's files are mapped to the pod's users before they are mounted
        of_pod = f"/proc/{sandbox.pause}/ns/user"
        images = {n: replace(p, users=of_pod) for n, p in plans.items() if p.kind is volume_plans.Kind.IMAGE}
        plans |= images
    return plans


def _plan(pod: Pod, volume: Volume, sources: env.Sources) -> volume_plans.VolumePlan:
    """Plan a volume. If its ConfigMap or Secret was removed after it was set up, it is used as it is."""
    try:
        return volume_plans.plan_volume(pod, volume, sources)
    except MountError:
        path = volume_plans.content_dir(volume, pod.metadata.uid or "", sources.config)
        if path and _is_set_up(volume, path):
            return volume_plans.VolumePlan(volume.name, volume_plans.Kind.HOST, path)
        raise


def _is_set_up(volume: Volume, path: str) -> bool:
    return os.path.ismount(path) if volume_plans.has_secrets(volume) else os.path.isdir(path)


def block_devices(pod: Pod, container: Container, sources: env.Sources) -> tuple[Device, ...]:
    """The block devices that claims give to the container. Raises MountError, with kubelet's message if it has one."""
    wanted = {device.name: device.device_path for device in container.volume_devices}
    found = []
    for plan in volume_plans.plan_volumes(pod, wanted, sources):
        if plan.kind is not volume_plans.Kind.BLOCK:
            words = f"volume {plan.name} has volumeMode Filesystem, but is specified in volumeDevices"
            raise MountError(words)
        try:
            number = _device(plan, sources.config)
        except OSError as error:
            words = f'MapVolume.SetUpDevice failed for volume "{plan.name}" : {error}'
            raise MountError(words) from error
        read_only = any(
            v.name == plan.name
            and v.persistent_volume_claim is not None
            and v.persistent_volume_claim.read_only
            for v in pod.spec.volumes
        )
        found.append(Device(wanted[plan.name], os.major(number), os.minor(number), bool(read_only)))
    return tuple(found)


def mark_of(root: str) -> bytes:
    """The mark of the loop devices that belong to the node with this root directory."""
    return f"kubelite:{root}".encode()[-loopdev.MARK_SIZE :]


def _device(plan: volume_plans.VolumePlan, config: NodeConfig) -> int:
    """The number of the volume's block device. A claim's own is a loop device over a sparse file, created if needed."""
    if plan.size and not os.path.exists(plan.path):
        os.makedirs(os.path.dirname(plan.path), exist_ok=True)
        descriptor = os.open(plan.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
    if plan.size and os.path.getsize(plan.path) < plan.size:
        os.truncate(plan.path, plan.size)
    status = os.stat(plan.path)
    if stat.S_ISBLK(status.st_mode):
        return status.st_rdev
    if not stat.S_ISREG(status.st_mode):
        raise OSError(15, f"{plan.path} is neither a block device nor a file")
    return os.stat(loopdev.attach(plan.path, mark_of(config.root))).st_rdev


def let_go(root: str, in_use: Collection[str]) -> list[str]:
    """Detach the node's loop devices whose files are not in use. Return these files."""
    found = list(loopdev.marked(mark_of(root)))
    return [path for device, path in found if path not in in_use and loopdev.detach(device)]
