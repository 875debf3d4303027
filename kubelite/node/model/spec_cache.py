"""What is made of a pod's specification, once for each specification: its typed form, and the answers of pure functions
that are asked many times for one.

Documents and models are values: nothing changes one in place, a pod's new status comes as a copy that shares its `spec`
and `metadata`. So the very same objects mean the very same answer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from kubelite.kube.json import Json
from manifests.types.core import Pod, PodSpec

P = ParamSpec("P")
R = TypeVar("R")


def with_changes(spec: PodSpec, before: Json, after: Json) -> PodSpec | None:
    """The typed form of `after`; `spec` is that of `before`, and few fields differ (a node's name, a priority). None
    where more differs than can be put in: a field is gone, or the containers are others."""
    changed = {key: value for key, value in after.items() if before.get(key) is not value}
    if "containers" in changed or before.keys() - after.keys():
        return None
    if not changed:
        return spec
    parsed = PodSpec.parse({"containers": [], **changed})
    fields = parsed.model_fields_set - {"containers"}
    return spec.model_copy(update={name: getattr(parsed, name) for name in fields})


def as_before(pod: Pod, before: Pod | None) -> Pod:
    """The pod, with the very parts of `before` (the same pod, read earlier) where they say the same: answers that were
    kept of them stay good, and memory holds them once. Its resourceVersion may be the earlier one."""
    if before is None:
        return pod
    version = {"resource_version": before.metadata.resource_version}
    if pod.metadata.model_copy(update=version) == before.metadata:
        pod = pod.model_copy(update={"metadata": before.metadata})
    parts = [name for name in ("spec", "status") if getattr(pod, name) == getattr(before, name)]
    return pod.model_copy(update={name: getattr(before, name) for name in parts})


def once_a_spec(function: Callable[[Pod], R]) -> Callable[[Pod], R]:
    """For a function that reads `spec` and `metadata` only, and whose answer nobody alters."""
    kept: dict[int, tuple[weakref.ref[object], object, R]] = {}

    @wraps(function)
    def asked(pod: Pod) -> R:
        spec, metadata = pod.spec, pod.metadata
        known = kept.get(id(spec))
        if known is not None and known[0]() is spec and known[1] is metadata:
            return known[2]
        answer = function(pod)
        key = id(spec)
        kept[key] = (weakref.ref(spec, lambda _gone: kept.pop(key, None)), metadata, answer)
        return answer

    return asked
