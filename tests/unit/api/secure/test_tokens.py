"""TokenRequest, TokenReview, bearer tokens and the documents of the issuer, over TLS."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from kubelite.accounts.claims import Wish
from kubelite.accounts.keys import payload_of
from kubelite.accounts.tokens import Tokens
from kubelite.api.secure.users import MASTERS
from kubelite.kube.json import Json
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.rbac.test_reviews import post
from tests.unit.api.secure.test_port import DAY, Site, ask, context, site

__all__ = ["site"]

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def path(name: str = "bot", namespace: str = "default") -> str:
    return f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"


class Client:
    """An administrator, and clients without a certificate."""

    def __init__(self, site: Site, port: int, admin: ssl.SSLContext, nobody: ssl.SSLContext) -> None:
        self.site, self.port, self.admin, self.nobody = site, port, admin, nobody

    async def request(self, name: str = "bot", namespace: str = "default", **spec: Any) -> tuple[int, Any]:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return await post(self.port, self.admin, path(name, namespace), body)

    async def token(self, name: str = "bot", **spec: Any) -> str:
        code, found = await self.request(name, **spec)
        assert code == 201, found
        return str(found["status"]["token"])

    async def review(self, token: str, **spec: Any) -> Json:
        body = {"kind": "TokenReview", "spec": {"token": token, **spec}}
        code, found = await post(self.port, self.admin, REVIEWS, body)
        assert code == 201, found
        return dict(found["status"])

    async def get(self, where: str, token: str) -> tuple[int, Any]:
        return await ask(self.port, self.nobody, where, head=f"Authorization: Bearer {token}\r\n")


@pytest.fixture
async def client(site: Site) -> Client:
    store = site.node.store
    await store.create("ServiceAccount", {"metadata": {"name": "bot", "namespace": "default", "uid": "sa-1"}})
    await store.create("Pod", pod_doc("robot", serviceAccountName="bot"))
    made = await site.port.kubeconfig("root", [MASTERS], DAY)
    port = int(made["server"].rpartition(":")[2])
    return Client(site, port, context(made), context(made, login=False))


async def test_a_token_is_a_user_with_the_groups_of_its_namespace(client: Client) -> None:
    token = await client.token()
    head = f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 30\r\n"
    body = '{"kind": "SelfSubjectReview"} '
    code, found = await ask(client.port, client.nobody, WHOAMI, method="POST", head=head, body=body)
    info = found["status"]["userInfo"]
    assert (code, info["username"], info["uid"]) == (201, "system:serviceaccount:default:bot", "sa-1")
    groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    assert info["groups"] == groups
    assert list(info["extra"]) == ["authentication.kubernetes.io/credential-id"]
    code, found = await client.get("/api/v1/namespaces/default/pods", token)
    said = 'User "system:serviceaccount:default:bot" cannot list resource "pods" in API group ""'
    assert (code, said in found["message"]) == (403, True)
    assert client.site.audits()[-1]["user"]["username"] == "system:serviceaccount:default:bot"


@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "ServiceAccount", "name": "bot", "namespace": "default"},
        {"kind": "ServiceAccount", "name": "bot"},
        {"kind": "Group", "name": "system:serviceaccounts:default"},
        {"kind": "User", "name": "system:serviceaccount:default:bot"},
    ],
)
async def test_roles_decide_what_a_token_may_do(client: Client, subject: Json) -> None:
    role = {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}
    doc = {
        "metadata": {"name": "b", "namespace": "default", "uid": "b"},
        "roleRef": role,
        "subjects": [subject],
    }
    await client.site.node.store.create("RoleBinding", doc)
    token = await client.token()
    assert (await client.get("/api/v1/namespaces/default/pods", token))[0] == 200
    assert (await client.get("/api/v1/namespaces/other/pods", token))[0] == 403
    assert (await client.get("/api/v1/namespaces/default/secrets", token))[0] == 403


async def test_token_requests_follow_the_rules_of_kubernetes(client: Client) -> None:
    code, found = await client.request(expirationSeconds=600, audiences=["vault"])
    assert (code, found["spec"]["expirationSeconds"], found["spec"]["audiences"]) == (201, 600, ["vault"])
    assert found["status"]["expirationTimestamp"].endswith("Z")
    claims = payload_of(found["status"]["token"])
    assert claims is not None and (claims["aud"], claims["exp"] - claims["iat"]) == (["vault"], 600)
    code, found = await client.request()
    assert (found["spec"]["expirationSeconds"], found["spec"]["audiences"]) == (3600, [ISSUER])
    pod = {"apiVersion": "v1", "kind": "Pod", "name": "robot"}
    wrong: list[tuple[Json, int, str]] = [
        ({"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": 1 << 33}, 422, "may not specify a duration larger than 2^32 seconds"),
        ({"expirationSeconds": "600"}, 400, "whole number"),
        ({"expirationSeconds": True}, 400, "whole number"),
        ({"audiences": "a"}, 400, "list of strings"),
        ({"audiences": ["a" * 5000]}, 400, "too long"),
        ({"boundObjectRef": []}, 400, "must be an object"),
        ({"boundObjectRef": {**pod, "kind": "Job"}}, 400, "cannot bind token to object of type v1, Kind=Job"),
        ({"boundObjectRef": {**pod, "name": "none"}}, 404, 'pods "none" not found'),
        ({"boundObjectRef": {**pod, "name": "web"}}, 400, "different serviceaccount name"),
        ({"boundObjectRef": {**pod, "uid": "other"}}, 409, "does not match the UID in record"),
        ({"boundObjectRef": {**pod, "uid": 5}}, 400, "must be strings"),
    ]
    for spec, status, said in wrong:
        code, found = await client.request(**spec)
        assert (code, said in found["message"]) == (status, True), (spec, found)
    assert (await client.request("nobody"))[0] == 404
    assert (await client.request("default", "nowhere"))[0] == 404
    assert (await client.request("default"))[0] == 201
    body = {"kind": "TokenRequest", "metadata": {"name": "other"}, "spec": {}}
    assert (await post(client.port, client.admin, path(), body))[0] == 400
    assert (await post(client.port, client.admin, path(), {"kind": "Pod"}))[0] == 400


async def test_a_token_ends_with_its_pod_and_its_account(client: Client) -> None:
    store = client.site.node.store
    pod = {"apiVersion": "v1", "kind": "Pod", "name": "robot"}
    of_pod, plain = await client.token(boundObjectRef=pod), await client.token()
    assert (await client.get("/api", of_pod))[0] == 200
    await store.delete(store.uid_of("Pod", "default", "robot") or "")
    assert (await client.get("/api", of_pod))[0] == 401
    again = pod_doc("robot", serviceAccountName="bot")
    await store.create("Pod", {**again, "metadata": {**again["metadata"], "uid": "another"}})
    assert (await client.get("/api", of_pod))[0] == 401, "another pod of the same name"
    assert (await client.get("/api", plain))[0] == 200
    await store.delete("sa-1")
    assert (await client.get("/api", plain))[0] == 401
    await store.create("ServiceAccount", {"metadata": {"name": "bot", "namespace": "default", "uid": "sa-2"}})
    found = await client.review(plain)
    assert (found["authenticated"], "ServiceAccount bot is gone" in found["error"]) == (False, True)


async def test_reviews_of_tokens(client: Client) -> None:
    found = await client.review(await client.token())
    assert (found["authenticated"], found["audiences"]) == (True, [ISSUER])
    assert found["user"]["username"] == "system:serviceaccount:default:bot"
    vault = await client.token(audiences=["vault", "db"])
    assert not (await client.review(vault))["authenticated"]
    assert (await client.get("/api", vault))[0] == 401, "it is not for this API"
    assert (await client.review(vault, audiences=["db", "x"]))["audiences"] == ["db"]
    for token in ("x", "a.b.c", "ü", "a" * 9000):
        found = await client.review(token)
        assert (found["authenticated"], found["user"]) == (False, {})
    for spec in ({}, {"token": ""}, {"token": 1}, {"token": "x", "audiences": [1]}):
        assert (await post(client.port, client.admin, REVIEWS, {"kind": "TokenReview", "spec": spec}))[
            0
        ] == 400
    assert (await client.get("/api", ""))[0] == 401
    assert (await client.get("/version", "nonsense"))[0] == 401, "a wrong login is never ignored"


async def test_a_review_is_bounded(client: Client) -> None:
    spec = {"token": "x", "audiences": ["x" * (64 << 10)]}
    for where, kind in ((REVIEWS, "TokenReview"), (path(), "TokenRequest")):
        assert (await post(client.port, client.admin, where, {"kind": kind, "spec": spec}))[0] == 413


async def test_a_token_of_another_node_is_refused(client: Client, tmp_path: Path) -> None:
    store = client.site.node.store
    other = Tokens(store, str(tmp_path / "other.key"), issuer=ISSUER, node="here")
    account = other.account("default", "bot")
    assert account is not None
    token = other.issue(account, Wish((ISSUER,), 600)).text
    assert other.check(token).uid == "sa-1"
    await client.token()  # now this node has a key, too
    assert (await client.get("/api", token))[0] == 401


async def test_everybody_with_a_token_may_read_how_to_check_it(client: Client) -> None:
    token = await client.token()
    code, found = await client.get("/.well-known/openid-configuration", token)
    assert (code, found["issuer"], found["jwks_uri"]) == (200, ISSUER, f"{ISSUER}/openid/v1/jwks")
    code, found = await client.get("/openid/v1/jwks", token)
    assert (code, [key["alg"] for key in found["keys"]]) == (200, ["ES256"])
    port, jane = await client.site.login("jane")
    assert (await ask(port, jane, "/openid/v1/jwks"))[0] == 403


async def test_every_namespace_has_a_default_account(client: Client) -> None:
    store = client.site.node.store
    await store.create("Pod", pod_doc("a", namespace="shop"))
    _, found = await ask(client.port, client.admin, "/api/v1/serviceaccounts")
    names = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in found["items"]}
    assert names == {("default", "default"), ("default", "bot"), ("shop", "default")}
    code, found = await ask(client.port, client.admin, "/api/v1/namespaces/shop/serviceaccounts/default")
    assert (code, found["kind"]) == (200, "ServiceAccount")
    assert (await ask(client.port, client.admin, "/api/v1/namespaces/none/serviceaccounts/default"))[0] == 404
    _, found = await ask(client.port, client.admin, "/api/v1/namespaces/none/serviceaccounts")
    assert found["items"] == []


async def test_discovery_has_the_subresource(client: Client) -> None:
    _, found = await ask(client.port, client.admin, "/api/v1")
    entry = next(one for one in found["resources"] if one["name"] == "serviceaccounts/token")
    assert (entry["kind"], entry["group"], entry["verbs"]) == (
        "TokenRequest", "authentication.k8s.io", ["create"],
    )  # fmt: skip
    assert json.dumps(found)
