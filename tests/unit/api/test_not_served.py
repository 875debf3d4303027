"""Kinds that this node does not run, and requests about access."""

from __future__ import annotations

import pytest

from kubelite.api.kube.resources import not_served
from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]


@pytest.mark.parametrize("body", ["application/vnd.kubernetes.protobuf", "application/json"])
def test_a_kind_that_does_not_exist_here_is_said_first(http: Http, body: str) -> None:
    path = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways"
    answer = http.post(path, content=b"{}", headers={"content-type": body})
    assert answer.status_code == 404
    said = "gateways of gateway.networking.k8s.io/v1 are not supported: kubelite runs no such kind"
    assert answer.json()["message"].startswith(said)
    known = http.post("/api/v1/namespaces/default/pods", content=b"{}", headers={"content-type": body})
    assert known.status_code == (422 if body == "application/json" else 400)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "Kinds cannot be added"),
        ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/a", "Pod Security levels"),
        ("/apis/apiregistration.k8s.io/v1/apiservices", "APIs cannot be added"),
        ("/api/v1/podtemplates", "`kubelite api-resources` lists"),
    ],
)
def test_what_to_do_in_its_place_is_said_for_every_verb(http: Http, path: str, words: str) -> None:
    for method in ("GET", "POST", "DELETE", "PUT"):
        answer = http.request(method, path, json={})
        assert answer.status_code == 404 and words in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/api/v1/namespaces/default/podtemplates", False),
        ("/api/v1/namespaces/default/podtemplates/web", False),
        ("/apis/apps/v1/namespaces/default/deployments/web/scale", True),
        ("/apis/apps/v1beta1/namespaces/default/deployments", False),
        ("/api/v1/namespaces/default", True),
        ("/api/v1/nodes/n", True),
        ("/apis/storage.k8s.io/v1/csidrivers/x", False),
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", True),
        ("/apis/apps", True),
        ("/kubelite/v1/apply", True),
        ("/", True),
    ],
)
def test_which_paths_have_no_objects(path: str, served: bool) -> None:
    assert (not_served(path) == "") == served
