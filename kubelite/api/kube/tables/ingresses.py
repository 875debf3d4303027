"""The Table columns of Ingresses and IngressClasses, as Kubernetes' API server prints them.

Source: Kubernetes pkg/printers/internalversion/printers.go (printIngress, formatHosts, formatPorts,
ingressLoadBalancerStatusStringer, printIngressClass).
"""

from __future__ import annotations

from collections.abc import Callable

from kubelite.api.kube.columns import AGE, NAME, NONE, Cells, Column
from kubelite.kube.durations import age_of
from kubelite.kube.json import Json

_SHOWN = 3  # hosts before "+ 2 more..."


def ingress_cells(doc: Json, now: float) -> Cells:
    metadata, spec = doc["metadata"], doc.get("spec") or {}
    balancer = ((doc.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [
        metadata["name"],
        spec.get("ingressClassName") or NONE,
        _hosts(doc),
        ",".join(one.get("ip") or one.get("hostname") or "" for one in balancer),
        "80, 443" if spec.get("tls") else "80",
        age_of(metadata.get("creationTimestamp"), now),
    ]


def _hosts(doc: Json) -> str:
    found = [rule["host"] for rule in doc["spec"].get("rules") or () if rule.get("host")]
    more = f" + {len(found) - _SHOWN} more..." if len(found) > _SHOWN else ""
    return ",".join(found[:_SHOWN]) + more or "*"


def class_cells(doc: Json, now: float) -> Cells:
    metadata, spec = doc["metadata"], doc.get("spec") or {}
    parameters = spec.get("parameters")
    shown = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        shown = f"{parameters['kind']}{group}/{parameters['name']}"
    age = age_of(metadata.get("creationTimestamp"), now)
    return [metadata["name"], spec.get("controller", ""), shown, age]


PRINTERS: dict[str, tuple[tuple[Column, ...], Callable[[Json, float], Cells]]] = {
    "Ingress": (
        (NAME, Column("Class"), Column("Hosts"), Column("Address"), Column("Ports"), AGE),
        ingress_cells,
    ),
    "IngressClass": ((NAME, Column("Controller"), Column("Parameters"), AGE), class_cells),
}
