"""Advice for pods with a problem: for each reason in the status, one sentence with the command or field that helps.

The reasons are those that kubelet writes (docs/explanation/pod-semantics.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from kubelite.diagnosis.unready import container_of
from kubelite.kube.json import Json

#: Reason of a waiting or terminated container → advice. Placeholders: pod, container, image, namespace.
CONTAINER = {
    "ErrImagePull": "check the image name, and that the registry is reachable: kubelite pull {image}",
    "ImagePullBackOff": "waiting before the next pull; see the registry's answer now: kubelite pull {image}",
    "ErrImageNeverPull": "imagePullPolicy is Never and {image} is not on the node: run kubelite pull {image} or "
    "kubelite load, or set another policy",
    "InvalidImageName": "correct spec.containers[].image: {image} is not a valid image name",
    "ImageInspectError": "the image's record is damaged: kubelite doctor --deep --repair",
    "RegistryUnavailable": "the registry does not answer: check the network and DNS of the node",
    "CreateContainerConfigError": "a ConfigMap, a Secret or one of its keys is missing, or a field contradicts the "
    "image; kubelite describe pod {pod} names it. Once it is added, the container starts without further action",
    "CreateContainerError": "the engine cannot create the container: kubelite describe pod {pod}, kubelite doctor",
    "RunContainerError": "the engine cannot start the container: kubelite describe pod {pod}",
    "StartError": "the program cannot be executed: check command and args, and that the file exists in {image} and is "
    "executable",
    "PostStartHookError": "lifecycle.postStart failed; kubelite describe pod {pod} shows its output",
    "CrashLoopBackOff": "the container exits repeatedly: kubelite logs {pod} -c {container} --previous",
    "OOMKilled": "the container exceeded resources.limits.memory: raise the limit; see kubelite top pods "
    "--containers",
    "Error": "the container failed: kubelite logs {pod} -c {container}",
    "ContainerStatusUnknown": "its exit code is unknown (the machine or its shim went down); no action is needed if it "
    "runs again",
    "SignatureValidationFailed": "the image's signature is not accepted: check spec.containers[].image",
    "PreCreateHookError": "the engine cannot prepare the container: kubelite describe pod {pod}, kubelite doctor",
    "PreStartHookError": "the engine cannot prepare the container: kubelite describe pod {pod}, kubelite doctor",
    "Unknown": "its exit code is unknown; no action is needed if it runs again",
}
#: Reason of the pod itself → advice.
POD = {
    "Evicted": "the node ran short of a resource: see kubelite top node and kubelite df; reduce what the pod uses, or "
    "raise its requests",
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
#: Reason of the condition PodScheduled=False → advice.
SCHEDULING = {
    "Unschedulable": "the pod does not fit on this node: {message}; kubelite get node -o yaml shows its labels, taints "
    "and free resources",
    "SchedulingGated": "the pod waits until spec.schedulingGates is empty: remove the gates from its manifest",
}
#: <type>=<status>/<reason> of another condition → advice.
CONDITION = {
    "Ready=False/ReadinessGatesNotReady": "all containers are ready, but a condition in spec.readinessGates is not "
    "({message}): set that condition in the pod's status, or remove the gate",
    "PodResizePending=True/Infeasible": "the node cannot provide the new resources ({message}): lower them; the pod "
    "keeps running with the old ones",
    "PodResizePending=True/Deferred": "the new resources are not free yet ({message}): lower them, or delete other "
    "pods; the pod keeps running with the old ones",
    "PodResizeInProgress=True/Error": "the new resources cannot be applied ({message}); this is retried. Choose a "
    "limit above the current usage, see kubelite top pods --containers",
    "DisruptionTarget=True/PreemptionByScheduler": "preempted by a pod of higher priority ({message}): set "
    "priorityClassName, or free resources",
}
#: Reason of the newest Warning event → advice, for a pod that is not ready and whose status gives no reason.
EVENT = {
    "FailedCreatePodSandBox": "its network or namespaces cannot be created ({message}): kubelite doctor",
    "FailedMount": "a volume is missing or cannot be set up ({message}): correct spec.volumes; mounting is retried",
    "FailedScheduling": "the pod does not fit on this node ({message}): kubelite get node -o yaml",
    "FailedSync": "the last attempt failed ({message}) and is retried: kubelite doctor",
    "FailedPostStartHook": "lifecycle.postStart failed ({message}): correct its command or address",
    "FailedPreStopHook": "lifecycle.preStop failed ({message}): correct its command or address",
    "FailedToRetrieveImagePullSecret": "a Secret in spec.imagePullSecrets is missing ({message}): apply it",
    "TaintManagerEviction": "the pod does not tolerate a taint of the node: spec.tolerations, or kubelite node taint",
    "Unhealthy": "a probe fails ({message}): see kubelite logs {pod}, and the probe's path, port or command",
    "NetworkDegraded": "its network is incomplete ({message}): kubelite doctor",
}
#: Reason → part of the message → advice, for messages that say more than the reason.
REFINED = {
    "CreateContainerConfigError": {
        "not found": "{message}: add it; the container then starts without further action",
        "find key": "{message}: add it; the container then starts without further action",
        "runAsNonRoot": "{message}: set securityContext.runAsUser to a value other than 0, or remove runAsNonRoot",
        "spec.": "{message}: this node cannot provide that; change or remove the field in the pod's manifest",
    },
    "Evicted": {
        "EmptyDir volume": "evicted ({message}): let it write less, or raise the volume's sizeLimit",
        "ephemeral": "evicted ({message}): let it write less, or raise resources.limits.ephemeral-storage",
    },
    "Unschedulable": {
        "affinity/selector": "spec.nodeSelector or affinity requires labels that this node does not have: kubelite get "
        "node --show-labels; add one with kubelite node label KEY=VALUE",
        "free ports": "the host port is in use ({message}): choose another one, or delete the other pod",
        "Insufficient": "the pod requests more than is free ({message}): lower resources.requests, or delete other "
        "pods; kubelite get node -o yaml shows the capacity",
        "taint": "the pod does not tolerate a taint of the node ({message}): add it to spec.tolerations, or remove it "
        "with kubelite node taint KEY-",
        "were unschedulable": "the node is cordoned and accepts no new pods: kubelite uncordon",
    },
    "FailedCreatePodSandBox": {
        "host port": "{message}; the pod starts by itself once the port is free",
        "RuntimeClass": "{message}: add it to the setting runtime_classes, or remove spec.runtimeClassName",
    },
}
#: Part of a Killing event's message → advice, for a container that restarts repeatedly. `message`: the failure.
KILLED = {
    "failed liveness probe": "restarted because the liveness probe fails ({message}): correct the probe's path, port "
    "or command, or allow more time (failureThreshold)",
    "failed startup probe": "restarted because the startup probe does not succeed in time ({message}): correct the "
    "probe's path, port or command, or allow more time (failureThreshold)",
    "FailedPostStartHook": "restarted because lifecycle.postStart fails ({message}): correct its command or address",
}
#: Advice for a pod whose containers wait for a running init container.
INIT = (
    "the other containers start when init container {container} is done; see its progress: kubelite logs {pod} -c "
    "{container}"
)
#: Advice for a failing pull of an image that is on the node.
HERE = (
    "{image} is already on the node, but imagePullPolicy is Always (the default for :latest or no tag): set it to "
    "IfNotPresent"
)
#: Advice for a failing pull of an image whose name is below localhost/, where no registry is.
NO_REGISTRY = (
    "names below localhost/ are for images of this node, and this one does not exist: correct the name (see kubelite "
    "images), or add the image with kubelite build -t {image}, load, tag or image pack"
)
_LOCAL = "localhost/"  # without a port
_PULLS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable")
_NORMAL = frozenset({"", "ContainerCreating", "PodInitializing", "Completed", "Blocked"})
_PLAIN = ("Error",)  # reasons of an exit that say no more than CrashLoopBackOff


class _Wrong(NamedTuple):
    """A problem of a container. `reason` and `message` are from its status; `since`: when the ended instance started,
    as an RFC 3339 time."""

    container: str
    image: str
    reason: str
    message: str = ""
    since: str = ""


def advice(
    doc: Json, events: Iterable[Json] = (), is_here: Callable[[str], bool] = lambda image: False
) -> list[str]:
    """Return sentences of advice, the pod's own first, without duplicates; none for a healthy pod. `events`: the pod's
    events. `is_here`: whether the image store has an image of this name."""
    status = doc.get("status", {})
    words = {"pod": doc["metadata"]["name"]}
    if (namespace := doc["metadata"].get("namespace", "default")) != "default":
        words["pod"] += f" -n {namespace}"
    newest = sorted(
        events, key=lambda e: (str(e.get("lastTimestamp")), str(e["metadata"]["name"])), reverse=True
    )
    found = [*_of_the_pod(status), *_of_conditions(status)]
    for wrong in _wrongs(doc):
        if wrong.reason in _PLAIN and status.get("reason") in POD:
            continue  # the container was terminated for the pod's reason
        text = _of_container(wrong, newest, is_here)
        found.append(f"{wrong.container}: " + text.format(**wrong._asdict(), **words))
    ready = any(c["type"] == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    if not found and not ready and status.get("phase") not in ("Succeeded", "Failed"):
        recovered = {c["name"] for c in status.get("containerStatuses") or () if c.get("ready")}
        found = _of_events(newest, words, recovered) or [
            INIT.format(container=c, **words) for c in _awaited(doc)
        ]
    return list(dict.fromkeys(found))


def _of_the_pod(status: Json) -> list[str]:
    reason, message = status.get("reason", ""), str(status.get("message", "")).strip().rstrip(".")
    if reason not in POD:
        return []
    text = _refined(reason, message)
    if text:
        return [text.format(message=message)]
    return [f"{POD[reason]} ({message})" if message else POD[reason]]


def _of_conditions(status: Json) -> Iterator[str]:
    for one in status.get("conditions") or ():
        message = str(one.get("message", "")).rstrip(".")
        key = f"{one['type']}={one.get('status')}/{one.get('reason', '')}"
        if key.startswith("PodScheduled=False/") and one.get("reason") in SCHEDULING:
            message = _UNHELPFUL.sub("", message).strip().rstrip(".")
            text = _refined(one["reason"], message) or SCHEDULING[one["reason"]]
            yield text.format(message=message)
        elif key in CONDITION:
            yield CONDITION[key].format(message=message)


#: Parts of the scheduler's message that only make sense in a cluster.
_UNHELPFUL = re.compile(r"^0/1 nodes are available: 1 | preemption: 0/1 nodes are available: 1 [^.]*\.?")


def _refined(reason: str, message: str) -> str:
    """Return the advice for this message of a reason, or "" if there is none."""
    return next((text for part, text in REFINED.get(reason, {}).items() if part in message), "")


def _of_container(wrong: _Wrong, newest: list[Json], is_here: Callable[[str], bool]) -> str:
    if wrong.reason in _PULLS and is_here(wrong.image):
        return HERE
    if wrong.reason in _PULLS and wrong.image.startswith(_LOCAL):
        return NO_REGISTRY
    if wrong.reason == "CrashLoopBackOff" and (killed := _killed(wrong, newest)):
        return killed
    text = _refined(wrong.reason, wrong.message) or CONTAINER.get(wrong.reason)
    return text or f"{wrong.reason}: kubelite describe pod {{pod}}"


def _killed(wrong: _Wrong, newest: list[Json]) -> str:
    """Return the advice if the node killed the last instance; "" if that instance exited by itself."""
    mine = [e for e in newest if container_of(e) == wrong.container]
    last = next((e for e in mine if e.get("reason") == "Killing"), {})
    if str(last.get("lastTimestamp", "")) < wrong.since:
        return ""
    text = next((text for part, text in KILLED.items() if part in str(last.get("message", ""))), "")
    said = next((_short(e) for e in mine if e.get("reason") in ("Unhealthy", "FailedPostStartHook")), "")
    return text.replace("{message}", _braced(said))


def _braced(text: str) -> str:
    """Escape a text for str.format."""
    return text.replace("{", "{{").replace("}", "}}")


def _of_events(newest: list[Json], words: dict[str, str], recovered: Collection[str]) -> list[str]:
    """Return the advice for the newest Warning for which there is advice. If that is a failing probe, return the advice
    for the newest failure of each container that has not `recovered`."""
    for event in newest:
        reason, message = event.get("reason", ""), _short(event)
        if event.get("type") == "Warning" and reason in EVENT:
            if reason == "Unhealthy":
                return _of_probes(newest, words, recovered)
            message = message.removeprefix("Failed to create pod sandbox: ")
            text = (_refined(reason, message) or EVENT[reason]).format(message=message, **words)
            return [f"{container}: {text}" if (container := container_of(event)) else text]
    return []


def _of_probes(newest: list[Json], words: dict[str, str], recovered: Collection[str]) -> list[str]:
    found: dict[str, str] = {}
    for event in newest:
        container = container_of(event)
        if event.get("reason") == "Unhealthy" and container not in found and container not in recovered:
            text = EVENT["Unhealthy"].format(message=_short(event), **words)
            found[container] = f"{container}: {text}" if container else text
    return list(found.values())


def _short(event: Json) -> str:
    """Return the first line of an event's message."""
    return str(event.get("message", "")).strip().partition("\n")[0].rstrip(".: ")


def _wrongs(doc: Json) -> Iterator[_Wrong]:
    """Yield all current problems. For a container that waits to restart, yield why it ended, if that says more than
    CrashLoopBackOff."""
    status, spec = doc.get("status", {}), doc.get("spec", {})
    images = {
        c["name"]: c.get("image", "")
        for key in ("initContainers", "containers", "ephemeralContainers")
        for c in spec.get(key) or ()
    }
    for key in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for found in status.get(key) or ():
            who, state = (found["name"], images.get(found["name"], "")), found.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
            if loops := waiting.get("reason") == "CrashLoopBackOff":
                ended = (found.get("lastState") or {}).get("terminated") or {}
            if key == "ephemeralContainerStatuses":  # the exit code of a debugging shell does not matter
                ended = {}
            told = ended.get("reason", "") not in (*_NORMAL, *(_PLAIN if loops else ()))
            if waiting.get("reason") and waiting["reason"] not in _NORMAL and not (loops and told):
                yield _Wrong(*who, waiting["reason"], waiting.get("message", ""), ended.get("startedAt", ""))
            if told:
                yield _Wrong(*who, ended["reason"], ended.get("message", ""))


def _awaited(doc: Json) -> Iterator[str]:
    """Yield the running init containers that are not sidecars; the other containers wait for them."""
    sidecars = {
        c["name"] for c in doc["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"
    }
    for found in doc.get("status", {}).get("initContainerStatuses") or ():
        if "running" in (found.get("state") or {}) and found["name"] not in sidecars:
            yield found["name"]
