"""kube_persistentvolumeclaim_* and kube_pod_spec_volumes_persistentvolumeclaims_*, as in kube-state-metrics
(docs/metrics/storage/persistentvolumeclaim-metrics.md, internal/store/persistentvolumeclaim.go and pod.go).
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.node.model.claim_names import claim_name_in
from kubelite.telemetry.metrics.exposition import Page, escape
from kubelite.telemetry.metrics.kubestate.page import Table, amount, label, label_pairs
from kubelite.telemetry.metrics.kubestate.pods import head_of

PHASES = ("Lost", "Bound", "Pending")


def write_claims(page: Page, claims: Iterable[Json], pods: Iterable[Json]) -> None:
    """Write all families about claims and about the pods that use them."""
    table = Table()
    _claims(table, claims)
    _mounts(table, pods)
    table.write(page)


def _claims(t: Table, claims: Iterable[Json]) -> None:
    info = t.gauge("kube_persistentvolumeclaim_info", "Information about persistent volume claim.")
    labelled = t.gauge(
        "kube_persistentvolumeclaim_labels", "Kubernetes labels converted to Prometheus labels."
    )
    modes = t.gauge(
        "kube_persistentvolumeclaim_access_mode",
        "The access mode(s) specified by the persistent volume claim.",
    )
    phase = t.gauge(
        "kube_persistentvolumeclaim_status_phase", "The phase the persistent volume claim is currently in."
    )
    wanted = t.gauge(
        "kube_persistentvolumeclaim_resource_requests_storage_bytes",
        "The capacity of storage requested by the persistent volume claim.",
    )
    created = t.gauge("kube_persistentvolumeclaim_created", "Unix creation timestamp")
    for doc in claims:
        meta, spec = doc["metadata"], doc.get("spec") or {}
        head = (
            f'namespace="{escape(meta.get("namespace", ""))}",persistentvolumeclaim="{escape(meta["name"])}"'
        )
        words = {
            "storageclass": spec.get("storageClassName") or "",
            "volumename": spec.get("volumeName") or "",
            "volumemode": spec.get("volumeMode") or "Filesystem",
        }
        t.add(info, head + "".join(label(k, v) for k, v in words.items()), 1)
        t.add(labelled, head + label_pairs(doc), 1)
        for mode in spec.get("accessModes") or ():
            t.add(modes, head + label("access_mode", mode), 1)
        now = (doc.get("status") or {}).get("phase", "Pending")
        for value in PHASES:
            t.add(phase, f'{head},phase="{value}"', float(value == now))
        size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
        if size is not None:
            t.add(wanted, head, amount("storage", size))
        if (at := parse_time(meta.get("creationTimestamp"))) is not None:
            t.add(created, head, at)


def _mounts(t: Table, pods: Iterable[Json]) -> None:
    info = t.gauge(
        "kube_pod_spec_volumes_persistentvolumeclaims_info",
        "Information about persistentvolumeclaim volumes in a pod.",
    )
    readonly = t.gauge(
        "kube_pod_spec_volumes_persistentvolumeclaims_readonly",
        "Describes whether a persistentvolumeclaim is mounted read only.",
    )
    for doc in pods:
        head = head_of(doc)
        for volume in doc["spec"].get("volumes") or ():
            if not (name := claim_name_in(doc["metadata"]["name"], volume)):
                continue
            pairs = head + label("volume", volume["name"]) + label("persistentvolumeclaim", name)
            if claim := volume.get("persistentVolumeClaim"):
                t.add(info, pairs, 1)
                t.add(readonly, pairs, float(bool(claim.get("readOnly"))))
            else:
                t.add(info, pairs + ',ephemeral="true"', 1)
