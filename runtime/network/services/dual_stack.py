"""The Services of a node with IPv4 and IPv6: each family has its own tables and route, made from the same ports."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.errors import NetworkError
from runtime.network.bridge import Bridge
from runtime.network.netlink import NetlinkSocket
from runtime.network.nft_messages import IPV6, remove_table
from runtime.network.services import route
from runtime.network.services.plan import ServiceCount, ServiceNetwork, ServicePort
from runtime.network.services.routing import ServiceRouting, counters_table_name


class DualStackRouting:
    """ServiceRouting for both families. Each family has its own transactions. If one fails, the daemon sends the whole
    change again, so that it is repeated for both."""

    def __init__(self, ipv4: ServiceRouting, ipv6: ServiceRouting) -> None:
        self._ipv4, self._ipv6 = ipv4, ipv6

    def replace(self, network: ServiceNetwork, ports: Sequence[ServicePort]) -> list[str]:
        """See ServiceRouting.replace."""
        return _once(self._ipv4.replace(network, ports), self._ipv6.replace(network, ports))

    def change(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> list[str]:
        """See ServiceRouting.change."""
        return _once(self._ipv4.change(changed, removed), self._ipv6.change(changed, removed))

    def restore(self) -> list[str]:
        """Repair the tables of each damaged family. Return warnings. Raises NetworkError once both have been tried."""
        said: list[str] = []
        failed: NetworkError | None = None
        for one in (self._ipv4, self._ipv6):
            try:
                said += one.restore() if one.problems() else []
            except NetworkError as error:
                failed = error
        if failed:
            raise failed
        return said

    def problems(self) -> list[str]:
        """Return one sentence for each part that is missing or should not exist."""
        return [*self._ipv4.problems(), *self._ipv6.problems()]

    def counts(self) -> list[ServiceCount]:
        """See ServiceRouting.counts."""
        return [*self._ipv4.counts(), *self._ipv6.counts()]

    def settle(self) -> None:
        """See ServiceRouting.settle."""
        self._ipv4.settle()
        self._ipv6.settle()

    def delete(self) -> None:
        """See ServiceRouting.delete."""
        self._ipv4.delete()
        self._ipv6.delete()


def remove_ipv6(sock: NetlinkSocket, bridge: Bridge, table: str) -> None:
    """Remove the routes and tables of IPv6 that an earlier helper has left. Missing ones are no error. `table` is
    removed last, because a helper looks for it to find out whether anything is left."""
    for network in route.listed(sock, bridge=bridge.index, ipv6=True):
        route.remove(sock, network, bridge=bridge.index)
    remove_table(IPV6.number, counters_table_name(table))
    remove_table(IPV6.number, table)


def _once(*listed: Sequence[str]) -> list[str]:
    """Return each sentence once: both families report a protocol that the kernel lacks."""
    return [*dict.fromkeys(sentence for sentences in listed for sentence in sentences)]
