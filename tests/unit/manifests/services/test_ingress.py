"""Ingress and IngressClass: defaults, rules, and what an edit must not change.

Rows follow Kubernetes 1.36, pkg/apis/networking/validation/validation_test.go (TestValidateIngressCreate,
TestValidateIngress, TestValidateIngressTLS, TestValidateIngressClass).
"""

from __future__ import annotations

from typing import Any

import pytest

from manifests.validation.workloads.kinds import workload_update_problems
from tests.unit.manifests.workloads.kit import Doc, altered, defaulted, document, one, problems, read

BACKEND: Doc = {"service": {"name": "web", "port": {"number": 80}}}
PATH = "spec.rules[0].http.paths[0]"


def ingress(*paths: Doc, host: Any = "foo.bar.com", **changed: Any) -> Doc:
    rule: Doc = {"http": {"paths": list(paths) or [path("/foo")]}}
    return document("Ingress", {"rules": [{"host": host, **rule} if host else rule]}, **changed)


def path(value: str, kind: str = "Exact", **backend: Any) -> Doc:
    return {"path": value, "pathType": kind, "backend": backend or BACKEND}


def ingress_class(**spec: Any) -> Doc:
    return document("IngressClass", {"controller": "foo.co/bar", **spec})


@pytest.mark.parametrize(
    "doc",
    [
        ingress(),
        ingress(host="*.bar.com"),
        ingress(host=""),
        ingress(path("", "ImplementationSpecific")),
        ingress(path("/[a-z]+ {}", "ImplementationSpecific")),
        ingress(path("/foo/...", "Prefix")),
        document("Ingress", {"defaultBackend": BACKEND}),
        document("Ingress", {"rules": [{"host": "a.example"}]}),
        ingress(**{"spec.tls": [{"hosts": ["foo.bar.com", "*.bar.com"], "secretName": "tls"}, {}]}),
        ingress(**{"metadata.annotations": {"kubernetes.io/ingress.class": "foo"}}),
        ingress(
            **{
                "metadata.annotations": {"kubernetes.io/ingress.class": "foo"},
                "spec.ingressClassName": "foo",
            }
        ),
    ],
)
def test_what_kubernetes_accepts(doc: Doc) -> None:
    defaulted(doc)


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (
            document("Ingress", {}),
            "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified",
        ),
        (ingress(host="127.0.0.1:80"), 'spec.rules[0].host: Invalid value: "127.0.0.1:80": a lowercase RFC'),
        (ingress(host="127.0.0.1"), 'spec.rules[0].host: Invalid value: "127.0.0.1": must be a DNS name'),
        (ingress(host="foo.*.com"), 'spec.rules[0].host: Invalid value: "foo.*.com": a wildcard DNS-1123'),
        (ingress(host="*"), 'spec.rules[0].host: Invalid value: "*": a wildcard DNS-1123'),
        (ingress(host="Foo.com"), 'spec.rules[0].host: Invalid value: "Foo.com": a lowercase RFC'),
        (ingress(path("foo")), f'{PATH}.path: Invalid value: "foo": must be an absolute path'),
        (ingress(path("", "Prefix")), f'{PATH}.path: Invalid value: "": must be an absolute path'),
        (ingress(path("/foo//bar")), f"{PATH}.path: Invalid value: \"/foo//bar\": must not contain '//'"),
        (
            ingress(path("/foo/../x", "Prefix")),
            f"{PATH}.path: Invalid value: \"/foo/../x\": must not contain '/../'",
        ),
        (ingress(path("/a%2fb")), f"{PATH}.path: Invalid value: \"/a%2fb\": must not contain '%2f'"),
        (ingress(path("/foo/..")), f"{PATH}.path: Invalid value: \"/foo/..\": cannot end with '/..'"),
        (ingress(path("/foo/.")), f"{PATH}.path: Invalid value: \"/foo/.\": cannot end with '/.'"),
        (
            ingress(path("x", "ImplementationSpecific")),
            f'{PATH}.path: Invalid value: "x": must be an absolute path',
        ),
        (
            ingress(path("/", "Regex")),
            f'{PATH}.pathType: Unsupported value: "Regex": supported values: "Exac',
        ),
        (
            ingress({"path": "/", "backend": BACKEND}),
            f"{PATH}.pathType: Required value: pathType must be spec",
        ),
        (ingress(**{"spec.rules.0.http.paths": []}), "spec.rules[0].http.paths: Required value"),
        (
            ingress({"path": "/", "pathType": "Exact", "backend": {}}),
            f'{PATH}.backend: Invalid value: "": resource or service backend is required',
        ),
        (
            ingress(path("/", service=BACKEND["service"], resource={"kind": "A", "name": "a"})),
            f'{PATH}.backend: Invalid value: "": cannot set both resource and service backends',
        ),
        (
            ingress(path("/", resource={"kind": "StorageBucket", "name": "a"})),
            f"{PATH}.backend.resource: Forbidden: kubelite serves no backends other than Services",
        ),
        (
            ingress(path("/", service={"name": "", "port": {"number": 80}})),
            f"{PATH}.backend.service.name: Required value",
        ),
        (
            ingress(path("/", service={"name": "_", "port": {"number": 80}})),
            f'{PATH}.backend.service.name: Invalid value: "_": a DNS-1035',
        ),
        (
            ingress(path("/", service={"name": "a"})),
            f"{PATH}.backend: Required value: port name or number is required",
        ),
        (
            ingress(path("/", service={"name": "a", "port": {"name": "b", "number": 1}})),
            f'{PATH}.backend: Invalid value: "": cannot set both port name & port number',
        ),
        (
            ingress(path("/", service={"name": "a", "port": {"number": 70000}})),
            f"{PATH}.backend.service.port.number: Invalid value: 70000: must be between",
        ),
        (
            ingress(path("/", service={"name": "a", "port": {"name": "B b"}})),
            f'{PATH}.backend.service.port.name: Invalid value: "B b": must contain only',
        ),
        (
            document("Ingress", {"defaultBackend": {"service": {"name": "a"}}}),
            "spec.defaultBackend: Required value: port name or number is required",
        ),
        (ingress(**{"spec.tls": [{"hosts": ["a b"]}]}), 'spec.tls[0].hosts[0]: Invalid value: "a b": a low'),
        (
            ingress(**{"spec.tls": [{"hosts": ["*.a.*"]}]}),
            'spec.tls[0].hosts[0]: Invalid value: "*.a.*": a wildc',
        ),
        (
            ingress(**{"spec.tls": [{"secretName": "a/b"}]}),
            'spec.tls[0].secretName: Invalid value: "a/b": a low',
        ),
        (ingress(**{"spec.ingressClassName": "A b"}), 'spec.ingressClassName: Invalid value: "A b": a low'),
        (
            ingress(
                **{
                    "metadata.annotations": {"kubernetes.io/ingress.class": "foo"},
                    "spec.ingressClassName": "b",
                }
            ),
            'metadata.annotations[kubernetes.io/ingress.class]: Invalid value: "foo": must match',
        ),
        (ingress_class(controller=None), "spec.controller: Required value"),
        (ingress_class(controller="foo"), 'spec.controller: Invalid value: "foo": must be a domain-prefixed'),
        (
            ingress_class(controller="foo.co/bar{}"),
            'spec.controller: Invalid value: "bar{}": Invalid path (e.g. ',
        ),
        (ingress_class(controller=f"foo.co/{'a' * 250}"), "spec.controller: Too long"),
        (ingress_class(parameters={"name": "a", "kind": "/"}), "spec.parameters.kind: Invalid value"),
        (
            ingress_class(parameters={"name": "a", "kind": "k", "scope": "Node"}),
            'spec.parameters.scope: Unsupported value: "Node"',
        ),
        (
            ingress_class(parameters={"name": "a", "kind": "k", "scope": "Namespace"}),
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ),
        (
            ingress_class(parameters={"name": "a", "kind": "k", "namespace": "a"}),
            "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
        ),
    ],
)
def test_what_kubernetes_refuses(doc: Doc, sentence: str) -> None:
    found = problems(doc)
    # An address with a port is two problems of one field, as in Kubernetes.
    assert found and found[0].startswith(sentence), found


def test_parameters_are_of_the_cluster_by_default() -> None:
    found = defaulted(ingress_class(parameters={"name": "a", "kind": "k"}))
    assert found["spec"]["parameters"]["scope"] == "Cluster"
    one(problems(altered(found, {"metadata.namespace": "a"})), "metadata.namespace: Forbidden")


def test_the_controller_of_a_class_cannot_change() -> None:
    old, _ = read(ingress_class())
    new, _ = read(ingress_class(controller="a.example/other"))
    assert old is not None and new is not None
    assert [str(found) for found in workload_update_problems(old, new)] == [
        'spec.controller: Invalid value: "a.example/other": field is immutable'
    ]
    assert not workload_update_problems(old, old)
