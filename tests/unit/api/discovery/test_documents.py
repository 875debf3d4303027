"""Aggregated discovery and OpenAPI documents."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kubelite.api.kube.discovery import aggregated, openapi
from kubelite.api.kube.discovery.schemas import REFERENCE
from kubelite.api.kube.resources import CONVERTED, METRICS, RESOURCES, api_resource_list
from manifests.yaml.loader import KINDS
from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]

VERSIONS = sorted({resource.group_version for resource in openapi.served()})


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for one in value.values() for found in references(one)]
    return [found for one in value for found in references(one)] if isinstance(value, list) else []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_document_has_every_kind_and_resolves_every_reference(version: str) -> None:
    found = openapi.document(version)
    assert found is not None
    schemas = found["components"]["schemas"]
    assert {ref.removeprefix(REFERENCE) for ref in references(found)} <= schemas.keys()
    identities = [
        one for schema in schemas.values() for one in schema.get("x-kubernetes-group-version-kind", ())
    ]
    assert {one["kind"] for one in identities} == {
        resource.kind
        for resource in openapi.served()
        if resource.group_version == version and (version, resource.kind) in KINDS
    }
    assert all(schema.get("properties") is not None for schema in schemas.values())


def test_a_client_sees_that_fields_are_validated_and_dry_run_is_known(http: Http) -> None:
    """What client-go's QueryParamVerifierV3 looks for."""
    paths = http.get("/openapi/v3").json()["paths"]
    assert paths["apis/apps/v1"] == {"serverRelativeURL": "/openapi/v3/apis/apps/v1"}
    found = http.get("/openapi/v3/apis/apps/v1").json()["paths"]
    patch = found["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    identity = {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert patch["x-kubernetes-group-version-kind"] == identity
    assert {one["name"] for one in patch["parameters"]} >= {"dryRun", "fieldValidation"}
    assert http.get("/openapi/v3/apis/nix/v1").status_code == 404


def test_clients_see_how_lists_and_maps_are_merged() -> None:
    found = openapi.document("v1")
    assert found is not None
    schemas = {name.rpartition(".")[2]: schema for name, schema in found["components"]["schemas"].items()}
    ports = schemas["Container"]["properties"]["ports"]
    assert (ports["x-kubernetes-list-type"], ports["x-kubernetes-list-map-keys"]) == (
        "map",
        ["containerPort", "protocol"],
    )
    assert schemas["Container"]["properties"]["args"]["x-kubernetes-list-type"] == "atomic"
    assert schemas["ObjectMeta"]["properties"]["finalizers"]["x-kubernetes-list-type"] == "set"
    assert schemas["ServiceSpec"]["properties"]["selector"]["x-kubernetes-map-type"] == "atomic"
    assert schemas["ObjectReference"]["x-kubernetes-map-type"] == "atomic"
    assert "x-kubernetes-list-type" not in schemas["ConfigMap"]["properties"]["data"]


def test_field_types() -> None:
    found = openapi.document("apps/v1")
    assert found is not None
    schemas = found["components"]["schemas"]
    spec = schemas["io.k8s.deployment.DeploymentSpec"]
    assert spec["properties"]["replicas"]["type"] == "integer" and spec["required"] == [
        "selector",
        "template",
    ]
    reference = spec["properties"]["template"]["allOf"][0]["$ref"]
    assert re.fullmatch(r"#/components/schemas/io\.k8s\.\w+\.PodTemplateSpec", reference)
    container = next(one for name, one in schemas.items() if name.endswith(".Container"))
    assert container["properties"]["command"]["items"] == {"type": "string"}
    rolling = next(one for name, one in schemas.items() if name.endswith("RollingUpdateDeployment"))
    assert rolling["properties"]["maxSurge"]["format"] == "int-or-string"


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        ("", None),
        ("application/json", None),
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", "v2"),
        ("application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io", "v2beta1"),
        ("application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", None),
        ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList", None),
        ("application/vnd.kubernetes.protobuf;as=Nix,*/*", None),
    ],
)
def test_what_a_client_prefers(accept: str, version: str | None) -> None:
    assert aggregated.version_wanted(accept) == version


def test_aggregated_discovery_lists_the_same_resources(http: Http) -> None:
    accept = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    found = [http.get(path, headers=accept) for path in ("/api", "/apis")]
    assert "as=APIGroupDiscoveryList" in found[0].headers["content-type"]
    items = [item for answer in found for item in answer.json()["items"]]
    assert [item["metadata"] for item in items[:1]] == [{}]
    served = {
        (item["metadata"].get("name", ""), version["version"], resource["resource"])
        for item in items
        for version in item["versions"]
        for resource in version["resources"]
    }
    assert len(served) == len(RESOURCES) + len(CONVERTED) + len(METRICS)
    pods = next(one for one in items[0]["versions"][0]["resources"] if one["resource"] == "pods")
    assert pods["scope"] == "Namespaced" and pods["shortNames"] == ["po"]
    plain = {one["name"] for one in api_resource_list("v1")["resources"] if one["name"].startswith("pods/")}
    assert {f"pods/{one['subresource']}" for one in pods["subresources"]} == plain


def test_the_document_of_older_clients_has_every_kind(http: Http) -> None:
    found = http.get("/openapi/v2").json()
    definitions = found["definitions"]
    assert found["swagger"] == "2.0" and "components" not in found
    assert {ref.removeprefix("#/definitions/") for ref in references(found)} <= definitions.keys()
    identities = [
        one for schema in definitions.values() for one in schema.get("x-kubernetes-group-version-kind", ())
    ]
    assert {(one["group"], one["version"], one["kind"]) for one in identities} == {
        (*resource.group_version.rpartition("/")[::2], resource.kind)
        for resource in openapi.served()
        if (resource.group_version, resource.kind) in KINDS
    }
    patch = found["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["parameters"][0] == {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": True}
    assert list(patch["responses"]["200"]["schema"]) == ["$ref"]


def test_protobuf_alone_is_refused_with_what_to_do(http: Http) -> None:
    kind = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    answer = http.get("/openapi/v2", headers={"accept": kind})
    assert answer.status_code == 406 and "use kubectl 1.27 or newer" in answer.json()["message"]
    assert http.get("/openapi/v2", headers={"accept": f"application/json,{kind}"}).status_code == 200
