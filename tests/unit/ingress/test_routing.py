"""Which requests go where, and what is said about the others."""

from __future__ import annotations

import pytest

from kubelite.ingress.classes import default_class, not_served
from kubelite.ingress.model import CONTROLLER, Backend, Certificate, Endpoint, Route
from tests.unit.ingress.kit import (
    Doc,
    backend,
    endpoint_slice,
    ingress,
    path,
    routing,
    rule,
    service,
)


def test_rules_become_routes_and_backends() -> None:
    found = routing(
        ingress("a", rule("a.example", path("/x/"), path("/x", backend(port="http"), "Exact"))),
        slices={("default", "web"): [endpoint_slice("10.88.0.6", "10.88.0.7")]},
    )
    assert found.routes == (
        Route("a.example", "/x", False, "default_web_80"),
        Route("a.example", "/x", True, "default_web_80"),
    )
    endpoints = (Endpoint("10.88.0.6", 8080), Endpoint("10.88.0.7", 8080))
    assert found.backends == (Backend("default_web_80", endpoints),) and not found.problems


def test_a_path_that_the_controller_may_read_as_it_likes_is_a_prefix() -> None:
    found = routing(ingress("a", rule("", {"pathType": "ImplementationSpecific", "backend": backend()})))
    assert found.routes == (Route("", "", False, "default_web_80"),)


@pytest.mark.parametrize(
    ("to", "services", "sentence"),
    [
        (backend("nix"), [service()], 'no service "nix" exists in namespace default'),
        (backend(port=81), [service()], 'service "web" has no port 81'),
        (backend(port="https"), [service()], 'service "web" has no port https'),
        (backend(), [service(type="ExternalName")], 'service "web" is of type ExternalName'),
        (backend(), [service("web", {"port": 80, "protocol": "UDP"})], 'service "web" has no port 80'),
        ({"resource": {"kind": "A", "name": "b"}}, [service()], "a backend that is no Service"),
    ],
)
def test_a_route_without_a_service_is_told(to: Doc, services: list[Doc], sentence: str) -> None:
    found = routing(ingress("a", rule("a.example", path("/", to))), services=services)
    assert found.routes == (Route("a.example", "", False, ""),) and not found.backends
    ((said,),) = found.problems.values()
    assert said.startswith(sentence)


@pytest.mark.parametrize("value", ["/a b", "/a\n/b other", "/ä", "/a?b", "/a#b", "/\x00", "a"])
def test_a_path_that_no_request_has_is_no_route(value: str) -> None:
    found = routing(ingress("a", rule("a.example", path(value))))
    assert not found.routes and found.problems["uid-a"][0].startswith("no request has the path")


def test_the_older_ingress_keeps_its_path() -> None:
    old, new = ingress("b", rule("a.example")), ingress("a", rule("a.example", path("/", backend("other"))))
    new["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    found = routing(new, old, services=[service(), service("other")])
    assert [route.backend for route in found.routes] == ["default_web_80"]
    assert found.problems == {
        "uid-a": ("path / of a.example: the rule of the older ingress default/b applies",)
    }


def test_a_default_backend_is_for_the_hosts_of_its_ingress_and_for_every_other() -> None:
    found = routing(
        ingress("a", {"host": "a.example"}, defaultBackend=backend()),
        ingress("b", {"host": "b.example"}, defaultBackend=backend("other")),
        services=[service(), service("other")],
    )
    assert found.defaults == {
        "": "default_web_80",
        "a.example": "default_web_80",
        "b.example": "default_other_80",
    }


def test_certificates_are_those_of_secrets() -> None:
    tls = [{"hosts": ["b.example", "a.example"], "secretName": "one"}, {"hosts": ["c.example"]}]
    found = routing(ingress("a", rule("a.example"), tls=tls), pems={("default", "one"): b"PEM"})
    assert found.certificates == (Certificate("default_one", b"PEM", ("a.example", "b.example")),)
    assert not found.problems
    missing = routing(ingress("a", rule("a.example"), tls=tls))
    assert missing.problems["uid-a"] == (
        'no secret "one" exists in namespace default: hosts get the default certificate',
    )


def test_annotations_of_other_controllers_are_told() -> None:
    doc = ingress("a", rule("a.example"))
    doc["metadata"]["annotations"] = {"nginx.ingress.kubernetes.io/rewrite-target": "/", "mine": "x"}
    assert routing(doc).problems["uid-a"] == (
        "annotations of other controllers have no effect here: nginx.ingress.kubernetes.io/rewrite-target",
    )


def a_class(name: str, controller: str, *, default: bool = False, created: str = "") -> Doc:
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    metadata = {"name": name, "annotations": annotations, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"controller": controller}}


OURS, THEIRS = a_class("ours", CONTROLLER), a_class("theirs", "b.example/x")


@pytest.mark.parametrize(
    ("named", "classes", "sentence"),
    [
        ("", [], ""),
        ("", [OURS, THEIRS], ""),
        ("", [a_class("d", CONTROLLER, default=True)], ""),
        (
            "",
            [a_class("d", "b.example/x", default=True)],
            'the default class "d" is of controller b.example/x',
        ),
        ("kubelite", [], ""),
        (
            "kubelite",
            [a_class("kubelite", "b.example/x")],
            'the class "kubelite" is of controller b.example/x',
        ),
        ("ours", [OURS], ""),
        ("theirs", [OURS, THEIRS], 'the class "theirs" is of controller b.example/x'),
        (
            "nginx",
            [OURS],
            'no IngressClass "nginx" exists: create one with `controller: kubelite.io/ingress`',
        ),
    ],
)
@pytest.mark.parametrize("by_annotation", [False, True])
def test_classes(named: str, classes: list[Doc], sentence: str, by_annotation: bool) -> None:
    doc = ingress("a", rule("a.example"))
    if by_annotation:
        doc["metadata"]["annotations"] = {"kubernetes.io/ingress.class": named}
    elif named:
        doc["spec"]["ingressClassName"] = named
    said = not_served(doc, classes)
    assert said.startswith(sentence) and bool(said) == bool(sentence)


def test_the_newest_default_class_counts() -> None:
    """Kubernetes: plugin/pkg/admission/network/defaultingressclass, getDefaultClass."""
    old, new = (a_class(name, CONTROLLER, default=True, created=name) for name in ("2025", "2026"))
    same = a_class("1999", CONTROLLER, default=True, created="2026")
    assert default_class([old, new]) == new and default_class([old, new, same]) == same
    assert default_class([OURS]) is None
