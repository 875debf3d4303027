"""The node's own metrics of Services: how many endpoints each has, and, if the setting service_counters is on, what
each endpoint has received and sent. A node without Services does not import this module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kubelite.kube.json import Json
from kubelite.services.families import with_port
from kubelite.services.ports import EndpointCount
from kubelite.services.slices import SERVICE_NAME
from kubelite.telemetry.metrics.exposition import Page, counter, gauge, labels

Name = tuple[str, str]  # namespace and name

COUNTERS = (
    ("kubelite_service_endpoint_receive_packets_total", "Packets of clients to the endpoint."),
    ("kubelite_service_endpoint_receive_bytes_total", "Bytes of these packets, with their IP headers."),
    ("kubelite_service_endpoint_transmit_packets_total", "Packets of the endpoint to clients."),
    ("kubelite_service_endpoint_transmit_bytes_total", "Bytes of these packets, with their IP headers."),
)


def write_endpoints(page: Page, services: Iterable[Json], slices: Iterable[Json]) -> None:
    """Write how many endpoints each Service has, by readiness. A pod counts once, though each of its
    addresses is in a slice; so does an address in several slices."""
    found: dict[Name, dict[str, bool]] = {_name(doc): {} for doc in services}
    for one in slices:
        metadata = one["metadata"]
        service = metadata.get("namespace", ""), (metadata.get("labels") or {}).get(SERVICE_NAME, "")
        if (counted := found.get(service)) is None:
            continue
        for endpoint in one.get("endpoints") or ():
            ready = (endpoint.get("conditions") or {}).get("ready") is not False
            key = (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
            counted[key] = ready or counted.get(key, False)
    for word, text, wanted in (
        ("kubelite_service_endpoints_ready", "Endpoints of the Service that are ready.", True),
        ("kubelite_service_endpoints_not_ready", "Endpoints that are not ready, or terminate.", False),
    ):
        family = gauge(word, text)
        lines = (
            f"{family.name}{{{labels({'namespace': namespace, 'service': name})}}} "
            f"{sum(ready is wanted for ready in counted.values())}\n"
            for (namespace, name), counted in found.items()
        )
        page.family(family, "".join(lines))


def write_counts(page: Page, counts: Sequence[EndpointCount], slices: Iterable[Json]) -> None:
    """Write the counters of each endpoint. The label `pod` is empty if the endpoint is no pod."""
    pods = _pods(slices)
    heads = [_head(one, pods) for one in counts]
    values = [(*one.received, *one.sent) for one in counts]
    for index, (name, text) in enumerate(COUNTERS):
        lines = (f"{name}{{{head}}} {value[index]}\n" for head, value in zip(heads, values, strict=True))
        page.family(counter(name, text), "".join(lines))


def _head(count: EndpointCount, pods: Mapping[tuple[str, str], str]) -> str:
    pairs = {
        "namespace": count.namespace,
        "service": count.service,
        "port": count.port,
        "protocol": count.protocol,
        "endpoint": with_port(count.address, count.number),
        "pod": pods.get((count.namespace, count.address), ""),
    }
    return labels(pairs)


def _pods(slices: Iterable[Json]) -> dict[tuple[str, str], str]:
    """The name of the pod at each address, by namespace and address."""
    return {
        (one["metadata"].get("namespace", ""), address): endpoint["targetRef"]["name"]
        for one in slices
        for endpoint in one.get("endpoints") or ()
        if (endpoint.get("targetRef") or {}).get("kind") == "Pod"
        for address in endpoint["addresses"]
    }


def _name(doc: Json) -> Name:
    return doc["metadata"].get("namespace", ""), doc["metadata"]["name"]
