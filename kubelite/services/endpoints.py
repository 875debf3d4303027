"""Pure: the Endpoints of a Service, Kubernetes' older form of EndpointSlices.

Source: Kubernetes pkg/controller/endpoint/endpoints_controller.go (syncService) and pkg/api/v1/endpoints
(RepackSubsets).
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.kube.json import Json
from kubelite.services.backends import Backend
from kubelite.services.families import families_of
from kubelite.services.slices import HEADLESS, SKIP_MIRROR

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
CONTROLLER = "endpoint-controller"
MOST = 1000  # addresses; the rest is in EndpointSlices alone
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"  # annotation


def endpoints_of(service: Json, backends: Iterable[Backend], existing: Json | None) -> Json:
    """Return the Endpoints of a Service with a selector, which name addresses of its first family alone. `existing`:
    what there is of its name."""
    family = families_of(service["spec"])[0]
    everything = bool(service["spec"].get("publishNotReadyAddresses"))
    listed = sorted(
        (one for one in backends if one.address(family) and (everything or not one.terminating)),
        key=lambda one: (one.address(family), one.uid),
    )
    labels = {**(service["metadata"].get("labels") or {}), MANAGED_BY: CONTROLLER, SKIP_MIRROR: "true"}
    labels.pop(HEADLESS, None)
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    metadata = dict((existing or {}).get("metadata") or {})
    metadata |= {key: service["metadata"][key] for key in ("name", "namespace")}
    metadata["labels"] = labels
    annotations = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key != OVER_CAPACITY
    }
    if len(listed) > MOST:
        listed = sorted(listed, key=lambda one: not one.ready)[:MOST]  # ready ones first
        annotations[OVER_CAPACITY] = "truncated"
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    found: Json = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
    if subsets := _subsets(listed, family):
        found["subsets"] = subsets
    return found


def is_managed(endpoints: Json) -> bool:
    """Whether the controller has made the Endpoints, rather than a manifest."""
    return (endpoints["metadata"].get("labels") or {}).get(MANAGED_BY) == CONTROLLER


def _subsets(backends: Iterable[Backend], family: str) -> list[Json]:
    groups: dict[str, Json] = {}
    for one in backends:
        ports = [
            {key: value for key, value in port.to_json().items() if key != "name" or value}
            for port in sorted(one.ports, key=lambda port: (port.name, port.port, port.protocol))
        ]
        subset = groups.setdefault(str(ports), {"ports": ports} if ports else {})
        address: Json = {"ip": one.address(family), "targetRef": one.target}
        if one.hostname:
            address["hostname"] = one.hostname
        if one.node:
            address["nodeName"] = one.node
        subset.setdefault("addresses" if one.ready else "notReadyAddresses", []).append(address)
    return [groups[key] for key in sorted(groups)]
