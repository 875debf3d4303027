"""The picture of a node's network: what it has of Services, slices and pods, as text and as SVG."""

from __future__ import annotations

import xml.dom.minidom
from typing import Any

from kubelite.network_policies.explanation import Cluster, restricted_pods
from kubelite.services.drawing import as_svg, as_text
from kubelite.services.index import ServiceIndex
from kubelite.services.picture import Picture, picture
from kubelite.services.slices import slices_of
from tests.unit.services.docs import Doc, pod, service

NODE: Doc = {"metadata": {"name": "here"}, "spec": {"podCIDR": "10.88.0.0/16"}}


def drawn(services: list[Doc], pods: list[Doc], more: list[Doc] | None = None) -> Picture:
    slices = list(more or ())
    for one in services:
        index = ServiceIndex()
        index.put_service(one)
        for found in pods:
            index.put_pod(found)
        name = (one["metadata"]["namespace"], one["metadata"]["name"])
        slices += slices_of(one, index.backends(name), ()).create if one["spec"].get("selector") else []
    return picture(NODE, services, slices, pods)


def foreign_slice(name: str, *addresses: str) -> Doc:
    return {
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": 5432, "name": "", "protocol": "TCP"}],
        "endpoints": [{"addresses": [one]} for one in addresses],
    }


def world() -> Picture:
    ports: dict[str, Any] = {"port": 80, "nodePort": 30080}
    legacy = service("legacy", {"port": 5432}, selector=None, clusterIP="10.96.0.9")
    outer = service(
        "outer", type="ExternalName", externalName="db.example.org", selector=None, clusterIP=None
    )
    host, ended = pod(3, app="other", hostNetwork=True), pod(4, app="other", phase="Succeeded")
    open_pod = pod(5, app="other", ports=[{"containerPort": 80, "hostPort": 8080}])
    return drawn(
        [service("web", ports, type="NodePort"), legacy, outer, service("idle", selector={"app": "none"})],
        [pod(1), pod(2, ready=False), host, ended, open_pod],
        [foreign_slice("legacy", "192.0.2.7")],
    )


def test_the_text_says_where_each_port_leads() -> None:
    text = as_text(world())
    lines = text.splitlines()
    assert lines[0] == "Node here, pod network 10.88.0.0/16"
    start = next(number for number, line in enumerate(lines) if line.startswith("default/web NodePort "))
    assert lines[start + 1].startswith("  80:30080/TCP → 10.88.0.3:") and lines[start + 1].endswith("  ready")
    assert lines[start + 2].startswith("               → 10.88.0.4:") and lines[start + 2].endswith(
        "  not ready"
    )
    assert "  5432/TCP → 192.0.2.7:5432  outside  ready" in lines
    assert "default/outer ExternalName db.example.org" in lines
    idle = next(number for number, line in enumerate(lines) if line.startswith("default/idle "))
    assert lines[idle + 1] == "  80/TCP → nothing"
    assert sum(line.endswith("; behind default/web") for line in lines) == 2
    assert any(line.startswith("host network ") for line in lines)
    assert any(line.endswith("; host ports 8080:80/TCP") for line in lines)
    assert "other-4" not in text, "a pod that has ended"


def test_the_svg_has_a_box_for_each_and_a_line_for_each_way() -> None:
    found = world()
    document = xml.dom.minidom.parseString(as_svg(found))
    places = {place for one in found.services for front in one.fronts for place in front.places}
    assert len(places) == 3 == len(document.getElementsByTagName("path"))
    assert len(document.getElementsByTagName("rect")) == len(found.services) + len(found.pods) + 1


def test_a_pod_names_the_policies_that_restrict_it() -> None:
    policy: Doc = {
        "metadata": {"namespace": "default", "name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]},
    }
    other: Doc = {"metadata": {"namespace": "default", "name": "in"}, "spec": {"policyTypes": ["Ingress"]}}
    pods = [pod(1, app="db"), pod(2), pod(3, app="db", hostNetwork=True)]
    found = picture(NODE, [], [], pods, restricted_pods(Cluster([policy, other], pods, ())))
    text = as_text(found).splitlines()
    assert text[2].endswith(
        "; ingress restricted by default/closed, default/in; egress restricted by default/closed"
    )
    assert sum("egress restricted" in line for line in text) == 1
    assert sum("ingress restricted" in line for line in text) == 2, "not one in the host's network"
    assert ">egress restricted by default/closed</text>" in as_svg(found)


def test_names_cannot_leave_their_place_in_the_svg() -> None:
    hostile = service("outer", type="ExternalName", externalName='"><script>', selector=None, clusterIP=None)
    text = as_svg(drawn([hostile], []))
    assert "<script>" not in text
    xml.dom.minidom.parseString(text)


def test_a_node_without_anything_has_a_picture() -> None:
    assert as_text(drawn([], [])) == "Node here, pod network 10.88.0.0/16"
    xml.dom.minidom.parseString(as_svg(drawn([], [])))
