"""`kubelite why service/web`: where a Service's traffic goes, and why it does not go to a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubelite.cli.names import PODS, path_of, resource_type
from kubelite.cli.output.foreign import harmless
from kubelite.kube.objects import SOURCE
from kubelite.services.explanation import explain
from kubelite.services.families import cluster_ips
from kubelite.services.slices import SERVICE_NAME

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json


def slices_of(server: Client, doc: Json) -> list[Json]:
    """Return the EndpointSlices of a Service."""
    metadata = doc["metadata"]
    query = {"labelSelector": f"{SERVICE_NAME}={metadata['name']}"}
    path = path_of(resource_type("endpointslices"), metadata["namespace"])
    found: list[Json] = server.get(path, query=query)["items"]
    return found


def why_service(server: Client, namespace: str, name: str) -> Json:
    """Return the explanation of a Service: {"object", "address", "manifest", "reasons", "events"}."""
    doc = server.get(path_of(resource_type("services"), namespace, name))
    pods = server.get(path_of(PODS, namespace))["items"]
    about = (
        f"involvedObject.kind=Service,involvedObject.name={name},involvedObject.uid={doc['metadata']['uid']}"
    )
    events = server.get(f"/api/v1/namespaces/{namespace}/events", query={"fieldSelector": about})["items"]
    return {
        "object": f"Service {namespace}/{name}",
        "address": ",".join(cluster_ips(doc["spec"])) or "none",
        "manifest": (doc["metadata"].get("annotations") or {}).get(SOURCE, ""),
        "reasons": explain(doc, pods, slices_of(server, doc)),
        "events": [one["message"] for one in events if one["type"] == "Warning"],
    }


def lines(found: Json) -> list[str]:
    out = [f"{found['object']}, address {found['address']}"]
    out += [f"Manifest: {found['manifest']}"] if found["manifest"] else []
    for title, key in (("Because", "reasons"), ("Warnings", "events")):
        if found[key]:
            out += [f"{title}:", *(f"  - {harmless(sentence)}" for sentence in found[key])]
    return out
