"""kube_service_* and kube_endpointslice_* of the stored objects, as in kube-state-metrics (internal/store/service.go,
endpointslice.go). A node without Services does not import this module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubelite.kube.json import Json
from kubelite.telemetry.metrics.exposition import Page, escape
from kubelite.telemetry.metrics.kubestate.fields import CREATED, DELETED, Kind
from kubelite.telemetry.metrics.kubestate.page import Table, label


class _ServiceKind(Kind):
    """kube-state-metrics tells Services apart by their uid, too."""

    def head(self, doc: Json) -> str:
        return super().head(doc) + label("uid", doc["metadata"].get("uid", ""))


def write_services(page: Page, services: Sequence[Json], slices: Sequence[Json]) -> None:
    """Write the families of the kinds that have objects."""
    for write, docs in ((add_services, services), (add_endpoint_slices, slices)):
        if docs:
            table = Table()
            write(table, docs)
            table.write(page)


def add_services(t: Table, docs: Sequence[Json]) -> None:
    kind = _ServiceKind("service")
    info = kind.gauge(t, "info", "Information about service.")
    type_ = kind.gauge(t, "spec_type", "Type about service.")
    external = kind.gauge(t, "spec_external_ip", "Service external ips. One series for each ip")
    balanced = kind.gauge(t, "status_load_balancer_ingress", "Service load balancer ingress status")
    for doc in docs:
        head, spec = kind.head(doc), doc["spec"]
        words = {
            "cluster_ip": spec.get("clusterIP", ""),
            "external_name": spec.get("externalName", ""),
            "external_traffic_policy": spec.get("externalTrafficPolicy", ""),
            "load_balancer_ip": spec.get("loadBalancerIP", ""),
        }
        t.add(info, head + "".join(label(name, value) for name, value in words.items()), 1)
        t.add(type_, head + label("type", spec.get("type", "ClusterIP")), 1)
        for ip in spec.get("externalIPs") or ():
            t.add(external, head + label("external_ip", ip), 1)
        for one in ((doc.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            t.add(
                balanced,
                head + label("ip", one.get("ip", "")) + label("hostname", one.get("hostname", "")),
                1,
            )
    kind.write_labels(t, docs)
    kind.write(t, docs, CREATED, DELETED)


def add_endpoint_slices(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("endpointslice")
    info = kind.gauge(t, "info", "Information about endpointslice.")
    listed = kind.gauge(t, "endpoints", "Endpoints attached to the endpointslice.")
    ports = kind.gauge(t, "ports", "Ports attached to the endpointslice.")
    for doc in docs:
        head = kind.head(doc)
        t.add(info, head + label("addresstype", doc.get("addressType", "")), 1)
        for endpoint in doc.get("endpoints") or ():
            words = "".join(_words(endpoint))
            for address in endpoint.get("addresses") or ():
                t.add(listed, head + words + label("address", address), 1)
        for port in doc.get("ports") or ():
            words = label("port_name", port.get("name", "")) + label(
                "port_protocol", port.get("protocol", "TCP")
            )
            t.add(ports, head + words + label("port_number", port.get("port", "")), 1)
    kind.write_labels(t, docs)
    kind.write(t, docs, CREATED)


def _words(endpoint: Json) -> Iterator[str]:
    """The labels of an endpoint. One that it does not have is left out, as in kube-state-metrics."""
    conditions, target = endpoint.get("conditions") or {}, endpoint.get("targetRef") or {}
    for name in ("ready", "serving", "terminating"):
        if conditions.get(name) is not None:
            yield f',{name}="{str(bool(conditions[name])).lower()}"'
    for name, value in (
        ("hostname", endpoint.get("hostname")),
        ("targetref_kind", target.get("kind")),
        ("targetref_name", target.get("name")),
        ("targetref_namespace", target.get("namespace")),
        ("endpoint_nodename", endpoint.get("nodeName")),
        ("endpoint_zone", endpoint.get("zone")),
    ):
        if value:
            yield f',{name}="{escape(str(value))}"'
