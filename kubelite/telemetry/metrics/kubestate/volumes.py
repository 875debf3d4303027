"""kube_persistentvolume_* and kube_storageclass_*, as in kube-state-metrics (docs/metrics/storage,
internal/store/persistentvolume.go and storageclass.go).
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.telemetry.metrics.exposition import Page, escape
from kubelite.telemetry.metrics.kubestate.page import Table, amount, label, label_pairs

PHASES = ("Pending", "Available", "Bound", "Released", "Failed")


def write_persistent_volumes(page: Page, volumes: Iterable[Json], classes: Iterable[Json]) -> None:
    """Write all families of volumes and their classes."""
    table = Table()
    _volumes(table, volumes)
    _classes(table, classes)
    table.write(page)


def _volumes(t: Table, volumes: Iterable[Json]) -> None:
    claim_ref = t.gauge(
        "kube_persistentvolume_claim_ref", "Information about the Persistent Volume Claim Reference."
    )
    labelled = t.gauge("kube_persistentvolume_labels", "Kubernetes labels converted to Prometheus labels.")
    phase = t.gauge(
        "kube_persistentvolume_status_phase",
        "The phase indicates if a volume is available, bound to a claim, or released by a claim.",
    )
    info = t.gauge("kube_persistentvolume_info", "Information about persistentvolume.")
    capacity = t.gauge("kube_persistentvolume_capacity_bytes", "Persistentvolume capacity in bytes.")
    created = t.gauge("kube_persistentvolume_created", "Unix creation timestamp")
    mode = t.gauge("kube_persistentvolume_volume_mode", "Volume Mode information for the PersistentVolume.")
    for doc in volumes:
        meta, spec = doc["metadata"], doc["spec"]
        head = f'persistentvolume="{escape(meta["name"])}"'
        if ref := spec.get("claimRef"):
            names = label("name", ref.get("name", "")) + label("claim_namespace", ref.get("namespace", ""))
            t.add(claim_ref, head + names, 1)
        t.add(labelled, head + label_pairs(doc), 1)
        now = (doc.get("status") or {}).get("phase", "")
        for value in PHASES if now else ():
            t.add(phase, f'{head},phase="{value}"', float(value == now))
        t.add(info, head + "".join(label(k, v) for k, v in _source(spec).items()), 1)
        size = (spec.get("capacity") or {}).get("storage")
        if size is not None:
            t.add(capacity, head, amount("storage", size))
        if (at := parse_time(meta.get("creationTimestamp"))) is not None:
            t.add(created, head, at)
        t.add(mode, head + label("volumemode", spec.get("volumeMode") or "Filesystem"), 1)


def _source(spec: Json) -> dict[str, str]:
    """Return the labels of the info family. Labels of sources that kubelite does not support are empty."""
    host, local = spec.get("hostPath") or {}, spec.get("local") or {}
    nfs, csi = spec.get("nfs") or {}, spec.get("csi") or {}
    nowhere = (
        "gce_persistent_disk_name",
        "ebs_volume_id",
        "azure_disk_name",
        "fc_wwids",
        "fc_lun",
        "fc_target_wwns",
        "iscsi_target_portal",
        "iscsi_iqn",
        "iscsi_lun",
        "iscsi_initiator_name",
    )
    return {
        "storageclass": spec.get("storageClassName") or "",
        **dict.fromkeys(nowhere, ""),
        "nfs_server": nfs.get("server", ""),
        "nfs_path": nfs.get("path", ""),
        "csi_driver": csi.get("driver", ""),
        "csi_volume_handle": csi.get("volumeHandle", ""),
        "local_path": local.get("path", ""),
        "local_fs": local.get("fsType") or "",
        "host_path": host.get("path", ""),
        "host_path_type": host.get("type") or "",
        "reclaim_policy": spec.get("persistentVolumeReclaimPolicy", ""),
    }


def _classes(t: Table, classes: Iterable[Json]) -> None:
    info = t.gauge("kube_storageclass_info", "Information about storageclass.")
    created = t.gauge("kube_storageclass_created", "Unix creation timestamp")
    labelled = t.gauge("kube_storageclass_labels", "Kubernetes labels converted to Prometheus labels.")
    for doc in classes:
        meta = doc["metadata"]
        head = f'storageclass="{escape(meta["name"])}"'
        words = {
            "provisioner": doc.get("provisioner", ""),
            "reclaim_policy": doc.get("reclaimPolicy") or "Delete",
            "volume_binding_mode": doc.get("volumeBindingMode") or "Immediate",
        }
        t.add(info, head + "".join(label(k, v) for k, v in words.items()), 1)
        if (at := parse_time(meta.get("creationTimestamp"))) is not None:
            t.add(created, head, at)
        t.add(labelled, head + label_pairs(doc), 1)
