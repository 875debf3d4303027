"""Where pods wait before they are attached to the network, until the NetworkPolicies that restrict them are in
force."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runtime.errors import NetworkError

if TYPE_CHECKING:
    from kubelite.kube.json import Json
    from kubelite.network_policies.controller import PolicyController
    from state.store import Store

KIND = "NetworkPolicy"
STARTING = 30.0  # seconds that a pod waits for the controller; then its start fails, and is tried again


class PolicyGate:
    """The gate of a node. It is open while there are no policies, and imports nothing of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._controller: asyncio.Future[PolicyController] | None = None

    async def admitted(self, uid: str) -> None:
        """Return at once if there are no policies. Raises NetworkError if those of the pod cannot be put in force."""
        ready = self._controller is not None and self._controller.done()
        if not ready and not self._store.list(KIND):  # the last one may have gone since the controller ended
            return
        if self._controller is None:
            self._controller = asyncio.get_running_loop().create_future()
        try:
            controller = await asyncio.wait_for(asyncio.shield(self._controller), STARTING)
        except TimeoutError:
            raise NetworkError("the NetworkPolicies of the node are not in force yet") from None
        await controller.admitted(uid)

    def open(self, controller: PolicyController) -> None:
        """Let pods in through a controller."""
        if self._controller is None or self._controller.done():
            self._controller = asyncio.get_running_loop().create_future()
        self._controller.set_result(controller)

    def close(self) -> None:
        """Let no pod in until there is another controller: one that has ended does not see new pods."""
        if self._controller is not None and self._controller.done():
            self._controller = asyncio.get_running_loop().create_future()


def restricted_by(store: Store, pod: Json) -> list[str]:
    """Say which policies restrict a pod; nothing, at no cost, if the node has none."""
    policies = store.list(KIND)
    if not policies:
        return []
    from kubelite.network_policies.explanation import Cluster, restrictions

    namespaces = [record.doc for record in store.list("Namespace")]
    return restrictions(Cluster([record.doc for record in policies], (), namespaces), pod)
