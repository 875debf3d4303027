"""A pod's rules for its containers, for all code that decides or reports: whether a container restarts, how long it may
take to stop, and its health.
"""

from __future__ import annotations

from kubelite.node.model.actions import Facts
from kubelite.node.model.cri import ObservedContainer
from kubelite.node.model.probe_results import Health, health
from manifests.types.core import Container, Pod

RESTART_ON_CHANGE = "kubelite.io/restart-on-change"  # "true": restart on changes of ConfigMaps and Secrets


def restart_policy(pod: Pod, container: Container) -> str:
    """Always, OnFailure or Never for one container: its own policy, else the pod's. For init containers, the pod's
    Always means OnFailure."""
    if container.restart_policy:
        return container.restart_policy
    policy = pod.spec.restart_policy or "Always"
    if policy == "Always" and any(c.name == container.name for c in pod.spec.init_containers):
        return "OnFailure"
    return policy


def should_restart(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether a container that ended with this code restarts, by its first matching rule, else by its policy
    (Kubernetes pkg/api/v1/pod/util.go, ContainerShouldRestart)."""
    if rule_for(container, exit_code):
        return True
    policy = restart_policy(pod, container)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def rule_for(container: Container, exit_code: int) -> str:
    """The action of the first matching restartPolicyRule: Restart or RestartAllContainers; "" = none matches."""
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if codes is not None and (exit_code in codes.values) is (codes.operator == "In"):
            return rule.action
    return ""


def grace_period(pod: Pod) -> float:
    """Seconds between the stop signal and SIGKILL: at least one."""
    grace = pod.spec.termination_grace_period_seconds
    if pod.metadata.deletion_timestamp and pod.metadata.deletion_grace_period_seconds is not None:
        grace = pod.metadata.deletion_grace_period_seconds
    return float(max(1, 30 if grace is None else grace))


def health_of(facts: Facts, container: Container, instance: ObservedContainer) -> Health:
    """The health of a running instance. Before the first probe it has the default values."""
    return facts.health.get(instance.id) or health(container, {})
