"""Format the text of `describe` for Ingresses and IngressClasses. Pure.

Source: kubectl pkg/describe/describe.go (describeIngressV1, describeBackendV1, describeIngressClassV1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.describe.parts import annotation_lines, label_lines, with_events

if TYPE_CHECKING:
    from kubelite.kube.json import Json

Events = Sequence["Json"] | None
Endpoints = Callable[["Json"], str]  # of a backend's service: as in "10.88.0.6:80,10.88.0.7:80"


def describe_ingress(doc: Json, endpoints: Endpoints, events: Events, now: float) -> str:
    metadata, spec = doc["metadata"], doc["spec"]
    balancer = ((doc.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    default = spec.get("defaultBackend")
    shown = _backend(default, endpoints) if default else "<default>"
    out = [
        f"Name:\t{metadata['name']}",
        *label_lines("Labels", metadata.get("labels") or {}),
        f"Namespace:\t{metadata.get('namespace', '')}",
        f"Address:\t{','.join(one.get('ip') or one.get('hostname', '') for one in balancer)}",
        f"Ingress Class:\t{spec.get('ingressClassName') or '<none>'}",
        f"Default backend:\t{shown}",
    ]
    if found := spec.get("tls"):
        out.append("TLS:")
        for tls in found:
            hosts, secret = ",".join(tls.get("hosts") or ()), tls.get("secretName")
            out.append(f"  {secret} terminates {hosts}" if secret else f"  SNI routes {hosts}")
    out += ["Rules:", "  Host\tPath\tBackends", "  ----\t----\t--------"]
    rules = [rule for rule in spec.get("rules") or () if rule.get("http")]
    for rule in rules:
        out.append(f"  {rule.get('host') or '*'}\t")
        for path in rule["http"]["paths"]:
            out.append(f"    \t{path.get('path', '')} \t{_backend(path['backend'], endpoints)}")
    if not rules:
        out.append(f"  *\t*\t{shown}")
    out += annotation_lines(metadata.get("annotations") or {})
    return with_events(out, events, now)


def backend_text(backend: Json) -> str:
    """Return a backend as `web:80`."""
    if resource := backend.get("resource"):
        return f"APIGroup: {resource.get('apiGroup') or '<none>'}, Kind: {resource['kind']}, Name: {resource['name']}"
    service = backend.get("service") or {}
    port = service.get("port") or {}
    return f"{service.get('name', '')}:{port.get('name') or port.get('number', '')}"


def _backend(backend: Json, endpoints: Endpoints) -> str:
    text = backend_text(backend)
    return f"{text} ({endpoints(backend['service'])})" if backend.get("service") else text


def describe_class(doc: Json, events: Events, now: float) -> str:
    metadata, spec = doc["metadata"], doc["spec"]
    out = [
        f"Name:\t{metadata['name']}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
        f"Controller:\t{spec.get('controller', '')}",
    ]
    if parameters := spec.get("parameters"):
        out.append("Parameters:")
        out += [f"  APIGroup:\t{parameters['apiGroup']}"] if parameters.get("apiGroup") else []
        out += [f"  Kind:\t{parameters['kind']}", f"  Name:\t{parameters['name']}"]
    return with_events(out, events, now)
