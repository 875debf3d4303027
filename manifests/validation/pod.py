"""The API server's checks of a PodSpec, after defaulting (pkg/apis/core/validation, Kubernetes 1.36)."""

import re
from collections.abc import Iterator

from manifests.names import dns_label, dns_subdomain, ip_address, label_value, qualified_name
from manifests.problems import Path, Problem, duplicate, forbidden, invalid, required
from manifests.types.core import (
    Affinity,
    LabelSelector,
    NodeSelector,
    NodeSelectorTerm,
    Pod,
    PodAffinityTerm,
    PodSecurityContext,
    PodSpec,
    PodTemplateSpec,
    Toleration,
    TopologySpreadConstraint,
)
from manifests.types.meta import LabelSelectorRequirement
from manifests.validation.container import Within, host_port_conflicts, validate_container, validate_resources
from manifests.validation.rules import formatted, not_negative, one_of, profiles, required_name, valid_id
from manifests.validation.volume import validate_volumes

_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_INT32 = 2**31 - 1
_SYSCTL = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*")
_MAX_NAMESERVERS, _MAX_SEARCHES, _MAX_SEARCH_CHARS = 3, 32, 2048
_NO_EPHEMERAL = "ephemeral containers not allowed in pod template"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def validate_pod_spec(pod: Pod | PodTemplateSpec, path: Path) -> Iterator[Problem]:
    """Check the whole spec with containers and volumes (ValidatePodSpec). `path` is its place in the object."""
    spec = pod.spec
    yield from validate_volumes(spec.volumes, (*path, "volumes"))
    yield from _containers(pod, path)
    yield from one_of((*path, "restartPolicy"), spec.restart_policy, ("Always", "OnFailure", "Never"))
    yield from one_of((*path, "dnsPolicy"), spec.dns_policy, _DNS_POLICIES)
    yield from not_negative((*path, "terminationGracePeriodSeconds"), spec.termination_grace_period_seconds)
    deadline = spec.active_deadline_seconds
    if deadline is not None and not 1 <= deadline <= _MAX_INT32:
        yield invalid(
            (*path, "activeDeadlineSeconds"), deadline, f"must be between 1 and {_MAX_INT32}, inclusive"
        )
    yield from _names(spec, path)
    yield from _dns(spec, (*path, "dnsConfig"))
    yield from _host_aliases(spec, (*path, "hostAliases"))
    yield from _security(spec, (*path, "securityContext"))
    if spec.resources is not None:
        yield from validate_resources(spec.resources, (*path, "resources"), pod_level=True)
    yield from _scheduling(spec, path)
    yield from one_of((*path, "preemptionPolicy"), spec.preemption_policy, ("Never", "PreemptLowerPriority"))
    if spec.os is not None:
        yield from one_of((*path, "os", "name"), spec.os.name, ("linux", "windows"))
    if spec.share_process_namespace and spec.host_pid:
        sentence = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid((*path, "shareProcessNamespace"), True, sentence)
    if spec.host_users is False and (spec.host_pid or spec.host_ipc):
        yield forbidden(
            (*path, "hostUsers"), "when `hostUsers` is false, hostPID and hostIPC must not be set"
        )


def _containers(pod: Pod | PodTemplateSpec, path: Path) -> Iterator[Problem]:
    spec = pod.spec
    if not spec.containers:
        yield required((*path, "containers"))
    if spec.ephemeral_containers:
        created = "cannot be set on create" if isinstance(pod, Pod) else _NO_EPHEMERAL
        yield forbidden((*path, "ephemeralContainers"), created)
    seen: set[str] = set()
    for alias, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        within = Within.of(pod, init=alias == "initContainers")
        for index, container in enumerate(containers):
            here = (*path, alias, index)
            yield from validate_container(container, here, within)
            if container.name and container.name in seen:
                yield duplicate((*here, "name"), container.name)
            seen.add(container.name)
        yield from host_port_conflicts(containers, (*path, alias))


def _names(spec: PodSpec, path: Path) -> Iterator[Problem]:
    for alias, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        yield from formatted((*path, alias), value, dns_label) if value else ()
    for alias, value in (
        ("hostnameOverride", spec.hostname_override),
        ("serviceAccountName", spec.service_account_name),
        ("nodeName", spec.node_name),
        ("priorityClassName", spec.priority_class_name),
        ("runtimeClassName", spec.runtime_class_name),
    ):
        yield from formatted((*path, alias), value, dns_subdomain) if value else ()
    if spec.hostname_override and spec.host_network:
        yield forbidden((*path, "hostnameOverride"), "may not be set when `hostNetwork` is true")
    if spec.hostname_override and spec.set_hostname_as_fqdn:
        yield forbidden((*path, "hostnameOverride"), "may not be set when `setHostnameAsFQDN` is true")
    for index, reference in enumerate(spec.image_pull_secrets):
        if not reference.name:
            yield required((*path, "imagePullSecrets", index, "name"))


def _dns(spec: PodSpec, path: Path) -> Iterator[Problem]:
    config = spec.dns_config
    if spec.dns_policy == "None":
        if config is None:
            yield required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
        elif not config.nameservers:
            yield required(
                (*path, "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"
            )
    if config is None:
        return
    if len(config.nameservers) > _MAX_NAMESERVERS:
        sentence = f"must not have more than {_MAX_NAMESERVERS} nameservers"
        yield invalid((*path, "nameservers"), ", ".join(config.nameservers), sentence)
    for index, address in enumerate(config.nameservers):
        yield from formatted((*path, "nameservers", index), address, ip_address)
    if len(config.searches) > _MAX_SEARCHES:
        yield invalid(
            (*path, "searches"), len(config.searches), f"must not have more than {_MAX_SEARCHES} search paths"
        )
    if len(" ".join(config.searches)) > _MAX_SEARCH_CHARS:
        sentence = (
            f"must not have more than {_MAX_SEARCH_CHARS} characters (including spaces) in the search list"
        )
        yield invalid((*path, "searches"), "", sentence)
    for index, search in enumerate(config.searches):
        # An underscore is allowed in each label (RelaxedDNSSearchValidation).
        name = search.removesuffix(".").replace("_", "x")
        for sentence in dns_subdomain(name) if search != "." else ():
            yield invalid((*path, "searches", index), search, sentence)
    for index, option in enumerate(config.options):
        if not option.name:
            yield required((*path, "options", index), "must not be empty")


def _host_aliases(spec: PodSpec, path: Path) -> Iterator[Problem]:
    for index, alias in enumerate(spec.host_aliases):
        yield from formatted((*path, index, "ip"), alias.ip, ip_address)
        for number, name in enumerate(alias.hostnames):
            yield from formatted((*path, index, "hostnames", number), name, dns_subdomain)


def _security(spec: PodSpec, path: Path) -> Iterator[Problem]:
    context: PodSecurityContext | None = spec.security_context
    if context is None:
        return
    numbers = (
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    )
    for alias, number in numbers:
        yield from valid_id((*path, alias), number)
    for index, group in enumerate(context.supplemental_groups):
        yield from valid_id((*path, "supplementalGroups", index), group)
    yield from one_of(
        (*path, "fsGroupChangePolicy"), context.fs_group_change_policy, ("Always", "OnRootMismatch")
    )
    yield from one_of(
        (*path, "supplementalGroupsPolicy"), context.supplemental_groups_policy, ("Merge", "Strict")
    )
    yield from profiles(context, path)
    seen: set[str] = set()
    for index, sysctl in enumerate(context.sysctls):
        here = (*path, "sysctls", index, "name")
        if not sysctl.name:
            yield required(here)
        elif len(sysctl.name) > 253 or not _SYSCTL.fullmatch(sysctl.name):
            yield invalid(
                here, sysctl.name, f"must have at most 253 characters and match regex ^{_SYSCTL.pattern}$"
            )
        elif sysctl.name in seen:
            yield duplicate(here, sysctl.name)
        seen.add(sysctl.name)
        host = spec.host_network and sysctl.name.startswith("net.")
        if host or (
            spec.host_ipc and sysctl.name.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."))
        ):
            sentence = f"sysctl not allowed when host{'Network' if host else 'IPC'} is true"
            yield invalid(here, sysctl.name, sentence)


def _scheduling(spec: PodSpec, path: Path) -> Iterator[Problem]:
    yield from validate_labels(spec.node_selector, (*path, "nodeSelector"))
    if spec.affinity is not None:
        yield from _affinity(spec.affinity, (*path, "affinity"))
    for index, toleration in enumerate(spec.tolerations):
        yield from _toleration(toleration, (*path, "tolerations", index))
    for index, constraint in enumerate(spec.topology_spread_constraints):
        yield from _spread(constraint, (*path, "topologySpreadConstraints", index))
    for index, gate in enumerate(spec.readiness_gates):
        yield from required_name(
            (*path, "readinessGates", index, "conditionType"), gate.condition_type, qualified_name
        )
    gates: set[str] = set()
    for index, scheduling in enumerate(spec.scheduling_gates):
        here = (*path, "schedulingGates", index)
        yield from required_name((*here, "name"), scheduling.name, qualified_name)
        if scheduling.name in gates:
            yield duplicate(here, scheduling.name)
        gates.add(scheduling.name)


def validate_labels(labels: dict[str, str], path: Path) -> Iterator[Problem]:
    """Check the keys and values of labels, or of a selector (ValidateLabels)."""
    for key, value in labels.items():
        for sentence in qualified_name(key):
            yield Problem((*path, key), f'Invalid value: "{key}": {sentence}')
        yield from formatted((*path, key), value, label_value)


def _toleration(toleration: Toleration, path: Path) -> Iterator[Problem]:
    operator = toleration.operator or "Equal"
    if toleration.key:
        yield from formatted((*path, "key"), toleration.key, qualified_name)
    elif operator != "Exists":
        sentence = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield invalid((*path, "operator"), toleration.operator or "", sentence)
    yield from one_of((*path, "operator"), operator, ("Equal", "Exists", "Lt", "Gt"))
    if operator == "Exists" and toleration.value:
        sentence = "value must be empty when `operator` is 'Exists'"
        yield invalid((*path, "operator"), toleration.value, sentence)
    if operator == "Equal" and toleration.value:
        yield from formatted((*path, "operator"), toleration.value, label_value)
    yield from one_of((*path, "effect"), toleration.effect, _EFFECTS)
    if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
        sentence = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        yield invalid((*path, "effect"), toleration.effect or "", sentence)


def _spread(constraint: TopologySpreadConstraint, path: Path) -> Iterator[Problem]:
    if constraint.max_skew <= 0:
        yield invalid((*path, "maxSkew"), constraint.max_skew, "must be greater than zero")
    yield from required_name((*path, "topologyKey"), constraint.topology_key, qualified_name)
    when = constraint.when_unsatisfiable
    yield from one_of((*path, "whenUnsatisfiable"), when, ("DoNotSchedule", "ScheduleAnyway"))
    if constraint.min_domains is not None and constraint.min_domains <= 0:
        yield invalid((*path, "minDomains"), constraint.min_domains, "must be greater than zero")
    if constraint.label_selector is not None:
        yield from validate_selector(constraint.label_selector, (*path, "labelSelector"))


def _affinity(affinity: Affinity, path: Path) -> Iterator[Problem]:
    node = affinity.node_affinity
    preferred, wanted = (
        "preferredDuringSchedulingIgnoredDuringExecution",
        "requiredDuringSchedulingIgnoredDuringExecution",
    )
    if node is not None:
        here = (*path, "nodeAffinity")
        if node.required_during_scheduling_ignored_during_execution is not None:
            selector = node.required_during_scheduling_ignored_during_execution
            yield from validate_node_selector(selector, (*here, wanted))
        for index, term in enumerate(node.preferred_during_scheduling_ignored_during_execution):
            yield from _weight(term.weight, (*here, preferred, index, "weight"))
            yield from _node_term(term.preference, (*here, preferred, index, "preference"))
    for alias, pods in (
        ("podAffinity", affinity.pod_affinity),
        ("podAntiAffinity", affinity.pod_anti_affinity),
    ):
        if pods is None:
            continue
        for index, needed in enumerate(pods.required_during_scheduling_ignored_during_execution):
            yield from _pod_term(needed, (*path, alias, wanted, index))
        for index, weighted in enumerate(pods.preferred_during_scheduling_ignored_during_execution):
            yield from _weight(weighted.weight, (*path, alias, preferred, index, "weight"))
            yield from _pod_term(
                weighted.pod_affinity_term, (*path, alias, preferred, index, "podAffinityTerm")
            )


def _weight(weight: int, path: Path) -> Iterator[Problem]:
    if not 1 <= weight <= 100:
        yield invalid(path, weight, "must be in the range 1-100")


def validate_node_selector(selector: NodeSelector, path: Path) -> Iterator[Problem]:
    if not selector.node_selector_terms:
        yield required((*path, "nodeSelectorTerms"), "must have at least one node selector term")
    for index, term in enumerate(selector.node_selector_terms):
        yield from _node_term(term, (*path, "nodeSelectorTerms", index))


def _node_term(term: NodeSelectorTerm, path: Path) -> Iterator[Problem]:
    for alias, expressions in (
        ("matchExpressions", term.match_expressions),
        ("matchFields", term.match_fields),
    ):
        for index, expression in enumerate(expressions):
            here = (*path, alias, index)
            operator, values = expression.operator, expression.values
            yield from one_of(
                (*here, "operator"), operator, ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
            )
            if operator in ("In", "NotIn") and not values:
                yield required((*here, "values"), "must be specified when `operator` is 'In' or 'NotIn'")
            if operator in ("Exists", "DoesNotExist") and values:
                sentence = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                yield forbidden((*here, "values"), sentence)
            if operator in ("Gt", "Lt") and len(values) != 1:
                yield required(
                    (*here, "values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"
                )
            if alias == "matchExpressions":
                yield from required_name((*here, "key"), expression.key, qualified_name)


def _pod_term(term: PodAffinityTerm, path: Path) -> Iterator[Problem]:
    yield from required_name((*path, "topologyKey"), term.topology_key, qualified_name)
    for alias, selector in (
        ("labelSelector", term.label_selector),
        ("namespaceSelector", term.namespace_selector),
    ):
        if selector is not None:
            yield from validate_selector(selector, (*path, alias))


def validate_selector(selector: LabelSelector, path: Path) -> Iterator[Problem]:
    """Check a label selector's labels and expressions (ValidateLabelSelector)."""
    yield from validate_labels(selector.match_labels, (*path, "matchLabels"))
    for index, requirement in enumerate(selector.match_expressions):
        yield from _requirement(requirement, (*path, "matchExpressions", index))


def _requirement(requirement: LabelSelectorRequirement, path: Path) -> Iterator[Problem]:
    operator = requirement.operator
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        yield invalid((*path, "operator"), operator, "not a valid selector operator")
    elif operator in ("In", "NotIn") and not requirement.values:
        yield required((*path, "values"), "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist") and requirement.values:
        yield forbidden(
            (*path, "values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        )
    yield from required_name((*path, "key"), requirement.key, qualified_name)
    for index, value in enumerate(requirement.values):
        yield from formatted((*path, "values", index), value, label_value)
