"""Pure: policies, pods and the labels of namespaces in; the rules of the node out."""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.kube.json import Json
from kubelite.network_policies.compiled import compiled
from kubelite.network_policies.pods import Namespaces, PodFacts, pod_rules
from runtime.network.policies.plan import PolicySet


def decide(policies: Iterable[Json], pods: Iterable[PodFacts], namespaces: Namespaces) -> PolicySet:
    """Return all policies as rules, and what they mean for each pod that they concern."""
    rules = compiled(policies)
    found = (pod_rules(pod, rules, namespaces) for pod in pods)
    return PolicySet(rules.policies, tuple(pod for pod in found if pod.concerned))
