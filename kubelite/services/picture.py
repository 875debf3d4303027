"""Pure: what leads to what on the node's network, as values: Services, the places they lead to, and pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES
from kubelite.services.backends import addresses_of
from kubelite.services.families import cluster_ips
from kubelite.services.ports import external_addresses
from kubelite.services.slices import SERVICE_NAME

READY, NOT_READY, TERMINATING = "ready", "not ready", "terminating"
HOST = "host network"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a port of a Service leads. `pod`: "namespace/name", "" for an address outside of the node."""

    address: str
    port: int
    state: str
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Front:
    """A port of a Service: as in "80/TCP" or "80:30080/TCP", and where it leads."""

    port: str
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawnService:
    """`addresses`: where it is reached; of a headless one, none."""

    name: str
    kind: str
    addresses: tuple[str, ...]
    fronts: tuple[Front, ...]


@dataclass(frozen=True, slots=True)
class DrawnPod:
    """`address`: "host network" for a pod without a network of its own. `ports`: published on the host. `policies`: the
    names of the NetworkPolicies that restrict a direction of its traffic, as in {"ingress": ("shop/db",)}."""

    name: str
    address: str
    ports: tuple[str, ...] = ()
    policies: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Picture:
    node: str
    network: str
    services: tuple[DrawnService, ...]
    pods: tuple[DrawnPod, ...]


def picture(
    node: Json,
    services: Iterable[Json],
    slices: Iterable[Json],
    pods: Iterable[Json],
    restricted: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType({}),
) -> Picture:
    """Return the picture of objects as the API lists them. Pods that have ended are left out. `restricted`: by
    "namespace/name" of a pod, the NetworkPolicies that restrict each direction of its traffic."""
    own: dict[tuple[str, str], list[Json]] = {}
    for one in slices:
        metadata = one["metadata"]
        name = (metadata.get("labels") or {}).get(SERVICE_NAME, "")
        own.setdefault((metadata["namespace"], name), []).append(one)
    drawn = [
        _service(one, own.get((one["metadata"]["namespace"], one["metadata"]["name"]), []))
        for one in services
    ]
    running = (one for one in pods if (one.get("status") or {}).get("phase") not in TERMINAL_PHASES)
    return Picture(
        node["metadata"]["name"],
        (node.get("spec") or {}).get("podCIDR") or "of CNI plugins",
        tuple(sorted(drawn, key=lambda one: one.name)),
        tuple(sorted((_pod(one, restricted) for one in running), key=lambda one: one.name)),
    )


def _service(service: Json, slices: Iterable[Json]) -> DrawnService:
    spec, metadata = service["spec"], service["metadata"]
    kind = spec.get("type", "ClusterIP")
    name = f"{metadata['namespace']}/{metadata['name']}"
    if kind == "ExternalName":
        return DrawnService(name, kind, (spec.get("externalName", ""),), ())
    headless = spec.get("clusterIP") == "None"
    addresses = () if headless else (*cluster_ips(spec), *external_addresses(service))
    listed = list(slices)
    fronts = tuple(
        Front(_words(port), tuple(sorted(_places(port, listed), key=lambda one: (one.pod, one.address))))
        for port in spec.get("ports") or ()
    )
    return DrawnService(name, "headless" if headless else kind, addresses, fronts)


def _words(port: Json) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"


def _places(port: Json, slices: Iterable[Json]) -> Iterator[Place]:
    wanted = port.get("name", ""), port.get("protocol", "TCP")
    for one in slices:
        for found in one.get("ports") or ():
            if (found.get("name") or "", found.get("protocol", "TCP")) != wanted or not found.get("port"):
                continue
            for endpoint in one.get("endpoints") or ():
                yield _place(endpoint, found["port"], one["metadata"]["namespace"])


def _place(endpoint: Json, port: int, namespace: str) -> Place:
    conditions, target = endpoint.get("conditions") or {}, endpoint.get("targetRef") or {}
    state = READY if conditions.get("ready") is not False else NOT_READY
    if conditions.get("terminating"):
        state = TERMINATING
    pod = f"{target.get('namespace', namespace)}/{target['name']}" if target.get("kind") == "Pod" else ""
    return Place(endpoint["addresses"][0], port, state, pod)


def _pod(pod: Json, restricted: Mapping[str, Mapping[str, tuple[str, ...]]]) -> DrawnPod:
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    ports = [
        f"{port['hostPort']}:{port['containerPort']}/{port.get('protocol', 'TCP')}"
        for container in spec.get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]
    address = HOST if spec.get("hostNetwork") else next(iter(addresses_of(pod)), "")
    name = f"{metadata['namespace']}/{metadata['name']}"
    return DrawnPod(name, address, tuple(ports), restricted.get(name, {}))
