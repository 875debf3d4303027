"""Pure: a pod as a backend of a Service: its address, its ports, and whether it gets traffic.

Source: Kubernetes staging/src/k8s.io/endpointslice (utils.go: podToEndpoint, getEndpointPorts;
util/controller_utils.go: ShouldPodBeInEndpoints, ShouldSetHostname) and pkg/api/v1/pod (FindPort).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from kubelite.kube.objects import TERMINAL_PHASES
from kubelite.services.families import families_of, family_of


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a backend. `name`: the name of the Service's port."""

    name: str
    port: int
    protocol: str = "TCP"
    app_protocol: str = ""

    def to_json(self) -> Json:
        found = {"name": self.name, "port": self.port, "protocol": self.protocol}
        return {**found, "appProtocol": self.app_protocol} if self.app_protocol else found


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod behind a Service. `ips`: its addresses of the Service's families. `ready`: it gets traffic. `serving`: it
    is ready, though it may terminate. `missing`: names of target ports that no container of the pod has."""

    uid: str
    namespace: str
    name: str
    ips: tuple[str, ...]
    ports: tuple[Port, ...]
    ready: bool
    serving: bool
    terminating: bool
    node: str = ""
    hostname: str = ""
    missing: tuple[str, ...] = ()

    @property
    def target(self) -> Json:
        return {"kind": "Pod", "namespace": self.namespace, "name": self.name, "uid": self.uid}

    def address(self, family: str) -> str:
        """Return the pod's address of a family, "" if it has none."""
        return next((ip for ip in self.ips if family_of(ip) == family), "")

    def to_json(self, family: str) -> Json:
        """Return the backend as an endpoint of an EndpointSlice of a family of which it has an address."""
        conditions = {"ready": self.ready, "serving": self.serving, "terminating": self.terminating}
        found: Json = {
            "addresses": [self.address(family)],
            "conditions": conditions,
            "targetRef": self.target,
        }
        if self.hostname:
            found["hostname"] = self.hostname
        if self.node:
            found["nodeName"] = self.node
        return found


def selects(service: Json, pod: Json) -> bool:
    """Whether a Service's selector matches a pod. A Service without a selector selects nothing."""
    selector = (service.get("spec") or {}).get("selector")
    if not selector:
        return False
    labels = labels_of(pod)
    return all(labels.get(key) == value for key, value in selector.items())


def is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def addresses_of(pod: Json) -> tuple[str, ...]:
    """Return a pod's addresses, one of each family that it has."""
    status = pod.get("status") or {}
    listed = tuple(ip for found in status.get("podIPs") or () if (ip := found.get("ip", "")))
    return listed or tuple(filter(None, (status.get("podIP"),)))


def backend(service: Json, pod: Json) -> Backend | None:
    """Return a pod as a backend of a Service that selects it; None if it has no address of the Service's families, or
    has ended."""
    metadata, status, spec = pod["metadata"], pod.get("status") or {}, pod.get("spec") or {}
    families = families_of(service["spec"])
    ips = tuple(ip for ip in addresses_of(pod) if family_of(ip) in families)
    if not ips or status.get("phase") in TERMINAL_PHASES:
        return None
    serving, terminating = is_ready(pod), bool(metadata.get("deletionTimestamp"))
    everything = bool(service["spec"].get("publishNotReadyAddresses"))
    own = spec.get("hostname", "") if spec.get("subdomain") == service["metadata"]["name"] else ""
    ports, missing = _ports(service, pod)
    return Backend(
        metadata.get("uid", ""),
        metadata.get("namespace", ""),
        metadata["name"],
        ips,
        ports,
        ready=everything or (serving and not terminating),
        serving=serving,
        terminating=terminating,
        node=spec.get("nodeName", ""),
        hostname=own,
        missing=missing,
    )


def _ports(service: Json, pod: Json) -> tuple[tuple[Port, ...], tuple[str, ...]]:
    found, missing = [], []
    for port in service["spec"].get("ports") or ():
        target = port.get("targetPort", port["port"])
        protocol = port.get("protocol", "TCP")
        number = target if isinstance(target, int) else _port_of(pod, target, protocol)
        if number is None:
            missing.append(str(target))
        else:
            found.append(Port(port.get("name", ""), number, protocol, port.get("appProtocol", "")))
    return tuple(found), tuple(missing)


def _port_of(pod: Json, name: str, protocol: str) -> int | None:
    for port in container_ports(pod):
        if port.get("name") == name and port.get("protocol", "TCP") == protocol:
            return int(port["containerPort"])
    return None


def container_ports(pod: Json) -> Iterator[Json]:
    spec = pod.get("spec") or {}
    sidecars = (one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always")
    for container in (*(spec.get("containers") or ()), *sidecars):
        yield from container.get("ports") or ()
