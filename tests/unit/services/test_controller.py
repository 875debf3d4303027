"""The controller of Services with a store and a helper in memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from kubelite.kube.events import EventRecorder
from kubelite.kube.workqueue import WorkQueue
from kubelite.services.controller import ServiceController
from kubelite.services.data_path import DataPath
from kubelite.services.index import Name, ServiceIndex
from kubelite.services.load_balancers import process_holders
from kubelite.services.ports import service_ports
from kubelite.services.slices import slices_of
from runtime.errors import NetworkError
from runtime.network.services.plan import ServiceNetwork, ServicePort
from state.store import Store
from tests.unit.services.docs import NODE, Doc, pod, service

ADDRESS = "192.0.2.10"


class Helper:
    """The kernel's ports, as a network helper would set them."""

    def __init__(self) -> None:
        self.ports: dict[str, ServicePort] = {}
        self.transactions = 0
        self.failures = 0  # transactions that will fail
        self.lacks = ""  # what the kernel lacks
        self.refuses: list[str] = []  # why it does not take all ports at the beginning

    async def replace_services(self, config: ServiceNetwork, ports: Sequence[ServicePort]) -> list[str]:
        if self.refuses:
            raise NetworkError(self.refuses.pop())
        if self.lacks:
            raise NetworkError(self.lacks, reason="ServicesNotSupported")
        assert config == ServiceNetwork("10.96.0.0/16", (30000, 32767))
        self.ports = {port.name: port for port in ports}
        self.transactions += 1
        return []

    async def change_services(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> list[str]:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise NetworkError("no")
        self.transactions += 1
        assert all(name in self.ports for name in removed)
        for name in removed:
            del self.ports[name]
        self.ports.update((port.name, port) for port in changed)
        return [f"{port.name} is not served: no SCTP" for port in changed if port.protocol == "SCTP"]

    def external(self, name: str) -> tuple[str, ...]:
        return self.ports[name].external if name in self.ports else ()

    def ips(self, name: str = "default/web:80/TCP") -> list[str]:
        return [one.ip for one in self.ports[name].endpoints] if name in self.ports else []


class Kit:
    def __init__(self, store: Store, address6: str = "") -> None:
        self.store = store
        self.failed: list[str] = []
        self.events = EventRecorder(store, NODE)
        self.helper = Helper()
        self.path = DataPath(self.helper, ServiceNetwork("10.96.0.0/16", (30000, 32767)))
        self.queue: WorkQueue[Name] = WorkQueue()
        self.controller = ServiceController(
            store, self.events, self.queue, self.path, node=NODE, address=lambda: ADDRESS,
            address6=lambda: address6, failed=self.failed.append,
        )  # fmt: skip

    async def put(self, doc: Doc) -> None:
        await self.store.post(doc["kind"], doc, delay=0)

    async def settled(self, holds: Callable[[], bool], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.002)
            await self.queue.idle()
        assert holds()

    def docs(self, kind: str) -> list[Doc]:
        return self.store.docs(kind)


@contextlib.asynccontextmanager
async def running(kit: Kit) -> AsyncIterator[Kit]:
    kit.queue.start(kit.controller.reconcile)
    task = asyncio.create_task(kit.controller.run())
    try:
        yield kit
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kit.queue.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = Store.open(str(tmp_path / "state.db"))
    yield found
    await found.close()


async def test_pods_come_become_unready_end_and_go(store: Store) -> None:
    kit = Kit(store)
    await kit.put(service())
    async with running(kit):
        await kit.settled(lambda: len(kit.docs("Endpoints")) == 1)
        assert kit.helper.ports["default/web:80/TCP"].endpoints == ()
        for number in (1, 2):
            await kit.put(pod(number))
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3", "10.88.0.4"])
        (found,) = kit.docs("EndpointSlice")
        assert [one["addresses"] for one in found["endpoints"]] == [["10.88.0.3"], ["10.88.0.4"]]
        assert found["metadata"]["creationTimestamp"] and found["metadata"]["uid"]
        await kit.put(pod(1, ready=False))
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.4"])
        await kit.put(pod(2, terminating=True))
        await kit.settled(lambda: kit.docs("EndpointSlice")[0]["endpoints"][1]["conditions"]["terminating"])
        assert kit.helper.ips() == ["10.88.0.4"], "it serves until there is another one"
        await kit.put(pod(1))
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3"])
        await store.delete("web-0002")
        await kit.settled(lambda: len(kit.docs("EndpointSlice")[0]["endpoints"]) == 1)
        (endpoints,) = kit.docs("Endpoints")
        assert [one["ip"] for one in endpoints["subsets"][0]["addresses"]] == ["10.88.0.3"]
        await store.delete("uid-web")
        await kit.settled(lambda: not kit.docs("EndpointSlice") and not kit.docs("Endpoints"))
        assert not kit.helper.ports


async def test_a_start_sets_all_at_once_and_removes_what_is_left_of_others(store: Store) -> None:
    first = Kit(store)
    for doc in (service(), service("db", clusterIP="10.96.0.8"), pod(1), pod(1, app="db", ip="10.88.9.9")):
        await first.put(doc)
    async with running(first):
        await first.settled(lambda: len(first.docs("EndpointSlice")) == 2 == len(first.docs("Endpoints")))
    await store.delete("uid-db")
    versions = {
        one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in first.docs("EndpointSlice")
    }
    second = Kit(store)
    async with running(second):
        await second.settled(lambda: len(second.docs("EndpointSlice")) == 1 == len(second.docs("Endpoints")))
        assert second.helper.ips() == ["10.88.0.3"] and second.helper.transactions == 1
        (kept,) = second.docs("EndpointSlice")
        assert versions[kept["metadata"]["name"]] == kept["metadata"]["resourceVersion"]


async def test_a_service_changes_its_selector_and_its_ports(store: Store) -> None:
    kit = Kit(store)
    for doc in (service(), pod(1), pod(2, app="new")):
        await kit.put(doc)
    async with running(kit):
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3"])
        await kit.put(service(selector={"app": "new"}))
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.4"])
        await kit.put(service("web", {"port": 81, "targetPort": 9}, selector={"app": "new"}))
        await kit.settled(lambda: list(kit.helper.ports) == ["default/web:81/TCP"])
        await kit.put(service(type="ExternalName", externalName="x", clusterIP=None, selector=None))
        await kit.settled(lambda: not kit.helper.ports and not kit.docs("EndpointSlice"))


async def test_a_pod_changes_its_labels(store: Store) -> None:
    kit = Kit(store)
    for doc in (service(), service("other", selector={"app": "other", "tier": "x"}), pod(1)):
        await kit.put(doc)
    async with running(kit):
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3"])
        moved = pod(1)
        moved["metadata"]["labels"] = {"app": "other", "tier": "x"}
        await kit.put(moved)
        await kit.settled(lambda: kit.helper.ips("default/other:80/TCP") == ["10.88.0.3"])
        assert kit.helper.ips() == []


async def test_endpoints_and_slices_of_manifests(store: Store) -> None:
    kit = Kit(store)
    own: Doc = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "web", "namespace": "default", "uid": "e"},
        "subsets": [
            {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80, "protocol": "TCP", "name": ""}]}
        ],
    }
    piece: Doc = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "mine",
            "namespace": "default",
            "uid": "s",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.2"]}],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }
    await kit.put(service(selector=None))
    async with running(kit):
        await kit.put(own)
        await kit.settled(lambda: kit.helper.ips() == ["192.0.2.1"])
        await kit.put(piece)
        await kit.settled(lambda: kit.helper.ips() == ["192.0.2.1", "192.0.2.2"])
        await store.delete("e")
        await kit.settled(lambda: kit.helper.ips() == ["192.0.2.2"])
        await store.delete("uid-web")
        await kit.settled(lambda: not kit.helper.ports)
        assert [one["metadata"]["name"] for one in kit.docs("EndpointSlice")] == ["mine"]


async def test_a_helper_that_fails_is_asked_again(store: Store) -> None:
    kit = Kit(store)
    await kit.put(service())
    async with running(kit):
        await kit.settled(lambda: len(kit.docs("Endpoints")) == 1)
        kit.helper.failures = 2
        await kit.put(pod(1))
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3"])


async def test_what_cannot_be_served_is_said(store: Store) -> None:
    kit = Kit(store)
    await kit.put(service())
    async with running(kit):
        await kit.settled(lambda: len(kit.docs("Endpoints")) == 1)
        await kit.put(service("sip", {"port": 5060, "protocol": "SCTP"}, clusterIP="10.96.0.9"))
        await kit.settled(lambda: len(kit.docs("Event")) == 1)
    (said,) = kit.docs("Event")
    assert said["message"] == "default/sip:5060/SCTP is not served: no SCTP"
    assert said["involvedObject"]["name"] == "sip"


async def test_a_kernel_that_lacks_what_is_needed_serves_none_and_slices_are_kept(store: Store) -> None:
    kit = Kit(store)
    kit.helper.lacks = "the kernel has no nft_fib"
    for doc in (service(), pod(1)):
        await kit.put(doc)
    async with running(kit):
        await kit.settled(lambda: len(kit.docs("Endpoints")) == 1 == len(kit.docs("Event")))
    assert kit.docs("EndpointSlice") and kit.docs("Event")[0]["message"] == "the kernel has no nft_fib"


async def test_the_first_load_balancer_gets_the_address_and_the_second_hears_why_not(store: Store) -> None:
    kit = Kit(store)
    await kit.put(service("first", {"port": 61080}, type="LoadBalancer"))
    async with running(kit):
        await kit.settled(lambda: bool(kit.helper.external("default/first:61080/TCP")))
        await kit.put(service("second", {"port": 61080}, type="LoadBalancer"))
        await kit.settled(lambda: any("SyncLoad" in one["reason"] for one in kit.docs("Event")))
        assert kit.helper.external("default/first:61080/TCP") == (ADDRESS,)
        assert kit.helper.external("default/second:61080/TCP") == ()
        (said,) = [one["message"] for one in kit.docs("Event") if one["reason"] == "SyncLoadBalancerFailed"]
        assert said == (
            "port 61080/TCP of the node is taken by service default/first: the service gets no address"
        )
        await kit.put({**kit.store.docs("Service")[0], "spec": service("first")["spec"]})
        await kit.settled(lambda: "default/first:80/TCP" in kit.helper.ports)
        await kit.settled(lambda: not kit.helper.external("default/first:80/TCP"))


async def test_a_load_balancer_has_the_addresses_of_its_families(store: Store) -> None:
    kit = Kit(store, "2001:db8::10")
    both = {"clusterIPs": ["10.96.0.7", "fd00:96::7"], "ipFamilies": ["IPv4", "IPv6"]}
    await kit.put(service("web", {"port": 61080}, type="LoadBalancer", **both))
    async with running(kit):
        name = "default/web:61080/TCP"
        await kit.settled(lambda: kit.helper.external(name) == (ADDRESS, "2001:db8::10"))
        (said,) = kit.docs("Event")
        assert said["message"] == f"the addresses are {ADDRESS} and 2001:db8::10, the node's"
        await kit.put(
            {**kit.docs("Service")[0], "spec": service("web", {"port": 61080}, type="LoadBalancer")["spec"]}
        )
        await kit.settled(lambda: kit.helper.external(name) == (ADDRESS,))


async def test_a_load_balancer_of_a_family_that_the_node_has_not(store: Store) -> None:
    kit = Kit(store)
    six = {"clusterIP": "fd00:96::7", "clusterIPs": ["fd00:96::7"], "ipFamilies": ["IPv6"]}
    await kit.put(service("web", {"port": 61080}, type="LoadBalancer", **six))
    async with running(kit):
        await kit.settled(lambda: bool(kit.docs("Event")))
        (said,) = kit.docs("Event")
        assert (
            said["message"]
            == "the node has no IPv6 address on its default route: the service gets no address"
        )
        assert kit.helper.external("default/web:61080/TCP") == ()


async def test_ports_that_cannot_be_set_are_said_and_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelite.services.controller.RETRY", 0.01)
    kit = Kit(store)
    kit.helper.refuses = ["the service CIDR fd00:96::/112 overlaps fd00:96::/64"]
    await kit.put(service())
    async with running(kit):
        await kit.settled(lambda: len(kit.docs("Endpoints")) == 1)
    assert kit.failed == [
        "the ports of Services cannot be set: the service CIDR fd00:96::/112 overlaps fd00:96::/64"
    ]


def test_addresses_of_processes_are_found_in_the_tables_of_both_families() -> None:
    def line(address: str) -> tuple[str, str]:
        return "TCP", f"head\n 0: {address}:EE98 00000000:0000 0A rest\n"

    # 2001:db8::10 and 192.0.2.10, as proc(5) has them on a machine with little-endian words
    found = process_holders(
        [line("B80D0120000000000000000010000000"), line("0A0200C0"), line("0A0200C1"), line("0" * 32)],
        ("2001:db8::10", "192.0.2.10"),
    )
    assert [one.port for one in found] == [61080] * 3


def test_one_change_among_many_services_is_quick() -> None:
    """1,000 Services with 10 endpoints each: a pod's change costs no more than with 10 Services."""
    costs = []
    for count in (10, 1000):
        index = ServiceIndex()
        for number in range(count):
            index.put_service(service(f"s{number}", clusterIP=f"10.96.{number // 250}.{number % 250}"))
            for each in range(10):
                index.put_pod(pod(each, app=f"s{number}"))
        name, existing = ("default", "s5"), list[Doc]()
        began = time.process_time()
        for turn in range(200):
            assert index.put_pod(pod(3, app="s5", ready=bool(turn % 2))) == {name}
            done = slices_of(index.services()[name], index.backends(name), existing)
            existing = list(done.slices)
            (port,) = service_ports(index.services()[name], existing, NODE)
            assert len(port.endpoints) == 9 + turn % 2
        costs.append((time.process_time() - began) / 200)
    assert costs[1] < 3 * costs[0] + 0.0005, costs


async def test_a_node_port_at_which_a_process_listens_is_named_once(store: Store) -> None:
    kit = Kit(store)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        number = taken.getsockname()[1]
        await kit.put(service("web", {"port": 80, "nodePort": number}, type="NodePort"))
        async with running(kit):
            await kit.settled(lambda: bool(kit.docs("Event")))
            await kit.put(pod(1))
            await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3"])
    (event,) = kit.docs("Event")
    assert event["reason"] == "NodePortInUse"
    assert event["message"].startswith(f"node port {number}/TCP is also used by a process of this machine, ")


async def test_a_pod_is_withdrawn_before_it_stops(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's ports no longer lead to it when `withdraw` returns, also if another task has sent the change."""
    monkeypatch.setattr("kubelite.services.controller.LINGER", 0.001)
    kit = Kit(store)
    for doc in (service(), pod(1), pod(2)):
        await kit.put(doc)
    async with running(kit):
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3", "10.88.0.4"])
        await kit.controller.withdraw("web-0001")  # it does not terminate
        assert kit.helper.ips() == ["10.88.0.3", "10.88.0.4"]
        await kit.put(pod(1, terminating=True))
        await kit.controller.withdraw("web-0001")
        assert kit.helper.ips() == ["10.88.0.4"]
        await kit.put(pod(2, terminating=True))
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.3", "10.88.0.4"])  # none else serves
        await kit.controller.withdraw("web-0002")
        await kit.put(pod(3))
        await kit.settled(lambda: kit.helper.ips() == ["10.88.0.5"])


@pytest.mark.parametrize(("lacks", "spec"), [("no nftables", {}), ("", {"clusterIP": "None"})])
async def test_a_pod_to_which_nothing_leads_stops_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, lacks: str, spec: Doc
) -> None:
    monkeypatch.setattr("kubelite.services.controller.LINGER", 60.0)
    kit = Kit(store)
    kit.helper.lacks = lacks
    for doc in (service(**spec), pod(1), pod(2)):
        await kit.put(doc)
    async with running(kit):
        await kit.settled(lambda: bool(kit.store.list("EndpointSlice")))
        await kit.put(pod(1, terminating=True))
        await asyncio.wait_for(kit.controller.withdraw("web-0001"), 5)


async def test_a_port_that_goes_while_another_change_is_sent_goes(store: Store) -> None:
    path = DataPath(slow := SlowHelper(), ServiceNetwork("10.96.0.0/16", (30000, 32767)))
    name: Name = ("default", "web")
    one, two = (
        ServicePort(f"default/web:{number}/TCP", "TCP", number, ("10.96.0.7",)) for number in (80, 81)
    )
    await path.replace({name: (one,)})
    first = asyncio.create_task(path.apply(name, (one, two)))
    await slow.sending.wait()
    second = asyncio.create_task(path.apply(name, (one,)))
    third = asyncio.create_task(path.apply(name, (one,)))
    await asyncio.sleep(0)
    assert not third.done()  # the kernel does not have it yet
    slow.go_on.set()
    await asyncio.gather(first, second, third)
    assert set(slow.ports) == {one.name}
    for service_name in (name, ("default", "none")):
        await path.apply(service_name, ())
    assert not slow.ports


class SlowHelper(Helper):
    """One whose changes wait for `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.sending, self.go_on = asyncio.Event(), asyncio.Event()

    async def change_services(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> list[str]:
        self.sending.set()
        await self.go_on.wait()
        return await super().change_services(changed, removed)
