"""Rules of StatefulSets, DaemonSets and ControllerRevisions (Kubernetes pkg/apis/apps/validation/validation.go)."""

from collections.abc import Iterator

from manifests.names import dns_label
from manifests.problems import Path, Problem, forbidden, invalid, not_supported, required
from manifests.types.pod import PodTemplateSpec
from manifests.types.volume import PersistentVolumeClaimVolumeSource, Volume
from manifests.types.workloads.daemon_set import DaemonSet, DaemonSetUpdateStrategy
from manifests.types.workloads.revision import ControllerRevision
from manifests.types.workloads.stateful_set import StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy
from manifests.validation.claim import claim_spec_problems
from manifests.validation.meta import validate_meta
from manifests.validation.rules import formatted, not_negative, one_of
from manifests.validation.workloads.template import (
    TEMPLATE,
    always_running,
    amount,
    immutable,
    int_or_percent,
    selector_problems,
    template_problems,
)

POLICIES = ("OrderedReady", "Parallel")
STRATEGIES = ("OnDelete", "RollingUpdate")
RETENTION = ("Delete", "Retain")
_VOLUMES: Path = (*TEMPLATE, "spec", "volumes")
#: fields of a StatefulSet's spec that an update may change
_CHANGEABLE = (
    "min_ready_seconds",
    "ordinals",
    "persistent_volume_claim_retention_policy",
    "replicas",
    "revision_history_limit",
    "template",
    "update_strategy",
)
_UNCHANGEABLE = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def stateful_set_problems(found: StatefulSet) -> Iterator[Problem]:
    spec, path = found.spec, ("spec",)
    yield from validate_meta(found.metadata, name=dns_label)
    if spec.pod_management_policy not in POLICIES:
        sentence = "must be 'OrderedReady' or 'Parallel'"
        yield invalid((*path, "podManagementPolicy"), spec.pod_management_policy, sentence)
    yield from _stateful_strategy(spec.update_strategy, (*path, "updateStrategy"))
    policy = spec.persistent_volume_claim_retention_policy
    here: Path = (*path, "persistentVolumeClaimRetentionPolicy")
    yield from one_of((*here, "whenDeleted"), policy.when_deleted, RETENTION)
    yield from one_of((*here, "whenScaled"), policy.when_scaled, RETENTION)
    for index, claim in enumerate(spec.volume_claim_templates):
        yield from claim_spec_problems(claim.spec, (*path, "volumeClaimTemplates", index, "spec"))
    yield from not_negative((*path, "replicas"), spec.replicas)
    yield from not_negative((*path, "minReadySeconds"), spec.min_ready_seconds)
    if spec.ordinals is not None:
        yield from not_negative((*path, "ordinals", "start"), spec.ordinals.start)
    if spec.service_name:
        yield from formatted((*path, "serviceName"), spec.service_name, dns_label)
    yield from selector_problems(spec.selector, spec.template, "statefulset")
    yield from _stateful_template(spec)
    yield from always_running(spec.template, "StatefulSet")


def _stateful_strategy(strategy: StatefulSetUpdateStrategy, path: Path) -> Iterator[Problem]:
    rolling = strategy.rolling_update
    if strategy.type not in STRATEGIES:
        yield invalid((*path, "type"), strategy.type, "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None and strategy.type == "OnDelete":
        sentence = "only allowed for updateStrategy 'RollingUpdate'"
        yield invalid((*path, "rollingUpdate"), rolling.to_json(), sentence)
    elif rolling is not None:
        here: Path = (*path, "rollingUpdate", "maxUnavailable")
        yield from not_negative((*path, "rollingUpdate", "partition"), rolling.partition)
        if rolling.max_unavailable is not None:
            wrong = list(int_or_percent(rolling.max_unavailable, here, at_most_all=True))
            yield from wrong
            if not wrong and amount(rolling.max_unavailable) == 0:
                yield invalid(here, rolling.max_unavailable, "cannot be 0")


def _stateful_template(spec: StatefulSetSpec) -> Iterator[Problem]:
    """Check the template with the volumes that the claims become. A wrong name of a claim is reported at the claim."""
    template, places = _as_pods(spec)
    for problem in template_problems(template):
        path = problem.path
        if path[: len(_VOLUMES)] == _VOLUMES and isinstance(path[len(_VOLUMES)], int):
            index = int(path[len(_VOLUMES)])
            if index in places:
                yield Problem(
                    ("spec", "volumeClaimTemplates", places[index], "metadata", "name"), problem.message
                )
                continue
        yield problem


def _as_pods(spec: StatefulSetSpec) -> tuple[PodTemplateSpec, dict[int, int]]:
    """Return the template as pods will have it, and for each volume that is made of a claim the claim's index.

    The controller sets hostname and subdomain. A claim replaces a volume of the same name.
    """
    volumes = list(spec.template.spec.volumes)
    names = {volume.name: index for index, volume in enumerate(volumes)}
    places: dict[int, int] = {}
    for index, claim in enumerate(spec.volume_claim_templates):
        name = claim.metadata.name or ""
        source = PersistentVolumeClaimVolumeSource(claim_name=name or "-")
        volume = Volume(name=name, persistent_volume_claim=source)
        if name not in names:
            names[name] = len(volumes)
            volumes.append(volume)
        volumes[names[name]] = volume
        places[names[name]] = index
    pod = spec.template.spec.model_copy(update={"hostname": None, "subdomain": None, "volumes": volumes})
    return spec.template.model_copy(update={"spec": pod}), places


def stateful_set_update_problems(old: StatefulSet, new: StatefulSet) -> Iterator[Problem]:
    changed = [
        (alias.alias or name)
        for name, alias in StatefulSetSpec.model_fields.items()
        if name not in _CHANGEABLE and getattr(old.spec, name) != getattr(new.spec, name)
    ]
    for alias in changed:
        yield forbidden(("spec", alias), _UNCHANGEABLE)


def daemon_set_problems(found: DaemonSet) -> Iterator[Problem]:
    spec, path = found.spec, ("spec",)
    yield from validate_meta(found.metadata)
    yield from selector_problems(spec.selector, spec.template, "daemonset")
    yield from template_problems(spec.template)
    yield from always_running(spec.template, "DaemonSet")
    yield from not_negative((*path, "minReadySeconds"), spec.min_ready_seconds)
    yield from _daemon_strategy(spec.update_strategy, (*path, "updateStrategy"))
    yield from not_negative((*path, "revisionHistoryLimit"), spec.revision_history_limit)


def _daemon_strategy(strategy: DaemonSetUpdateStrategy, path: Path) -> Iterator[Problem]:
    kind, rolling = strategy.type or "", strategy.rolling_update
    if kind not in STRATEGIES:
        yield not_supported((*path, "type"), kind, STRATEGIES)
    if kind != "RollingUpdate" or rolling is None:
        return
    unavailable, surge = (*path, "rollingUpdate", "maxUnavailable"), (*path, "rollingUpdate", "maxSurge")
    wrong = [
        *int_or_percent(rolling.max_unavailable, unavailable, at_most_all=True),
        *int_or_percent(rolling.max_surge, surge, at_most_all=True),
    ]
    yield from wrong
    some, more = amount(rolling.max_unavailable), amount(rolling.max_surge)
    if some and more:
        yield invalid(surge, rolling.max_surge, "may not be set when maxUnavailable is non-zero")
    elif not some and not more and not wrong:
        yield required(unavailable, "cannot be 0 when maxSurge is 0")


def daemon_set_update_problems(old: DaemonSet, new: DaemonSet) -> Iterator[Problem]:
    yield from immutable(old.spec.selector, new.spec.selector, ("spec", "selector"))


def controller_revision_problems(found: ControllerRevision) -> Iterator[Problem]:
    yield from validate_meta(found.metadata)
    yield from not_negative(("revision",), found.revision)
    if found.data is None:
        yield required(("data",), "data is mandatory")


def controller_revision_update_problems(
    old: ControllerRevision, new: ControllerRevision
) -> Iterator[Problem]:
    yield from immutable(old.data, new.data, ("data",))
