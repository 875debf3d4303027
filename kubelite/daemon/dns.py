"""Runs the node's DNS server from the first Service on, and points the pods' resolv.conf at it.

A node without Services starts nothing, and its pods have the servers of the host. When the first Service appears, the
resolv.conf of running pods changes in place, so the order of files in the directory does not matter. The last Service's
end changes nothing until the daemon starts again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kubelite.node.spec.netfiles import nameservers
from runtime.errors import NetworkError
from runtime.network.plan import Subnet

if TYPE_CHECKING:
    from kubelite.services.dns_zone import ZoneBuilder
    from kubelite.settings import Settings
    from runtime.dns.client import DnsClient
    from state.records import Change
    from state.store import Store
    from state.watch import Watch

log = logging.getLogger(__name__)

KINDS = frozenset({"Service", "EndpointSlice"})
TOGETHER = 0.01  # seconds in which changes lead to one zone
HOST_FILE = 5.0  # seconds between looks at the host's resolv.conf
AGAIN_FIRST, AGAIN_LAST = 0.05, 20.0  # seconds before another attempt to start the server


def dns_directory(settings: Settings) -> str:
    """The directory of the server's lock, sockets and zone."""
    return f"{settings.run_dir}/dns"


def cluster_dns(settings: Settings, store: Store) -> tuple[str, ...]:
    """The name servers of pods with dnsPolicy ClusterFirst when the daemon starts; () for those of the host."""
    if settings.cluster_dns not in ("auto", "none"):
        return tuple(settings.cluster_dns.split(","))
    return own_address(settings) if serves_dns(settings) and store.list("Service") else ()


def serves_dns(settings: Settings) -> bool:
    """Whether the node has a DNS server of its own, once it has a Service. The server listens on the node's bridge."""
    return settings.cluster_dns == "auto" and settings.network == "bridge"


def own_address(settings: Settings) -> tuple[str, ...]:
    """The address of the node's own server: that of the bridge, which every pod reaches."""
    return (Subnet.parse(settings.pod_networks[0]).gateway,)


class ClusterDns:
    """`run` waits for a Service, then keeps the server running and its zone up to date until it is cancelled."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        use: Callable[[tuple[str, ...]], None],
        tell: Callable[[str, str], None],
    ) -> None:
        """`use` is called with the name servers of pods; `tell` with the reason and message of an event of the node."""
        self._settings = settings
        self._store = store
        self._use, self._tell = use, tell
        self._client: DnsClient | None = None
        self._problem = ""

    async def run(self) -> None:
        store, settings = self._store, self._settings
        if not serves_dns(settings):
            await end_dns(settings)  # of a daemon that had another setting
            return
        async with store.watch(KINDS) as watch:
            if not store.list("Service"):
                await end_dns(settings)  # nothing needs it any more
                await watch.next()

            from kubelite.services.dns_records import custom_names
            from kubelite.services.dns_zone import ZoneBuilder
            from kubelite.services.families import family_of
            from runtime.dns.client import DnsClient

            networks = tuple(filter(None, (*settings.pod_networks, *settings.service_networks)))
            families = tuple(family_of(network) for network in filter(None, settings.service_networks))
            custom = custom_names(settings.dns_records)
            zone = ZoneBuilder(settings.cluster_domain, networks, custom, families)
            for record in store.list("Service"):
                zone.set_service(record.doc)
            for record in store.list("EndpointSlice"):
                zone.set_slice(record.doc)
            self._client = DnsClient(dns_directory(settings), own_address(settings))
            # before the server answers: a pod that starts meanwhile waits for it, and gets no wrong answer elsewhere
            self._use(own_address(settings))
            changed = asyncio.Event()
            following = asyncio.create_task(_follow(watch, zone, changed), name="dns-changes")
            try:
                await self._serve(self._client, zone, changed)
            finally:
                following.cancel()
                self._client.close()

    async def _serve(self, client: DnsClient, zone: ZoneBuilder, changed: asyncio.Event) -> None:
        """Publish a zone, and another one when a Service, an endpoint or the host's servers have changed, or when the
        server was started again."""
        delay = AGAIN_FIRST
        stubs = {name: tuple(servers.split(";")) for name, servers in self._settings.dns_stub_domains.items()}
        while True:
            changed.clear()
            upstreams = await asyncio.to_thread(self._upstreams)
            try:
                await client.ensure()
                await client.publish(zone.zone(upstreams, stubs))
            except (NetworkError, OSError) as error:
                self._failed(str(error))
                await asyncio.sleep(delay)
                delay = min(2 * delay, AGAIN_LAST)
                continue
            delay = AGAIN_FIRST
            self._works()
            await self._something_changed(client, changed, upstreams)

    async def _something_changed(
        self, client: DnsClient, changed: asyncio.Event, upstreams: tuple[str, ...]
    ) -> None:
        waits = [asyncio.create_task(changed.wait()), asyncio.create_task(client.ended())]
        try:
            while True:
                done, _ = await asyncio.wait(waits, timeout=HOST_FILE, return_when=asyncio.FIRST_COMPLETED)
                if waits[1] in done:
                    log.error("the DNS server's supervisor ended; it is started again")
                if done or await asyncio.to_thread(self._upstreams) != upstreams:
                    return
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _works(self) -> None:
        if self._problem:
            log.info("the DNS server works again")
        self._problem = ""
        self._use(own_address(self._settings))

    def _failed(self, problem: str) -> None:
        """Pods get the host's servers until the node's own works: without it they would resolve no name at all."""
        if problem != self._problem:
            log.error("the DNS server cannot run: %s", problem)
            self._tell("DNSServerFailed", f"Names of Services are not answered: {problem}")
        self._problem = problem
        self._use(())

    def _upstreams(self) -> tuple[str, ...]:
        """The host's servers, but for the node's own."""
        path = self._settings.resolv_conf or "/etc/resolv.conf"
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = nameservers(file.read())
        except OSError:
            return ()
        return tuple(server for server in found if server not in own_address(self._settings))

    async def status(self) -> dict[str, Any] | None:
        """The server's counters; None if it does not run."""
        if self._client is None or not self._client.alive():
            return None
        try:
            return {**await self._client.status(), "address": own_address(self._settings)[0]}
        except NetworkError:
            return None

    async def findings(self) -> list[str]:
        """What is wrong with the server, as sentences for `kubelite doctor`."""
        if self._problem:
            return [f"the DNS server cannot run: {self._problem}"]
        if self._client is None:
            return []
        try:
            status = await self._client.status()
        except NetworkError as error:
            return [str(error)]
        if status["looped"]:
            return [
                "the servers in the host's resolv.conf ask this node's DNS server: it cannot ask them back"
            ]
        return [f"the DNS server {status['problem']}"] if status["problem"] else []


async def end_dns(settings: Settings) -> bool:
    """End the node's DNS server, of whichever daemon. Returns whether there was one."""
    if not os.path.isdir(dns_directory(settings)):
        return False
    from runtime.dns.client import DnsClient

    return await DnsClient(dns_directory(settings), ()).stop()


async def _follow(watch: Watch, zone: ZoneBuilder, changed: asyncio.Event) -> None:
    """Bring changes into the zone. Those that arrive together lead to one zone."""
    while (change := await watch.next()) is not None:
        _apply(zone, change)
        await asyncio.sleep(TOGETHER)
        for more in watch.take():
            _apply(zone, more)
        changed.set()


def _apply(zone: ZoneBuilder, change: Change) -> None:
    deleted, doc = change.type == "DELETED", change.record.doc
    if change.record.kind == "Service":
        (zone.remove_service if deleted else zone.set_service)(doc)
    else:
        (zone.remove_slice if deleted else zone.set_slice)(doc)
