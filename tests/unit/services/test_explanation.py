"""What `kubelite why service/web` says."""

from __future__ import annotations

import pytest

from kubelite.services.explanation import explain
from tests.unit.services.docs import Doc, pod, service

NAMED: Doc = {"port": 80, "targetPort": "http"}
HTTP: Doc = {"name": "http", "containerPort": 8080}


@pytest.mark.parametrize(
    ("doc", "pods", "said"),
    [
        (service(), [], ["no pod matches its selector app=web: the namespace has no pods"]),
        (service(), [pod(1, app="db")], ["no pod matches its selector app=web"]),
        (
            service(selector={"app": "web", "tier": "front"}),
            [pod(1)],
            [
                "no pod matches its selector app=web,tier=front: pod web-1 has 1 of 2 labels, and no label tier"
            ],
        ),
        (
            service(),
            [pod(1), pod(2)],
            ["2 of 2 pods that it selects get traffic: web-1, web-2"],
        ),
        (
            service(),
            [pod(1, ready=False), pod(2, terminating=True), pod(3, ip="", phase="Pending")],
            [
                "pod web-1 is not ready: its condition Ready is False",
                "pod web-2 is terminating",
                "pod web-3 has no address yet (phase Pending): `kubelite why web-3` explains why",
            ],
        ),
        (
            service("web", NAMED),
            [pod(1, ports=[{**HTTP, "name": "www"}]), pod(2)],
            [
                "pod web-1 has no port named http: its containers name www",
                "pod web-2 has no port named http: its containers name no ports",
            ],
        ),
        (
            service(type="ExternalName", externalName="db.example.org"),
            [],
            ["it is another name for db.example.org, and has no address and no endpoints"],
        ),
    ],
)
def test_explanations(doc: Doc, pods: list[Doc], said: list[str]) -> None:
    assert explain(doc, pods, []) == said


def test_a_service_without_a_selector() -> None:
    (said,) = explain(service(selector=None), [], [])
    assert "no Endpoints or EndpointSlice says where its traffic goes" in said
    piece = {"endpoints": [{"addresses": ["192.0.2.1"]}]}
    assert explain(service(selector=None), [], [piece]) == [
        "it has no selector: its EndpointSlices name 192.0.2.1"
    ]


def test_pods_that_lack_an_address_of_a_family() -> None:
    new = "a pod gets its addresses when it is created; delete it, so that a new one replaces it"
    both = service(ipFamilies=["IPv4", "IPv6"])
    assert explain(both, [pod(1)], []) == [
        "1 of 1 pods that it selects get traffic: web-1",
        f"pod web-1 gets no traffic by IPv6, because it has no such address: {new}",
    ]
    six = service(ipFamilies=["IPv6"])
    assert explain(six, [pod(1)], []) == [
        f"pod web-1 has no IPv6 address, and the service has no other: {new}"
    ]
