"""Subresources that are read everywhere and written by the node alone."""

from __future__ import annotations

import pytest

from kubelite.api.kube.resources import RESOURCES
from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]

POD = "/api/v1/namespaces/default/pods/web"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/v1/namespaces/prod/status", "Namespace"),
        ("/api/v1/nodes/here/status", "Node"),
        (f"{POD}/status", "Pod"),
    ],
)
def test_a_status_is_the_object(http: Http, path: str, kind: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.json()["kind"]) == (200, kind)
    assert answer.json() == http.get(path.removesuffix("/status")).json()


@pytest.mark.parametrize(
    ("method", "path", "code", "message"),
    [
        ("GET", "/api/v1/namespaces/nix/status", 404, 'namespaces "nix" not found'),
        ("PUT", "/api/v1/namespaces/nix/status", 404, 'namespaces "nix" not found'),
        (
            "PUT",
            "/api/v1/namespaces/prod/status",
            405,
            "the status of namespaces is written by the node alone",
        ),
        (
            "PUT",
            "/api/v1/namespaces/prod/finalize",
            405,
            "namespaces are not finalized by clients: the node ends",
        ),
        ("PUT", "/api/v1/namespaces/nix/finalize", 404, 'namespaces "nix" not found'),
        (
            "PATCH",
            "/api/v1/nodes/here/status",
            405,
            "the status of nodes is written by the node alone: it shows",
        ),
        ("PUT", f"{POD}/status", 405, "the status of pods is written by the node alone: clients may PATCH"),
        (
            "PUT",
            "/apis/apps/v1/namespaces/default/deployments/nix/status",
            404,
            'deployments "nix" not found',
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/nix/status",
            404,
            "could not find the requested resource",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/nix/status",
            404,
            "could not find the requested resource",
        ),
        (
            "POST",
            f"{POD}/binding",
            405,
            "bindings are not supported on this node: pods are bound by the node's own",
        ),
        ("POST", "/api/v1/namespaces/default/bindings", 405, "bindings are not supported on this node"),
        ("DELETE", "/api/v1/namespaces/prod/status", 404, ""),
        ("POST", "/api/v1/namespaces/prod/finalize", 404, ""),
    ],
)
def test_what_the_node_alone_writes(http: Http, method: str, path: str, code: int, message: str) -> None:
    answer = http.request(method, path, json={"metadata": {"name": "web"}})
    assert (answer.status_code, message in answer.json()["message"]) == (code, True), answer.text


def test_discovery_has_the_subresources_of_what_has_a_status(http: Http) -> None:
    found = {entry["name"]: entry for entry in http.get("/api/v1").json()["resources"]}
    for name, namespaced in (("services/status", True), ("nodes/status", False), ("pods/status", True)):
        assert found[name]["namespaced"] is namespaced and "get" in found[name]["verbs"]
    assert sum(one["name"] == "pods/status" for one in http.get("/api/v1").json()["resources"]) == 1
    assert not RESOURCES["secrets"].has_status and "secrets/status" not in found
