"""The controller of Ingresses with a store and a proxy in memory."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.node.drain_plan import DrainOptions, plan_drain
from kubelite.controllers.admission import Admission
from kubelite.ingress import controller as module
from kubelite.ingress.controller import IngressController
from kubelite.ingress.haproxy import CONFIG
from kubelite.ingress.model import NAMESPACE, POD
from kubelite.ingress.proxy import ProxyError, ProxyFiles
from kubelite.ingress.proxy_pod import PodOptions, container_id, is_current, proxy_pod
from kubelite.kube.events import EventRecorder
from kubelite.node.model.cri import ExecResult
from kubelite.policies.gate import Gate
from state.records import Record
from state.store import Store
from tests.unit.ingress.kit import Doc, backend, endpoint_slice, ingress, path, rule, service
from tests.unit.policies.kit import quota
from tests.unit.state.store_kit import full_disk
from tests.waiting import SECONDS

ADDRESS = "192.0.2.10"


class Proxy(ProxyFiles):
    """A proxy that has its files in memory. `refuses`: what it says about a new configuration."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, self._nothing)
        self.written: dict[str, Mapping[str, bytes]] = {}
        self.config: Mapping[str, bytes] = {}
        self.reloads = 0
        self.commands: list[str] = []
        self.refuses = ""
        self.silent = False
        self.check_fails = False

    async def _nothing(self, _uid: str, _id: str, _command: list[str], _timeout: float) -> ExecResult:
        raise AssertionError("checks are answered here")

    def write(self, files: Mapping[str, bytes]) -> str:
        name = str(len(self.written) + 1)
        self.written[name] = files
        return name

    def publish(self, generation: str) -> None:
        self.config = self.written[generation]

    def discard(self, generation: str) -> None:
        del self.written[generation]

    def remove(self) -> None:
        self.config = {}

    async def check(self, uid: str, container: str, generation: str) -> str:
        if self.check_fails:
            raise ProxyError("the check took too long")
        return self.refuses

    async def reload(self) -> None:
        if self.silent:
            raise ProxyError("the proxy does not answer")
        self.reloads += 1

    async def run(self, command: str) -> None:
        self.commands.append(command)


class World:
    def __init__(self, store: Store, directory: Path) -> None:
        self.store, self.proxy = store, Proxy(directory)
        self.addresses = [ADDRESS]
        self.events = EventRecorder(store, "node")
        options = PodOptions("node", "haproxy:3.0", 80, 443, "/root/ingress")
        self.controller = IngressController(
            store,
            self.events,
            Admission(store),
            self.proxy,
            options,
            node="node",
            addresses=lambda: self.addresses,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.controller.run())

    @property
    def pod(self) -> Record | None:
        return self.store.get("Pod", NAMESPACE, POD)

    async def put(self, kind: str, doc: Doc) -> None:
        metadata = {"uid": f"uid-{doc['metadata']['name']}", **doc["metadata"]}
        await self.store.create(kind, {**doc, "kind": kind, "metadata": metadata})

    async def change(self, uid: str, **fields: Any) -> None:
        await self.store.modify(uid, lambda doc: {**doc, **fields})

    async def runs(self, name: str = "one") -> None:
        """Do as the node does with a pod that has started."""
        await self.until(lambda: self.pod is not None and not self.pod.deleting)
        assert self.pod is not None
        state = {"name": "haproxy", "containerID": f"kubelite://{name}", "state": {"running": {}}}
        await self.change(self.pod.uid, status={"phase": "Running", "containerStatuses": [state]})

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                assert self.task is not None
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.01)

    def address(self, name: str = "a") -> list[Doc]:
        found = self.store.get("Ingress", "default", name)
        assert found is not None
        return list(((found.doc.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ())

    async def until_said(self, reason: str) -> str:
        async with asyncio.timeout(SECONDS):
            while reason not in (said := await self.said()):
                await self.until(lambda: True)
                await asyncio.sleep(0.02)
        return said[reason]

    async def said(self) -> dict[str, str]:
        await self.events.flush()
        return {one.doc["reason"]: one.doc["message"] for one in self.store.list("Event")}


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "tables", lambda: [])
    monkeypatch.setattr(module, "BETWEEN_RELOADS", 0.0)
    monkeypatch.setattr(module, "AGAIN", 0.02)
    store = Store.open(str(tmp_path / "state.db"))
    found = World(store, tmp_path)
    await found.put("Service", service())
    await found.put("EndpointSlice", slice_of("10.88.0.6"))
    await found.put("Ingress", ingress("a", rule("a.example")))
    yield found
    if found.task is not None:
        found.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await found.task
    await store.close()


def slice_of(*addresses: str) -> Doc:
    labels = {"kubernetes.io/service-name": "web"}
    return {
        "metadata": {"name": "web-1", "namespace": "default", "labels": labels},
        **endpoint_slice(*addresses),
    }


async def test_an_ingress_gets_a_proxy_and_then_an_address(world: World) -> None:
    world.start()
    await world.until(lambda: world.pod)
    assert b"10.88.0.6:8080" in world.proxy.config[CONFIG] and not world.address()
    await world.runs()
    await world.until(world.address)
    assert world.address() == [{"ip": ADDRESS}] and world.proxy.reloads == 1
    assert await world.until_said("Sync") == f"the address is {ADDRESS}, the node's"
    assert set(await world.said()) == {"Sync"}


async def test_an_ingress_has_the_addresses_of_both_families(world: World) -> None:
    world.addresses.append("2001:db8::10")
    world.start()
    await world.runs()
    await world.until(world.address)
    assert world.address() == [{"ip": ADDRESS}, {"ip": "2001:db8::10"}]
    assert await world.until_said("Sync") == f"the addresses are {ADDRESS} and 2001:db8::10, the node's"


@pytest.mark.parametrize(
    ("addresses", "stays"),
    [([], True), (["10.88.0.5", "fd00:88::5"], True), (["10.88.0.5"], False)],
)
def test_a_proxy_without_an_ipv6_address_is_replaced_when_pods_have_them(
    addresses: list[str], stays: bool
) -> None:
    wanted = proxy_pod(PodOptions("node", "haproxy:3.0", 80, 443, "/root/ingress", ipv6=True))
    pod = {**wanted, "status": {"podIPs": [{"ip": address} for address in addresses]}}
    assert is_current(pod, wanted, ipv6=True) is stays
    assert is_current(pod, wanted, ipv6=False), "a node with IPv4 alone"


async def test_a_drain_may_evict_the_proxy(world: World) -> None:
    world.start()
    await world.until(lambda: world.pod)
    assert world.pod is not None
    plan = plan_drain([world.pod.doc], (), DrainOptions())
    assert [pod["metadata"]["name"] for pod in plan.pods] == [POD] and not plan.errors


async def test_a_proxy_of_an_earlier_version_gets_its_owner_and_runs_on(world: World) -> None:
    world.start()
    await world.runs()
    await world.until(world.address)
    assert world.pod is not None and world.task is not None
    uid, owners = world.pod.uid, world.pod.metadata["ownerReferences"]
    world.task.cancel()
    metadata = {key: value for key, value in world.pod.metadata.items() if key != "ownerReferences"}
    await world.change(uid, metadata=metadata)
    world.start()
    await world.until(lambda: world.pod is not None and world.pod.metadata.get("ownerReferences") == owners)
    assert world.pod is not None and world.pod.uid == uid and not world.pod.deleting


async def test_endpoints_are_commands_and_rules_are_reloads(world: World) -> None:
    world.start()
    await world.runs()
    await world.until(world.address)
    await world.change("uid-web-1", **endpoint_slice("10.88.0.7"))
    await world.until(lambda: world.proxy.commands)
    assert world.proxy.commands[0].endswith("/s0 addr 10.88.0.7 port 8080") and world.proxy.reloads == 1
    assert b"10.88.0.7:8080" in world.proxy.config[CONFIG], "a proxy that starts anew reads the same"
    await world.change("uid-a", spec=ingress("a", rule("b.example"))["spec"])
    await world.until(lambda: world.proxy.reloads == 2)
    assert b"b.example/" in world.proxy.config["prefix.map"]
    await world.runs("two")
    await world.until(lambda: world.proxy.reloads == 3)


async def test_a_proxy_that_does_not_answer_is_asked_again(world: World) -> None:
    world.proxy.silent = True
    world.start()
    await world.runs()
    await asyncio.sleep(0.1)
    assert not world.address()
    world.proxy.silent = False
    await world.until(world.address)


async def test_a_configuration_that_the_proxy_refuses_does_not_count(world: World) -> None:
    world.start()
    await world.runs()
    await world.until(world.address)
    before, world.proxy.refuses = world.proxy.config, "unknown keyword"
    await world.change("uid-a", spec=ingress("a", rule("b.example"))["spec"])
    await world.until(lambda: world.store.list("Event"))
    for _ in range(100):
        if "Rejected" in (said := await world.said()):
            break
        await asyncio.sleep(0.02)
    assert said["Rejected"] == "the proxy keeps its old configuration: unknown keyword"
    assert world.proxy.config is before


async def test_problems_are_events_and_go_with_a_change(world: World) -> None:
    await world.put("Ingress", ingress("b", rule("b.example", path("/", backend("later")))))
    world.start()
    await world.until(lambda: world.pod)
    assert (await world.said())["Translate"] == 'no service "later" exists in namespace default'
    await world.put("Service", service("later"))
    await world.until(lambda: b"default_later_80" in world.proxy.config[CONFIG])


async def test_the_last_ingress_takes_the_proxy_along(world: World) -> None:
    world.start()
    await world.runs()
    await world.until(world.address)
    await world.store.delete("uid-a")
    await world.until(lambda: world.pod is None or world.pod.deleting)
    assert world.pod is not None and world.task is not None and not world.task.done()
    await world.store.delete(world.pod.uid)
    await world.until(lambda: world.task is not None and world.task.done())
    assert not world.proxy.config


async def test_a_proxy_that_ended_is_replaced(world: World) -> None:
    world.start()
    await world.runs()
    await world.until(world.address)
    assert world.pod is not None and container_id(world.pod.doc) == "one"
    first = world.pod.uid
    await world.change(first, status={"phase": "Failed", "reason": "Evicted"})
    await world.until(lambda: world.pod is not None and world.pod.deleting)
    await world.store.delete(first)
    await world.until(lambda: world.pod is not None and world.pod.uid != first)
    assert world.address(), "clients find it at the same place"


async def test_a_port_that_is_taken_is_told(world: World) -> None:
    taken = {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}
    await world.put("Pod", {"metadata": {"name": "old", "namespace": "default"}, "spec": taken})
    world.start()
    async with asyncio.timeout(SECONDS):
        while "PortTaken" not in (said := await world.said()):
            await asyncio.sleep(0.02)
    assert said["PortTaken"].startswith(
        "port 80/TCP of the node is taken by pod default/old: set ingress_http_port"
    )
    assert world.pod is None


async def test_a_quota_that_has_no_room_for_the_proxy_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POD_REFUSED", 0.02)
    world.store.gate = Gate(time.time)
    none = quota(pods="0")
    await world.put("ResourceQuota", {**none, "metadata": {**none["metadata"], "namespace": NAMESPACE}})
    world.start()
    said = await world.until_said("FailedCreate")
    assert said == (
        f'the proxy\'s pod cannot be created: pods "{POD}" is forbidden: exceeded quota: quota, '
        "requested: pods=1, used: pods=0, limited: pods=0"
    )
    await world.store.delete("uid-quota")
    await world.until(lambda: world.pod)


async def test_it_goes_on_when_a_full_disk_has_room_again(world: World) -> None:
    with full_disk(world.store) as failures:
        world.start()
        await world.until(lambda: len(failures) > 1)
    await world.runs()
    await world.until(world.address)


async def test_a_proxy_that_nobody_needs_is_deleted_when_a_full_disk_has_room_again(world: World) -> None:
    await world.store.delete("uid-a")
    await world.put("Pod", {"metadata": {"name": POD, "namespace": NAMESPACE}, "spec": {"containers": []}})
    with full_disk(world.store) as failures:
        world.start()
        await world.until(lambda: len(failures) > 1)
    await world.until(lambda: world.pod is None or world.pod.deleting)


async def test_files_that_cannot_be_written_are_written_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def fail(_files: Mapping[str, bytes]) -> str:
        attempts.append("write")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(world.proxy, "write", fail)
        world.start()
        await world.until(lambda: len(attempts) > 1)
    await world.runs()
    await world.until(world.address)


async def test_a_check_without_a_result_is_made_again_and_leaves_no_files(world: World) -> None:
    world.start()
    await world.runs()
    await world.until(world.address)
    world.proxy.check_fails = True
    known = set(world.proxy.written)
    await world.change("uid-a", spec=ingress("a", rule("b.example"))["spec"])
    await asyncio.sleep(0.1)
    assert set(world.proxy.written) == known and "Rejected" not in await world.said()
    world.proxy.check_fails = False
    await world.until(lambda: b"b.example/" in world.proxy.config["prefix.map"])
