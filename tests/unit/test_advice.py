"""Each reason that keeps a pod from running has words on what to do next, with the pod's own names in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kubelite.telemetry.advice import CONDITION, CONTAINER, EVENT, POD, SCHEDULING, advice

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pods.md"


def pod(state: dict[str, Any], last: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    container = {"name": "app", "state": state, "lastState": last or {}}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "nginx:1"}]},
        "status": {"containerStatuses": [container], **status},
    }


@pytest.mark.parametrize("reason", sorted(CONTAINER))
def test_every_reason_of_a_container(reason: str) -> None:
    kind = "terminated" if reason in ("OOMKilled", "Error", "StartError", "Unknown") else "waiting"
    (sentence,) = advice(pod({kind: {"reason": reason}}))
    assert sentence.startswith("app: ")
    assert "{" not in sentence
    words = ("kubelite ", "imagePullPolicy", "spec.", "resources.", "command", "network", "nothing to do")
    assert any(word in sentence for word in words)


#: Reason of the pod itself → the very sentence.
OF_A_POD = {
    "Evicted": "the node ran short: kubelite top node, kubelite df; lower what the pod uses, or ask for what it needs",
    "NodeAffinity": "spec.nodeSelector or affinity names another node: this one is kubelite get node -o yaml",
    "NodePorts": "another pod, or a program, has the host port: kubelite get pods -A -o wide, ss -ltnp",
    "OutOfcpu": "the pods' CPU requests are more than the node has: lower resources.requests.cpu",
    "OutOfmemory": "the pods' memory requests are more than the node has: lower resources.requests.memory",
    "OutOfpods": "the node takes no more pods: remove some",
    "DeadlineExceeded": "it took longer than spec.activeDeadlineSeconds: raise that",
    "OutOfephemeral-storage": "the pods' ephemeral-storage requests are more than the node has: lower "
    "resources.requests.ephemeral-storage",
    "Terminated": "the machine shut down: it starts again with the node",
    "UnexpectedAdmissionError": "this node cannot give it what it asks for; what it has: kubelite get node -o yaml",
    "SysctlForbidden": "spec.securityContext.sysctls has one that a pod may not set here: take it out",
    "AppArmor": "this kernel has no such AppArmor profile: load it, or take it out of securityContext",
}


@pytest.mark.parametrize("reason", sorted(POD))
def test_every_reason_of_a_pod(reason: str) -> None:
    assert advice(pod({"running": {}}, reason=reason)) == [OF_A_POD[reason]]


#: <condition's type>=<status>/<reason> → its message, and the very sentence.
OF_CONDITIONS = {
    "Ready=False/ReadinessGatesNotReady": (
        'readiness gate "x/y" does not exist.',
        "its containers are ready, what spec.readinessGates waits for is not "
        '(readiness gate "x/y" does not exist): have that condition set in its status, or take the gate out',
    ),
    "PodResizePending=True/Infeasible": (
        "Node didn't have enough capacity: cpu",
        "its new resources are more than this node can give (Node didn't have enough capacity: cpu): lower them; "
        "it goes on with what it has",
    ),
    "PodResizePending=True/Deferred": (
        "Node didn't have enough resource: cpu",
        "its new resources wait for room (Node didn't have enough resource: cpu): lower them, or remove other pods; "
        "it goes on with what it has",
    ),
    "PodResizeInProgress=True/Error": (
        "memory.max: busy",
        "its new resources did not take (memory.max: busy), it is tried again: choose a limit above what it uses, "
        "see kubelite top pods --containers",
    ),
    "DisruptionTarget=True/PreemptionByScheduler": (
        "preempting {it}",
        "a pod of higher priority takes its room (preempting {it}): give it a priorityClassName, or make room",
    ),
}


@pytest.mark.parametrize("condition", sorted(OF_CONDITIONS))
def test_what_a_condition_tells(condition: str) -> None:
    kind, status, reason = condition.replace("=", "/").split("/")
    message, sentence = OF_CONDITIONS[condition]
    one = {"type": kind, "status": status, "reason": reason, "message": message}
    assert advice(pod({"running": {}}, conditions=[one])) == [sentence]
    assert advice(pod({"running": {}}, conditions=[{**one, "reason": ""}])) == []


def test_no_condition_is_left_without_a_sentence() -> None:
    assert OF_CONDITIONS.keys() == CONDITION.keys()


@pytest.mark.parametrize(
    "reason",
    (
        *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"),
        *("RegistryUnavailable", "SignatureValidationFailed", "PreCreateHookError", "PreStartHookError"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
        *(
            "PostStartHookError",
            "CrashLoopBackOff",
            "OOMKilled",
            "Error",
            "StartError",
            "ContainerStatusUnknown",
        ),
    ),
)
def test_kubelets_reasons_are_known(reason: str) -> None:
    assert reason in CONTAINER


@pytest.mark.parametrize("reason", ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"))
def test_a_pull_that_fails_of_an_image_that_is_here(reason: str) -> None:
    waiting = pod({"waiting": {"reason": reason}})
    (sentence,) = advice(waiting, is_here=lambda image: image == "nginx:1")
    assert sentence.startswith("app: nginx:1 is in the store already") and "IfNotPresent" in sentence
    assert advice(waiting, is_here=lambda image: False) == advice(waiting) != [sentence]


def test_a_debugging_container_that_waits() -> None:
    doc = pod({"running": {}}, conditions=[{"type": "Ready", "status": "True"}])
    doc["spec"]["ephemeralContainers"] = [{"name": "look", "image": "box"}]
    status = {"name": "look", "state": {"waiting": {"reason": "ErrImagePull"}}}
    doc["status"]["ephemeralContainerStatuses"] = [status]
    (sentence,) = advice(doc, is_here=lambda image: image == "box")
    assert sentence.startswith("look: box is in the store already")
    status["state"] = {"terminated": {"reason": "Error", "exitCode": 7}}
    assert advice(doc) == []


def test_a_crash_loop_says_why_it_ended_too() -> None:
    found = advice(pod({"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"reason": "OOMKilled"}}))
    assert found[0] == "app: it keeps ending: kubelite logs web -c app --previous"
    assert "resources.limits.memory" in found[1]


def test_another_namespace_is_in_the_command() -> None:
    doc = pod({"waiting": {"reason": "CrashLoopBackOff"}})
    doc["metadata"]["namespace"] = "shop"
    assert advice(doc) == ["app: it keeps ending: kubelite logs web -n shop -c app --previous"]


@pytest.mark.parametrize(
    "state",
    (
        {"running": {}},
        {"waiting": {"reason": "ContainerCreating"}},
        {"terminated": {"reason": "Completed"}},
        {},
    ),
)
def test_a_pod_that_is_well_needs_none(state: dict[str, Any]) -> None:
    assert advice(pod(state, {"terminated": {"reason": "Error"}})) == []


def test_an_unknown_reason_is_not_kept_quiet() -> None:
    assert advice(pod({"waiting": {"reason": "Odd"}})) == ["app: Odd: kubelite describe pod web"]


WAITING = {"waiting": {"reason": "ContainerCreating"}}


def event(
    reason: str, message: str, at: str = "2026-01-01T00:00:00Z", kind: str = "Warning"
) -> dict[str, Any]:
    return {
        "metadata": {"name": f"web.{at}"},
        "type": kind,
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
    }


#: What is wrong → the very sentence: each failure of kubelet's status and of what comes before it.
SENTENCES = {
    "ErrImagePull": "app: check the image's name and that its registry can be reached: kubelite pull nginx:1",
    "ImagePullBackOff": "app: the next try waits; see what the registry says now: kubelite pull nginx:1",
    "ErrImageNeverPull": "app: imagePullPolicy is Never and nginx:1 is not here: kubelite pull nginx:1, kubelite load, "
    "or another policy",
    "InvalidImageName": "app: mend spec.containers[].image: nginx:1 is no image's name",
    "ImageInspectError": "app: the image's record is damaged: kubelite doctor --deep --repair",
    "RegistryUnavailable": "app: the registry does not answer: check the network and DNS of the node",
    "SignatureValidationFailed": "app: the image's signature is not accepted: check spec.containers[].image",
    "CreateContainerConfigError": "app: a ConfigMap, a Secret or a key of one is missing, or a field contradicts the "
    "image: add it, the container starts by itself (kubelite describe pod web names it)",
    "CreateContainerError": "app: the engine could not make it: kubelite describe pod web, kubelite doctor",
    "PreCreateHookError": "app: the engine could not prepare it: kubelite describe pod web, kubelite doctor",
    "PreStartHookError": "app: the engine could not prepare it: kubelite describe pod web, kubelite doctor",
    "PostStartHookError": "app: lifecycle.postStart failed: kubelite describe pod web shows what it said",
    "RunContainerError": "app: the engine could not start it: kubelite describe pod web",
    "CrashLoopBackOff": "app: it keeps ending: kubelite logs web -c app --previous",
    "OOMKilled": "app: it needed more memory than resources.limits.memory allows: raise it, or see kubelite top pods "
    "--containers",
    "Error": "app: it ended with an error: kubelite logs web -c app --previous",
    "StartError": "app: its program could not be executed: check command, args and that the file is in nginx:1 and may "
    "be executed",
    "ContainerStatusUnknown": "app: nobody saw how it ended (the machine or its shim went down); nothing to do if it "
    "runs again",
    "Unknown": "app: nobody saw how it ended; nothing to do if it runs again",
}


@pytest.mark.parametrize("reason", sorted(CONTAINER))
def test_the_sentence_of_each_failure(reason: str) -> None:
    kind = "terminated" if reason in ("OOMKilled", "Error", "StartError", "Unknown") else "waiting"
    assert advice(pod({kind: {"reason": reason}})) == [SENTENCES[reason]]


def test_a_pod_that_waits_to_be_placed() -> None:
    message = "0/1 nodes are available: 1 Insufficient cpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    doc = {"metadata": {"name": "web"}, "spec": {}, "status": {"phase": "Pending", "conditions": [condition]}}
    assert advice(doc) == [
        "no room or no match: 0/1 nodes are available: 1 Insufficient cpu; kubelite get node -o yaml shows labels, "
        "taints and what is free"
    ]
    condition["reason"] = "SchedulingGated"
    assert advice(doc) == [SCHEDULING["SchedulingGated"]]


@pytest.mark.parametrize(
    ("reason", "message", "sentence"),
    [
        ("FailedCreatePodSandBox", "Failed to create pod sandbox: no address is free.",
         "its network or namespaces could not be made (Failed to create pod sandbox: no address is free): kubelite "
         "doctor"),
        ("FailedMount", "hostPath type check failed: /x is not a directory",
         "a volume is missing or cannot be set up (hostPath type check failed: /x is not a directory): mend "
         "spec.volumes, it goes on by itself"),
        ("FailedSync", "error: {disk} is full", "the last attempt failed (error: {disk} is full), it is tried again: "
         "kubelite doctor"),
        ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500",
         "a probe fails (Readiness probe failed: HTTP probe failed with statuscode: 500): kubelite logs web, and the "
         "probe's path, port or command"),
    ],
)  # fmt: skip
def test_what_only_an_event_tells(reason: str, message: str, sentence: str) -> None:
    events = [
        event("FailedScheduling", "old"),
        event(reason, message, "2026-01-01T00:01:00Z"),
        event("Pulled", "later, and well", "2026-01-01T00:02:00Z", "Normal"),
    ]
    doc = pod(WAITING, phase="Pending")
    assert advice(doc, events) == [sentence]
    doc["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert advice(doc, events) == [], "it is well now"


#: Reason of an event with the message "why" → the very sentence.
OF_EVENTS = {
    "FailedCreatePodSandBox": "its network or namespaces could not be made (why): kubelite doctor",
    "FailedMount": "a volume is missing or cannot be set up (why): mend spec.volumes, it goes on by itself",
    "FailedScheduling": "nothing fits (why): kubelite get node -o yaml",
    "FailedSync": "the last attempt failed (why), it is tried again: kubelite doctor",
    "FailedPostStartHook": "lifecycle.postStart failed (why): mend its command or its address",
    "FailedPreStopHook": "lifecycle.preStop failed (why): mend its command or its address",
    "FailedToRetrieveImagePullSecret": "a Secret of spec.imagePullSecrets is missing (why): apply it",
    "TaintManagerEviction": "the node has a taint that it does not tolerate: spec.tolerations, or kubelite node taint",
    "Unhealthy": "a probe fails (why): kubelite logs web, and the probe's path, port or command",
    "NetworkDegraded": "its network is not whole (why): kubelite doctor",
}


@pytest.mark.parametrize("reason", sorted(EVENT))
def test_the_sentence_of_each_event(reason: str) -> None:
    assert advice(pod(WAITING, phase="Pending"), [event(reason, "why")]) == [OF_EVENTS[reason]]


def test_the_documentation_has_each_sentence() -> None:
    """docs/pods.md lists them by reason."""
    before, mark, rest = DOCUMENT.read_text().partition(
        "<!-- advice: kept by tests/unit/test_advice.py -->\n"
    )
    listed, end, after = rest.partition("<!-- end -->\n")
    assert mark and end
    if os.environ.get("KUBELITE_RECORD"):
        DOCUMENT.write_text(before + mark + table() + end + after)
    else:
        assert listed == table(), "run KUBELITE_RECORD=1 pytest tests/unit/test_advice.py"


def table() -> str:
    """The sentences as they stand in the documentation."""
    rows = {
        **POD,
        **CONTAINER,
        **SCHEDULING,
        **{key.partition("/")[2]: t for key, t in CONDITION.items()},
        **EVENT,
    }
    lines = [f"| `{reason}` | {text.replace('|', '/')} |" for reason, text in rows.items()]
    return "\n".join(["| reason | what `why` says to do |", "|---|---|", *lines]) + "\n"
