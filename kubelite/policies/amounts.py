"""Amounts of resources that a pod requests or is limited to, computed from its document. Pure.

Sources: Kubernetes staging/src/k8s.io/component-helpers/resource/helpers.go (PodRequests, PodLimits), which
plugin/pkg/admission/limitranger/admission.go (podRequests, podLimits) repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kubelite.kube.json import Json
from manifests.types.quantity import Quantity

Amounts = dict[str, Quantity]

#: Resources that a pod may have as a whole, which then count in place of those of its containers.
POD_LEVEL = ("cpu", "memory")


def amounts(given: Mapping[str, Any] | None) -> Amounts:
    """Parse a ResourceList. Raises ValueError."""
    return {name: Quantity(text) for name, text in (given or {}).items()}


def limits_of(container: Json) -> Amounts:
    return amounts((container.get("resources") or {}).get("limits"))


def requests_of(container: Json) -> Amounts:
    """Return a container's requests: those that it has, and its limits for the others (SetDefaults_Pod)."""
    return {**limits_of(container), **amounts((container.get("resources") or {}).get("requests"))}


def containers_of(spec: Json) -> Iterator[tuple[str, Json]]:
    """Yield the path and the document of each container, then of each init container."""
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield f"spec.{field}[{index}]", container


def pod_requests(spec: Json) -> Amounts:
    """Return what a pod requests: the larger of what runs together and what an init container needs."""
    found = _total(spec, requests_of)
    own = spec.get("resources") or {}
    given = {**amounts(own.get("limits")), **found, **amounts(own.get("requests"))} if own else found
    return {**found, **{name: given[name] for name in POD_LEVEL if name in given}}


def pod_limits(spec: Json) -> Amounts:
    found = _total(spec, limits_of)
    own = amounts((spec.get("resources") or {}).get("limits"))
    return {**found, **{name: own[name] for name in POD_LEVEL if name in own}}


def _total(spec: Json, part: Callable[[Json], Amounts]) -> Amounts:
    """Sum up containers and sidecar containers. An init container runs beside the sidecars before it, and the largest
    of these sums counts, too."""
    total: Amounts = {}
    for container in spec.get("containers") or ():
        add(total, part(container))
    sidecars: Amounts = {}
    largest: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = part(container)
        if container.get("restartPolicy") == "Always":
            add(total, own)
            add(sidecars, own)
            beside = sidecars
        else:
            beside = dict(sidecars)
            add(beside, own)
        for name, amount in beside.items():
            largest[name] = max(amount, largest.get(name, amount))
    for name, amount in largest.items():
        total[name] = max(amount, total.get(name, amount))
    return total


def add(total: Amounts, more: Mapping[str, Quantity]) -> None:
    """Add amounts to others, in place."""
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount
