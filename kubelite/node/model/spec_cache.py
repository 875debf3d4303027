"""Caches by pod specification: its typed form, and the results of pure functions that are often called with it.

Documents and models are never changed in place: a pod with a new status is a copy that shares `spec` and `metadata`.
Therefore identical objects have identical results.
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
    """The typed form of `after`. `spec` is the typed form of `before`, and few fields differ (a node's name, a
    priority). None if more differs than can be updated: a field was removed, or the containers changed."""
    changed = {key: value for key, value in after.items() if before.get(key) is not value}
    if "containers" in changed or before.keys() - after.keys():
        return None
    if not changed:
        return spec
    parsed = PodSpec.parse({"containers": [], **changed})
    fields = parsed.model_fields_set - {"containers"}
    return spec.model_copy(update={name: getattr(parsed, name) for name in fields})


def as_before(pod: Pod, before: Pod | None) -> Pod:
    """The pod, with its metadata, spec and status replaced by those of `before` (the same pod, read earlier) where they
    are equal. Cached results stay valid, and memory holds equal parts once. The resourceVersion may be the earlier
    one."""
    if before is None:
        return pod
    version = {"resource_version": before.metadata.resource_version}
    if pod.metadata.model_copy(update=version) == before.metadata:
        pod = pod.model_copy(update={"metadata": before.metadata})
    parts = [name for name in ("spec", "status") if getattr(pod, name) == getattr(before, name)]
    return pod.model_copy(update={name: getattr(before, name) for name in parts})


def once_a_spec(function: Callable[[Pod], R]) -> Callable[[Pod], R]:
    """A decorator that caches a function that reads only `spec` and `metadata` and whose result nobody changes."""
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
