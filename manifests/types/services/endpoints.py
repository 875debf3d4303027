"""core/v1 Endpoints and discovery.k8s.io/v1 EndpointSlice (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import (
    Bool,
    Int32,
    Model,
    Object,
    ObjectMeta,
    ObjectReference,
    Str,
    StrMap,
    empty_dict,
    empty_list,
)


class EndpointAddress(Model):
    ip: Str
    hostname: Str | None = None
    node_name: Str | None = None
    target_ref: ObjectReference | None = None


class EndpointsPort(Model):
    """A port of Endpoints; `EndpointPort` in core/v1."""

    port: Int32
    app_protocol: Str | None = None
    name: Str | None = None
    protocol: Str | None = None


class EndpointSubset(Model):
    addresses: list[EndpointAddress] = Field(default_factory=empty_list)
    not_ready_addresses: list[EndpointAddress] = Field(default_factory=empty_list)
    ports: list[EndpointsPort] = Field(default_factory=empty_list)


class Endpoints(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Endpoints"] = "Endpoints"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    subsets: list[EndpointSubset] = Field(default_factory=empty_list)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_Endpoints (pkg/apis/core/v1/defaults.go)."""
        for subset in self.subsets:
            for port in subset.ports:
                port.protocol = port.protocol or "TCP"


class EndpointConditions(Model):
    ready: Bool | None = None
    serving: Bool | None = None
    terminating: Bool | None = None


class ForZone(Model):
    name: Str


class ForNode(Model):
    name: Str


class EndpointHints(Model):
    for_nodes: list[ForNode] = Field(default_factory=empty_list)
    for_zones: list[ForZone] = Field(default_factory=empty_list)


class Endpoint(Model):
    addresses: list[Str]
    conditions: EndpointConditions | None = None
    deprecated_topology: StrMap = Field(default_factory=empty_dict)
    hints: EndpointHints | None = None
    hostname: Str | None = None
    node_name: Str | None = None
    target_ref: ObjectReference | None = None
    zone: Str | None = None


class EndpointPort(Model):
    app_protocol: Str | None = None
    name: Str | None = None
    port: Int32 | None = None
    protocol: Str | None = None


class EndpointSlice(Object):
    api_version: Literal["discovery.k8s.io/v1"] = "discovery.k8s.io/v1"
    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: Str
    endpoints: list[Endpoint]
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    ports: list[EndpointPort] = Field(default_factory=empty_list)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_EndpointPort (pkg/apis/discovery/v1/defaults.go). A port's name stays absent where
        Kubernetes writes an empty one: both mean a port without a name."""
        for port in self.ports:
            port.protocol = port.protocol or "TCP"
