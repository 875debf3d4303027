"""The tables of one node's Services and NetworkPolicies: created and loaded with the first of each.

services/routing.py and policies/enforcement.py have the tables; this module knows whether there are any. A node without
Services and NetworkPolicies has neither the tables nor the modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.errors import NetworkError
from runtime.network.bridge import Bridge
from runtime.network.ipam import LeaseStore
from runtime.network.netlink import NetlinkSocket
from runtime.network.nft_messages import NFPROTO_INET, NFPROTO_IPV4, table_exists
from runtime.network.plan import NetworkConfig, Subnet, link_prefix, policy_table_name, service_table_name

if TYPE_CHECKING:  # loaded when there are Services or NetworkPolicies
    from runtime.network.policies.enforcement import PolicyEnforcement
    from runtime.network.policies.plan import PodRules, Policy
    from runtime.network.services.plan import ServiceCount, ServiceNetwork, ServicePort
    from runtime.network.services.routing import ServiceRouting


class Tables:
    """The tables of one node. `policies`: None until there are NetworkPolicies."""

    def __init__(
        self, config: NetworkConfig, node: str, *, route: NetlinkSocket, bridge: Bridge, subnet: Subnet,
        leases: LeaseStore,
    ) -> None:  # fmt: skip
        """`node` is the node's identity (plan.py)."""
        self.policies: PolicyEnforcement | None = None
        self._services: ServiceRouting | None = None  # None until there are Services
        self._service_network: ServiceNetwork | None = None
        self._config, self._node = config, node
        self._route, self._bridge, self._subnet, self._leases = route, bridge, subnet, leases

    # --- Services -----------------------------------------------------------------------------------------------------

    def replace_services(self, network: ServiceNetwork, ports: Sequence[ServicePort]) -> list[str]:
        """Make these ports of Services the desired state. Returns a sentence for each port that cannot be served.
        Raises NetworkError, SpecError."""
        self._service_network = network
        if not (ports or self._services or table_exists(NFPROTO_IPV4, service_table_name(self._node))):
            return []
        return self._service_routing().replace(network, ports)

    def change_services(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> list[str]:
        """Add, change and remove ports of Services in one transaction. Returns a sentence for each port that cannot be
        served. Raises NetworkError."""
        if self._services is None and self._service_network:
            self._service_routing().replace(self._service_network, ())
        return self._service_routing().change(changed, removed)

    def count_services(self) -> Sequence[ServiceCount]:
        return self._services.counts() if self._services else ()

    def _service_routing(self) -> ServiceRouting:
        if self._services is None:
            from runtime.network.services.routing import ServiceRouting

            self._services = ServiceRouting(
                self._route, self._bridge, self._subnet,
                table=service_table_name(self._node), prefix=link_prefix(self._node), routed=self._config.routed,
            )  # fmt: skip
        return self._services

    # --- NetworkPolicies --------------------------------------------------------------------------------------------

    def replace_policies(self, policies: Sequence[Policy], pods: Sequence[PodRules]) -> list[str]:
        """Make this the desired state of NetworkPolicies. Returns warnings. Raises NetworkError."""
        if not (
            policies or pods or self.policies or table_exists(NFPROTO_INET, policy_table_name(self._node))
        ):
            return []
        return self._policy_enforcement().replace(policies, pods)

    def change_policies(
        self, policies: Sequence[Policy] | None, pods: Sequence[PodRules], removed: Sequence[str]
    ) -> list[str]:
        """Change policies and what they mean for pods (see PolicyEnforcement.change). Raises NetworkError."""
        return self._policy_enforcement().change(policies, pods, removed)

    def _policy_enforcement(self) -> PolicyEnforcement:
        if self.policies is None:
            from runtime.network.policies.enforcement import PolicyEnforcement

            self.policies = PolicyEnforcement(
                self._bridge, self._subnet,
                table=policy_table_name(self._node), prefix=link_prefix(self._node),
                addresses=self._leases.addresses, ipv6=bool(self._config.pod_cidr6),
            )  # fmt: skip
        return self.policies

    # --- both ---------------------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is wrong with the tables, as sentences."""
        return [said for tables in (self._services, self.policies) if tables for said in tables.problems()]

    def settle(self) -> None:
        """Remove tables of Services that existed for connections which have ended."""
        if self._services:
            self._services.settle()

    def restore(self) -> list[str]:
        """Repair damaged tables. Return a sentence for each table that could not be repaired."""
        failed = []
        for tables in (self.policies, self._services):
            if tables and tables.problems():
                try:
                    tables.restore()
                except NetworkError as error:
                    failed.append(str(error))
        return failed

    def delete(self) -> None:
        """Remove the tables, also those of an earlier helper."""
        self._service_routing().delete()
        self._policy_enforcement().delete()
