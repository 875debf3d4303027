"""The controller of NetworkPolicies with a store and a helper in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.network_policies import controller as module
from kubelite.network_policies import gate
from kubelite.network_policies.controller import PolicyController
from kubelite.network_policies.gate import PolicyGate, restricted_by
from runtime.errors import NetworkError, SpecError
from runtime.network.policies.plan import PodRules, Policy
from state.store import Store
from tests.unit.network_policies.kit import pod, policy

DENY = "{podSelector: {matchLabels: {pod: a}}}"
FROM_Y = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: y}}}]}]}"


class Helper:
    """The desired state, as a network helper would have it."""

    def __init__(self) -> None:
        self.policies: dict[str, Policy] = {}
        self.pods: dict[str, PodRules] = {}
        self.changes: list[tuple[bool, int, int]] = []  # policies given?, pods, removed
        self.failures = 0
        self.error: Exception = NetworkError("the kernel says no")

    async def replace_policies(self, policies: Sequence[Policy], pods: Sequence[PodRules]) -> list[str]:
        await self._maybe_fail()
        self.policies, self.pods = {one.name: one for one in policies}, {one.uid: one for one in pods}
        return []

    async def change_policies(
        self, policies: Sequence[Policy] | None, pods: Sequence[PodRules], removed: Sequence[str]
    ) -> list[str]:
        await self._maybe_fail()
        self.changes.append((policies is not None, len(pods), len(removed)))
        if policies is not None:
            self.policies = {one.name: one for one in policies}
        for uid in removed:
            del self.pods[uid]
        self.pods |= {one.uid: one for one in pods}
        self.pods = {uid: one for uid, one in self.pods.items() if one.concerned}
        return []

    async def _maybe_fail(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise self.error

    def restricts(self, uid: str) -> bool:
        return uid in self.pods and self.pods[uid].restricted


class Kit:
    def __init__(self, store: Store) -> None:
        self.store, self.helper, self.gate = store, Helper(), PolicyGate(store)
        self.controller = PolicyController(store, EventRecorder(store, "n"), self.helper, dns="10.88.0.1")

    async def put(self, doc: Json) -> None:
        metadata = {"uid": f"uid-{doc['kind']}-{doc['metadata']['name']}", **doc["metadata"]}
        await self.store.post(doc["kind"], {"kind": doc["kind"], **doc, "metadata": metadata}, delay=0)

    async def put_pod(self, name: str, labels: Json | None = None) -> None:
        await self.put({"apiVersion": "v1", "kind": "Pod", **pod(name, labels)})

    async def settled(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(kit: Kit) -> AsyncIterator[None]:
    task = asyncio.create_task(kit.controller.run())
    kit.gate.open(kit.controller)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kit]:
    monkeypatch.setattr(module, "RETRY", 0.01)
    store = Store.open(str(tmp_path / "state.db"))
    yield Kit(store)
    await store.close()


async def test_pods_policies_and_namespaces_come_and_go(kit: Kit) -> None:
    await kit.put(policy("x/deny", DENY))
    await kit.put_pod("x/a")
    async with running(kit):
        await kit.settled(lambda: kit.helper.restricts("x.a"))
        assert kit.helper.pods["dns"].address == "10.88.0.1"
        await kit.put_pod("x/b")
        await kit.put(policy("x/from-y", FROM_Y))
        await kit.settled(lambda: kit.helper.restricts("x.b"))
        assert kit.helper.pods["x.a"].ingress == ("x/deny", "x/from-y")
        await kit.put_pod("y/a")
        await kit.put({"kind": "Namespace", "metadata": {"name": "y", "labels": {"team": "y"}}})
        await kit.settled(lambda: "y.a" in kit.helper.pods and bool(kit.helper.pods["y.a"].groups))
        assert not kit.helper.restricts("y.a")
        await kit.store.delete("uid-NetworkPolicy-deny")
        await kit.settled(lambda: list(kit.helper.policies) == ["x/from-y"])
        await kit.store.delete("x.b")
        await kit.settled(lambda: "x.b" not in kit.helper.pods)
        assert kit.helper.changes[-1] == (False, 0, 1), "a deleted pod is removed"
        await kit.store.delete("uid-NetworkPolicy-from-y")
        await kit.settled(lambda: set(kit.helper.pods) == {"dns"})
        assert kit.helper.changes[-1][2] == 0, "pods that are no longer restricted still exist"


async def test_a_pod_is_admitted_when_the_helper_knows_it(kit: Kit) -> None:
    await kit.put(policy("x/deny", DENY))
    async with running(kit):
        await kit.put_pod("x/a")
        await kit.gate.admitted("x.a")
        assert kit.helper.restricts("x.a")


async def test_a_pod_waits_for_the_controller(kit: Kit) -> None:
    await kit.put(policy("x/deny", DENY))
    await kit.put_pod("x/a")
    waiting = asyncio.create_task(kit.gate.admitted("x.a"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    async with running(kit):
        await asyncio.wait_for(waiting, 5)
        assert kit.helper.restricts("x.a")


async def test_the_gate_is_open_without_policies(kit: Kit) -> None:
    await kit.put_pod("x/a")
    await asyncio.wait_for(kit.gate.admitted("x.a"), 1)


async def test_only_restricted_pods_wait_for_a_helper_that_fails(kit: Kit) -> None:
    await kit.put(policy("x/deny", DENY))
    async with running(kit):
        await kit.settled(lambda: "x/deny" in kit.helper.policies)
        kit.helper.failures = 1000
        await kit.put_pod("x/a")
        await kit.put_pod("x/b")
        with pytest.raises(NetworkError, match="cannot be put in force: the kernel says no"):
            await kit.gate.admitted("x.a")
        await kit.gate.admitted("x.b")
        kit.helper.failures = 0
        await kit.gate.admitted("x.a")
        assert kit.helper.restricts("x.a")


async def test_each_policy_that_is_not_in_force_has_one_event(kit: Kit) -> None:
    kit.helper.failures = 1000
    await kit.put(policy("x/deny", DENY))

    def said() -> list[tuple[str, int]]:
        events = [one.doc for one in kit.store.list("Event") if one.doc["reason"] == "NotEnforced"]
        return sorted((one["involvedObject"]["name"], one.get("count", 1)) for one in events)

    async with running(kit):
        await kit.settled(lambda: said() == [("deny", 1)])
        await kit.put(policy("x/late", DENY))
        await kit.put_pod("x/b")
        await kit.gate.admitted("x.b")
        await kit.settled(lambda: said() == [("deny", 1), ("late", 1)])


async def test_a_failure_is_retried_with_the_whole_state(kit: Kit) -> None:
    kit.helper.failures = 3
    await kit.put(policy("x/deny", DENY))
    await kit.put_pod("x/a")
    async with running(kit):
        await kit.settled(lambda: kit.helper.restricts("x.a"))


async def test_a_status_sends_nothing_and_a_label_only_its_pod(kit: Kit) -> None:
    await kit.put(policy("x/deny", DENY))
    await kit.put_pod("x/a")
    await kit.put_pod("x/b")
    async with running(kit):
        await kit.settled(lambda: kit.helper.restricts("x.a"))
        doc = {"apiVersion": "v1", "kind": "Pod", **pod("x/a"), "status": {"phase": "Running"}}
        await kit.put(doc)
        await kit.gate.admitted("x.a")
        assert kit.helper.changes == []
        await kit.put_pod("x/b", {"pod": "a"})
        await kit.gate.admitted("x.b")
        assert kit.helper.changes == [(False, 1, 0)] and kit.helper.restricts("x.b")


async def test_what_why_says(kit: Kit) -> None:
    doc = {"apiVersion": "v1", "kind": "Pod", **pod("x/a")}
    assert restricted_by(kit.store, doc) == []
    await kit.put(policy("x/deny", DENY))
    assert restricted_by(kit.store, doc) == ["NetworkPolicies restrict its ingress: x/deny"]


@pytest.mark.parametrize("error", [SpecError("a request is malformed"), OSError(24, "Too many open files")])
async def test_no_error_of_the_helper_ends_it_or_lets_a_pod_in(kit: Kit, error: Exception) -> None:
    await kit.put(policy("x/deny", DENY))
    await kit.put_pod("x/a")
    kit.helper.error, kit.helper.failures = error, 1000
    async with running(kit):
        with pytest.raises(NetworkError, match=str(error).split("]")[-1].strip()):
            await kit.gate.admitted("x.a")
        kit.helper.failures = 0
        await kit.settled(lambda: kit.helper.restricts("x.a"))


async def test_nothing_is_admitted_between_two_controllers(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STARTING", 0.05)
    await kit.put(policy("x/deny", DENY))
    async with running(kit):
        await kit.settled(lambda: bool(kit.helper.policies))
    kit.gate.close()
    await kit.put_pod("x/a")
    with pytest.raises(NetworkError, match="not in force yet"):
        await kit.gate.admitted("x.a")
    kit.controller = PolicyController(kit.store, EventRecorder(kit.store, "n"), kit.helper, dns="10.88.0.1")
    async with running(kit):
        await kit.gate.admitted("x.a")
        assert kit.helper.restricts("x.a")
