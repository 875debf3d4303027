"""Roles and bindings, evaluated as Kubernetes does (pkg/registry/rbac/validation/rule.go, evaluation_helpers.go)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from kubelite.api.kube.resources import RESOURCES
from kubelite.api.rbac.authorizer import attributes_of, refusal
from kubelite.api.rbac.defaults import cluster_role_bindings, cluster_roles
from kubelite.api.rbac.rules import Attributes, Roles, matches
from kubelite.api.secure.users import ANONYMOUS, AUTHENTICATED, MASTERS, READERS, User
from kubelite.kube.json import Json

JANE = User("jane", ("dev", AUTHENTICATED))
PODS = Attributes("get", "", "pods", "", "shop", "web")


def rule(
    verbs: str = "get", groups: str = ",", resources: str = "pods", names: str = "", urls: str = ""
) -> Json:
    return {
        "verbs": verbs.split(), "apiGroups": groups.split(","), "resources": resources.split(),
        "resourceNames": names.split(), "nonResourceURLs": urls.split(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "request_", "allowed"),
    [
        (rule(), PODS, True),
        (rule("*"), PODS, True),
        (rule("list"), PODS, False),
        (rule(groups="apps"), PODS, False),
        (rule(groups="*"), PODS, True),
        (rule(resources="*"), PODS, True),
        (rule(resources="services"), PODS, False),
        (rule(names="web"), PODS, True),
        (rule(names="db"), PODS, False),
        (rule(names="web"), PODS._replace(name=""), False),
        (rule(), PODS._replace(subresource="log"), False),
        (rule(resources="pods/log"), PODS._replace(subresource="log"), True),
        (rule(resources="*/log"), PODS._replace(subresource="log"), True),
        (rule(resources="*/log"), PODS, False),
        (rule(resources="*"), PODS._replace(subresource="exec"), True),
        (rule(), Attributes("get", path="/metrics"), False),
        (rule(urls="/metrics"), Attributes("get", path="/metrics"), True),
        (rule(urls="/api/*"), Attributes("get", path="/api/v1"), True),
        (rule(urls="/api/*"), Attributes("get", path="/api"), False),
        (rule(urls="*"), Attributes("get", path="/x"), True),
        (rule(urls="*"), Attributes("post", path="/x"), False),
        ({}, PODS, False),
    ],
)
def test_what_a_rule_allows(given: Json, request_: Attributes, allowed: bool) -> None:
    assert matches(given, request_) == allowed


def binding(kind: str, name: str, *subjects: Json, namespace: str = "") -> Json:
    metadata: Json = {"name": "b", **({"namespace": namespace} if namespace else {})}
    return {"metadata": metadata, "roleRef": {"kind": kind, "name": name}, "subjects": list(subjects)}


def user(name: str) -> Json:
    return {"kind": "User", "name": name}


def everyone(*more: Json) -> Roles:
    roles = {("shop", "reader"): {"rules": [rule(), rule(urls="*")]}}
    local = [one for one in more if "namespace" in one["metadata"]]
    cluster = [
        *cluster_role_bindings().values(),
        *(one for one in more if "namespace" not in one["metadata"]),
    ]
    return Roles(cluster_roles(), cluster, roles, local)


@pytest.mark.parametrize(
    ("bound", "who", "allowed"),
    [
        (binding("Role", "reader", user("jane"), namespace="shop"), JANE, True),
        (binding("Role", "reader", user("jo"), namespace="shop"), JANE, False),
        (binding("Role", "reader", {"kind": "Group", "name": "dev"}, namespace="shop"), JANE, True),
        (binding("Role", "reader", user("jane"), namespace="other"), JANE, False),
        (binding("Role", "nix", user("jane"), namespace="shop"), JANE, False),
        (binding("ClusterRole", "view", user("jane"), namespace="shop"), JANE, True),
        (binding("ClusterRole", "view", user("jane")), JANE, True),
        (binding("ClusterRole", "reader", user("jane"), namespace="shop"), JANE, False),
        (
            binding("Role", "reader", {"kind": "ServiceAccount", "name": "bot"}, namespace="shop"),
            User("system:serviceaccount:shop:bot"),
            True,
        ),
        (
            binding(
                "Role",
                "reader",
                {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"},
                namespace="shop",
            ),
            User("system:serviceaccount:ci:bot"),
            True,
        ),
        (binding("ClusterRole", "view", {"kind": "ServiceAccount", "name": "bot"}), User("x"), False),
        (binding("ClusterRole", "view"), JANE, False),
    ],
)
def test_who_has_a_role(bound: Json, who: User, allowed: bool) -> None:
    assert everyone(bound).allow(who, PODS) == allowed


def test_a_role_of_a_namespace_gives_no_path() -> None:
    bound = binding("Role", "reader", user("jane"), namespace="shop")
    assert not everyone(bound).allow(JANE, Attributes("get", path="/metrics", namespace="shop"))


@pytest.mark.parametrize(
    ("role", "request_", "allowed"),
    [
        ("view", PODS, True),
        ("view", PODS._replace(verb="delete"), False),
        ("view", Attributes("get", "", "secrets", "", "shop", "a"), False),
        ("view", PODS._replace(verb="create", subresource="exec"), False),
        ("edit", Attributes("get", "", "secrets", "", "shop", "a"), True),
        ("edit", Attributes("patch", "apps", "deployments", "scale", "shop", "a"), True),
        ("edit", PODS._replace(verb="create", subresource="exec"), True),
        ("edit", Attributes("create", "rbac.authorization.k8s.io", "roles", "", "shop"), False),
        ("admin", Attributes("create", "rbac.authorization.k8s.io", "roles", "", "shop"), True),
        ("admin", Attributes("escalate", "rbac.authorization.k8s.io", "roles", "", "shop"), False),
        ("admin", Attributes("delete", "", "nodes", "", "", "n"), False),
        ("cluster-admin", Attributes("escalate", "rbac.authorization.k8s.io", "roles", "", "shop"), True),
        ("cluster-admin", Attributes("get", path="/x"), True),
    ],
)
def test_the_roles_of_every_node(role: str, request_: Attributes, allowed: bool) -> None:
    assert everyone(binding("ClusterRole", role, user("jane"))).allow(JANE, request_) == allowed


def test_a_role_with_the_label_adds_to_view_edit_and_admin() -> None:
    added = {
        "metadata": {"name": "x", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [rule(groups="example.com", resources="things")],
    }
    request_ = Attributes("get", "example.com", "things", "", "shop", "a")
    for role in ("view", "edit", "admin"):
        known = everyone(binding("ClusterRole", role, user("jane")))
        assert not known.allow(JANE, request_)
        assert known._replace(cluster_roles={**known.cluster_roles, "x": added}).allow(JANE, request_)


def test_roles_that_aggregate_each_other_end() -> None:
    def both(name: str, other: str) -> Json:
        selector = {"matchLabels": {"to": name}}
        labels = {"to": other}
        return {
            "metadata": {"name": name, "labels": labels},
            "aggregationRule": {"clusterRoleSelectors": [selector]},
        }

    known = Roles(
        {"a": both("a", "b"), "b": both("b", "a")}, [binding("ClusterRole", "a", user("jane"))], {}, []
    )
    assert not known.allow(JANE, PODS)


def test_readers_read_every_kind_but_secrets() -> None:
    known, reader = everyone(), User("otto", (READERS, AUTHENTICATED))
    for one in RESOURCES.values():
        group = one.group_version.rpartition("/")[0]
        wanted = Attributes("list", group, one.plural, "", "shop" if one.namespaced else "")
        assert known.allow(reader, wanted) == (one.kind != "Secret"), one.plural
        assert not known.allow(reader, wanted._replace(verb="create"))


def test_everybody_sees_the_version_and_users_the_discovery() -> None:
    version, api = Attributes("get", path="/version"), Attributes("get", path="/apis/apps/v1")
    known = everyone()
    assert known.allow(ANONYMOUS, version) and not known.allow(ANONYMOUS, api)
    assert known.allow(JANE, api) and not known.allow(JANE, PODS)
    assert known.allow(User("root", (MASTERS,)), PODS)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/namespaces/shop/pods", Attributes("list", "", "pods", "", "shop")),
        ("DELETE", "/api/v1/namespaces/shop/pods", Attributes("deletecollection", "", "pods", "", "shop")),
        ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/scale",
         Attributes("patch", "apps", "deployments", "scale", "shop", "web")),
        ("GET", "/api/v1/namespaces/shop", Attributes("get", "", "namespaces", "", "shop", "shop")),
        ("PUT", "/api/v1/namespaces/shop/finalize",
         Attributes("update", "", "namespaces", "finalize", "shop", "shop")),
        ("GET", "/apis/apps", Attributes("get", path="/apis/apps")),
        ("POST", "/version", Attributes("create", path="/version")),
    ],
)  # fmt: skip
def test_what_a_request_does(method: str, path: str, expected: Attributes) -> None:
    scope: Any = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    assert attributes_of(scope) == expected


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ("metadata.name=a", "a"),
        ("metadata.name==a,type=Opaque", "a"),
        ("metadata.name!=a", ""),
        ("type=a", ""),
        ("metadata.name=a,metadata.name=b", ""),
    ],
)
def test_a_list_of_one_name_is_about_that_name(fields: str, name: str) -> None:
    """Source: apiserver pkg/endpoints/request/requestinfo.go: a rule with resourceNames allows to watch its objects."""
    query = f"fieldSelector={quote(fields)}".encode()
    path = "/api/v1/namespaces/default/secrets"
    scope: Any = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    assert attributes_of(scope) == Attributes("list", "", "secrets", "", "default", name)
    for method in ("DELETE", "POST"):  # resourceNames restrict neither deletecollection nor create
        assert attributes_of({**scope, "method": method}).name == ""


def test_the_words_of_a_refusal() -> None:
    scale = Attributes("patch", "apps", "deployments", "scale", "shop", "web")
    assert refusal(JANE, scale) == (
        'deployments.apps "web" is forbidden: '
        'User "jane" cannot patch resource "deployments/scale" in API group "apps" in the namespace "shop"'
    )
    nodes = Attributes("list", "", "nodes")
    assert refusal(JANE, nodes) == (
        'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope'
    )


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
def test_the_headers_of_an_upgrade_do_not_change_what_a_request_does(method: str) -> None:
    plain = {"type": "http", "method": method, "path": "/api/v1/namespaces/default/secrets/db",
             "query_string": b"", "headers": []}  # fmt: skip
    upgrade: Json = {"extensions": {"kubelite.upgrade": {}}}
    assert attributes_of(plain | upgrade) == attributes_of(plain)
    stream = plain | upgrade | {"path": "/api/v1/namespaces/default/pods/web/exec"}
    assert (attributes_of(stream).verb == "create") == (method in ("GET", "POST"))
