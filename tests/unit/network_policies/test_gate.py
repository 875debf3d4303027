"""When pods wait for the controller of NetworkPolicies, and when they do not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from kubelite.network_policies.controller import PolicyController
from kubelite.network_policies.gate import KIND, PolicyGate
from state.store import Store

SOON = 5.0


class _Ready:
    """A controller that admits every pod."""

    def __init__(self) -> None:
        self.pods: list[str] = []

    async def admitted(self, uid: str) -> None:
        self.pods.append(uid)


def test_pods_start_if_the_last_policy_goes_while_there_is_no_controller(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, ready = Store.open(str(tmp_path / "state.db")), _Ready()
        doc = {"kind": KIND, "metadata": {"namespace": "x", "name": "deny", "uid": "u"}, "spec": {}}
        await store.create(KIND, doc)
        gate = PolicyGate(store)
        gate.open(cast(PolicyController, ready))
        async with asyncio.timeout(SOON):
            await gate.admitted("one")
            gate.close()  # the controller has ended, and the next one waits for a policy
            waiting = asyncio.create_task(gate.admitted("two"))
            await asyncio.sleep(0)
            assert not waiting.done() and ready.pods == ["one"]
            await store.delete("u")
            await gate.admitted("three")
            gate.open(cast(PolicyController, ready))
            await waiting
        assert ready.pods == ["one", "two"]
        await store.close()

    asyncio.run(scenario())
