"""The Services that `create service` and `expose` write, those of a port-forward, and `describe`. Rows follow kubectl
1.36: pkg/cmd/create/create_service_test.go, pkg/cmd/expose/expose_test.go, pkg/cmd/portforward/portforward_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.containers.service_ports import pod_ports
from kubelite.cli.create.service_documents import exposed, external_name, service, tcp_ports
from kubelite.cli.describe.services import describe_service
from kubelite.cli.errors import CliError
from tests.unit.services import docs

Doc = dict[str, Any]
OPTIONS: Doc = {
    "selector": {}, "name": "", "labels": {}, "type": None, "cluster_ip": "", "session_affinity": "",
    "external_ip": "", "protocol": None, "target_port": "", "port": "",
}  # fmt: skip
DEPLOYMENT: Doc = {
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"tier": "front"}},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"spec": {"containers": [{"ports": [{"containerPort": 8080}]}]}},
    },
}


def test_create_service() -> None:
    made = service("web", None, "nodeport", tcp_ports(["80:8080"], 30080))
    assert made == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "type": "NodePort",
            "selector": {"app": "web"},
            "ports": [
                {"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}
            ],
        },
    }
    assert tcp_ports(["80:http", "443"], 0)[0]["targetPort"] == "http"
    assert external_name("db", "x", "db.example.org", [])["spec"]["externalName"] == "db.example.org"
    with pytest.raises(CliError, match="invalid port"):
        tcp_ports(["http"], 0)


@pytest.mark.parametrize(
    ("options", "spec"),
    [
        ({}, {"ports": [{"port": 8080, "protocol": "TCP", "targetPort": 8080}]}),
        (
            {"port": "80", "target_port": "http", "type": "NodePort"},
            {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]},
        ),
        (
            {"port": "80,443", "protocol": "UDP"},
            {
                "ports": [
                    {"name": "port-1", "port": 80, "protocol": "UDP", "targetPort": 80},
                    {"name": "port-2", "port": 443, "protocol": "UDP", "targetPort": 443},
                ]
            },
        ),
    ],
)
def test_expose(options: Doc, spec: Doc) -> None:
    made = exposed(DEPLOYMENT, None, OPTIONS | options)
    assert made["metadata"] == {"name": "web", "labels": {"tier": "front"}}
    assert made["spec"] == {"selector": {"app": "web"}, **spec}


def test_what_cannot_be_exposed() -> None:
    bare = {"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{}]}}
    with pytest.raises(CliError, match="has none"):
        exposed(bare, None, OPTIONS)
    with pytest.raises(CliError, match="find port"):
        exposed({**bare, "metadata": {"name": "web", "labels": {"a": "b"}}}, None, OPTIONS)


def test_ports_of_a_service_are_those_of_the_pod() -> None:
    web = docs.service("web", {"name": "http", "port": 80, "targetPort": "www"}, {"name": "raw", "port": 81})
    pod = docs.pod(1, ports=[{"name": "www", "containerPort": 8080}])
    assert pod_ports(["9000:80", "http", ":81"], web, pod) == ("9000:8080", "80:8080", ":81")
    with pytest.raises(CliError, match="does not have a service port 82"):
        pod_ports(["82"], web, pod)
    with pytest.raises(CliError, match="no port named www"):
        pod_ports(["80"], web, docs.pod(2))


def test_describe() -> None:
    pieces = [
        {
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.88.0.2"]},
                {"addresses": ["10.88.0.3"], "conditions": {"ready": False}},
            ],
        }
    ]
    said = describe_service(docs.service(), pieces, None, 0.0)
    assert [
        line.split() for line in said.splitlines() if line.startswith(("IP:", "Port:", "Endpoints:"))
    ] == [
        ["IP:", "10.96.0.7"],
        ["Port:", "<unset>", "80/TCP"],
        ["Endpoints:", "10.88.0.2:8080"],
    ]
