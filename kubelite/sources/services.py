"""Pure: addresses and node ports for the Services of manifests. Nothing of Services is imported until there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from kubelite.kube.json import Json
from kubelite.settings import Settings
from manifests.yaml.loader import Document
from state.store import Record

if TYPE_CHECKING:
    from kubelite.services.allocation import Allocation, Name
    from kubelite.services.families import Refusal

SERVICE = "Service"
Key = tuple[str, str, str]  # kind, namespace, name

#: Gives the wanted Services (by name) addresses and node ports, beside the recorded ones.
Allocate: TypeAlias = "Callable[[Mapping[Name, Json], Mapping[Name, Json]], Allocation]"

#: Fields of a Service that do nothing here, and why.
_IGNORED = {
    "trafficDistribution": "there is one node, which gets all traffic",
    "loadBalancerIP": "a load balancer's address is the node's",
    "loadBalancerClass": "this node serves load balancers without a class alone",
    "healthCheckNodePort": "no load balancer asks for this node's health",
}


class Recorded(Protocol):
    """A recorded object, as far as it is read here."""

    @property
    def doc(self) -> Json: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...


class Services(Protocol):
    """The store, as far as it is read here."""

    def list(self, kind: str) -> Sequence[Recorded]: ...


def node_ports(settings: Settings) -> tuple[int, int]:
    """Return the first and the last port of the setting node_port_range."""
    first, _, last = settings.node_port_range.partition("-")
    return int(first), int(last)


def allocator(settings: Settings) -> Allocate:
    """Return what gives Services addresses and node ports."""

    def give(wanted: Mapping[Name, Json], held: Mapping[Name, Json]) -> Allocation:
        from kubelite.services.allocation import Ranges, allocate

        cidr, cidr6 = settings.service_networks
        return allocate(wanted, held, Ranges(cidr, node_ports(settings), cidr6))

    return give


def refused_services(
    documents: Iterable[Document], store: Services, settings: Settings
) -> Mapping[Name, Refusal]:
    """Return the Services among the documents that cannot have what they ask for, and why."""
    given = [one for one in documents if one.kind == SERVICE]
    if not given:
        return {}
    held = {(one.namespace, one.name): one.doc for one in store.list(SERVICE)}
    wanted: dict[Name, Json] = {}
    for document in given:
        name, doc = (document.namespace, document.name), document.obj.to_json()
        spec = kept(held[name]["spec"], doc["spec"]) if name in held else doc["spec"]
        wanted[name] = {**doc, "spec": spec}
    return allocator(settings)(wanted, held).refused


def allocated(
    owners: Mapping[Key, str],
    documents: Mapping[str, Mapping[Key, Json]],
    known: Mapping[Key, Record],
    allocate: Allocate | None,
) -> tuple[Mapping[Key, Json], Mapping[Key, Refusal]]:
    """Return the Services of the files with addresses and node ports, and why others cannot have what they ask for.
    `owners`: which file defines an object. A Service that is no longer in a file keeps what it has until it is
    deleted."""
    if allocate is None or not any(key[0] == SERVICE for key in owners):
        return {}, {}
    wanted: dict[tuple[str, str], Json] = {}
    for key, file in owners.items():
        if key[0] == SERVICE:
            doc, record = documents[file][key], known.get(key)
            spec = doc["spec"] if record is None else kept(record.doc["spec"], doc["spec"])
            wanted[key[1:]] = {**doc, "spec": spec}
    held = {key[1:]: record.doc for key, record in known.items() if key[0] == SERVICE}
    found = allocate(wanted, held)
    return (
        {(SERVICE, *name): doc for name, doc in found.services.items()},
        {(SERVICE, *name): refusal for name, refusal in found.refused.items()},
    )


def kept(old: Json, new: Json) -> Json:
    """Return the spec of an edited Service with the addresses and node ports that it has. `old`, `new`: specs."""
    from kubelite.services.allocation import with_allocated

    return with_allocated(old, new)


def ignored_fields(spec: Json) -> str:
    """Return which fields of a Service have no effect on this node, and why; "" if there are none."""
    found = [f"spec.{name} has no effect: {why}" for name, why in _IGNORED.items() if spec.get(name)]
    return "; ".join(found)
