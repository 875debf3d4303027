"""Environment variables that name Services: those that exist when a container starts.

Source: Kubernetes pkg/kubelet/envvars/envvars.go (FromServices) and pkg/kubelet/kubelet_pods.go (getServiceEnvVarMap).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MASTER = ("default", "kubernetes")  # the Service that every pod of a cluster hears of


def service_links(services: Iterable[Mapping[str, Any]], namespace: str, *, enabled: bool) -> dict[str, str]:
    """Return the variables for a container in a namespace. `enabled`: enableServiceLinks. Without it, only the Service
    `kubernetes` is named, if there is one."""
    found: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        where = metadata.get("namespace"), metadata["name"]
        if spec.get("clusterIP") in (None, "", "None") or not spec.get("ports"):
            continue
        if where == MASTER or (enabled and where[0] == namespace):
            found |= _variables(metadata["name"], spec)
    return found


def _variables(name: str, spec: Mapping[str, Any]) -> dict[str, str]:
    address, ports = spec["clusterIP"], spec["ports"]
    host = f"[{address}]" if ":" in address else address  # in a URL
    prefix = _variable(name)
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            found[f"{prefix}_SERVICE_PORT_{_variable(port['name'])}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol, number = port.get("protocol", "TCP"), port["port"]
        url = f"{protocol.lower()}://{host}:{number}"
        if index == 0:  # the form of docker's links
            found[f"{prefix}_PORT"] = url
        own = f"{prefix}_PORT_{number}_{protocol}"
        found |= {
            own: url,
            f"{own}_PROTO": protocol.lower(),
            f"{own}_PORT": str(number),
            f"{own}_ADDR": address,
        }
    return found


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")
