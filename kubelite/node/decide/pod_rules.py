"""PURE: a pod's own rules for its containers, as everything that decides or reports reads them: whether one runs again,
how long its end may take, what its probes say of it.
"""

from __future__ import annotations

from kubelite.kube.durations import parse_duration
from kubelite.node.model.actions import Facts
from kubelite.node.model.cri import ContainerSeen
from kubelite.node.model.node_config import BackOff
from kubelite.node.model.probe_results import Health, health
from manifests.types.core import Container, Pod

BACK_OFF_INITIAL = "kubelite.io/crash-back-off-initial"  # annotations of a pod
BACK_OFF_MAX = "kubelite.io/crash-back-off-max"
RESTART_ON_CHANGE = "kubelite.io/restart-on-change"  # "true": of the content of its ConfigMaps and Secrets


def restart_policy(pod: Pod, container: Container) -> str:
    """Always, OnFailure or Never, for one container: its own rule, else the pod's; a pod's Always means OnFailure for
    its init containers."""
    if container.restart_policy:
        return container.restart_policy
    policy = pod.spec.restart_policy or "Always"
    if policy == "Always" and any(c.name == container.name for c in pod.spec.init_containers):
        return "OnFailure"
    return policy


def should_restart(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether a container that ended with this code runs again: the first of its own rules that fits, else its policy
    (K podutil ContainerShouldRestart)."""
    if rule_for(container, exit_code):
        return True
    policy = restart_policy(pod, container)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def rule_for(container: Container, exit_code: int) -> str:
    """The action of the first of its restartPolicyRules that fits: Restart, RestartAllContainers, "" = none does."""
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if codes is not None and (exit_code in codes.values) is (codes.operator == "In"):
            return rule.action
    return ""


def crash_back_off(pod: Pod, node: BackOff) -> BackOff:
    """The pod's own by annotation (a duration: `30s`, `2m`), else the node's. What is no duration counts as not there;
    `unsupported` says so."""
    found = {key: back_off_annotation(pod, key) for key in (BACK_OFF_INITIAL, BACK_OFF_MAX)}
    if not any(found.values()):
        return node
    return BackOff(found[BACK_OFF_INITIAL] or node.initial, found[BACK_OFF_MAX] or node.maximum)


def back_off_annotation(pod: Pod, key: str) -> float | None:
    """Seconds; None when it is not set, or not a positive duration."""
    try:
        return parse_duration(pod.metadata.annotations[key]) or None
    except (KeyError, ValueError):
        return None


def grace_period(pod: Pod) -> float:
    """Seconds between the stop signal and SIGKILL; at least one (C3)."""
    grace = pod.spec.termination_grace_period_seconds
    if pod.metadata.deletion_timestamp and pod.metadata.deletion_grace_period_seconds is not None:
        grace = pod.metadata.deletion_grace_period_seconds
    return float(max(1, 30 if grace is None else grace))


def health_of(facts: Facts, container: Container, instance: ContainerSeen) -> Health:
    """What the probes of a running instance say; before the first try what is assumed."""
    return facts.health.get(instance.id) or health(container, {})
