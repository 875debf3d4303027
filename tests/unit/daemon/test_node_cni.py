"""What a node says of objects that need its own network, and what CNI plugins hear of a pod."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubelite.daemon.cni.node_cni import IPS, MAC, cni_network, say_unserved, unserved
from kubelite.daemon.lifecycle import StartupError, _check_network
from kubelite.kube.events import EventRecorder
from kubelite.settings import Settings
from state.store import Store


def doc(kind: str, name: str, **annotations: str) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "annotations": annotations}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def settings(tmp_path: Path, **changed: Any) -> Settings:
    return Settings(root=str(tmp_path / "root"), run_dir=str(tmp_path / "run"), node_name="here", **changed)


async def test_each_object_that_is_not_served_gets_an_event(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    events = EventRecorder(store, "here")
    await store.create("Service", doc("Service", "web"))
    saying = asyncio.ensure_future(say_unserved(store, events))
    try:
        await asyncio.sleep(0)
        await store.create("NetworkPolicy", doc("NetworkPolicy", "deny"))
        async with asyncio.timeout(5):
            while len(store.list("Event")) < 2:
                await asyncio.sleep(0.01)
                await events.flush()
        said = {event.doc["involvedObject"]["name"]: event.doc["message"] for event in store.list("Event")}
        assert "this Service has no cluster IP" in said["web"]
        assert "this NetworkPolicy is not in force" in said["deny"]
        assert [sentence.split(",")[0] for sentence in unserved(store)] == [
            "1 objects of kind Service",
            "1 objects of kind NetworkPolicy",
        ]
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        await store.close()


async def test_plugins_hear_of_a_pod_what_it_asks_for(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.create(
        "Pod", doc("Pod", "web", **{IPS: "10.66.0.9/24, fd66::9/64", MAC: "0a:58:00:00:00:07"})
    )
    network = cni_network(settings(tmp_path, network="cni"), store)
    found = network._facts("uid-web")
    assert (found.namespace, found.name) == ("shop", "web")
    assert (found.ips, found.mac) == (("10.66.0.9/24", "fd66::9/64"), "0a:58:00:00:00:07")
    assert network._facts("another").name == ""
    await store.close()


def test_the_network_does_not_change_under_pods(tmp_path: Path) -> None:
    own, cni = settings(tmp_path), settings(tmp_path, network="cni")
    _check_network(own)
    _check_network(cni)
    for directory, refused, other in (("run/network/leases", cni, own), ("root/cni", own, cni)):
        (tmp_path / directory).mkdir(parents=True)
        _check_network(refused)
        (tmp_path / directory / "uid.json").touch()
        with pytest.raises(StartupError, match="run kubelite reset first"):
            _check_network(refused)
        _check_network(other)
        (tmp_path / directory / "uid.json").unlink()
