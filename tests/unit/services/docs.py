"""Documents of Services and pods for the tests of this room."""

from __future__ import annotations

from typing import Any

Doc = dict[str, Any]
NODE = "node"


def service(name: str = "web", *ports: Doc, **spec: Any) -> Doc:
    """A Service as the store has it. Fields whose value is None are left out."""
    given: Doc = {
        "type": "ClusterIP",
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"],
        "selector": {"app": name},
        "ports": list(ports) or [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
        **spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {key: value for key, value in given.items() if value is not None},
        "status": {},
    }


def pod(number: int, *, app: str = "web", ready: bool = True, ip: str | None = None, **changes: Any) -> Doc:
    """A running pod. `changes`: `terminating`, `phase`, `ports` of its container, and fields of its spec."""
    terminating, phase = changes.pop("terminating", False), changes.pop("phase", "Running")
    container = {"name": "c", "ports": changes.pop("ports", [])}
    metadata: Doc = {
        "name": f"{app}-{number}",
        "namespace": "default",
        "uid": f"{app}-{number:04}",
        "labels": {"app": app},
    }
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    address = f"10.88.{number // 250}.{number % 250 + 2}" if ip is None else ip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": NODE, "containers": [container], **changes},
        "status": {
            "phase": phase,
            **({"podIP": address, "podIPs": [{"ip": address}]} if address else {}),
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
