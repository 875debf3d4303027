"""Documents of Ingresses and what they need."""

from __future__ import annotations

from typing import Any

from kubelite.ingress.model import Routing
from kubelite.ingress.routing import View, routing_of

Doc = dict[str, Any]


def backend(name: str = "web", port: int | str = 80) -> Doc:
    return {"service": {"name": name, "port": {"number": port} if isinstance(port, int) else {"name": port}}}


def path(value: str, to: Doc | None = None, kind: str = "Prefix") -> Doc:
    return {"path": value, "pathType": kind, "backend": to or backend()}


def rule(host: str, *paths: Doc) -> Doc:
    return {"host": host, "http": {"paths": list(paths) or [path("/")]}}


def ingress(name: str, *rules: Doc, namespace: str = "default", **spec: Any) -> Doc:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"kind": "Ingress", "metadata": metadata, "spec": {"rules": list(rules), **spec}}


def service(name: str = "web", *ports: Doc, namespace: str = "default", **spec: Any) -> Doc:
    own = list(ports) or [{"name": "http", "port": 80}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "ports": own, **spec},
    }


def endpoint_slice(*addresses: str, port: int = 8080, name: str = "http", ready: bool = True) -> Doc:
    return {
        "addressType": "IPv4",
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}} for ip in addresses],
    }


def routing(*ingresses: Doc, services: Any = (), **given: Any) -> Routing:
    found = services or [service()]
    named = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in found}
    return routing_of(View(ingresses, named, **given))
