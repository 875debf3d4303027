"""Memory limits that go down while a pod runs (Kubernetes pkg/kubelet/kuberuntime, validateMemoryResizeAction).

cgroup v1 refuses a limit below what it cannot reclaim (EBUSY). v2 takes it, and the OOM killer makes it true
(Documentation/admin-guide/cgroup-v2.rst, memory.max); so there is a look first. kubelet looks at all that is charged;
here the file cache that is given back first does not count, or a container that reads much could never be made smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.cgroups import Cgroup
from runtime.cgroups.layout import Mode, layout
from runtime.errors import NotFoundError, StateError


def check_memory(group: Cgroup, resources: Mapping[str, Any], *, of: str) -> None:
    """`resources`: runtime-spec, about to be applied. Raises StateError for a limit below what is in use (bytes)."""
    limit = (resources.get("memory") or {}).get("limit") or 0
    if limit <= 0 or layout().mode is not Mode.V2:
        return
    try:
        used = group.stats().memory.working_set
    except NotFoundError:  # whatever applies them says so
        return
    if used > limit:
        raise StateError(f"attempting to set {of} memory limit ({limit}) below current usage ({used})")
