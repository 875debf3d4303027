"""`kubectl auth can-i` and `whoami`, and users whose rights bindings give, over TLS."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest

from kubelite.api.secure.users import MASTERS
from tests.unit.api.secure.test_port import Site, ask, site

__all__ = ["site"]

ACCESS = "/apis/authorization.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io"


async def post(port: int, client: ssl.SSLContext, path: str, document: Any) -> tuple[int, Any]:
    body = json.dumps(document)
    head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return await ask(port, client, path, method="POST", head=head, body=body)


@pytest.fixture
async def bound(site: Site) -> Site:
    """jane may edit the namespace default."""
    subject = {"kind": "User", "name": "jane", "apiGroup": RBAC}
    await site.node.store.create(
        "RoleBinding",
        {
            "metadata": {"name": "jane", "namespace": "default", "uid": "rb"},
            "roleRef": {"kind": "ClusterRole", "name": "edit", "apiGroup": RBAC},
            "subjects": [subject],
        },
    )
    return site


async def test_a_binding_gives_rights_in_its_namespace(bound: Site) -> None:
    port, client = await bound.login("jane")
    assert (await ask(port, client, "/api/v1/namespaces/default/pods"))[0] == 200
    code, found = await ask(port, client, "/api/v1/namespaces/prod/pods")
    words = (
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "prod"'
    )
    assert (code, found["message"]) == (403, words)
    assert (await ask(port, client, "/api/v1/pods"))[0] == 403
    made = {"metadata": {"name": "a"}, "data": {"b": "c"}}
    assert (await post(port, client, "/api/v1/namespaces/default/configmaps", made))[0] == 201
    assert (
        await post(port, client, f"/apis/{RBAC}/v1/namespaces/default/roles", {"metadata": {"name": "a"}})
    )[0] == 403
    head = "Impersonate-User: root\r\n"
    assert (await ask(port, client, "/api/v1/namespaces/default/pods", head=head))[0] == 403


async def test_admin_may_not_write_roles_without_escalate(site: Site) -> None:
    subject = {"kind": "User", "name": "jo"}
    for name, role in (("default", "admin"), ("prod", "cluster-admin")):
        doc = {
            "metadata": {"name": "jo", "namespace": name, "uid": name},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [subject],
        }
        await site.node.store.create("RoleBinding", doc)
    port, client = await site.login("jo")
    sent = {"metadata": {"name": "a"}, "rules": []}
    code, said = await post(port, client, f"/apis/{RBAC}/v1/namespaces/default/roles", sent)
    assert (code, "the verb escalate is needed" in said["message"]) == (403, True)
    assert (await post(port, client, f"/apis/{RBAC}/v1/namespaces/prod/roles", sent))[0] == 201


async def test_reviews(bound: Site) -> None:
    port, client = await bound.login("jane", "dev")

    async def can_i(verb: str, resource: str, namespace: str = "default") -> bool:
        wanted = {"verb": verb, "resource": resource, "namespace": namespace}
        review = {"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": wanted}}
        code, found = await post(port, client, f"{ACCESS}/selfsubjectaccessreviews", review)
        assert code == 201
        return bool(found["status"]["allowed"])

    assert await can_i("delete", "pods") and not await can_i("delete", "pods", "prod")
    assert not await can_i("delete", "nodes", "")
    rules = {"kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}}
    _, found = await post(port, client, f"{ACCESS}/selfsubjectrulesreviews", rules)
    assert any("deployments" in rule["resources"] for rule in found["status"]["resourceRules"])
    assert any("/version" in rule["nonResourceURLs"] for rule in found["status"]["nonResourceRules"])
    who = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    _, found = await post(port, client, "/apis/authentication.k8s.io/v1/selfsubjectreviews", who)
    assert found["status"]["userInfo"] == {"username": "jane", "groups": ["dev", "system:authenticated"]}
    other = {"kind": "SubjectAccessReview", "spec": {"user": "jane"}}
    assert (await post(port, client, f"{ACCESS}/subjectaccessreviews", other))[0] == 403, "only who may ask"


async def test_a_review_without_version_and_kind(bound: Site) -> None:
    """As the Python and JavaScript clients send it."""
    port, client = await bound.login("jane")
    wanted = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}}
    code, found = await post(port, client, f"{ACCESS}/selfsubjectaccessreviews", wanted)
    said = (found["kind"], found["apiVersion"], found["status"])
    assert (code, *said) == (201, "SelfSubjectAccessReview", "authorization.k8s.io/v1", {"allowed": True})


async def test_reviews_that_are_none(site: Site) -> None:
    port, client = await site.login("root", MASTERS)
    asked = {"resourceAttributes": {"verb": "get", "resource": "pods"}}
    other = {"kind": "SubjectAccessReview", "spec": {"user": "jane", **asked}}
    code, found = await post(port, client, f"{ACCESS}/subjectaccessreviews", other)
    assert (code, found["status"]) == (201, {"allowed": False})
    for spec in (
        {},
        {"resourceAttributes": 1},
        {**asked, "nonResourceAttributes": {}},
        {"resourceAttributes": {"verb": 1}},
    ):
        review = {"kind": "SelfSubjectAccessReview", "spec": spec}
        assert (await post(port, client, f"{ACCESS}/selfsubjectaccessreviews", review))[0] == 400
    document: Any
    for document in ([], {"kind": "Pod"}, {"kind": "SelfSubjectAccessReview", "spec": 5}):
        assert (await post(port, client, f"{ACCESS}/selfsubjectaccessreviews", document))[0] == 400


async def test_the_roles_of_every_node_are_shown(site: Site) -> None:
    port, client = await site.login("root", MASTERS)
    _, found = await ask(port, client, f"/apis/{RBAC}/v1/clusterroles")
    assert {"view", "edit", "admin", "cluster-admin"} <= {item["metadata"]["name"] for item in found["items"]}
    assert (await ask(port, client, f"/apis/{RBAC}/v1/clusterroles/view"))[0] == 200
    assert (await ask(port, client, f"/apis/{RBAC}/v1/clusterrolebindings/nix"))[0] == 404


async def test_a_review_is_small(site: Site) -> None:
    """Everybody may send one: as YAML, 3 MiB of it would take seconds to read."""
    port, client = await site.login("eve")
    body = (
        "kind: SelfSubjectAccessReview\nspec: {resourceAttributes: {verb: get}}\nx: [" + "1," * 40_000 + "]\n"
    )
    head = f"Content-Type: application/yaml\r\nContent-Length: {len(body)}\r\n"
    path = f"{ACCESS}/selfsubjectaccessreviews"
    code, found = await ask(port, client, path, method="POST", head=head, body=body)
    assert (code, found["reason"]) == (413, "RequestEntityTooLarge")
