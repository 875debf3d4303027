"""kubelet_volume_stats_*: the volumes that have series, and their values."""

from __future__ import annotations

from typing import Any

from kubelite.telemetry.metrics.exposition import render
from kubelite.telemetry.sampling.disk_usage import Usage
from kubelite.telemetry.sampling.machine import FileSystem
from kubelite.telemetry.sampling.volume_stats import Volume, summary_of, volumes_of, write_volumes

MIB = 1 << 20
DISK = FileSystem(
    "/dev/vda", size=1000 * MIB, used=400 * MIB, available=500 * MIB, inodes=1000, inodes_free=600
)


def pod(name: str, *volumes: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"u-{name}"},
        "spec": {"volumes": list(volumes)},
    }


def found(*pods: dict[str, Any]) -> list[Volume]:
    claims = {"data": ("/claims/data", "100Mi"), "web-scratch": ("/claims/web-scratch", "0")}
    return [
        volume
        for one in pods
        for volume in volumes_of(one, lambda *words: "/".join(words), lambda _ns, name: claims.get(name))
    ]


def test_claims_ephemeral_volumes_and_empty_dirs() -> None:
    volumes = found(
        pod(
            "web",
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "scratch", "ephemeral": {}},
            {"name": "missing", "persistentVolumeClaim": {"claimName": "not-bound"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "8Mi"}},
            {"name": "huge", "emptyDir": {"medium": "HugePages"}},
            {"name": "c", "configMap": {"name": "c"}},
        )
    )
    assert [(v.claim, v.persistent, v.path, v.limit) for v in volumes] == [
        ("data", "data", "/claims/data", 100 * MIB),
        ("web-scratch", "web-scratch", "/claims/web-scratch", 0),
        ("web-tmp", "", "u-web/kubernetes.io~empty-dir/tmp", 8 * MIB),
    ]


def test_a_claim_of_two_pods_is_one_series_and_stands_before_an_empty_dir_of_its_name() -> None:
    shared = {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}
    like_a_claim = pod("web", shared, {"name": "scratch", "emptyDir": {}}, {"name": "s", "ephemeral": {}})
    other = pod("api", shared, {"name": "x", "persistentVolumeClaim": {"claimName": "web-scratch"}})
    used = Usage(bytes=30 * MIB, inodes=7, file_system=DISK, sockets=None)
    text = render(
        lambda page: write_volumes(page, found(like_a_claim, other), lambda _: used),
        openmetrics=False, compressed=False,
    ).decode()  # fmt: skip
    lines = [line for line in text.splitlines() if line.startswith("kubelet_volume_stats_available_bytes{")]
    head = 'kubelet_volume_stats_available_bytes{namespace="shop",persistentvolumeclaim='
    assert lines == [f'{head}"data"}} {70 * MIB}', f'{head}"web-scratch"}} {500 * MIB}']


def test_the_summary_names_the_claim() -> None:
    volumes = found(
        pod(
            "web",
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "e", "emptyDir": {}},
        )
    )
    used = Usage(bytes=30 * MIB, inodes=7, file_system=DISK, sockets=None)
    claim, empty = (summary_of("now", volume, used) for volume in volumes)
    assert claim["pvcRef"] == {"name": "data", "namespace": "shop"}
    assert "pvcRef" not in empty
    assert (claim["capacityBytes"], claim["usedBytes"], claim["inodesUsed"]) == (100 * MIB, 30 * MIB, 7)
