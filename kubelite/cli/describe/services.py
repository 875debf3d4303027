"""Format the text of `describe` for Services, Endpoints and EndpointSlices. Pure.

Source: kubectl pkg/describe/describe.go (describeService, describeEndpoints, describeEndpointSliceV1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.describe.parts import annotation_lines, label_lines, with_events
from kubelite.services.families import with_port

if TYPE_CHECKING:
    from kubelite.kube.json import Json

Events = Sequence["Json"] | None
_SHOWN = 3  # endpoints of a port


def describe_service(doc: Json, slices: Sequence[Json], events: Events, now: float) -> str:
    """`slices`: the EndpointSlices of the Service."""
    spec, status = doc["spec"], doc.get("status") or {}
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items()))
    out = [
        *_head(doc),
        f"Selector:\t{selector or '<none>'}",
        f"Type:\t{spec.get('type', '')}",
    ]
    if policy := spec.get("ipFamilyPolicy"):
        out.append(f"IP Family Policy:\t{policy}")
    if families := spec.get("ipFamilies"):
        out.append(f"IP Families:\t{','.join(families)}")
    out.append(f"IP:\t{spec.get('clusterIP', '')}")
    if addresses := spec.get("clusterIPs"):
        out.append(f"IPs:\t{','.join(addresses)}")
    if external := spec.get("externalIPs"):
        out.append(f"External IPs:\t{','.join(external)}")
    if name := spec.get("externalName"):
        out.append(f"External Name:\t{name}")
    if ingress := (status.get("loadBalancer") or {}).get("ingress"):
        out.append(f"LoadBalancer Ingress:\t{', '.join(map(_ingress, ingress))}")
    for port in spec.get("ports") or ():
        out += _port(port, slices)
    out.append(f"Session Affinity:\t{spec.get('sessionAffinity', '')}")
    for key, title in (
        ("externalTrafficPolicy", "External Traffic Policy"),
        ("internalTrafficPolicy", "Internal Traffic Policy"),
        ("trafficDistribution", "TrafficDistribution"),
    ):
        out += [f"{title}:\t{spec[key]}"] if spec.get(key) else []
    if ranges := spec.get("loadBalancerSourceRanges"):
        out.append(f"LoadBalancer Source Ranges:\t{','.join(ranges)}")
    return with_events(out, events, now)


def _ingress(one: Json) -> str:
    mode = f" ({one['ipMode']})" if one.get("ipMode") else ""
    return f"{one.get('ip') or one.get('hostname', '')}{mode}"


def _port(port: Json, slices: Sequence[Json]) -> Iterator[str]:
    name, protocol = port.get("name") or "<unset>", port.get("protocol", "TCP")
    target = port.get("targetPort", port["port"])
    yield f"Port:\t{name}\t{port['port']}/{protocol}"
    yield f"TargetPort:\t{target}/{protocol}"
    if node_port := port.get("nodePort"):
        yield f"NodePort:\t{name}\t{node_port}/{protocol}"
    found = list(ready_endpoints(port.get("name", ""), slices))
    more = f" + {len(found) - _SHOWN} more..." if len(found) > _SHOWN else ""
    yield f"Endpoints:\t{','.join(found[:_SHOWN])}{more}"


def ready_endpoints(name: str, slices: Iterable[Json]) -> Iterator[str]:
    """Yield the ready endpoints of a Service's port, by the port's name."""
    for one in slices:
        numbers = [port.get("port") for port in one.get("ports") or () if port.get("name", "") == name]
        for endpoint in one.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                yield from (with_port(endpoint["addresses"][0], number) for number in numbers)


def describe_endpoints(doc: Json, events: Events, now: float) -> str:
    out = [*_head(doc), "Subsets:"]
    for subset in doc.get("subsets") or ():
        for key, title in (("addresses", "Addresses"), ("notReadyAddresses", "NotReadyAddresses")):
            listed = ",".join(one["ip"] for one in subset.get(key) or ())
            out.append(f"  {title}:\t{listed or '<none>'}")
        if ports := subset.get("ports"):
            out += ["  Ports:", "    Name\tPort\tProtocol", "    ----\t----\t--------"]
            out += [
                f"    {port.get('name') or '<unset>'}\t{port['port']}\t{port.get('protocol', 'TCP')}"
                for port in ports
            ]
        out.append("")
    return with_events(out, events, now)


def describe_slice(doc: Json, events: Events, now: float) -> str:
    out = [*_head(doc), f"AddressType:\t{doc.get('addressType', '')}"]
    if ports := doc.get("ports"):
        out += ["Ports:", "  Name\tPort\tProtocol", "  ----\t----\t--------"]
        out += [
            f"  {port.get('name') or '<unset>'}\t{port.get('port', '*')}\t{port.get('protocol', 'TCP')}"
            for port in ports
        ]
    else:
        out.append("Ports: <unset>")
    out.append("Endpoints:")
    for one in doc.get("endpoints") or ():
        target = one.get("targetRef")
        out += [
            f"  - Addresses:\t{','.join(one['addresses'])}",
            "    Conditions:",
            f"      Ready:\t{str((one.get('conditions') or {}).get('ready', '<unset>')).lower()}",
            f"    Hostname:\t{one.get('hostname') or '<unset>'}",
        ]
        if target:
            out.append(f"    TargetRef:\t{target.get('kind', '')}/{target.get('name', '')}")
        out.append(f"    NodeName:\t{one.get('nodeName') or '<unset>'}")
        out.append(f"    Zone:\t{one.get('zone') or '<unset>'}")
    return with_events(out, events, now)


def _head(doc: Json) -> list[str]:
    metadata = doc["metadata"]
    return [
        f"Name:\t{metadata['name']}",
        f"Namespace:\t{metadata.get('namespace', '')}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
    ]
