"""`kubelite why ingress/web`: where an Ingress sends requests, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubelite.cli.describe.services import ready_endpoints
from kubelite.cli.diagnosis.why_service import slices_of
from kubelite.cli.errors import ServerError
from kubelite.cli.names import PODS, path_of, resource_type
from kubelite.ingress.explanation import explain
from kubelite.ingress.model import NAMESPACE, POD
from kubelite.ingress.routing import View, port_of, secrets_of, services_of
from kubelite.kube.objects import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubelite.cli.transport.client import Client
    from kubelite.ingress.model import Name
    from kubelite.kube.json import Json


def why_ingress(server: Client, namespace: str, name: str) -> Json:
    """Return the explanation of an Ingress: {"object", "address", "manifest", "reasons", "events"}."""
    from kubelite.ingress.certificates import pem_of

    kind = resource_type("ingresses")
    doc = server.get(path_of(kind, namespace, name))
    classes = server.get(path_of(resource_type("ingressclasses"), None))["items"]
    services = _found(server, "services", services_of(doc))
    secrets = _found(server, "secrets", secrets_of(doc))
    others = server.get(path_of(kind, None))["items"]
    view = View(
        others,
        services,
        {key: slices_of(server, service) for key, service in services.items()},
        {key: pem_of(secret) for key, secret in secrets.items()},
    )
    proxy = _get(server, path_of(PODS, NAMESPACE, POD))
    about = f"involvedObject.kind=Ingress,involvedObject.uid={doc['metadata']['uid']}"
    events = server.get(f"/api/v1/namespaces/{namespace}/events", query={"fieldSelector": about})["items"]
    address = (doc.get("status") or {}).get("loadBalancer") or {}
    return {
        "object": f"Ingress {namespace}/{name}",
        "address": ", ".join(one.get("ip", "") for one in address.get("ingress") or ()) or "none",
        "manifest": (doc["metadata"].get("annotations") or {}).get(SOURCE, ""),
        "reasons": explain(doc, view, classes, proxy),
        "events": [one["message"] for one in events if one["type"] == "Warning"],
    }


def endpoints_text(server: Client, namespace: str, wanted: Json) -> str:
    """Return the endpoints of a backend's Service, as `describe ingress` shows them."""
    service = _get(server, path_of(resource_type("services"), namespace, wanted["name"]))
    if service is None:
        return f'<error: services "{wanted["name"]}" not found>'
    port = port_of(service, wanted.get("port") or {})
    if port is None:
        return "<none>"
    return ",".join(ready_endpoints(port.get("name", ""), slices_of(server, service))) or "<none>"


def _found(server: Client, plural: str, names: Iterable[Name]) -> dict[Name, Json]:
    docs = {key: _get(server, path_of(resource_type(plural), *key)) for key in names}
    return {key: doc for key, doc in docs.items() if doc is not None}


def _get(server: Client, path: str) -> Json | None:
    """Return an object, None if there is none."""
    try:
        found: Json = server.get(path)
    except ServerError as error:
        if error.reason != "NotFound":
            raise
        return None
    return found
