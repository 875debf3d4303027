"""core/v1: Pod and PodSpec with scheduling, DNS and the pod-level security context (Kubernetes 1.36)."""

from typing import Literal

from pydantic import Field

from manifests.types.container import (
    AppArmorProfile,
    Container,
    EphemeralContainer,
    ResourceRequirements,
    SeccompProfile,
    SELinuxOptions,
    WindowsSecurityContextOptions,
)
from manifests.types.meta import (
    Bool,
    Int32,
    Int64,
    LabelSelector,
    LocalObjectReference,
    Model,
    Object,
    ObjectMeta,
    Quantities,
    Str,
    StrMap,
    empty_dict,
    empty_list,
)
from manifests.types.status import PodStatus
from manifests.types.volume import Volume


class NodeSelectorRequirement(Model):
    key: Str
    operator: Str
    values: list[Str] = Field(default_factory=empty_list)


class NodeSelectorTerm(Model):
    match_expressions: list[NodeSelectorRequirement] = Field(default_factory=empty_list)
    match_fields: list[NodeSelectorRequirement] = Field(default_factory=empty_list)


class PreferredSchedulingTerm(Model):
    preference: NodeSelectorTerm
    weight: Int32


class NodeSelector(Model):
    node_selector_terms: list[NodeSelectorTerm]


class NodeAffinity(Model):
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = Field(
        default_factory=empty_list
    )
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class PodAffinityTerm(Model):
    topology_key: Str
    label_selector: LabelSelector | None = None
    match_label_keys: list[Str] = Field(default_factory=empty_list)
    mismatch_label_keys: list[Str] = Field(default_factory=empty_list)
    namespace_selector: LabelSelector | None = None
    namespaces: list[Str] = Field(default_factory=empty_list)


class WeightedPodAffinityTerm(Model):
    pod_affinity_term: PodAffinityTerm
    weight: Int32


class PodAffinity(Model):
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = Field(
        default_factory=empty_list
    )
    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = Field(
        default_factory=empty_list
    )


class PodAntiAffinity(Model):
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = Field(
        default_factory=empty_list
    )
    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = Field(
        default_factory=empty_list
    )


class Affinity(Model):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAntiAffinity | None = None


class PodDNSConfigOption(Model):
    name: Str | None = None
    value: Str | None = None


class PodDNSConfig(Model):
    nameservers: list[Str] = Field(default_factory=empty_list)
    options: list[PodDNSConfigOption] = Field(default_factory=empty_list)
    searches: list[Str] = Field(default_factory=empty_list)


class HostAlias(Model):
    ip: Str
    hostnames: list[Str] = Field(default_factory=empty_list)


class PodOS(Model):
    name: Str


class PodReadinessGate(Model):
    condition_type: Str


class PodResourceClaim(Model):
    name: Str
    resource_claim_name: Str | None = None
    resource_claim_template_name: Str | None = None


class PodSchedulingGate(Model):
    name: Str


class PodSchedulingGroup(Model):
    pod_group_name: Str | None = None


class Sysctl(Model):
    name: Str
    value: Str = ""


class PodSecurityContext(Model):
    app_armor_profile: AppArmorProfile | None = None
    fs_group: Int64 | None = None
    fs_group_change_policy: Str | None = None
    run_as_group: Int64 | None = None
    run_as_non_root: Bool | None = None
    run_as_user: Int64 | None = None
    se_linux_change_policy: Str | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    supplemental_groups: list[Int64] = Field(default_factory=empty_list)
    supplemental_groups_policy: Str | None = None
    sysctls: list[Sysctl] = Field(default_factory=empty_list)
    windows_options: WindowsSecurityContextOptions | None = None


class Toleration(Model):
    effect: Str | None = None
    key: Str | None = None
    operator: Str | None = None
    toleration_seconds: Int64 | None = None
    value: Str | None = None


class TopologySpreadConstraint(Model):
    max_skew: Int32
    topology_key: Str
    when_unsatisfiable: Str
    label_selector: LabelSelector | None = None
    match_label_keys: list[Str] = Field(default_factory=empty_list)
    min_domains: Int32 | None = None
    node_affinity_policy: Str | None = None
    node_taints_policy: Str | None = None


class PodSpec(Model):
    containers: list[Container]
    active_deadline_seconds: Int64 | None = None
    affinity: Affinity | None = None
    automount_service_account_token: Bool | None = None
    dns_config: PodDNSConfig | None = None
    dns_policy: Str | None = None
    enable_service_links: Bool | None = None
    ephemeral_containers: list[EphemeralContainer] = Field(default_factory=empty_list)
    host_aliases: list[HostAlias] = Field(default_factory=empty_list)
    host_ipc: Bool | None = Field(None, alias="hostIPC")
    host_network: Bool | None = None
    host_pid: Bool | None = Field(None, alias="hostPID")
    host_users: Bool | None = None
    hostname: Str | None = None
    hostname_override: Str | None = None
    image_pull_secrets: list[LocalObjectReference] = Field(default_factory=empty_list)
    init_containers: list[Container] = Field(default_factory=empty_list)
    node_name: Str | None = None
    node_selector: StrMap = Field(default_factory=empty_dict)
    os: PodOS | None = None
    overhead: Quantities = Field(default_factory=empty_dict)
    preemption_policy: Str | None = None
    priority: Int32 | None = None
    priority_class_name: Str | None = None
    readiness_gates: list[PodReadinessGate] = Field(default_factory=empty_list)
    resource_claims: list[PodResourceClaim] = Field(default_factory=empty_list)
    resources: ResourceRequirements | None = None
    restart_policy: Str | None = None
    runtime_class_name: Str | None = None
    scheduler_name: Str | None = None
    scheduling_gates: list[PodSchedulingGate] = Field(default_factory=empty_list)
    scheduling_group: PodSchedulingGroup | None = None
    security_context: PodSecurityContext | None = None
    service_account: Str | None = None
    service_account_name: Str | None = None
    set_hostname_as_fqdn: Bool | None = Field(None, alias="setHostnameAsFQDN")
    share_process_namespace: Bool | None = None
    subdomain: Str | None = None
    termination_grace_period_seconds: Int64 | None = None
    tolerations: list[Toleration] = Field(default_factory=empty_list)
    topology_spread_constraints: list[TopologySpreadConstraint] = Field(default_factory=empty_list)
    volumes: list[Volume] = Field(default_factory=empty_list)


class PodTemplateSpec(Model):
    """What a controller makes pods from."""

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PodSpec


class Pod(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Pod"] = "Pod"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PodSpec
    status: PodStatus = Field(default_factory=PodStatus)
