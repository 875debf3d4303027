"""Rules of ReplicaSets (Kubernetes pkg/apis/apps/validation) and ReplicationControllers (pkg/apis/core/validation)."""

from collections.abc import Iterator

from manifests.problems import Problem, required
from manifests.types.workloads.replica_set import ReplicaSet, ReplicationController
from manifests.validation.meta import validate_meta
from manifests.validation.rules import not_negative
from manifests.validation.workloads.template import (
    always_running,
    immutable,
    not_matching,
    selector_problems,
    template_problems,
)


def replica_set_problems(found: ReplicaSet) -> Iterator[Problem]:
    spec = found.spec
    yield from validate_meta(found.metadata)
    yield from not_negative(("spec", "replicas"), spec.replicas)
    yield from not_negative(("spec", "minReadySeconds"), spec.min_ready_seconds)
    yield from selector_problems(spec.selector, spec.template, "replicaset")
    yield from template_problems(spec.template)
    yield from always_running(spec.template, "ReplicaSet")


def replica_set_update_problems(old: ReplicaSet, new: ReplicaSet) -> Iterator[Problem]:
    yield from immutable(old.spec.selector, new.spec.selector, ("spec", "selector"))


def replication_controller_problems(found: ReplicationController) -> Iterator[Problem]:
    spec = found.spec
    yield from validate_meta(found.metadata)
    yield from not_negative(("spec", "minReadySeconds"), spec.min_ready_seconds)
    if not spec.selector:
        yield required(("spec", "selector"))
    yield from not_negative(("spec", "replicas"), spec.replicas)
    labels = spec.template.metadata.labels
    if any(labels.get(key) != value for key, value in spec.selector.items()):
        yield not_matching(spec.template)
    yield from template_problems(spec.template)
    yield from always_running(spec.template, "ReplicationController")
