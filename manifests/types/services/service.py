"""core/v1 Service (Kubernetes 1.36), with Kubernetes' defaults.

Addresses and IP families depend on the node, which chooses them: see `kubelite.services.allocation`."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import (
    Bool,
    Int32,
    Int64,
    IntOrString,
    Model,
    Object,
    ObjectMeta,
    Str,
    StrMap,
    Time,
    empty_dict,
    empty_list,
)

NO_ADDRESS = "None"  # clusterIP of a headless Service
AFFINITY_SECONDS = 10800


class ServicePort(Model):
    port: Int32
    app_protocol: Str | None = None
    name: Str | None = None
    node_port: Int32 | None = None
    protocol: Str | None = None
    target_port: IntOrString | None = None


class ClientIPConfig(Model):
    timeout_seconds: Int32 | None = None


class SessionAffinityConfig(Model):
    client_ip: ClientIPConfig | None = Field(None, alias="clientIP")


class ServiceSpec(Model):
    allocate_load_balancer_node_ports: Bool | None = None
    cluster_ip: Str | None = Field(None, alias="clusterIP")
    cluster_ips: list[Str] = Field(default_factory=empty_list, alias="clusterIPs")
    external_ips: list[Str] = Field(default_factory=empty_list, alias="externalIPs")
    external_name: Str | None = None
    external_traffic_policy: Str | None = None
    health_check_node_port: Int32 | None = None
    internal_traffic_policy: Str | None = None
    ip_families: list[Str] = Field(default_factory=empty_list)
    ip_family_policy: Str | None = None
    load_balancer_class: Str | None = None
    load_balancer_ip: Str | None = Field(None, alias="loadBalancerIP")
    load_balancer_source_ranges: list[Str] = Field(default_factory=empty_list)
    ports: list[ServicePort] = Field(default_factory=empty_list)
    publish_not_ready_addresses: Bool | None = None
    selector: StrMap = Field(default_factory=empty_dict)
    session_affinity: Str | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    traffic_distribution: Str | None = None
    type: Str | None = None

    @property
    def headless(self) -> bool:
        return self.cluster_ips[:1] == [NO_ADDRESS] or self.cluster_ip == NO_ADDRESS

    @property
    def addresses(self) -> list[str]:
        """clusterIPs, of which a manifest may name only the first one as clusterIP."""
        return self.cluster_ips or ([self.cluster_ip] if self.cluster_ip else [])

    @property
    def externally_accessible(self) -> bool:
        """Kubernetes: ExternallyAccessible (pkg/api/v1/service/util.go)."""
        return self.type in ("LoadBalancer", "NodePort") or (
            self.type == "ClusterIP" and bool(self.external_ips)
        )


class PortStatus(Model):
    port: Int32
    protocol: Str
    error: Str | None = None


class LoadBalancerIngress(Model):
    hostname: Str | None = None
    ip: Str | None = None
    ip_mode: Str | None = None
    ports: list[PortStatus] = Field(default_factory=empty_list)


class LoadBalancerStatus(Model):
    ingress: list[LoadBalancerIngress] = Field(default_factory=empty_list)


class ServiceCondition(Model):
    status: Str
    type: Str
    last_transition_time: Time | None = None
    message: Str | None = None
    observed_generation: Int64 | None = None
    reason: Str | None = None


class ServiceStatus(Model):
    conditions: list[ServiceCondition] = Field(default_factory=empty_list)
    load_balancer: LoadBalancerStatus | None = None


class Service(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: ServiceSpec = Field(default_factory=ServiceSpec)
    status: ServiceStatus = Field(default_factory=ServiceStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_Service (pkg/apis/core/v1/defaults.go)."""
        spec = self.spec
        spec.type = spec.type or "ClusterIP"
        _default_affinity(spec)
        for port in spec.ports:
            port.protocol = port.protocol or "TCP"
            port.target_port = port.target_port or port.port
        if spec.externally_accessible:
            spec.external_traffic_policy = spec.external_traffic_policy or "Cluster"
        if spec.type in ("ClusterIP", "NodePort", "LoadBalancer"):
            spec.internal_traffic_policy = spec.internal_traffic_policy or "Cluster"
        if spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports is None:
            spec.allocate_load_balancer_node_ports = True


def _default_affinity(spec: ServiceSpec) -> None:
    spec.session_affinity = spec.session_affinity or "None"
    if spec.session_affinity == "None":
        spec.session_affinity_config = None
    elif spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        if config is None or config.client_ip is None or config.client_ip.timeout_seconds is None:
            client = ClientIPConfig(timeout_seconds=AFFINITY_SECONDS)
            spec.session_affinity_config = SessionAffinityConfig(client_ip=client)
