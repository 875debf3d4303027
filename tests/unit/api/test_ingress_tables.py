"""Tables and descriptions of Ingresses, as kubectl prints them. Rows follow Kubernetes 1.36:
pkg/printers/internalversion/printers_test.go (TestPrintIngress, TestPrintIngressClass)."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.api.kube.printers import table
from kubelite.cli.describe.ingress import describe_class, describe_ingress

Doc = dict[str, Any]
BACKEND: Doc = {"service": {"name": "svc", "port": {"number": 93}}}


def cells(kind: str, doc: Doc) -> list[Any]:
    found = table(kind, [doc], now=0.0, resource_version=1)
    row: list[Any] = found["rows"][0]["cells"]
    assert len(row) == len(found["columnDefinitions"])
    return row


def ingress(*hosts: str, address: str = "", **spec: Any) -> Doc:
    rules = [{"host": host, "http": {"paths": [{"path": "/", "backend": BACKEND}]}} for host in hosts]
    status = {"loadBalancer": {"ingress": [{"ip": address}]}} if address else {}
    return {
        "metadata": {"name": "test1", "namespace": "a"},
        "spec": {"rules": rules, **spec},
        "status": status,
    }


@pytest.mark.parametrize(
    ("doc", "shown"),
    [
        (ingress(), ["test1", "<none>", "*", "", "80"]),
        (ingress("a.x", ingressClassName="foo", address="1.2.3.4"), ["test1", "foo", "a.x", "1.2.3.4", "80"]),
        (
            ingress("a.x", "b.x", "c.x", "d.x", tls=[{}]),
            ["test1", "<none>", "a.x,b.x,c.x + 1 more...", "", "80, 443"],
        ),
    ],
)
def test_ingresses(doc: Doc, shown: list[str]) -> None:
    assert cells("Ingress", doc)[:-1] == shown


def test_classes() -> None:
    parameters = {"apiGroup": "example.com", "kind": "customgroup", "name": "example"}
    doc: Doc = {"metadata": {"name": "a"}, "spec": {"controller": "example.com/c"}}
    assert cells("IngressClass", doc)[:-1] == ["a", "example.com/c", "<none>"]
    doc["spec"]["parameters"] = parameters
    assert cells("IngressClass", doc)[2] == "customgroup.example.com/example"
    assert "Controller:   example.com/c" in describe_class(doc, None, 0.0)


def test_a_description() -> None:
    doc = ingress("a.x", tls=[{"hosts": ["a.x"], "secretName": "s"}, {"hosts": ["b.x"]}], address="1.2.3.4")
    text = describe_ingress(doc, lambda service: f"10.0.0.1:{service['port']['number']}", None, 0.0)
    lines = [line.rstrip() for line in text.splitlines()]
    for line in (
        "Address:          1.2.3.4",
        "Ingress Class:    <none>",
        "Default backend:  <default>",
        "  s terminates a.x",
        "  SNI routes b.x",
        "  Host        Path  Backends",
    ):
        assert line in lines, text
    assert any(line.split() == ["/", "svc:93", "(10.0.0.1:93)"] for line in lines)
    bare = describe_ingress(ingress(defaultBackend=BACKEND), lambda _service: "<none>", None, 0.0)
    assert "Default backend:  svc:93 (<none>)" in bare and "  *           *     svc:93 (<none>)" in bare
