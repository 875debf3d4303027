"""What `kubelite why ingress/…` says."""

from __future__ import annotations

from kubelite.ingress.explanation import explain
from kubelite.ingress.routing import View
from tests.unit.ingress.kit import Doc, backend, endpoint_slice, ingress, path, rule, service

RUNNING: Doc = {
    "status": {"containerStatuses": [{"name": "haproxy", "containerID": "a://b", "state": {"running": {}}}]}
}
WEB = ("default", "web")


def test_where_requests_go() -> None:
    doc = ingress("a", rule("a.example"))
    view = View([doc], {WEB: service()}, {WEB: [endpoint_slice("10.88.0.6")]})
    assert explain(doc, view, [], RUNNING) == ['service "web", port 80: requests go to 10.88.0.6:8080']


def test_what_is_missing() -> None:
    tls = [{"secretName": "s"}]
    doc = ingress("a", rule("a.example"), rule("b.example", path("/", backend("nix"))), tls=tls)
    view = View([doc], {WEB: service()}, {WEB: [endpoint_slice("10.88.0.6", ready=False)]})
    found = explain(doc, view, [], None)
    assert [sentence.partition(":")[0] for sentence in found] == [
        'no service "nix" exists in namespace default',
        'no secret "s" exists in namespace default',
        'service "web", port 80 has no ready endpoints',
        "the proxy's pod kube-system/kubelite-ingress does not exist yet",
    ]
    assert "does not run" in explain(doc, view, [], {"status": {}})[-1]


def test_a_class_that_nobody_serves() -> None:
    doc = ingress("a", rule("a.example"), ingressClassName="nginx")
    (said,) = explain(doc, View([doc]), [], RUNNING)
    assert said.startswith('no IngressClass "nginx" exists')
