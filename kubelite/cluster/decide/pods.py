"""A pod of the cluster as the node keeps it. Pure.

The node keeps the API server's document under the same name and uid, with these differences:

- An annotation says that the pod is the cluster's. Annotations that only this node writes are dropped, so that no pod
  of the cluster passes for one of the manifest directory.
- ownerReferences and finalizers are dropped: they are the cluster's affair, and name objects that the node does not
  have.
- The pod's DNS is written out, with the cluster's server, and a claim is replaced by the volume that it is bound to.
- The status is the node's own, except for the conditions that other programs write.
- Fields that this version does not know are dropped, and named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.objects import CLUSTER, CREATED_BY, NODE_CONDITIONS, REPLICAS, SOURCE, belongs_to_cluster
from manifests.names import dns_label, dns_subdomain
from manifests.problems import InvalidObject, Problem
from manifests.types.core import Pod

_UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,62}")
_ROUNDS = 8  # rounds of dropping unknown fields: a field may hide others below it
_KEPT = ("name", "namespace", "uid", "labels", "creationTimestamp", "generation")
_DELETION = ("deletionTimestamp", "deletionGracePeriodSeconds")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the cluster gives each of its pods here. `server`: of the API; `dns`: addresses of the cluster's DNS."""

    server: str
    dns: tuple[str, ...] = ()
    domain: str = "cluster.local"


@dataclass(frozen=True, slots=True)
class Stored:
    """A pod as the node keeps it, and the fields of it that have no effect here."""

    doc: Json
    dropped: tuple[str, ...] = ()


def stored(pod: Json, around: Surroundings, volumes: Mapping[str, Json] | None = None) -> Stored:
    """Return the document of a new pod. `volumes`: name of a volume → what replaces it. Raises InvalidObject."""
    if problems := _unsafe_names(pod):
        raise InvalidObject(problems)
    metadata = {key: pod["metadata"][key] for key in (*_KEPT, *_DELETION) if key in pod["metadata"]}
    metadata["annotations"] = _annotations(pod, around.server)
    spec = _spec(pod["spec"], pod["metadata"]["namespace"], around, volumes or {})
    doc = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    doc["status"] = {"phase": "Pending", **_conditions(pod, {})}
    return _known(doc)


def updated(old: Json, new: Json) -> Json | None:
    """Return a kept pod as it is after a change of the cluster's: `new` is what `stored` makes of it. None if nothing
    changes. A deletion is never taken back, and its grace period only gets shorter."""
    own = {key: old["metadata"][key] for key in ("resourceVersion",) if key in old["metadata"]}
    metadata = {**new["metadata"], **own}
    before = old["metadata"].get("deletionGracePeriodSeconds")
    after = metadata.get("deletionGracePeriodSeconds")
    if old["metadata"].get("deletionTimestamp") and (
        after is None or (before is not None and before <= after)
    ):
        metadata |= {key: old["metadata"][key] for key in _DELETION if key in old["metadata"]}
    status = old.get("status") or {}
    doc = {**old, "metadata": metadata, "spec": new["spec"]}
    if _others(new.get("status") or {}) != _others(status):
        doc["status"] = {**status, **_conditions(new, status)}
    if doc["spec"] == old["spec"]:
        doc["spec"] = old["spec"]  # the same object: it need not be parsed again
    return None if doc == old else doc


def with_deletion(doc: Json, pod: Json) -> Json:
    """Return a kept pod with the deletion of the cluster's document, whose other changes the node does not take."""
    deletion = {key: pod["metadata"][key] for key in _DELETION if key in pod["metadata"]}
    return {**doc, "metadata": {**doc["metadata"], **deletion}}


def kept(doc: Json) -> bool:
    """Whether a kept document is a pod of the cluster's."""
    return doc.get("kind") == "Pod" and belongs_to_cluster(doc)


def foreign_os(pod: Json) -> str:
    """Return the pod's spec.os.name if it is not linux, else "". Source: Kubernetes pkg/kubelet/lifecycle/predicate.go,
    rejectPodAdmissionBasedOnOSField."""
    name = (pod["spec"].get("os") or {}).get("name") or ""
    return "" if name == "linux" else str(name)


def _annotations(pod: Json, server: str) -> dict[str, str]:
    given = pod["metadata"].get("annotations") or {}
    own = (SOURCE, CREATED_BY, REPLICAS, CLUSTER)
    return {**{key: value for key, value in given.items() if key not in own}, CLUSTER: server}


def _others(status: Json) -> list[Json]:
    return [one for one in status.get("conditions") or () if one["type"] not in NODE_CONDITIONS]


def _conditions(pod: Json, status: Json) -> Json:
    """Return the conditions of a kept pod: the node's as they are, those of others as the cluster has them."""
    own = [one for one in status.get("conditions") or () if one["type"] in NODE_CONDITIONS]
    every = [*own, *_others(pod.get("status") or {})]
    return {"conditions": every} if every else {}


def _spec(spec: Json, namespace: str, around: Surroundings, volumes: Mapping[str, Json]) -> Json:
    made = {**spec, **_dns(spec, namespace, around)}
    if volumes:
        given = spec.get("volumes") or ()
        made["volumes"] = [
            {"name": one["name"], **volumes[one["name"]]} if one["name"] in volumes else one for one in given
        ]
    return made


def _dns(spec: Json, namespace: str, around: Surroundings) -> Json:
    """Write out the policy ClusterFirst (Kubernetes pkg/kubelet/network/dns/dns.go, GetPodDNS and appendDNSConfig).
    Without a DNS server of the cluster, the host's applies."""
    policy, own = spec.get("dnsPolicy") or "ClusterFirst", spec.get("dnsConfig") or {}
    through = policy == "ClusterFirstWithHostNet" or (
        policy == "ClusterFirst" and not spec.get("hostNetwork")
    )
    if not through:
        return {}
    if not around.dns:
        return {"dnsPolicy": "Default"}
    domain = around.domain
    searches = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
    options = [{"name": "ndots", "value": "5"}]
    named = {one["name"] for one in own.get("options") or ()}
    return {
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": list(dict.fromkeys([*around.dns, *(own.get("nameservers") or ())])),
            "searches": list(dict.fromkeys([*searches, *(own.get("searches") or ())])),
            "options": [*(one for one in options if one["name"] not in named), *(own.get("options") or ())],
        },
    }


def _unsafe_names(pod: Json) -> list[Problem]:
    """Return what is wrong with the names of which the node makes paths. An API server has checked them, but the node
    does not rely on that: no server may make it write outside its directories."""
    metadata, spec = pod["metadata"], pod["spec"]
    found = [
        Problem(("metadata", key), f"Invalid value: {metadata.get(key)!r}")
        for key, wrong in (("uid", _wrong_uid), ("namespace", dns_label), ("name", dns_subdomain))
        if wrong(str(metadata.get(key)))
    ]
    for part in ("initContainers", "containers", "ephemeralContainers", "volumes"):
        for at, one in enumerate(spec.get(part) or ()):
            if dns_label(str(one.get("name"))):
                found.append(Problem(("spec", part, at, "name"), f"Invalid value: {one.get('name')!r}"))
    return found


def _wrong_uid(uid: str) -> bool:
    return not _UID.fullmatch(uid)


def _known(doc: Json) -> Stored:
    """Drop the fields that a newer cluster knows and this node does not, as a kubelet of an older version does. Raises
    InvalidObject."""
    dropped: list[str] = []
    for _ in range(_ROUNDS):
        try:
            Pod.parse(doc)
        except InvalidObject as error:
            unknown = [problem for problem in error.problems if problem.message.startswith("unknown field")]
            if not unknown:
                raise
            for problem in unknown:
                dropped.append(problem.field)
                doc = _without(doc, problem.path)
        else:
            break
    return Stored(doc, tuple(dropped))


def _without(value: Any, path: tuple[str | int, ...]) -> Any:
    """Return a document without what is at a path."""
    head, rest = path[0], path[1:]
    if isinstance(value, list) and isinstance(head, int):
        return [_without(one, rest) if at == head else one for at, one in enumerate(value)]
    if not rest:
        return {key: one for key, one in value.items() if key != head}
    return {key: _without(one, rest) if key == head else one for key, one in value.items()}
