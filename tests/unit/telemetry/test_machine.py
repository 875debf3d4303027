"""What identifies the machine, and whose its pods are."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.kube.objects import CLUSTER
from kubelite.telemetry.metrics.agent_page import _by_source
from kubelite.telemetry.sampling.machine import _system_uuid
from state.store import Store


@pytest.mark.parametrize(
    ("files", "uuid"),
    [
        ({"dmi": "4C4C4544-0047\n", "machine-id": "0f0f\n"}, "4c4c4544-0047"),
        ({"vm,uuid": "c0ffee\0", "machine-id": "0f0f\n"}, "c0ffee"),
        ({"dmi": "\n", "machine-id": "0f0f\n"}, "0f0f"),
        ({"machine-id": "0f0f\n"}, "0f0f"),
        ({}, ""),
    ],
    ids=["firmware", "Power", "empty firmware", "neither", "nothing"],
)
def test_the_uuid_of_the_system(files: dict[str, str], uuid: str, tmp_path: Path) -> None:
    """The order of cAdvisor's GetSystemUUID."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert (
        _system_uuid([str(tmp_path / name) for name in ("dmi", "system-id", "vm,uuid", "machine-id")]) == uuid
    )


async def test_pods_of_the_directory_are_static_and_those_of_a_cluster_are_not(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    try:
        for name, annotations in (("a", {}), ("b", {CLUSTER: "https://127.0.0.1:6443"}), ("c", {})):
            await store.create("Pod", {"metadata": {"name": name, "uid": name, "annotations": annotations}})
        assert _by_source(store.list("Pod")) == {"true": 2, "false": 1}
    finally:
        await store.close()
