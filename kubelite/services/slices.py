"""Pure: the EndpointSlices of a Service: which to create, to change and to delete.

Source: Kubernetes staging/src/k8s.io/endpointslice (reconciler.go: reconcileByAddressType; utils.go:
setEndpointSliceLabels) and pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from kubelite.kube.json import Json
from kubelite.services.backends import Backend, Port
from kubelite.services.families import families_of, family_of

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
MIRROR = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
HEADLESS = "service.kubernetes.io/headless"
MOST = 100  # endpoints in a slice; kube-controller-manager --max-endpoints-per-slice
MOST_MIRRORED = 1000  # --mirroring-max-endpoints-per-subset
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_RESERVED = (HEADLESS, MANAGED_BY, SERVICE_NAME)

Ports = tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class SliceChanges:
    """`slices`: all slices as they are afterwards. Each of `create` and `update` is one of them."""

    slices: Sequence[Json] = ()
    create: Sequence[Json] = ()
    update: Sequence[Json] = ()
    delete: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The endpoints (in the form of an EndpointSlice, by an identity) of one family that have the same ports."""

    family: str
    ports: Sequence[Json]
    endpoints: Mapping[str, Json] = field(default_factory=dict)


def slices_of(service: Json, backends: Iterable[Backend], existing: Iterable[Json]) -> SliceChanges:
    """Decide the slices of a Service with a selector: those of each of its families. `existing`: all slices with its
    name. Endpoints stay in the slice that they are in, so that the change of one pod changes one slice."""
    listed = sorted(backends, key=lambda found: found.uid)
    wanted: list[Wanted] = []
    for family in families_of(service["spec"]):
        groups: dict[Ports, dict[str, Json]] = {}
        for one in listed:
            if one.address(family):
                groups.setdefault(one.ports, {})[one.uid] = one.to_json(family)
        wanted += [
            Wanted(family, [port.to_json() for port in ports], found)
            for ports, found in sorted(groups.items(), key=str)
        ] or [Wanted(family, ())]
    return _reconcile(_Maker(service, service, CONTROLLER), wanted, existing)


def mirrored(service: Json, endpoints: Json, existing: Iterable[Json]) -> SliceChanges:
    """Decide the slices that mirror Endpoints which a manifest gives a Service without a selector. Endpoints may name
    addresses of both families."""
    groups: dict[tuple[str, str], Wanted] = {}
    for subset in endpoints.get("subsets") or ():
        ports = sorted(({"name": "", **port} for port in subset.get("ports") or ()), key=str)
        found: dict[str, dict[str, Json]] = {}
        for address, ready in _addresses(subset):
            found.setdefault(family_of(address["ip"]), {})[address["ip"]] = _mirrored_endpoint(address, ready)
        for family, given in sorted(found.items()):
            had = groups.get((family, str(ports)), Wanted(family, ports))
            most = dict(islice({**had.endpoints, **given}.items(), MOST_MIRRORED))
            groups[family, str(ports)] = Wanted(family, ports, most)
    return _reconcile(_Maker(service, endpoints, MIRROR), list(groups.values()), existing)


def wants_mirror(endpoints: Json) -> bool:
    """Whether Endpoints are mirrored (endpointslicemirroring: skipMirror)."""
    metadata = endpoints["metadata"]
    skip = (metadata.get("labels") or {}).get(SKIP_MIRROR) == "true"
    return not skip and "control-plane.alpha.kubernetes.io/leader" not in (metadata.get("annotations") or {})


def none_of(existing: Iterable[Json]) -> SliceChanges:
    """Delete the slices that a controller created. Slices that a manifest defines stay."""
    kept: list[Json] = []
    gone: list[Json] = []
    for one in existing:
        (gone if managed_by(one) in (CONTROLLER, MIRROR) else kept).append(one)
    return SliceChanges(kept, delete=gone)


def managed_by(found: Json) -> str:
    return str((found["metadata"].get("labels") or {}).get(MANAGED_BY, ""))


def _addresses(subset: Json) -> Iterator[tuple[Json, bool]]:
    for address in subset.get("addresses") or ():
        yield address, True
    for address in subset.get("notReadyAddresses") or ():
        yield address, False


def _mirrored_endpoint(address: Json, ready: bool) -> Json:
    found: Json = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    found |= {key: address[key] for key in ("hostname", "nodeName", "targetRef") if key in address}
    return found


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes slices of a Service. `owner`: the Service, or the Endpoints that are mirrored."""

    service: Json
    owner: Json
    manager: str

    def new_metadata(self, taken: Collection[str]) -> Json:
        return {"name": _free_name(self.owner, taken), "namespace": self.service["metadata"]["namespace"]}

    def make(self, metadata: Json, group: Wanted, endpoints: Sequence[Json]) -> Json:
        owner = self.owner["metadata"]
        labels = {key: value for key, value in (owner.get("labels") or {}).items() if key not in _RESERVED}
        labels |= {SERVICE_NAME: self.service["metadata"]["name"], MANAGED_BY: self.manager}
        if self.service["spec"].get("clusterIP") == "None":
            labels[HEADLESS] = ""
        reference = {
            "apiVersion": "v1",
            "kind": self.owner["kind"],
            "name": owner["name"],
            "uid": owner.get("uid", ""),
            "controller": True,
            "blockOwnerDeletion": True,
        }
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels, "ownerReferences": [reference]},
            "addressType": group.family,
            "endpoints": list(endpoints),
            **({"ports": list(group.ports)} if group.ports else {}),
        }


def _reconcile(maker: _Maker, wanted: Sequence[Wanted], existing: Iterable[Json]) -> SliceChanges:
    others: list[Json] = []
    ours: list[Json] = []
    stale: list[Json] = []
    for one in existing:
        manager = managed_by(one)
        (ours if manager == maker.manager else stale if manager in (CONTROLLER, MIRROR) else others).append(
            one
        )
    had: dict[tuple[str, str], list[Json]] = {}
    for one in ours:
        had.setdefault((one["addressType"], str(one.get("ports") or [])), []).append(one)
    taken = {one["metadata"]["name"] for one in (*ours, *others, *stale)}
    done: list[Json] = []
    create: list[Json] = []
    update: list[Json] = []
    for group in wanted:
        same = had.pop((group.family, str(list(group.ports))), [])
        for before, endpoints in _packed(group.endpoints, same):
            metadata = before["metadata"] if before is not None else maker.new_metadata(taken)
            taken.add(metadata["name"])
            new = maker.make(metadata, group, endpoints)
            done.append(new)
            if before is None:
                create.append(new)
            elif new != before:
                update.append(new)
    names = {one["metadata"]["name"] for one in done}
    delete = [one for one in (*ours, *stale) if one["metadata"]["name"] not in names]
    return SliceChanges([*others, *done], create, update, delete)


def _packed(wanted: Mapping[str, Json], had: Sequence[Json]) -> Iterator[tuple[Json | None, list[Json]]]:
    """Distribute endpoints over slices: yield each slice that stays (None: a new one) with its endpoints."""
    left = dict(wanted)
    packed: list[tuple[Json | None, list[Json]]] = []
    for before in had:
        kept = [found for one in before["endpoints"] if (found := left.pop(_identity(one), None)) is not None]
        packed.append((before, kept))
    # A slice with less room is filled first, one that changes anyway before one that does not.
    packed.sort(key=lambda one: (one[0] is not None and one[0]["endpoints"] == one[1], -len(one[1])))
    rest = list(left.values())
    for _, endpoints in packed:
        room = MOST - len(endpoints)
        endpoints.extend(rest[:room])
        rest = rest[room:]
    packed += [(None, rest[start : start + MOST]) for start in range(0, len(rest), MOST)]
    filled = [one for one in packed if one[1]]
    if not filled and not wanted:  # an empty slice says that there are none
        filled = packed[:1] or [(None, [])]
    yield from filled


def _identity(endpoint: Json) -> str:
    return str((endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0])


def _free_name(owner: Json, taken: Collection[str]) -> str:
    """Return a name of the form that Kubernetes generates. Its suffix comes from the owner's uid, so that a repeated
    decision creates the same slice."""
    name, uid = owner["metadata"]["name"], owner["metadata"].get("uid", "")
    for number in range(len(taken) + 1):
        digest = hashlib.sha256(f"{uid}/{number}".encode()).digest()
        found = f"{name[:57]}-{''.join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:5])}"
        if found not in taken:
            return found
    raise AssertionError("fewer names are taken than were tried")
