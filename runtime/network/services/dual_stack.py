"""The Services of a node with both families: tables and a route of each, from the same ports."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.errors import NetworkError
from runtime.network.services.plan import ServiceCount, ServiceNetwork, ServicePort
from runtime.network.services.routing import ServiceRouting


class DualStackRouting:
    """What ServiceRouting offers, for IPv4 and IPv6. Each family has its own transactions: a change that fails for one
    is repeated for both, because the daemon sends it again."""

    def __init__(self, ipv4: ServiceRouting, ipv6: ServiceRouting) -> None:
        self._ipv4, self._ipv6 = ipv4, ipv6

    def replace(self, network: ServiceNetwork, ports: Sequence[ServicePort]) -> list[str]:
        """See ServiceRouting.replace."""
        return _once(self._ipv4.replace(network, ports), self._ipv6.replace(network, ports))

    def change(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> list[str]:
        """See ServiceRouting.change."""
        return _once(self._ipv4.change(changed, removed), self._ipv6.change(changed, removed))

    def restore(self) -> list[str]:
        """Repair the tables of the family that is damaged. Returns warnings. Raises NetworkError, after it has tried
        both."""
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
        """Return a sentence for each part that is missing, and for each that should not exist."""
        return [*self._ipv4.problems(), *self._ipv6.problems()]

    def counts(self) -> list[ServiceCount]:
        """What each endpoint has received and sent, if that is counted. Raises NetworkError."""
        return [*self._ipv4.counts(), *self._ipv6.counts()]

    def settle(self) -> None:
        """Remove the tables that existed for connections which have ended."""
        self._ipv4.settle()
        self._ipv6.settle()

    def delete(self) -> None:
        """Remove the tables and the routes, and forget all ports."""
        self._ipv4.delete()
        self._ipv6.delete()


def _once(*listed: Sequence[str]) -> list[str]:
    """Each sentence once: a protocol that the kernel lacks is a problem of both families."""
    return [*dict.fromkeys(sentence for sentences in listed for sentence in sentences)]
