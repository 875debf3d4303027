"""Check a lower memory limit for a running pod (Kubernetes pkg/kubelet/kuberuntime, validateMemoryResizeAction).

cgroup v1 rejects a limit below the memory that it cannot reclaim (EBUSY). cgroup v2 accepts it and then kills processes
until usage is below the limit (Documentation/admin-guide/cgroup-v2.rst, memory.max), so usage is checked first. kubelet
compares with all charged memory. Here inactive file cache, which the kernel reclaims first, does not count: otherwise
the limit of a container that reads many files could never be lowered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.cgroups import Cgroup
from runtime.cgroups.layout import Mode, layout
from runtime.errors import NotFoundError, StateError


def check_memory(group: Cgroup, resources: Mapping[str, Any], *, of: str) -> None:
    """Check `resources` (linux.resources of the runtime spec) before they are applied. Raises StateError if the memory
    limit is below the usage; both in bytes."""
    limit = (resources.get("memory") or {}).get("limit") or 0
    if limit <= 0 or layout().mode is not Mode.V2:
        return
    try:
        used = group.stats().memory.working_set
    except NotFoundError:  # applying the resources reports that
        return
    if used > limit:
        raise StateError(f"attempting to set {of} memory limit ({limit}) below current usage ({used})")
