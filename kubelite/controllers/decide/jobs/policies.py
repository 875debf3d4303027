"""A Job's podFailurePolicy and successPolicy.

Sources: Kubernetes pkg/controller/job/pod_failure_policy.go, pkg/controller/job/success_policy.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubelite.controllers.decide.jobs import indexes
from kubelite.controllers.decide.jobs.indexes import Intervals
from kubelite.kube.json import Json


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of a failed pod. `counts`: towards the back-off limits. `action`: of the rule that matches,
    "" if none does. `message`: why the Job fails because of the pod, "" if it does not."""

    counts: bool = True
    action: str = ""
    message: str = ""


COUNTED = Verdict()


def judge(policy: Json | None, pod: Json) -> Verdict:
    """Return what the first rule that matches says of a failed pod (matchPodFailurePolicy)."""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        cause = _cause(rule, pod)
        if not cause:
            continue
        action = rule["action"]
        message = f"{cause} matching {action} rule at index {index}" if action == "FailJob" else ""
        return Verdict(action != "Ignore", action, message)
    return COUNTED


def success_rule(policy: Json | None, completions: int, succeeded: Intervals) -> str:
    """Return the message of the condition SuccessCriteriaMet, "" if no rule is met (matchSuccessPolicy)."""
    if not succeeded:
        return ""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        count = rule.get("succeededCount")
        found = indexes.total(succeeded)
        enough = False
        if rule.get("succeededIndexes") is not None:
            wanted = indexes.parse(rule["succeededIndexes"], completions)
            if not wanted:
                continue
            found = _overlap(wanted, succeeded)
            enough = found == indexes.total(wanted)
        if enough or (count is not None and found >= count):
            return f"Matched rules at index {index}"
    return ""


def _cause(rule: Json, pod: Json) -> str:
    """Return in words what of a pod a rule matches, "" if nothing."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    name = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
    if (codes := rule.get("onExitCodes")) is not None:
        for of in ("containerStatuses", "initContainerStatuses"):
            if (found := _container(status.get(of) or (), codes)) is not None:
                code = found["state"]["terminated"]["exitCode"]
                return f"Container {found['name']} for pod {name} failed with exit code {code}"
        return ""
    for condition in status.get("conditions") or ():
        for pattern in rule.get("onPodConditions") or ():
            if condition["type"] == pattern["type"] and condition["status"] == pattern.get("status", "True"):
                return f"Pod {name} has condition {condition['type']}"
    return ""


def _container(statuses: Iterable[Json], codes: Json) -> Json | None:
    """Return the first terminated container that matches (getMatchingContainerFromList). Exit code 0 never does."""
    for status in statuses:
        terminated = (status.get("state") or {}).get("terminated")
        if terminated is None or codes.get("containerName") not in (None, status["name"]):
            continue
        code = terminated.get("exitCode", 0)
        if code and (code in codes["values"]) == (codes["operator"] == "In"):
            return status
    return None


def _overlap(one: Intervals, other: Intervals) -> int:
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0]) + 1) for a in one for b in other)
