"""networking.k8s.io/v1 Ingress and IngressClass (Kubernetes 1.36)."""

from typing import ClassVar, Literal

from pydantic import Field

from manifests.types.meta import Int32, Model, Object, ObjectMeta, Str, empty_list


class ServiceBackendPort(Model):
    name: Str | None = None
    number: Int32 | None = None


class IngressServiceBackend(Model):
    name: Str
    port: ServiceBackendPort = Field(default_factory=ServiceBackendPort)


class IngressResource(Model):
    """Kubernetes: core/v1 TypedLocalObjectReference."""

    kind: Str
    name: Str
    api_group: Str | None = None


class IngressBackend(Model):
    resource: IngressResource | None = None
    service: IngressServiceBackend | None = None


class HTTPIngressPath(Model):
    backend: IngressBackend
    path_type: Str | None = None  # required, in the words of the rules
    path: Str | None = None


class HTTPIngressRuleValue(Model):
    paths: list[HTTPIngressPath] = Field(default_factory=empty_list)


class IngressRule(Model):
    host: Str | None = None
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Model):
    hosts: list[Str] = Field(default_factory=empty_list)
    secret_name: Str | None = None


class IngressSpec(Model):
    default_backend: IngressBackend | None = None
    ingress_class_name: Str | None = None
    rules: list[IngressRule] = Field(default_factory=empty_list)
    tls: list[IngressTLS] = Field(default_factory=empty_list)


class IngressPortStatus(Model):
    port: Int32
    protocol: Str
    error: Str | None = None


class IngressLoadBalancerIngress(Model):
    hostname: Str | None = None
    ip: Str | None = None
    ports: list[IngressPortStatus] = Field(default_factory=empty_list)


class IngressLoadBalancerStatus(Model):
    ingress: list[IngressLoadBalancerIngress] = Field(default_factory=empty_list)


class IngressStatus(Model):
    load_balancer: IngressLoadBalancerStatus | None = None


class Ingress(Object):
    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"
    kind: Literal["Ingress"] = "Ingress"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: IngressSpec = Field(default_factory=IngressSpec)
    status: IngressStatus = Field(default_factory=IngressStatus)


class IngressClassParametersReference(Model):
    kind: Str
    name: Str
    api_group: Str | None = None
    namespace: Str | None = None
    scope: Str | None = None


class IngressClassSpec(Model):
    controller: Str | None = None
    parameters: IngressClassParametersReference | None = None


class IngressClass(Object):
    namespaced: ClassVar[bool] = False

    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"
    kind: Literal["IngressClass"] = "IngressClass"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: IngressClassSpec = Field(default_factory=IngressClassSpec)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_IngressClass (pkg/apis/networking/v1/defaults.go)."""
        parameters = self.spec.parameters
        if parameters is not None and parameters.scope is None:
            parameters.scope = "Cluster"
