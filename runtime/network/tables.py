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
from runtime.network.nft_messages import (
    IPV6,
    NFPROTO_INET,
    NFPROTO_IPV4,
    table_exists,
)
from runtime.network.plan import NetworkConfig, Subnet, link_prefix, policy_table_name, service_table_name

if TYPE_CHECKING:  # loaded when there are Services or NetworkPolicies
    from runtime.network.ipv6.plan import Subnet6
    from runtime.network.policies.enforcement import PolicyEnforcement
    from runtime.network.policies.plan import PodRules, Policy
    from runtime.network.services.dual_stack import DualStackRouting
    from runtime.network.services.plan import ServiceCount, ServiceNetwork, ServicePort
    from runtime.network.services.routing import ServiceRouting


class Tables:
    """The tables of one node. `policies`: None until there are NetworkPolicies."""

    def __init__(
        self, config: NetworkConfig, node: str, *, route: NetlinkSocket, bridge: Bridge, subnet: Subnet,
        subnet6: Subnet6 | None, leases: LeaseStore,
    ) -> None:  # fmt: skip
        """`node` is the node's identity (plan.py). `subnet6`: the pods' network of IPv6, if they have one."""
        self.policies: PolicyEnforcement | None = None
        self._services: ServiceRouting | DualStackRouting | None = None  # None until there are Services
        self._service_network: ServiceNetwork | None = None
        self._refused = ""  # why the network of Services cannot be used
        self._config, self._node = config, node
        self._route, self._bridge, self._leases = route, bridge, leases
        self._subnet, self._subnet6 = subnet, subnet6

    # --- Services -----------------------------------------------------------------------------------------------------

    def replace_services(self, network: ServiceNetwork, ports: Sequence[ServicePort]) -> list[str]:
        """Make these ports of Services the desired state. Returns a sentence for each port that cannot be served.
        Raises NetworkError, SpecError."""
        from runtime.network.services.plan import NOT_SUPPORTED

        self._service_network = network
        table = service_table_name(self._node)
        tables = [family for family in (NFPROTO_IPV4, IPV6.number) if table_exists(family, table)]
        if not (ports or self._services or tables):
            return []
        if IPV6.number in tables and not self._has_services6():  # of an earlier setting
            self._remove_services6()
        self._refused = ""
        try:
            return self._service_routing().replace(network, ports)
        except NetworkError as error:
            if not error.retriable and error.reason != NOT_SUPPORTED:  # problems() says what the kernel lacks
                self._refused = str(error)
            raise

    def change_services(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> list[str]:
        """Add, change and remove ports of Services in one transaction. Returns a sentence for each port that cannot be
        served. Raises NetworkError."""
        if self._services is None and self._service_network:
            self._service_routing().replace(self._service_network, ())
        return self._service_routing().change(changed, removed)

    def count_services(self) -> Sequence[ServiceCount]:
        return self._services.counts() if self._services else ()

    def _has_services6(self) -> bool:
        network = self._service_network
        return bool(self._subnet6 and network and network.service_cidr6)

    def _remove_services6(self) -> None:
        from runtime.network.services.dual_stack import remove_ipv6

        remove_ipv6(self._route, self._bridge, service_table_name(self._node))

    def _service_routing(self) -> ServiceRouting | DualStackRouting:
        if self._services is None:
            both = self._has_services6()
            self._services = self._routing(self._subnet, alone=not both)
            if both and self._subnet6:
                from runtime.network.services.dual_stack import DualStackRouting

                ipv6 = self._routing(self._subnet6, alone=False)
                self._services = DualStackRouting(self._services, ipv6)
        return self._services

    def _routing(self, subnet: Subnet | Subnet6, *, alone: bool) -> ServiceRouting:
        from runtime.network.services.routing import ServiceRouting

        return ServiceRouting(
            self._route, self._bridge, subnet, table=service_table_name(self._node),
            prefix=link_prefix(self._node), routed=self._config.routed, alone=alone,
        )  # fmt: skip

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

    def refused(self) -> list[str]:
        """Return why Services cannot be served, as a sentence. No repair helps: a setting or the host must change."""
        return [f"Services are not served: {self._refused}"] if self._refused else []

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
        self._remove_services6()
        self._policy_enforcement().delete()
