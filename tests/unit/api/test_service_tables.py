"""Tables of Services, Endpoints and EndpointSlices, as kubectl prints them. Rows follow Kubernetes 1.36:
pkg/printers/internalversion/printers_test.go (TestPrintService, TestPrintEndpoint, TestPrintEndpointSlice)."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.api.kube.printers import table
from tests.unit.services.docs import Doc, service


def cells(kind: str, doc: Doc) -> list[Any]:
    found = table(kind, [doc], now=0.0, resource_version=1)
    row: list[Any] = found["rows"][0]["cells"]
    assert len(row) == len(found["columnDefinitions"])
    return row


PORT: Doc = {"port": 80, "nodePort": 30080, "protocol": "TCP"}
UDP: Doc = {"port": 53, "protocol": "UDP"}


@pytest.mark.parametrize(
    ("doc", "shown"),
    [
        (service(), ["ClusterIP", "10.96.0.7", "<none>", "80/TCP"]),
        (
            service("web", PORT, UDP, type="NodePort"),
            ["NodePort", "10.96.0.7", "<none>", "80:30080/TCP,53/UDP"],
        ),
        (service(externalIPs=["203.0.113.1"]), ["ClusterIP", "10.96.0.7", "203.0.113.1", "80/TCP"]),
        (service(type="LoadBalancer"), ["LoadBalancer", "10.96.0.7", "<pending>", "80/TCP"]),
        (
            service(
                type="ExternalName",
                clusterIP=None,
                clusterIPs=None,
                ports=None,
                externalName="db.example.org",
            ),
            ["ExternalName", "<none>", "db.example.org", "<none>"],
        ),
        (service(clusterIP="None", clusterIPs=["None"]), ["ClusterIP", "None", "<none>", "80/TCP"]),
    ],
)
def test_services(doc: Doc, shown: list[str]) -> None:
    assert cells("Service", doc)[1:5] == shown
    assert cells("Service", doc)[6] == "app=web"


def test_the_address_of_a_load_balancer() -> None:
    doc = service(type="LoadBalancer", externalIPs=["203.0.113.1"])
    doc["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}
    assert cells("Service", doc)[3] == "198.51.100.1,203.0.113.1"


def test_endpoints_and_slices_name_the_first_three() -> None:
    addresses = [{"ip": f"10.0.0.{number}"} for number in range(1, 6)]
    doc = {"metadata": {"name": "web"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}
    assert cells("Endpoints", doc)[1] == "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
    assert cells("Endpoints", {"metadata": {"name": "web"}})[1] == "<none>"
    six = {"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}
    assert cells("Endpoints", {"metadata": {"name": "web"}, "subsets": [six]})[1] == "[fd00::1]:80"
    piece = {
        "metadata": {"name": "web-x"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [one["ip"]]} for one in addresses],
        "ports": [{"port": 80}, {"name": "any"}],
    }
    assert cells("EndpointSlice", piece)[1:4] == ["IPv4", "80,*", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more..."]
    assert cells("EndpointSlice", {"metadata": {"name": "x"}, "endpoints": []})[2:4] == ["<unset>", "<unset>"]
