"""Pods, LimitRanges, ResourceQuotas and other documents for the tests of a namespace's rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubelite.kube.json import Json


def compute(cpu: str = "", memory: str = "") -> dict[str, str]:
    """getComputeResourceList."""
    return {name: amount for name, amount in (("cpu", cpu), ("memory", memory)) if amount}


def resources(requests: Mapping[str, str] | None = None, limits: Mapping[str, str] | None = None) -> Json:
    found = {"requests": dict(requests or {}), "limits": dict(limits or {})}
    return {key: value for key, value in found.items() if value}


def container(name: str, given: Json, **more: Any) -> Json:
    return {"name": name, "image": "busybox", **({"resources": given} if given else {}), **more}


def pod(
    name: str = "web",
    count: int = 1,
    given: Json | None = None,
    *,
    init: tuple[Json, ...] = (),
    own: Json | None = None,
    **spec: Any,
) -> Json:
    """A pod with `count` containers and init containers that have these resources, and resources of its own."""
    body: Json = {"containers": [container(f"foo-{index}", given or {}) for index in range(count)], **spec}
    if init:
        body["initContainers"] = [container(f"init-{index}", one) for index, one in enumerate(init)]
    if own:
        body["resources"] = own
    metadata = {"name": name, "namespace": "test", "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def limit_range(type_: str, name: str = "abc", **item: Mapping[str, str]) -> Json:
    metadata = {"name": name, "namespace": "test"}
    limits = [{"type": type_, **{key: dict(value) for key, value in item.items() if value}}]
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}}


def claim(storage: str, name: str = "data", **spec: Any) -> Json:
    metadata = {"name": name, "namespace": "test", "uid": f"uid-{name}"}
    body: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": body}


def quota(
    name: str = "quota",
    scopes: list[str] | None = None,
    selector: Json | None = None,
    *,
    given: Mapping[str, str] | None = None,
    **hard: str,
) -> Json:
    """The names of resources are those of `given`, and those of the arguments with `__` for a dot."""
    spec: Json = {"hard": {key.replace("__", "."): value for key, value in {**(given or {}), **hard}.items()}}
    if scopes:
        spec["scopes"] = scopes
    if selector:
        spec["scopeSelector"] = {"matchExpressions": [selector]}
    metadata = {"name": name, "namespace": "test", "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec}
