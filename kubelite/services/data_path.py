"""Keeps the network helper's ports of Services as they are decided: only what differs is sent, and what comes while a
transaction is under way goes with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from runtime.errors import NetworkError
from runtime.network.services.plan import NOT_SUPPORTED, ServiceNetwork, ServicePort

Name = tuple[str, str]


class Helper(Protocol):
    """What the network client offers (runtime.network.client). Both return a sentence for each port that cannot be
    served, and raise NetworkError. The client gives a new helper process what it has been given."""

    async def replace_services(
        self, config: ServiceNetwork, ports: Sequence[ServicePort]
    ) -> Sequence[str]: ...
    async def change_services(
        self, changed: Sequence[ServicePort], removed: Sequence[str]
    ) -> Sequence[str]: ...


class DataPath:
    """Ports by Service. `replace` comes first; `apply` returns when the kernel has what it was given. `report` gets the
    sentences about ports that cannot be served."""

    def __init__(
        self,
        helper: Helper,
        network: ServiceNetwork,
        report: Callable[[Sequence[str]], None] = lambda _sentences: None,
    ) -> None:
        self.report = report
        self.missing = ""  # what the kernel lacks, so that no Service is served
        self._helper = helper
        self._network = network
        self._lock = asyncio.Lock()
        self._wanted: dict[Name, tuple[ServicePort, ...]] = {}
        self._applied: dict[str, ServicePort] = {}
        self._pending: set[Name] = set()
        self._sending: set[Name] = set()  # what the transaction has that is under way
        self._names: dict[Name, set[str]] = {}  # of the ports that were sent for a Service

    async def replace(self, wanted: Mapping[Name, tuple[ServicePort, ...]]) -> None:
        """Make these the only ports."""
        async with self._lock:
            self._wanted = dict(wanted)
            self._pending.clear()
            await self._replace()

    async def _replace(self) -> None:
        ports = [port for found in self._wanted.values() for port in found]
        try:
            self.report(await self._helper.replace_services(self._network, ports))
        except NetworkError as error:
            if error.reason != NOT_SUPPORTED:
                raise
            self.missing = str(error)
            return
        self._applied = {port.name: port for port in ports}
        self._names = {name: {port.name for port in found} for name, found in self._wanted.items()}

    async def apply(self, name: Name, ports: tuple[ServicePort, ...]) -> None:
        """Set the ports of a Service; none: it is gone."""
        if self.missing:
            return
        if self._wanted.get(name, ()) != ports:
            self._pending.add(name)
        elif name not in self._pending and name not in self._sending:
            return
        if ports:
            self._wanted[name] = ports
        else:
            self._wanted.pop(name, None)
        async with self._lock:
            if name in self._pending:  # the transaction before may have had it already
                await self._flush()

    async def _flush(self) -> None:
        names, self._pending = self._pending, set()
        self._sending = names
        sent: dict[Name, set[str]] = {}  # what is wanted may be another thing when the transaction is done
        changed: list[ServicePort] = []
        removed: list[str] = []
        for name in names:
            wanted = {port.name: port for port in self._wanted.get(name, ())}
            sent[name] = set(wanted)
            changed += [port for port in wanted.values() if self._applied.get(port.name) != port]
            removed += [old for old in self._names.get(name, ()) if old not in wanted]
        try:
            if changed or removed:
                self.report(await self._helper.change_services(changed, removed))
        except BaseException:
            self._pending |= names
            raise
        finally:
            self._sending = set()
        for old in removed:
            self._applied.pop(old, None)
        self._applied.update((port.name, port) for port in changed)
        self._names.update(sent)
        for name in [name for name in names if not sent[name]]:
            self._names.pop(name, None)
