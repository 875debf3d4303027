"""The page /metrics/state: objects as in kube-state-metrics (docs/metrics of kubernetes/kube-state-metrics).

kube_pod_* is in pods.py. This module has nodes, namespaces, config maps and secrets (never their contents), and the
functions that the modules share. Labels are shown; annotations are not, as by default in kube-state-metrics. Of a list
or map in a manifest, only the first `MOST` entries are shown, so that the number of labels and series is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.telemetry.metrics.exposition import Family, Page, counter, escape, gauge, number
from manifests.types.meta import Quantity

MOST = 64
_CAPITAL = re.compile("([a-z0-9])([A-Z])")
UNITS = {
    "cpu": "core",
    "memory": "byte",
    "storage": "byte",
    "ephemeral_storage": "byte",
    "pods": "integer",
}


class Table:
    """Families that are filled together, object by object, and written in the order of their creation."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._lines: dict[str, list[str]] = {}

    def gauge(self, name: str, text: str) -> str:
        return self._add(gauge(name, text))

    def counter(self, name: str, text: str) -> str:
        return self._add(counter(name, text))

    def add(self, name: str, labels: str, value: float) -> None:
        """Add a sample. `labels`: text without braces."""
        self._lines[name].append(f"{name}{{{labels}}} {number(value)}\n")

    def write(self, page: Page) -> None:
        for name, family in self._families.items():
            page.family(family, "".join(self._lines[name]))

    def _add(self, family: Family) -> str:
        self._families[family.name] = family
        self._lines[family.name] = []
        return family.name


def label(name: str, value: object) -> str:
    return f',{name}="{escape(str(value))}"'


def key_name(text: str) -> str:
    """Convert a Kubernetes key to a label name: app.kubernetes.io/name → app_kubernetes_io_name."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", text)


def label_pairs(doc: Json) -> str:
    """Return every label of the object as `,label_app="web"`."""
    return key_labels("label", doc["metadata"].get("labels") or {})


def key_labels(prefix: str, mapping: Mapping[str, object]) -> str:
    """Return keys and values as labels, named as in kube-state-metrics (internal/store/utils.go): in snake case, with
    the suffix `_conflict` and a number if several keys have the same name."""
    named: dict[str, list[object]] = {}
    for key, value in sorted(mapping.items())[:MOST]:
        named.setdefault(_CAPITAL.sub(r"\1_\2", key_name(key)).lower(), []).append(value)
    found: dict[str, object] = {name: values[0] for name, values in named.items() if len(values) == 1}
    for name, values in named.items():
        if len(values) > 1:
            for place, value in enumerate(values, 1):
                found.setdefault(f"{name}_conflict{place}", value)
    return "".join(label(f"{prefix}_{name}", value) for name, value in found.items())


def owner_labels(meta: Json) -> list[str]:
    """Return the labels of each owner; one set of empty labels if there is no owner."""
    found: list[str] = []
    owners: list[Json] = meta.get("ownerReferences") or [{}]
    for one in owners:
        is_controller = str(bool(one.get("controller"))).lower() if one else ""
        words = {"kind": one.get("kind", ""), "name": one.get("name", ""), "is_controller": is_controller}
        found.append("".join(label(f"owner_{key}", value) for key, value in words.items()))
    return found


def amount(resource: str, value: object) -> float:
    """Convert a quantity to kube-state-metrics' unit: cores, bytes or a number."""
    return _amount(resource, str(value))


@lru_cache(1024)
def _amount(resource: str, text: str) -> float:
    quantity = Quantity(text)
    return quantity.milli() / 1000 if resource == "cpu" else float(quantity.value())


def resource_labels(name: str) -> str:
    clean = key_name(name)
    unit = UNITS.get(clean, "byte" if clean.startswith("hugepages_") else "integer")
    return f',resource="{clean}",unit="{unit}"'


def write_node(page: Page, doc: Json) -> None:
    """Write kube_node_* of the single node."""
    t = Table()
    meta, spec, status = doc["metadata"], doc.get("spec", {}), doc.get("status", {})
    node = f'node="{escape(meta["name"])}"'
    info = status.get("nodeInfo", {})
    addresses = {a["type"]: a["address"] for a in status.get("addresses", ())}
    words = {
        "kernel_version": info.get("kernelVersion", ""),
        "os_image": info.get("osImage", ""),
        "container_runtime_version": info.get("containerRuntimeVersion", ""),
        "kubelet_version": info.get("kubeletVersion", ""),
        "kubeproxy_version": info.get("kubeProxyVersion", ""),
        "provider_id": spec.get("providerID", ""),
        "pod_cidr": spec.get("podCIDR", ""),
        "system_uuid": info.get("systemUUID", ""),
        "internal_ip": addresses.get("InternalIP", ""),
    }
    pairs = "".join(label(name, value) for name, value in words.items())
    t.add(t.gauge("kube_node_info", "Information about a cluster node."), node + pairs, 1)
    created = parse_time(meta.get("creationTimestamp"))
    t.add(t.gauge("kube_node_created", "Unix creation timestamp"), node, created or 0)
    t.add(
        t.gauge("kube_node_labels", "Kubernetes labels converted to Prometheus labels."),
        node + label_pairs(doc),
        1,
    )
    role = t.gauge("kube_node_role", "The role of a cluster node.")
    for key in meta.get("labels") or {}:
        if key.startswith("node-role.kubernetes.io/"):
            t.add(role, node + label("role", key.partition("/")[2]), 1)
    cidrs = t.gauge("kube_node_spec_pod_cidrs", "The Pod CIDRs assigned to the node.")
    for cidr in spec.get("podCIDRs", ()):
        t.add(cidrs, node + label("pod_cidr", cidr), 1)
    t.add(
        t.gauge("kube_node_spec_unschedulable", "Whether a node can schedule new pods."),
        node,
        float(bool(spec.get("unschedulable"))),
    )
    taints = t.gauge("kube_node_spec_taint", "The taint of a cluster node.")
    for taint in spec.get("taints", ()):
        pair = "".join(label(k, taint.get(k, "")) for k in ("key", "value", "effect"))
        t.add(taints, node + pair, 1)
    places = t.gauge("kube_node_status_addresses", "Node address information.")
    for address in status.get("addresses", ()):
        t.add(places, node + label("type", address["type"]) + label("address", address["address"]), 1)
    for word, text in (
        ("capacity", "The total amount of resources available for a node."),
        (
            "allocatable",
            "The amount of resources allocatable for pods (after reserving some for system daemons).",
        ),
    ):
        family = t.gauge(f"kube_node_status_{word}", text)
        for name, value in (status.get(word) or {}).items():
            t.add(family, node + resource_labels(name), amount(name, value))
    conditions = status.get("conditions", ())
    _conditions(t, "kube_node_status_condition", "The condition of a cluster node.", [(node, conditions)])
    t.write(page)


def _conditions(t: Table, name: str, text: str, found: Iterable[tuple[str, Iterable[Json]]]) -> None:
    """`found`: the labels of each object, and its conditions."""
    family = t.gauge(name, text)
    for head, conditions in found:
        for condition in conditions:
            for value in ("true", "false", "unknown"):
                pair = label("condition", condition["type"]) + f',status="{value}"'
                t.add(family, head + pair, float(str(condition["status"]).lower() == value))


def write_objects(
    page: Page, namespaces: Iterable[Json], config_maps: Iterable[Json], secrets: Iterable[Json]
) -> None:
    """Write kube_namespace_*, kube_configmap_* and kube_secret_*, without the objects' contents."""
    t = Table()
    phase = t.gauge("kube_namespace_status_phase", "kubernetes namespace status phase.")
    created = t.gauge("kube_namespace_created", "Unix creation timestamp")
    labelled = t.gauge("kube_namespace_labels", "Kubernetes labels converted to Prometheus labels.")
    conditions = [(doc, (doc.get("status") or {}).get("conditions") or ()) for doc in namespaces]
    for doc, _ in conditions:
        head = f'namespace="{escape(doc["metadata"]["name"])}"'
        now = (doc.get("status") or {}).get("phase", "Active")
        for value in ("Active", "Terminating"):
            t.add(phase, f'{head},phase="{value}"', float(value == now))
        if (at := parse_time(doc["metadata"].get("creationTimestamp"))) is not None:
            t.add(created, head, at)
        t.add(labelled, head + label_pairs(doc), 1)
    _conditions(
        t,
        "kube_namespace_status_condition",
        "The condition of a namespace.",
        [(f'namespace="{escape(doc["metadata"]["name"])}"', found) for doc, found in conditions],
    )
    for kind, docs in (("configmap", config_maps), ("secret", secrets)):
        _named(t, kind, docs)
    t.write(page)


def _named(t: Table, kind: str, docs: Iterable[Json]) -> None:
    info = t.gauge(f"kube_{kind}_info", f"Information about {kind}.")
    created = t.gauge(f"kube_{kind}_created", "Unix creation timestamp")
    labelled = t.gauge(f"kube_{kind}_labels", "Kubernetes labels converted to Prometheus labels.")
    version = t.gauge(
        f"kube_{kind}_metadata_resource_version",
        f"Resource version representing a specific version of the {kind}.",
    )
    secret = kind == "secret"
    type_ = t.gauge("kube_secret_type", "Type about secret.") if secret else ""
    owned = t.gauge("kube_secret_owner", "Information about the Secret's owner.") if secret else ""
    for doc in docs:
        meta = doc["metadata"]
        head = f'namespace="{escape(meta.get("namespace", ""))}",{kind}="{escape(meta["name"])}"'
        t.add(info, head, 1)
        t.add(labelled, head + label_pairs(doc), 1)
        if secret:
            t.add(type_, head + label("type", doc.get("type", "Opaque")), 1)
            for text in owner_labels(meta):
                t.add(owned, head + text, 1)
        if (at := parse_time(meta.get("creationTimestamp"))) is not None:
            t.add(created, head, at)
        if str(meta.get("resourceVersion", "")).isdigit():
            t.add(version, head, int(meta["resourceVersion"]))
