"""Pure: does this pod fit on this node? Runs the filters of kube-scheduler's default profile for a cluster of one node,
in its order and with its messages (Kubernetes pkg/scheduler/framework/plugins), and kubelet's own admission check for
resources (docs/explanation/scheduling.md).

    gates → unschedulable → name → taints → node affinity → ports → resources → volumes → topology spread → pod affinity

The first filter that rejects the pod determines the message, as on a cluster. The pod then waits (Pending,
PodScheduled=False) until the node or the other pods change. A pod that requests more than the empty node has is
rejected for good, as by kubelet (Failed, OutOfcpu). A scheduled pod stays even if it no longer fits
(IgnoredDuringExecution): only a NoExecute taint evicts it, or preemption by a pod of higher priority that does not fit
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from kubelite.kube.json import Json
from kubelite.node.model.schedule import (
    GATED,
    NO_EXECUTE,
    PREFER_NO_SCHEDULE,
    SCHEDULED,
    UNSCHEDULABLE,
    UNSCHEDULABLE_TAINT,
    NodeFacts,
    Port,
    Reservation,
    Resize,
    ScheduleResult,
    Taint,
    Unbound,
)
from kubelite.node.scheduling.ledger import Ledger
from kubelite.node.scheduling.preemption import lower, victims
from manifests.types.core import (
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    PodAffinityTerm,
    Toleration,
)
from manifests.types.meta import LabelSelectorRequirement

GATED_MESSAGE = "Scheduling is blocked due to non-empty scheduling gates"
IN_USE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
_UNHELPFUL = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"


class _No(NamedTuple):
    """Why one filter rejects the pod: the scheduler's message, whether the removal of other pods cannot help, and
    details in addition to that message. If resources are short, `out` is kubelet's rejection."""

    words: str
    helpless: bool = True  # the scheduler's UnschedulableAndUnresolvable
    more: str = ""
    out: ScheduleResult | None = None
    of_nodes: bool = True  # the message counts nodes


def schedule_pod(
    pod: Pod,
    reservation: Reservation,
    node: NodeFacts,
    ledger: Ledger,
    *,
    alone: Collection[str] = (),
    nominated: bool = False,
    unbound: Unbound | None = None,
    budgets: Sequence[Json] = (),
) -> ScheduleResult:
    """Whether `pod`, which needs `reservation`, fits on `node` beside the pods in the ledger.

    `alone`: the ReadWriteOncePod PersistentVolumeClaims that it mounts; `nominated`: pods were preempted for it before;
    `unbound`: why its PersistentVolumeClaims are not ready; `budgets`: all PodDisruptionBudgets.
    """
    if pod.spec.scheduling_gates:
        return ScheduleResult(GATED, GATED_MESSAGE)
    if unbound is not None and not unbound.here:  # the scheduler's PreFilter: rejects before it filters nodes
        return _unschedulable(_No(unbound.words, of_nodes=False))
    if (no := _misfit(pod, node)) is not None:
        return _unschedulable(no)
    if unbound is not None:
        return _unschedulable(_No(unbound.words))

    def refused(beside: Ledger) -> _No | None:
        return (
            _ports(reservation, beside)
            or _short(reservation, node, beside)
            or _volumes(reservation, alone, beside)
            or _spread(pod, node, beside)
            or _pod_affinity(pod, reservation, node, beside)
        )

    no = refused(ledger)
    if no is None:
        return SCHEDULED
    if no.helpless:
        return _unschedulable(no)
    staying = ledger.where(lambda other: not other.terminating)
    if refused(staying) is None:
        more = no.more or " The pod will fit when the terminating pods are gone."
        return replace(_unschedulable(no._replace(more=more)), nominated=nominated)
    return _preempting(pod, reservation, no, staying, refused, budgets=budgets)


def admit_pod(reservation: Reservation, node: NodeFacts, ledger: Ledger) -> ScheduleResult:
    """Whether a pod that a cluster has bound to this node fits. If it does not, it is rejected for good, and its
    controller makes another one (Kubernetes pkg/kubelet/lifecycle/predicate.go, Admit). What the cluster's scheduler
    has decided is not decided again: affinity, spreading, taints."""
    if (no := _ports(reservation, ledger)) is not None:
        return ScheduleResult("NodePorts", f"Pod was rejected: {no.words}.{no.more}", rejected=True)
    short = _short(reservation, node, ledger)
    return SCHEDULED if short is None or short.out is None else short.out


def _preempting(
    pod: Pod,
    reservation: Reservation,
    no: _No,
    staying: Ledger,
    refused: Callable[[Ledger], _No | None],
    *,
    budgets: Sequence[Json],
) -> ScheduleResult:
    """Find pods to preempt for a pod that does not fit beside the pods that stay. If there are none, say why."""
    if pod.spec.preemption_policy == "Never":
        sentence = "not eligible due to preemptionPolicy=Never."
    elif found := victims(reservation, staying, lambda beside: refused(beside) is None, budgets):
        words = f"0/1 nodes are available: 1 {no.words}."
        return ScheduleResult(
            UNSCHEDULABLE, words, victims=found, nominated=True, short_of=_resource(no.words)
        )
    else:
        gone = {other.uid for other in lower(reservation, staying)}
        still = refused(staying.where(lambda other: other.uid not in gone)) if gone else None
        sentence = f"0/1 nodes are available: 1 {still.words if still is not None else _NO_VICTIMS}."
    never = refused(staying.where(lambda _other: False)) if no.out is not None else None
    if never is not None and never.out is not None:
        return never.out
    more = no.more
    if no.out is not None and not more:
        higher = refused(staying.where(lambda other: other.priority <= reservation.priority)) is None
        more = (
            f" Pods {'of higher priority ' * higher}use the resource; this one starts when they leave enough."
        )
    return ScheduleResult(
        UNSCHEDULABLE, f"0/1 nodes are available: 1 {no.words}. preemption: {sentence}{more}"
    )


def _resource(words: str) -> str:
    """The resource that a filter's message names: see `_short`."""
    return "pods" if words == "Too many pods" else words.partition("Insufficient ")[2]


def _unschedulable(no: _No) -> ScheduleResult:
    why = _UNHELPFUL if no.helpless else _NO_VICTIMS
    said = f"{'1 ' * no.of_nodes}{no.words}"
    words = f"0/1 nodes are available: {said}. preemption: 0/1 nodes are available: 1 {why}.{no.more}"
    return ScheduleResult(UNSCHEDULABLE, words)


def _misfit(pod: Pod, node: NodeFacts) -> _No | None:
    tolerations = pod.spec.tolerations
    if node.unschedulable and not tolerated(Taint(UNSCHEDULABLE_TAINT), tolerations):
        return _No("node(s) were unschedulable")
    if pod.spec.node_name and pod.spec.node_name != node.name:
        return _No("node(s) didn't match the requested node name")
    for taint in node.taints:
        if taint.effect != PREFER_NO_SCHEDULE and not tolerated(taint, tolerations):
            return _No("node(s) had untolerated taint(s)", more=f" The taint is {taint_text(taint)}.")
    if not matches_node(pod, node):
        return _No("node(s) didn't match Pod's node affinity/selector")
    return None


def taint_text(taint: Taint) -> str:
    """The taint as kubectl describe formats it: key=value:Effect."""
    return f"{taint.key}{'=' * bool(taint.value)}{taint.value}:{taint.effect}"


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    return any(tolerates(toleration, taint) for toleration in tolerations)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether a toleration matches a taint. An empty effect matches every effect, an empty key with Exists every key
    (Kubernetes staging/src/k8s.io/api/core/v1/toleration.go, ToleratesTaint)."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    match toleration.operator or "Equal":
        case "Exists":
            return True
        case "Equal":
            return bool(toleration.key) and (toleration.value or "") == taint.value
        case "Gt" | "Lt" as operator:
            given, wanted = _number(taint.value), _number(toleration.value or "")
            if given is None or wanted is None:
                return False
            return given > wanted if operator == "Gt" else given < wanted
        case _:
            return False


def _number(text: str) -> int | None:
    return int(text) if text.removeprefix("-").isdigit() else None


def evicted_at(pod: Pod, taints: Iterable[Taint]) -> tuple[float, Taint] | None:
    """When a NoExecute taint evicts a running pod, and which taint: at once if no toleration matches, otherwise after
    the shortest matching tolerationSeconds. None if every taint is tolerated without a limit (Kubernetes
    pkg/controller/tainteviction/taint_eviction.go)."""
    ends: list[tuple[float, Taint]] = []
    for taint in taints:
        if taint.effect != NO_EXECUTE:
            continue
        found = [t for t in pod.spec.tolerations if tolerates(t, taint)]
        if not found:
            ends.append((taint.added, taint))
        elif limits := [t.toleration_seconds for t in found if t.toleration_seconds is not None]:
            ends.append((taint.added + max(0, min(limits)), taint))
    return min(ends, key=lambda end: end[0], default=None)


def matches_node(pod: Pod, node: NodeFacts) -> bool:
    """Whether the node matches nodeSelector and at least one term of the required node affinity."""
    if any(node.labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    if required is None:
        return True
    return matches_terms(required, node)


def matches_terms(selector: NodeSelector, node: NodeFacts) -> bool:
    return any(_term(term, node) for term in selector.node_selector_terms)


def _term(term: NodeSelectorTerm, node: NodeFacts) -> bool:
    """An empty term matches no node (Kubernetes component-helpers/scheduling/corev1/nodeaffinity)."""
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.name}
    return all(_requirement(r, node.labels) for r in term.match_expressions) and all(
        _requirement(r, fields) for r in term.match_fields
    )


def _requirement(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    return LabelSelectorRequirement(
        key=requirement.key, operator=requirement.operator, values=requirement.values
    ).matches(labels)


def _ports(reservation: Reservation, ledger: Ledger) -> _No | None:
    for port in reservation.ports:
        holder = ledger.holder(port, but=reservation.uid)
        if holder is not None:
            taken = f" hostPort {port_text(port)} is taken by pod {holder.namespace}/{holder.name}."
            return _No("node(s) didn't have free ports for the requested pod ports", False, taken)
    return None


def port_text(port: Port) -> str:
    host = f"[{port.ip}]:" if ":" in port.ip else f"{port.ip}:" if port.ip else ""
    return f"{host}{port.number}/{port.protocol}"


def _short(reservation: Reservation, node: NodeFacts, ledger: Ledger) -> _No | None:
    """The first resource that is short: in kubelet's order, then by name (Kubernetes
    pkg/scheduler/framework/plugins/noderesources/fit.go, fitsRequest)."""
    names = ["pods", "cpu", "memory", "ephemeral-storage"]
    names += sorted(set(reservation.requests) - set(names))
    for name in names:
        wanted = 1 if name == "pods" else reservation.requests.get(name, 0)
        if not wanted:
            continue
        room = node.allocatable.get(name)
        used = ledger.used(name, but=reservation.uid)
        if room is not None and used + wanted <= room:
            continue
        if room is None or "/" in name:  # kubelet does not check these: the scheduler makes the pod wait
            return _No(f"Insufficient {name}", False, _unhealthy(name, node))
        numbers = f"requested: {wanted}, used: {used}, capacity: {room}"
        sentence = f"Pod was rejected: Node didn't have enough resource: {name}, {numbers}"
        words = "Too many pods" if name == "pods" else f"Insufficient {name}"
        return _No(words, False, out=ScheduleResult(f"OutOf{name}", sentence, rejected=True))
    return None


def _unhealthy(name: str, node: NodeFacts) -> str:
    """Why the node has fewer devices than one would think; "" if all are healthy, or the resource has no plugin."""
    total = node.devices.get(name)
    if total is None:
        return ""
    if not total:
        return f" No device plugin of {name} is registered."
    broken = total - node.allocatable.get(name, 0)
    return (
        f" {broken} of {total} devices of {name} {'is' if broken == 1 else 'are'} unhealthy."
        if broken
        else ""
    )


def _volumes(reservation: Reservation, alone: Collection[str], ledger: Ledger) -> _No | None:
    """Only one pod at a time may use a ReadWriteOncePod PersistentVolumeClaim (Kubernetes
    pkg/scheduler/framework/plugins/volumerestrictions, satisfyReadWriteOncePod)."""
    for name in reservation.volumes:
        if name in alone and (holder := ledger.user(reservation, name)) is not None:
            used = f" PersistentVolumeClaim {name} is used by pod {holder.namespace}/{holder.name}."
            return _No(IN_USE, False, used)
    return None


def resize(reservation: Reservation, node: NodeFacts, ledger: Ledger) -> Resize | None:
    """Why the edited resources of a scheduled pod do not fit in place of its present ones; None if they do. Infeasible:
    more than the whole node has. Deferred: more than the other pods leave free (Kubernetes
    pkg/kubelet/allocation/allocation_manager.go, canResizePod)."""
    held = ledger.get(reservation.uid)
    for name, wanted in sorted(reservation.requests.items()):
        if held is None or wanted <= held.requests.get(name, 0):
            continue
        room, used = node.allocatable.get(name), ledger.used(name, but=reservation.uid)
        if room is None or used + wanted <= room:
            continue
        if wanted > room:
            numbers = f"requested: {wanted}, capacity: {room}"
            return Resize("Infeasible", f"Node didn't have enough capacity: {name}, {numbers}")
        numbers = f"requested: {wanted}, used: {used}, capacity: {room}"
        return Resize("Deferred", f"Node didn't have enough resource: {name}, {numbers}")
    return None


def _spread(pod: Pod, node: NodeFacts, ledger: Ledger) -> _No | None:
    """One node is one domain of each topology key that it has. The skew is therefore 0, unless minDomains requires more
    domains: then the global minimum is 0 (Kubernetes
    pkg/scheduler/framework/plugins/podtopologyspread/filtering.go)."""
    words = "node(s) didn't match pod topology spread constraints"
    namespace, labels = pod.metadata.namespace or "default", pod.metadata.labels
    for constraint in pod.spec.topology_spread_constraints:
        if constraint.when_unsatisfiable != "DoNotSchedule":
            continue
        if constraint.topology_key not in node.labels:
            return _No(f"{words} (missing required label)")
        if (constraint.min_domains or 1) <= 1:
            continue
        keys = [_same_label(key, labels) for key in constraint.match_label_keys if key in labels]
        selector = constraint.label_selector

        def counts(of: Mapping[str, str]) -> bool:
            return selector is not None and selector.matches(of) and all(r.matches(of) for r in keys)  # noqa: B023 - used at once

        found = sum(
            c.namespace == namespace and not c.terminating and counts(c.labels) for c in ledger.others(pod)
        )
        if found + counts(labels) > constraint.max_skew:
            return _No(words, False)
    return None


def _same_label(key: str, labels: Mapping[str, str], operator: str = "In") -> LabelSelectorRequirement:
    return LabelSelectorRequirement(key=key, operator=operator, values=[labels[key]])


def _pod_affinity(pod: Pod, reservation: Reservation, node: NodeFacts, ledger: Ledger) -> _No | None:
    affinity = pod.spec.affinity
    terms: Sequence[PodAffinityTerm] = ()
    if affinity is not None and affinity.pod_affinity is not None:
        terms = affinity.pod_affinity.required_during_scheduling_ignored_during_execution
    if terms and not _attracted(pod, reservation, terms, node, ledger):
        return _No("node(s) didn't match pod affinity rules")
    for term in reservation.repels:
        if term.topology_key in node.labels and any(
            selects(term, reservation, other) for other in ledger.others(pod)
        ):
            return _No("node(s) didn't match pod anti-affinity rules", False)
    for other in ledger.repelling():
        if other.uid != reservation.uid and any(
            term.topology_key in node.labels and selects(term, other, reservation) for term in other.repels
        ):
            return _No("node(s) didn't satisfy existing pods anti-affinity rules", False)
    return None


def _attracted(
    pod: Pod, reservation: Reservation, terms: Sequence[PodAffinityTerm], node: NodeFacts, ledger: Ledger
) -> bool:
    """Whether each term selects a pod on this node. The first pod of a group that selects itself may start."""
    if any(term.topology_key not in node.labels for term in terms):
        return False
    candidates = (*ledger.others(pod), reservation)  # with itself: see above
    return any(all(selects(term, reservation, other) for term in terms) for other in candidates)


def selects(term: PodAffinityTerm, owner: Reservation, other: Reservation) -> bool:
    """Whether a pod's affinity term selects another pod. A namespace here has only the label that the API server gives
    to each: its name (kubernetes.io/metadata.name)."""
    named = other.namespace in term.namespaces
    selected = term.namespace_selector is not None and term.namespace_selector.matches(
        {"kubernetes.io/metadata.name": other.namespace}
    )
    everywhere = bool(term.namespaces) or term.namespace_selector is not None
    if not (named or selected or (not everywhere and other.namespace == owner.namespace)):
        return False
    if term.label_selector is None or not term.label_selector.matches(other.labels):
        return False
    same = [_same_label(key, owner.labels) for key in term.match_label_keys if key in owner.labels]
    unlike = [
        _same_label(key, owner.labels, "NotIn") for key in term.mismatch_label_keys if key in owner.labels
    ]
    return all(requirement.matches(other.labels) for requirement in [*same, *unlike])
