"""Aggregated discovery: all resources in two answers, which clients prefer to one request for each group version.

Source: Kubernetes, staging/src/k8s.io/api/apidiscovery/v2/types.go. A client asks for it by its Accept header at /api
and /apis.
"""

from __future__ import annotations

from kubelite.api.kube.resources import api_group_list, api_resource_list
from kubelite.kube.json import Json

_FORM = {"g": "apidiscovery.k8s.io", "as": "APIGroupDiscoveryList"}
MEDIA_TYPE = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def version_wanted(accept: str) -> str | None:
    """Return the version (v2 or v2beta1) that the client prefers to the plain form; None for that."""
    for offer in accept.split(","):
        kind, *rest = (part.strip() for part in offer.split(";"))
        given = dict(part.partition("=")[::2] for part in rest)
        if kind != "application/json":
            continue
        if all(given.get(key) == value for key, value in _FORM.items()) and given.get("v") in (
            "v2",
            "v2beta1",
        ):
            return given["v"]
        if "as" not in given:
            return None
    return None


def document(*, core: bool, version: str) -> Json:
    """Return the groups: the core group for /api, all others for /apis."""
    groups: list[Json] = api_group_list()["groups"]
    if core:
        groups = [{"name": "", "versions": [{"groupVersion": "v1"}]}]
    items = [
        {
            "metadata": {"name": group["name"]} if group["name"] else {},
            "versions": [_version(one["groupVersion"]) for one in group["versions"]],
        }
        for group in groups
    ]
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{version}"}
    return {**head, "metadata": {}, "items": items}


def _version(group_version: str) -> Json:
    group, _, version = group_version.rpartition("/")
    found: dict[str, Json] = {}
    for entry in api_resource_list(group_version)["resources"]:
        name, _, subresource = entry["name"].partition("/")
        kind = {
            "group": entry.get("group", group),
            "version": entry.get("version", version),
            "kind": entry["kind"],
        }
        if subresource:
            one = {"subresource": subresource, "responseKind": kind, "verbs": entry["verbs"]}
            found[name].setdefault("subresources", []).append(one)
            continue
        found[name] = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry["singularName"],
            "verbs": entry["verbs"],
            **{key: entry[key] for key in ("shortNames", "categories") if entry.get(key)},
        }
    return {"version": version, "resources": list(found.values()), "freshness": "Current"}
