"""Documents of claims and volumes for tests."""

from __future__ import annotations

from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from kubelite.node.model.schedule import NodeFacts
from manifests.types.core import Pod

NODE = NodeFacts("node-1", labels={"disk": "ssd"})


def claim(name: str = "c", size: str = "2Gi", **spec: Any) -> Json:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    metadata = {"name": name, "namespace": "default", "uid": f"u-{name}"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted}


def volume(name: str, size: str = "2Gi", **spec: Any) -> Json:
    wanted = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "manual",
        "volumeMode": "Filesystem",
        "hostPath": {"path": f"/srv/{name}", "type": ""},
        **spec,
    }
    metadata = {"name": name, "uid": f"u-{name}", "annotations": {SOURCE: "/m/v.yaml"}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": wanted}


def storage_class(name: str, provisioner: str = "example.com/x", **more: Any) -> Json:
    return {"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner, **more}


def ref(name: str, uid: str = "") -> Json:
    return {"namespace": "default", "name": name, **({"uid": uid} if uid else {})}


BOUND = {"status": {"phase": "Bound"}}
MANUAL = claim(storageClassName="manual")
MODES = '"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'
UNMATCHED = 'Cannot bind to requested volume "a": '
MISBOUND = "Two claims are bound to the same volume, this one is bound incorrectly"


def pod(name: str = "p", claim_name: str = "c") -> Pod:
    source = {"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    spec = {"containers": [{"name": "a", "image": "i", "volumeMounts": mounts}], "volumes": [source]}
    return Pod.parse({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec})


def on_disk(kind: str) -> Json:
    found = {"key": "disk", "operator": "In", "values": [kind]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [found]}]}}


ON_SSD, ON_HDD = on_disk("ssd"), on_disk("hdd")
