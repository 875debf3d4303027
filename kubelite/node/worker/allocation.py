"""The allocation of a pod's devices, between its scheduling and its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubelite.kube.objects import is_of_cluster
from kubelite.node.devices.model import DeviceSource
from kubelite.node.model.actions import Facts
from kubelite.node.scheduling.scheduler import Scheduler, not_allocated
from manifests.types.core import Pod


async def with_devices(
    devices: DeviceSource, scheduler: Scheduler, pod: Pod, facts: Facts, again: Callable[[], Facts]
) -> Facts:
    """Allocate the devices that scheduling has reserved for a new pod, and return the facts after that. If a plugin
    refuses, the pod is rejected, as by kubelet. If the plugin is gone, a pod that no cluster has bound to this node is
    scheduled `again`: it waits for the plugin."""
    uid = pod.metadata.uid or ""
    refusal = await devices.allocate(pod)
    if refusal is None:
        return facts
    scheduler.release(uid)
    if refusal.gone and not is_of_cluster(pod.metadata.annotations):
        found = again()
        if not devices.waiting(uid):
            return found
        scheduler.release(uid)
    return replace(facts, scheduling=not_allocated(refusal.message))
