"""Advice: every reason that keeps a pod from running has a sentence on what to do next, with the names of the pod."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kubelite.diagnosis.advice import (
    CONDITION,
    CONTAINER,
    EVENT,
    INIT,
    KILLED,
    POD,
    REFINED,
    SCHEDULING,
    advice,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "reference" / "pod-reasons.md"


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
    words = ("kubelite ", "imagePullPolicy", "spec.", "resources.", "command", "network", "no action")
    assert any(word in sentence for word in words)


#: Reason of the pod itself → the exact sentence.
OF_A_POD = {
    "Evicted": "the node ran short of a resource: see kubelite top node and kubelite df; reduce what the pod "
    "uses, or raise its requests",
    "NodeAffinity": "spec.nodeSelector or affinity does not match this node: kubelite get node -o yaml",
    "NodePorts": "another pod or program uses the host port: kubelite get pods -A -o wide, ss -ltnp",
    "OutOfcpu": "the pod requests more CPU than the node has: lower resources.requests.cpu",
    "OutOfmemory": "the pod requests more memory than the node has: lower resources.requests.memory",
    "OutOfpods": "the setting max_pods allows no pods: raise it",
    "DeadlineExceeded": "the pod ran longer than spec.activeDeadlineSeconds: raise it",
    "OutOfephemeral-storage": "the pod requests more ephemeral storage than the node has: lower "
    "resources.requests.ephemeral-storage",
    "Terminated": "the machine shut down: the pod starts again with the node",
    "UnexpectedAdmissionError": "this node cannot provide what the pod requests: kubelite get node -o yaml",
    "SysctlForbidden": "spec.securityContext.sysctls has a sysctl that is not allowed on this node: remove it",
    "AppArmor": "the kernel does not have this AppArmor profile: load it, or remove it from securityContext",
}


@pytest.mark.parametrize("reason", sorted(POD))
def test_every_reason_of_a_pod(reason: str) -> None:
    assert advice(pod({"running": {}}, reason=reason)) == [OF_A_POD[reason]]


#: <condition's type>=<status>/<reason> → its message, and the exact sentence.
OF_CONDITIONS = {
    "Ready=False/ReadinessGatesNotReady": (
        'readiness gate "x/y" does not exist.',
        'all containers are ready, but a condition in spec.readinessGates is not (readiness gate "x/y" '
        "does not exist): set that condition in the pod's status, or remove the gate",
    ),
    "PodResizePending=True/Infeasible": (
        "Node didn't have enough capacity: cpu",
        "the node cannot provide the new resources (Node didn't have enough capacity: cpu): lower them; "
        "the pod keeps running with the old ones",
    ),
    "PodResizePending=True/Deferred": (
        "Node didn't have enough resource: cpu",
        "the new resources are not free yet (Node didn't have enough resource: cpu): lower them, or "
        "delete other pods; the pod keeps running with the old ones",
    ),
    "PodResizeInProgress=True/Error": (
        "memory.max: busy",
        "the new resources cannot be applied (memory.max: busy); this is retried. Choose a limit above "
        "the current usage, see kubelite top pods --containers",
    ),
    "DisruptionTarget=True/PreemptionByScheduler": (
        "preempting {it}",
        "preempted by a pod of higher priority (preempting {it}): set priorityClassName, or free resources",
    ),
}


@pytest.mark.parametrize("condition", sorted(OF_CONDITIONS))
def test_advice_from_a_condition(condition: str) -> None:
    kind, status, reason = condition.replace("=", "/").split("/")
    message, sentence = OF_CONDITIONS[condition]
    one = {"type": kind, "status": status, "reason": reason, "message": message}
    assert advice(pod({"running": {}}, conditions=[one])) == [sentence]
    assert advice(pod({"running": {}}, conditions=[{**one, "reason": ""}])) == []


def test_every_condition_has_a_test() -> None:
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
def test_a_failing_pull_of_an_image_that_is_on_the_node(reason: str) -> None:
    waiting = pod({"waiting": {"reason": reason}})
    (sentence,) = advice(waiting, is_here=lambda image: image == "nginx:1")
    assert sentence.startswith("app: nginx:1 is already on the node") and "IfNotPresent" in sentence
    assert advice(waiting, is_here=lambda image: False) == advice(waiting) != [sentence]


def test_a_waiting_ephemeral_container() -> None:
    doc = pod({"running": {}}, conditions=[{"type": "Ready", "status": "True"}])
    doc["spec"]["ephemeralContainers"] = [{"name": "look", "image": "box"}]
    status = {"name": "look", "state": {"waiting": {"reason": "ErrImagePull"}}}
    doc["status"]["ephemeralContainerStatuses"] = [status]
    (sentence,) = advice(doc, is_here=lambda image: image == "box")
    assert sentence.startswith("look: box is already on the node")
    status["state"] = {"terminated": {"reason": "Error", "exitCode": 7}}
    assert advice(doc) == []


def test_a_crash_loop_says_why_it_ended() -> None:
    (found,) = advice(
        pod({"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"reason": "OOMKilled"}})
    )
    assert "resources.limits.memory" in found


def test_another_namespace_is_in_the_command() -> None:
    doc = pod({"waiting": {"reason": "CrashLoopBackOff"}})
    doc["metadata"]["namespace"] = "shop"
    assert advice(doc) == ["app: the container exits repeatedly: kubelite logs web -n shop -c app --previous"]


@pytest.mark.parametrize(
    "state",
    (
        {"running": {}},
        {"waiting": {"reason": "ContainerCreating"}},
        {"terminated": {"reason": "Completed"}},
        {},
    ),
)
def test_a_healthy_pod_gets_no_advice(state: dict[str, Any]) -> None:
    assert advice(pod(state, {"terminated": {"reason": "Error"}})) == []


def test_an_unknown_reason_is_mentioned() -> None:
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


#: Problem → the exact sentence, for each failure that kubelet's status or an earlier check can have.
SENTENCES = {
    "ErrImagePull": "app: check the image name, and that the registry is reachable: kubelite pull nginx:1",
    "ImagePullBackOff": "app: waiting before the next pull; see the registry's answer now: kubelite pull nginx:1",
    "ErrImageNeverPull": "app: imagePullPolicy is Never and nginx:1 is not on the node: run kubelite pull nginx:1 or "
    "kubelite load, or set another policy",
    "InvalidImageName": "app: correct spec.containers[].image: nginx:1 is not a valid image name",
    "ImageInspectError": "app: the image's record is damaged: kubelite doctor --deep --repair",
    "RegistryUnavailable": "app: the registry does not answer: check the network and DNS of the node",
    "SignatureValidationFailed": "app: the image's signature is not accepted: check spec.containers[].image",
    "CreateContainerConfigError": "app: a ConfigMap, a Secret or one of its keys is missing, or a field contradicts "
    "the image; kubelite describe pod web names it. Once it is added, the container starts without further "
    "action",
    "CreateContainerError": "app: the engine cannot create the container: kubelite describe pod web, kubelite doctor",
    "PreCreateHookError": "app: the engine cannot prepare the container: kubelite describe pod web, kubelite doctor",
    "PreStartHookError": "app: the engine cannot prepare the container: kubelite describe pod web, kubelite doctor",
    "PostStartHookError": "app: lifecycle.postStart failed; kubelite describe pod web shows its output",
    "RunContainerError": "app: the engine cannot start the container: kubelite describe pod web",
    "CrashLoopBackOff": "app: the container exits repeatedly: kubelite logs web -c app --previous",
    "OOMKilled": "app: the container exceeded resources.limits.memory: raise the limit; see kubelite top pods "
    "--containers",
    "Error": "app: the container failed: kubelite logs web -c app",
    "StartError": "app: the program cannot be executed: check command and args, and that the file exists in nginx:1"
    " and is executable",
    "ContainerStatusUnknown": "app: its exit code is unknown (the machine or its shim went down); no action is needed "
    "if it runs again",
    "Unknown": "app: its exit code is unknown; no action is needed if it runs again",
}


@pytest.mark.parametrize("reason", sorted(CONTAINER))
def test_the_sentence_of_each_failure(reason: str) -> None:
    kind = "terminated" if reason in ("OOMKilled", "Error", "StartError", "Unknown") else "waiting"
    assert advice(pod({kind: {"reason": reason}})) == [SENTENCES[reason]]


def test_a_pod_that_waits_to_be_scheduled() -> None:
    message = "0/1 nodes are available: 1 node(s) had what nobody foresaw. preemption: 0/1 nodes are available: 1 No."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    doc = {"metadata": {"name": "web"}, "spec": {}, "status": {"phase": "Pending", "conditions": [condition]}}
    assert advice(doc) == [
        "the pod does not fit on this node: node(s) had what nobody foresaw; kubelite get node -o yaml "
        "shows its labels, taints and free resources"
    ]
    condition["reason"] = "SchedulingGated"
    assert advice(doc) == [SCHEDULING["SchedulingGated"]]


@pytest.mark.parametrize(
    ("reason", "message", "sentence"),
    [
        ("FailedCreatePodSandBox", "Failed to create pod sandbox: no address is free.",
         "its network or namespaces cannot be created (no address is free): kubelite doctor"),
        ("FailedMount", "hostPath type check failed: /x is not a directory",
         "a volume is missing or cannot be set up (hostPath type check failed: /x is not a directory): "
         "correct spec.volumes; mounting is retried"),
        ("FailedSync", "error: {disk} is full",
         "the last attempt failed (error: {disk} is full) and is retried: kubelite doctor"),
        ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500",
         "a probe fails (Readiness probe failed: HTTP probe failed with statuscode: 500): see kubelite "
         "logs web, and the probe's path, port or command"),
    ],
)  # fmt: skip
def test_advice_from_an_event(reason: str, message: str, sentence: str) -> None:
    events = [
        event("FailedScheduling", "old"),
        event(reason, message, "2026-01-01T00:01:00Z"),
        event("Pulled", "later, and well", "2026-01-01T00:02:00Z", "Normal"),
    ]
    doc = pod(WAITING, phase="Pending")
    assert advice(doc, events) == [sentence]
    doc["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert advice(doc, events) == [], "it is well now"


#: Reason, message → the exact sentence, where the message says more than the reason.
OF_MESSAGES = [
    (
        "CreateContainerConfigError",
        'configmap "settings" not found',
        'app: configmap "settings" not found: add it; the container then starts without further action',
    ),
    (
        "CreateContainerConfigError",
        "couldn't find key p in Secret d/s",
        "app: couldn't find key p in Secret d/s: add it; the container then starts without further action",
    ),
    (
        "CreateContainerConfigError",
        "container has runAsNonRoot and image will run as root",
        "app: container has runAsNonRoot and image will run as root: set securityContext.runAsUser to a "
        "value other than 0, or remove runAsNonRoot",
    ),
    (
        "CreateContainerConfigError",
        "spec.hostUsers: a user namespace cannot have the host's network",
        "app: spec.hostUsers: a user namespace cannot have the host's network: this node cannot provide that; "
        "change or remove the field in the pod's manifest",
    ),
    (
        "Evicted",
        'Usage of EmptyDir volume "c" exceeds the limit "1Mi". ',
        'evicted (Usage of EmptyDir volume "c" exceeds the limit "1Mi"): let it write less, or raise the '
        "volume's sizeLimit",
    ),
    (
        "Evicted",
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi",
        "evicted (Pod ephemeral local storage usage exceeds the total limit of containers 1Mi): let it "
        "write less, or raise resources.limits.ephemeral-storage",
    ),
    (
        "OutOfcpu",
        "Node didn't have enough resource: cpu.",
        "the pod requests more CPU than the node has: lower resources.requests.cpu (Node didn't have "
        "enough resource: cpu)",
    ),
    (
        "Unschedulable",
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No.",
        "the pod requests more than is free (Insufficient cpu): lower resources.requests, or delete other"
        " pods; kubelite get node -o yaml shows the capacity",
    ),
    (
        "Unschedulable",
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        "spec.nodeSelector or affinity requires labels that this node does not have: kubelite get node "
        "--show-labels; add one with kubelite node label KEY=VALUE",
    ),
    (
        "Unschedulable",
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. "
        "preemption: 0/1 nodes are available: 1 No. hostPort 80/TCP is taken by pod d/w.",
        "the host port is in use (node(s) didn't have free ports for the requested pod ports. hostPort "
        "80/TCP is taken by pod d/w): choose another one, or delete the other pod",
    ),
    (
        "Unschedulable",
        "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
        "the pod does not tolerate a taint of the node (node(s) had untolerated taint(s)): add it to "
        "spec.tolerations, or remove it with kubelite node taint KEY-",
    ),
    (
        "Unschedulable",
        "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available: 1 No.",
        "the node is cordoned and accepts no new pods: kubelite uncordon",
    ),
    (
        "FailedCreatePodSandBox",
        "Failed to create pod sandbox: host port TCP 0.0.0.0:80 is in use by a process of the host; stop it",
        "host port TCP 0.0.0.0:80 is in use by a process of the host; stop it; the pod starts by itself once the port "
        "is free",
    ),
    (
        "FailedCreatePodSandBox",
        'Failed to create pod sandbox: RuntimeClass "g" not found',
        'RuntimeClass "g" not found: add it to the setting runtime_classes, or remove spec.runtimeClassName',
    ),
]


@pytest.mark.parametrize(("reason", "message", "sentence"), OF_MESSAGES)
def test_the_sentence_of_each_message(reason: str, message: str, sentence: str) -> None:
    told: dict[str, Any] = {"reason": reason, "message": message}
    doc, events = pod({"running": {}}, phase="Pending"), []
    if reason in CONTAINER:
        doc = pod({"waiting": told})
    elif reason in POD:
        doc["status"] |= told
    elif reason in EVENT:
        doc, events = pod(WAITING, phase="Pending"), [event(reason, message)]
    else:
        doc["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", **told}]
    assert advice(doc, events) == [sentence]


def test_every_message_has_a_test() -> None:
    for reason, parts in REFINED.items():
        for part in parts:
            assert any(part in message for known, message, _ in OF_MESSAGES if known == reason), (
                reason,
                part,
            )


@pytest.mark.parametrize(
    ("killing", "reason", "said", "sentence"),
    [
        (
            "Container app failed liveness probe, will be restarted",
            "Unhealthy",
            "Liveness probe failed: ",
            "app: restarted because the liveness probe fails (Liveness probe failed): correct the probe's "
            "path, port or command, or allow more time (failureThreshold)",
        ),
        (
            "Container app failed startup probe, will be restarted",
            "Unhealthy",
            "Startup probe failed: {no}",
            "app: restarted because the startup probe does not succeed in time (Startup probe failed: {no}): "
            "correct the probe's path, port or command, or allow more time (failureThreshold)",
        ),
        (
            "FailedPostStartHook",
            "FailedPostStartHook",
            "PostStartHook failed",
            "app: restarted because lifecycle.postStart fails (PostStartHook failed): correct its command or "
            "address",
        ),
        (
            "Stopping container app",
            "Unhealthy",
            "Readiness probe failed: no",
            "app: the container exits repeatedly: kubelite logs web -c app --previous",
        ),
    ],
)
def test_a_container_that_the_node_kills_repeatedly(
    killing: str, reason: str, said: str, sentence: str
) -> None:
    ended = {"terminated": {"reason": "Completed", "startedAt": "2026-01-01T00:00:00Z"}}
    doc = pod({"waiting": {"reason": "CrashLoopBackOff"}}, ended)
    where = {"involvedObject": {"fieldPath": "spec.containers{app}"}}
    events = [
        {**event(reason, said, "2026-01-01T00:00:01Z"), **where},
        {**event("Killing", killing, "2026-01-01T00:00:02Z", "Normal"), **where},
    ]
    assert advice(doc, events) == [sentence]
    ended["terminated"]["startedAt"] = "2026-01-01T00:00:03Z"  # the instance that ended last exited by itself
    assert advice(doc, events) == ["app: the container exits repeatedly: kubelite logs web -c app --previous"]


def test_the_exit_of_an_evicted_pods_containers_gives_no_advice() -> None:
    doc = pod({"terminated": {"reason": "Error", "exitCode": 137}}, reason="DeadlineExceeded")
    assert advice(doc) == [OF_A_POD["DeadlineExceeded"]]
    doc["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = "OOMKilled"
    assert len(advice(doc)) == 2


def test_a_pod_that_waits_for_its_init_container() -> None:
    doc = pod({"waiting": {"reason": "PodInitializing"}}, phase="Pending")
    doc["spec"]["initContainers"] = [{"name": "proxy", "restartPolicy": "Always"}, {"name": "wait"}]
    running: list[Any] = [{"name": name, "state": {"running": {}}} for name in ("proxy", "wait")]
    doc["status"]["initContainerStatuses"] = running
    assert advice(doc) == [
        "the other containers start when init container wait is done; see its progress: kubelite logs web"
        " -c wait"
    ]


#: Reason of an event with the message "why" → the exact sentence.
OF_EVENTS = {
    "FailedCreatePodSandBox": "its network or namespaces cannot be created (why): kubelite doctor",
    "FailedMount": "a volume is missing or cannot be set up (why): correct spec.volumes; mounting is retried",
    "FailedScheduling": "the pod does not fit on this node (why): kubelite get node -o yaml",
    "FailedSync": "the last attempt failed (why) and is retried: kubelite doctor",
    "FailedPostStartHook": "lifecycle.postStart failed (why): correct its command or address",
    "FailedPreStopHook": "lifecycle.preStop failed (why): correct its command or address",
    "FailedToRetrieveImagePullSecret": "a Secret in spec.imagePullSecrets is missing (why): apply it",
    "TaintManagerEviction": "the pod does not tolerate a taint of the node: spec.tolerations, or kubelite node taint",
    "Unhealthy": "a probe fails (why): see kubelite logs web, and the probe's path, port or command",
    "NetworkDegraded": "its network is incomplete (why): kubelite doctor",
}


def test_the_container_of_a_failing_probe_is_named() -> None:
    failed = {**event("Unhealthy", "why"), "involvedObject": {"fieldPath": "spec.containers{db}"}}
    running = pod({"running": {}}, phase="Running")
    assert advice(running, [failed]) == [f"db: {OF_EVENTS['Unhealthy']}"]


@pytest.mark.parametrize("reason", sorted(EVENT))
def test_the_sentence_of_each_event(reason: str) -> None:
    assert advice(pod(WAITING, phase="Pending"), [event(reason, "why")]) == [OF_EVENTS[reason]]


def test_the_documentation_has_each_sentence() -> None:
    """docs/reference/pod-reasons.md lists them by reason."""
    before, mark, rest = DOCUMENT.read_text().partition(
        "<!-- advice: kept by tests/unit/diagnosis/test_advice.py -->\n"
    )
    listed, end, after = rest.partition("<!-- end -->\n")
    assert mark and end
    if os.environ.get("TEST_RECORD"):
        DOCUMENT.write_text(before + mark + table() + end + after)
    else:
        assert listed == table(), "run TEST_RECORD=1 pytest tests/unit/diagnosis/test_advice.py"


def table() -> str:
    """The sentences as the documentation lists them."""
    rows = {
        **POD,
        **CONTAINER,
        **SCHEDULING,
        **{key.partition("/")[2]: t for key, t in CONDITION.items()},
        **EVENT,
        **{f"{reason}: …{part}…": t for reason, parts in REFINED.items() for part, t in parts.items()},
        **{f"CrashLoopBackOff: {part}": t for part, t in KILLED.items()},
        "PodInitializing": INIT,
    }
    lines = [f"| `{reason}` | {text.replace('|', '/')} |" for reason, text in rows.items()]
    return "\n".join(["| reason | what `why` says to do |", "|---|---|", *lines]) + "\n"
