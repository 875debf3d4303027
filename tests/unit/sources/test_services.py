"""Services in the directory: addresses and node ports, what an edit keeps, and what is refused with its line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kubelite.services.allocation import Ranges, allocate
from kubelite.settings import Settings
from kubelite.sources.directory import Sources
from kubelite.sources.services import ignored_fields, refused_services
from manifests.types.workloads.kinds import WORKLOADS, Kinds
from manifests.yaml import loader
from state.store import Store
from tests.unit.sources.kit import directory

__all__ = ["directory"]

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - port: 80
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}
"""


@pytest.fixture
def sources(directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Sources:
    given = {key: model for key, model in loader.KINDS.items() if key not in WORKLOADS}
    monkeypatch.setattr(loader, "KINDS", Kinds(given, "Service", "Endpoints", "EndpointSlice"))
    return Sources(str(directory), store, allocate=partial(_allocate, Ranges("10.96.0.0/16")))


def _allocate(ranges: Ranges, wanted: Any, held: Any) -> Any:
    return allocate(wanted, held, ranges)


def spec(store: Store, name: str = "web") -> dict[str, Any]:
    record = store.get("Service", "default", name)
    assert record is not None
    found: dict[str, Any] = record.doc["spec"]
    return found


def problems(sources: Sources) -> list[str]:
    return [
        problem.sentence(Path(state.file).name) for state in sources.states() for problem in state.problems
    ]


async def test_a_service_gets_what_it_keeps(directory: Path, sources: Sources, store: Store) -> None:
    file = directory / "web.yaml"
    file.write_text(WEB)
    await sources.scan()
    first = spec(store)
    address, port = first["clusterIP"], first["ports"][0]["nodePort"]
    record = store.get("Service", "default", "web")
    assert record is not None and "status" not in record.doc and "generation" not in record.metadata
    version = store.resource_version
    await sources.scan()
    file.write_text(WEB + "# a comment\n")
    await sources.scan()
    assert store.resource_version == version
    file.write_text(WEB.replace("port: 80", "port: 8080"))
    await sources.scan()
    assert spec(store)["clusterIP"] == address
    assert spec(store)["ports"] == [{"port": 8080, "protocol": "TCP", "targetPort": 8080, "nodePort": port}]


async def test_a_node_port_comes_with_an_edit(directory: Path, sources: Sources, store: Store) -> None:
    file = directory / "web.yaml"
    file.write_text(WEB.replace("NodePort", "ClusterIP"))
    await sources.scan()
    address = spec(store)["clusterIP"]
    file.write_text(WEB)
    await sources.scan()
    assert spec(store)["ports"][0]["nodePort"] and spec(store)["clusterIP"] == address
    file.write_text(WEB.replace("NodePort", "ClusterIP"))
    await sources.scan()
    assert "nodePort" not in spec(store)["ports"][0]


async def test_what_another_service_has_is_refused_with_its_line(
    directory: Path, sources: Sources, store: Store
) -> None:
    (directory / "a.yaml").write_text(WEB)
    await sources.scan()
    port = spec(store)["ports"][0]["nodePort"]
    other = WEB.replace("name: web", "name: other").replace("port: 80", f"port: 80\n    nodePort: {port}")
    (directory / "b.yaml").write_text(other)
    await sources.scan()
    assert store.get("Service", "default", "other") is None
    assert problems(sources) == [
        f"b.yaml:10: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated to service "
        "default/web"
    ]
    (directory / "a.yaml").unlink()
    await sources.scan(settle=0)
    await sources.scan(settle=0)
    assert spec(store, "other")["ports"][0]["nodePort"] == port and not problems(sources)


async def test_an_address_cannot_change(directory: Path, sources: Sources, store: Store) -> None:
    file = directory / "web.yaml"
    file.write_text(WEB)
    await sources.scan()
    before = spec(store)
    file.write_text(WEB.replace("type: NodePort", "clusterIP: 10.96.0.9\n  type: NodePort"))
    await sources.scan()
    assert spec(store) == before
    assert problems(sources) == [
        'web.yaml:5: spec.clusterIPs[0]: Invalid value: "10.96.0.9": may not change once set; delete the object first: '
        "`kubelite delete service web`"
    ]


def test_fields_without_effect_are_named() -> None:
    assert ignored_fields({"type": "ClusterIP"}) == ""
    assert ignored_fields({"trafficDistribution": "PreferClose"}) == (
        "spec.trafficDistribution has no effect: there is one node, which gets all traffic"
    )


async def test_what_would_be_refused_is_known_before_it_is_written(
    directory: Path, sources: Sources, store: Store
) -> None:
    settings = Settings.load({}, {})
    (directory / "web.yaml").write_text(WEB)
    await sources.scan()
    port = spec(store)["ports"][0]["nodePort"]
    other = WEB.replace("name: web", "name: other").replace("port: 80", f"port: 80\n    nodePort: {port}")
    dual = WEB.replace("type: NodePort", "ipFamilyPolicy: RequireDualStack")
    for text, name, field in (
        (other, "other", "spec.ports[0].nodePort"),
        (dual, "web", "spec.ipFamilyPolicy"),
    ):
        found = refused_services(loader.load_text(text, file="x").documents, store, settings)
        assert {key: one.field for key, one in found.items()} == {("default", name): field}
    assert not refused_services(loader.load_text(WEB, file="x").documents, store, settings)
