"""Metrics of Services: kube_service_* and kube_endpointslice_* with names, labels and values as kube-state-metrics has
them (internal/store/service.go, endpointslice.go), and the node's own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from kubelite.services.ports import endpoint_count
from kubelite.telemetry.metrics.exposition import Page, render
from kubelite.telemetry.metrics.kubestate.services import write_services
from kubelite.telemetry.metrics.services_page import write_counts, write_endpoints
from runtime.network.services.plan import Endpoint, ServiceCount

AT, UNIX = "2026-01-02T03:04:05Z", 1767323045
SERVICE: dict[str, Any] = {
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "u1",
        "creationTimestamp": AT,
        "labels": {"a": "b"},
    },
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.7",
        "externalTrafficPolicy": "Cluster",
        "externalIPs": ["192.0.2.7"],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
}


def endpoint(address: str, pod: str = "", **conditions: bool) -> dict[str, Any]:
    target = {"targetRef": {"kind": "Pod", "namespace": "shop", "name": pod}, "nodeName": "n"} if pod else {}
    return {"addresses": [address], "conditions": conditions, **target}


def slice_of(*endpoints: dict[str, Any], name: str = "web-x") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}
    ports = [{"name": "http", "protocol": "TCP", "port": 8080}]
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": list(endpoints), "ports": ports}


def lines(write: Any) -> set[str]:
    text = render(write, openmetrics=False, compressed=False).decode()
    return {line for line in text.splitlines() if not line.startswith("#")}


def test_a_service_and_its_slice() -> None:
    found = slice_of(endpoint("10.88.0.2", "web-1", ready=True, serving=True, terminating=False))
    got = lines(lambda page: write_services(page, [SERVICE], [found]))
    web = 'namespace="shop",service="web",uid="u1"'
    info = 'cluster_ip="10.96.0.7",external_name="",external_traffic_policy="Cluster",load_balancer_ip=""'
    one = 'namespace="shop",endpointslice="web-x"'
    target = 'targetref_kind="Pod",targetref_name="web-1",targetref_namespace="shop",endpoint_nodename="n"'
    assert got == {
        f"kube_service_info{{{web},{info}}} 1",
        f'kube_service_spec_type{{{web},type="LoadBalancer"}} 1',
        f'kube_service_spec_external_ip{{{web},external_ip="192.0.2.7"}} 1',
        f'kube_service_status_load_balancer_ingress{{{web},ip="192.0.2.1",hostname=""}} 1',
        f'kube_service_labels{{{web},label_a="b"}} 1',
        f"kube_service_created{{{web}}} {UNIX}",
        f'kube_endpointslice_info{{{one},addresstype="IPv4"}} 1',
        f'kube_endpointslice_endpoints{{{one},ready="true",serving="true",terminating="false",{target},'
        'address="10.88.0.2"} 1',
        f'kube_endpointslice_ports{{{one},port_name="http",port_protocol="TCP",port_number="8080"}} 1',
        f'kube_endpointslice_labels{{{one},label_kubernetes_io_service_name="web"}} 1',
    }


def test_endpoints_by_readiness_count_once() -> None:
    """An endpoint without a condition is ready (discovery/v1 types.go: EndpointConditions)."""
    slices = [
        slice_of(
            endpoint("10.88.0.2", ready=True), endpoint("10.88.0.3", ready=False), endpoint("10.88.0.4")
        ),
        slice_of(endpoint("10.88.0.2", ready=True), name="web-y"),
    ]
    none = {"metadata": {"name": "none", "namespace": "shop"}, "spec": {}}
    assert lines(lambda page: write_endpoints(page, [SERVICE, none], slices)) == {
        'kubelite_service_endpoints_ready{namespace="shop",service="web"} 2',
        'kubelite_service_endpoints_not_ready{namespace="shop",service="web"} 1',
        'kubelite_service_endpoints_ready{namespace="shop",service="none"} 0',
        'kubelite_service_endpoints_not_ready{namespace="shop",service="none"} 0',
    }


def test_a_pod_with_an_address_of_each_family_counts_once() -> None:
    four, six = endpoint("10.88.0.2", "web-1"), endpoint("fd00:88::2", "web-1")
    for one in (four, six):
        one["targetRef"]["uid"] = "web-1-uid"
    slices = [slice_of(four), {**slice_of(six, name="web-y"), "addressType": "IPv6"}]
    found = lines(lambda page: write_endpoints(page, [SERVICE], slices))
    assert 'kubelite_service_endpoints_ready{namespace="shop",service="web"} 1' in found


def test_counters_name_the_pod() -> None:
    counted = [
        ServiceCount("shop/web:http/TCP", Endpoint("10.88.0.2", 8080), 1, 20, 3, 40),
        ServiceCount("shop/web:80/UDP", Endpoint("192.0.2.9", 53), 5, 6, 7, 8),
    ]
    slices = [slice_of(endpoint("10.88.0.2", "web-1"))]

    def write(page: Page) -> None:
        write_counts(page, [endpoint_count(one) for one in counted], slices)

    tcp = 'namespace="shop",service="web",port="http",protocol="TCP",endpoint="10.88.0.2:8080",pod="web-1"'
    udp = 'namespace="shop",service="web",port="80",protocol="UDP",endpoint="192.0.2.9:53",pod=""'
    family = "kubelite_service_endpoint"
    assert lines(write) == {
        f"{family}_{word}_total{{{head}}} {value}"
        for head, values in ((tcp, (1, 20, 3, 40)), (udp, (5, 6, 7, 8)))
        for word, value in zip(
            ("receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes"), values, strict=True
        )
    }


def test_a_node_without_services_does_not_load_them() -> None:
    found = "[m for m in sys.modules if m.endswith(('.services', 'services_page'))]"
    code = f"import sys, kubelite.telemetry.metrics.pages; print({found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['kubelite.sources.services']\n"
