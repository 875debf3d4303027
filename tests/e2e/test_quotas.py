"""A node on a disk with project quotas: the file system limits claims to their size and counts the usage of layers and
volumes. The values are compared with those of the file system's own tools."""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.disks import MIB, projects, with_projects
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.e2e.test_fields import manifest, run
from tests.e2e.test_metrics import METRICS, one, samples

SUMMARY = "http://127.0.0.1:10255/stats/summary"
VOLUMES = ("data", "w-tmp", "w-work")
ROW = {"namespace": "default", "pod": "w", "container": "main"}


def test_disks_with_project_quotas(tmp_path: Path, images: Path) -> None:
    """Both file systems: layers and volumes on ext4, claims on xfs."""
    with with_projects("ext4", tmp_path) as pods, with_projects("xfs", tmp_path) as claims:
        (pods / "node/root").mkdir(parents=True)
        (pods / "node/root/claims").symlink_to(claims)
        with running_node(pods / "node", images) as node:
            _start(node)
            _a_claim_is_held_to_its_size(node, claims)
            _what_is_there_is_counted(node, pods, claims)
            _what_is_over_its_limit_is_evicted(node)
            before = {**projects("ext4", pods), **projects("xfs", claims)}
            assert len(before) == 7, "each of three layers, three emptyDirs and a claim has one of its own"
            node.restart(9)
            _a_new_size_holds(node, claims)
            found = {**projects("ext4", pods), **projects("xfs", claims)}
            assert found.keys() == before.keys(), "a new daemon finds the same projects"
            _a_project_goes_with_what_had_it(node, pods, claims)


def claim(size: str) -> str:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    annotations = {"kubelite.io/reclaim-policy": "Delete"}
    text = manifest("PersistentVolumeClaim", "data", spec=spec)
    return text.replace("name: data", f"name: data\n  annotations: {annotations}", 1)


def _start(node: Node) -> None:
    volumes: list[dict[str, Any]] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "work", "emptyDir": {}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    node.apply("data.yaml", claim("8Mi"))
    node.apply("w.yaml", pod("w", container(volumeMounts=mounts), volumes=volumes))
    over = {"limits": {"ephemeral-storage": "2Mi"}}
    fill = "head -c 3000000 /dev/zero > /big; cp /big /v; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    node.apply("layer.yaml", pod("layer", container(script=f"mkdir /v; {fill}", resources=over)))
    small = [{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    node.apply("volume.yaml", pod("volume", container(script=fill, volumeMounts=mounts), volumes=small))
    node.wait_status("w", "Running")


FILES = "mkdir /many; for n in $(seq 100); do echo $n > /many/$n; done"
BIG = "dd if=/dev/urandom of=/many/big bs=1M count=4 2>/dev/null"
COPIES = (
    "touch /bin/busybox; cp /bin/busybox /tmp/busybox; sync"  # the first write copies it up from the image
)


def _a_claim_is_held_to_its_size(node: Node, disk: Path) -> None:
    fill = "dd if=/dev/urandom of=/data/big bs=64k count=256 2>&1"
    said = run(node, "w", f"{fill}; {FILES}; {BIG}; {COPIES}; df -k /data | tail -1")
    assert "No space left" in said
    assert int(said.split()[-5]) == 8 << 10, "df in the container shows the claim's size"
    (held,) = projects("xfs", disk).values()
    assert held[1:] == (8 * MIB, 2)
    assert held[0] == pytest.approx(8 * MIB, rel=0.02)
    assert not node.events("SizeNotEnforced")


def _what_is_there_is_counted(node: Node, pods: Path, claims: Path) -> None:
    """Files in the writable layer (new ones, and one copied up from the image), in an emptyDir and in the claim are
    counted."""
    layers = {name: f"kubelet_volume_stats_{name}" for name in ("used_bytes", "inodes_used")}

    def measured() -> bool:
        page = node.get(METRICS)
        found = samples(page, "container_fs_usage_bytes", **ROW)
        return all([found, *(samples(page, layers["used_bytes"], persistentvolumeclaim=v) for v in VOLUMES)])

    node.wait(measured, "the layers and the volumes to be measured")
    page = node.get(METRICS)
    assert one(page, "kubelite_disk_usage_timestamp_seconds") > 0, "how old it is"
    uid = node.pod("w")["metadata"]["uid"]
    volumes = node.root / "pods" / uid / "volumes/kubernetes.io~empty-dir"
    upper = node.root / "pods" / uid / "containers/main/0/upper"
    places = {
        "data": node.root / "claims/default/data/data",
        "w-tmp": volumes / "tmp",
        "w-work": volumes / "work",
    }
    found = {
        name: tuple(one(page, family, persistentvolumeclaim=name) for family in layers.values())
        for name in VOLUMES
    }
    (pod_of,) = [p for p in json.loads(node.get(SUMMARY))["pods"] if p["podRef"]["name"] == "w"]
    inodes = pod_of["containers"][0]["rootfs"]["inodesUsed"]
    found["layer"] = (one(page, "container_fs_usage_bytes", **ROW), inodes)
    for name, place in {**places, "layer": upper}.items():
        counted = _walked(place)
        assert found[name][0] == pytest.approx(counted[0], rel=0.02, abs=4096), name
        assert found[name][1] == counted[1], name
    told = [row[0] for row in (*projects("ext4", pods).values(), *projects("xfs", claims).values())]
    for name, (size, _) in found.items():
        assert any(size == pytest.approx(other, rel=0.02, abs=32 << 10) for other in told), (name, size, told)


def _walked(place: Path) -> tuple[int, int]:
    """Bytes from du and inodes from find, without the directory itself."""
    command = ["du", "-s", "--block-size=1", str(place)]
    size = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])
    return size - os.stat(place).st_blocks * 512, sum(1 for _ in place.rglob("*"))


def _a_new_size_holds(node: Node, disk: Path) -> None:
    node.apply("data.yaml", claim("12Mi"))
    node.wait(
        lambda: [row[1] for row in projects("xfs", disk).values()] == [12 * MIB], "the claim's new size"
    )
    said = run(node, "w", "dd if=/dev/urandom of=/data/more bs=64k count=256 2>&1; true")
    assert "No space left" in said
    (held,) = projects("xfs", disk).values()
    assert held[1:] == (12 * MIB, 3)
    assert held[0] == pytest.approx(12 * MIB, rel=0.02)


def _what_is_over_its_limit_is_evicted(node: Node) -> None:
    said = {
        "layer": "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
        "volume": 'Usage of EmptyDir volume "v" exceeds the limit "2Mi". ',
    }
    for name, message in said.items():
        node.wait(partial(_has_ended, node, name), f"{name} to be evicted")
        status = node.pod(name)["status"]
        assert (status["reason"], status["message"]) == ("Evicted", message)


def _has_ended(node: Node, name: str) -> bool:
    return bool(node.pod(name)["status"].get("phase") == "Failed")


def _a_project_goes_with_what_had_it(node: Node, pods: Path, claims: Path) -> None:
    for name in ("layer", "volume", "w"):
        (node.manifests / f"{name}.yaml").unlink()
    node.wait(lambda: not projects("ext4", pods), "the pods' projects to go with them")
    assert [row[1] for row in projects("xfs", claims).values()] == [12 * MIB]
    (node.manifests / "data.yaml").unlink()
    node.wait(lambda: not projects("xfs", claims), "the claim's to go, with its limit")
