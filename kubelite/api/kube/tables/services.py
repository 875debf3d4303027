"""The Table columns of Services, Endpoints and EndpointSlices, as Kubernetes' API server prints them.

Source: Kubernetes pkg/printers/internalversion/printers.go (printService, getServiceExternalIP, makePortString,
printEndpoints, formatEndpoints, printEndpointSlice).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kubelite.api.kube.columns import AGE, NAME, NONE, Cells, Column
from kubelite.kube.durations import age_of
from kubelite.kube.json import Json
from kubelite.services.families import with_port

_UNSET = "<unset>"
_SHOWN = 3  # ports and endpoints before "+ 2 more..."
_SERVICE = (
    NAME,
    Column("Type"),
    Column("Cluster-IP"),
    Column("External-IP"),
    Column("Port(s)"),
    AGE,
    Column("Selector", priority=1),
)
_ENDPOINTS = (NAME, Column("Endpoints"), AGE)
_SLICE = (NAME, Column("AddressType"), Column("Ports"), Column("Endpoints"), AGE)


def service_cells(doc: Json, now: float) -> Cells:
    metadata, spec = doc["metadata"], doc.get("spec") or {}
    kind = spec.get("type", "ClusterIP")
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items()))
    return [
        metadata["name"],
        kind,
        (spec.get("clusterIPs") or [spec.get("clusterIP")])[0] or NONE,
        external_ip(doc),
        ",".join(port_text(port) for port in spec.get("ports") or ()) or NONE,
        age_of(metadata.get("creationTimestamp"), now),
        selector or NONE,
    ]


def port_text(port: Json) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"


def external_ip(doc: Json) -> str:
    """Return the addresses of a Service outside: externalIPs, those of its load balancer, or its external name."""
    spec = doc.get("spec") or {}
    given = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ExternalName":
            return spec.get("externalName") or NONE
        case "LoadBalancer":
            ingress = ((doc.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
            found = [*(one.get("ip") or one.get("hostname") or "" for one in ingress), *given]
            return ",".join(dict.fromkeys(filter(None, found))) or "<pending>"
    return ",".join(given) or NONE


def endpoints_cells(doc: Json, now: float) -> Cells:
    metadata = doc["metadata"]
    age = age_of(metadata.get("creationTimestamp"), now)
    return [metadata["name"], endpoints_text(doc.get("subsets") or ()), age]


def endpoints_text(subsets: Iterable[Json]) -> str:
    """Return the ready endpoints of a Service: the first three, and how many more there are."""
    found = []
    for subset in subsets:
        ports = subset.get("ports") or ()
        for address in subset.get("addresses") or ():
            found += [with_port(address["ip"], port["port"]) for port in ports] or [address["ip"]]
    return _listed(found, NONE)


def slice_cells(doc: Json, now: float) -> Cells:
    metadata = doc["metadata"]
    ports = [str(port["port"]) if port.get("port") else "*" for port in doc.get("ports") or ()]
    addresses = [ip for one in doc.get("endpoints") or () for ip in one.get("addresses") or ()]
    return [
        metadata["name"],
        doc.get("addressType", ""),
        _listed(ports, _UNSET),
        _listed(addresses, _UNSET),
        age_of(metadata.get("creationTimestamp"), now),
    ]


def _listed(found: Sequence[str], none: str) -> str:
    more = f" + {len(found) - _SHOWN} more..." if len(found) > _SHOWN else ""
    return ",".join(found[:_SHOWN]) + more or none


PRINTERS: dict[str, tuple[tuple[Column, ...], Callable[[Json, float], Cells]]] = {
    "Service": (_SERVICE, service_cells),
    "Endpoints": (_ENDPOINTS, endpoints_cells),
    "EndpointSlice": (_SLICE, slice_cells),
}
