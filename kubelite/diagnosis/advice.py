"""PURE: what to do next about a pod that is not as it should be: for each reason of its status one sentence with the
command or the field that helps (the reasons of kubelet's status, spec C5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from kubelite.kube.json import Json

#: Reason of a waiting or terminated container → what to do. Words: pod, container, image, namespace.
CONTAINER = {
    "ErrImagePull": "check the image's name and that its registry can be reached: kubelite pull {image}",
    "ImagePullBackOff": "the next try waits; see what the registry says now: kubelite pull {image}",
    "ErrImageNeverPull": "imagePullPolicy is Never and {image} is not here: kubelite pull {image}, kubelite load, or "
    "another policy",
    "InvalidImageName": "mend spec.containers[].image: {image} is no image's name",
    "ImageInspectError": "the image's record is damaged: kubelite doctor --deep --repair",
    "RegistryUnavailable": "the registry does not answer: check the network and DNS of the node",
    "CreateContainerConfigError": "a ConfigMap, a Secret or a key of one is missing, or a field contradicts the image: "
    "add it, the container starts by itself (kubelite describe pod {pod} names it)",
    "CreateContainerError": "the engine could not make it: kubelite describe pod {pod}, kubelite doctor",
    "RunContainerError": "the engine could not start it: kubelite describe pod {pod}",
    "StartError": "its program could not be executed: check command, args and that the file is in {image} and may be "
    "executed",
    "PostStartHookError": "lifecycle.postStart failed: kubelite describe pod {pod} shows what it said",
    "CrashLoopBackOff": "it keeps ending: kubelite logs {pod} -c {container} --previous",
    "OOMKilled": "it needed more memory than resources.limits.memory allows: raise it, or see kubelite top pods "
    "--containers",
    "Error": "it ended with an error: kubelite logs {pod} -c {container}",
    "ContainerStatusUnknown": "nobody saw how it ended (the machine or its shim went down); nothing to do if it runs "
    "again",
    "SignatureValidationFailed": "the image's signature is not accepted: check spec.containers[].image",
    "PreCreateHookError": "the engine could not prepare it: kubelite describe pod {pod}, kubelite doctor",
    "PreStartHookError": "the engine could not prepare it: kubelite describe pod {pod}, kubelite doctor",
    "Unknown": "nobody saw how it ended; nothing to do if it runs again",
}
#: Reason of the pod itself.
POD = {
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
#: Reason of the condition PodScheduled, when it is False.
SCHEDULING = {
    "Unschedulable": "no room or no match: {message}; kubelite get node -o yaml shows labels, taints and what is free",
    "SchedulingGated": "it waits for spec.schedulingGates to be emptied: take them out of its manifest",
}
#: <type>=<status>/<reason> of another condition.
CONDITION = {
    "Ready=False/ReadinessGatesNotReady": "its containers are ready, what spec.readinessGates waits for is not "
    "({message}): have that condition set in its status, or take the gate out",
    "PodResizePending=True/Infeasible": "its new resources are more than this node can give ({message}): lower "
    "them; it goes on with what it has",
    "PodResizePending=True/Deferred": "its new resources wait for room ({message}): lower them, or remove "
    "other pods; it goes on with what it has",
    "PodResizeInProgress=True/Error": "its new resources did not take ({message}), it is tried again: choose a "
    "limit above what it uses, see kubelite top pods --containers",
    "DisruptionTarget=True/PreemptionByScheduler": "a pod of higher priority takes its room ({message}): give it a "
    "priorityClassName, or make room",
}
#: Reason of the newest Warning event of a pod that is not ready, where its status does not say it.
EVENT = {
    "FailedCreatePodSandBox": "its network or namespaces could not be made ({message}): kubelite doctor",
    "FailedMount": "a volume is missing or cannot be set up ({message}): mend spec.volumes, it goes on by itself",
    "FailedScheduling": "nothing fits ({message}): kubelite get node -o yaml",
    "FailedSync": "the last attempt failed ({message}), it is tried again: kubelite doctor",
    "FailedPostStartHook": "lifecycle.postStart failed ({message}): mend its command or its address",
    "FailedPreStopHook": "lifecycle.preStop failed ({message}): mend its command or its address",
    "FailedToRetrieveImagePullSecret": "a Secret of spec.imagePullSecrets is missing ({message}): apply it",
    "TaintManagerEviction": "the node has a taint that it does not tolerate: spec.tolerations, or kubelite node taint",
    "Unhealthy": "a probe fails ({message}): kubelite logs {pod}, and the probe's path, port or command",
    "NetworkDegraded": "its network is not whole ({message}): kubelite doctor",
}
#: Reason → part of its message → what to do, where the message says more than the reason.
REFINED = {
    "CreateContainerConfigError": {
        "not found": "{message}: add it, the container starts by itself",
        "find key": "{message}: add it, the container starts by itself",
        "runAsNonRoot": "{message}: set securityContext.runAsUser to another than 0, or take runAsNonRoot out",
    },
    "Evicted": {
        "EmptyDir volume": "it was evicted ({message}): have it write less, or raise the volume's sizeLimit",
        "ephemeral": "it was evicted ({message}): have it write less, or raise resources.limits.ephemeral-storage",
    },
    "Unschedulable": {
        "affinity/selector": "spec.nodeSelector or affinity asks for labels that this node has not: kubelite get node "
        "--show-labels; give it one: kubelite node label KEY=VALUE",
        "free ports": "its host port is taken ({message}): choose another, or remove that pod",
        "Insufficient": "it asks for more than is free ({message}): lower resources.requests, or remove other pods; "
        "kubelite get node -o yaml shows what there is",
        "taint": "the node has a taint that it does not tolerate ({message}): add it to spec.tolerations, or kubelite "
        "node taint KEY-",
    },
    "FailedCreatePodSandBox": {
        "RuntimeClass": "{message}: name it in the setting runtime_classes, or take spec.runtimeClassName out",
    },
}
#: What the event Killing says of a container that keeps ending → what to do. `message`: what the check said.
KILLED = {
    "failed liveness probe": "it is restarted because its liveness probe fails ({message}): mend the probe's path, "
    "port or command, or give it more time (failureThreshold)",
    "failed startup probe": "it is restarted because its startup probe does not succeed in time ({message}): mend the "
    "probe's path, port or command, or give it more time (failureThreshold)",
    "FailedPostStartHook": "it is restarted because lifecycle.postStart fails ({message}): mend its command or its "
    "address",
}
#: An init container that runs, in a pod whose other containers wait for it.
INIT = (
    "the other containers start when init container {container} has ended; what it does: kubelite logs {pod} -c "
    "{container}"
)
#: A pull that fails, of an image that is here.
HERE = (
    "{image} is in the store already, but imagePullPolicy is Always (as it is for :latest and for no tag): set it to "
    "IfNotPresent"
)
_PULLS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable")
_NORMAL = frozenset({"", "ContainerCreating", "PodInitializing", "Completed"})
_PLAIN = ("Error",)  # the end of one that keeps ending


class _Wrong(NamedTuple):
    """What is wrong with a container: a reason of its status, what that says, and when what ended had started."""

    container: str
    image: str
    reason: str
    message: str = ""
    since: str = ""


def advice(
    doc: Json, events: Iterable[Json] = (), is_here: Callable[[str], bool] = lambda image: False
) -> list[str]:
    """Sentences, the pod's own first, each once; none for a pod that is well. `events` are the pod's; `is_here`: is
    an image of this name in the store?"""
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
            continue  # it was made to end
        text = _of_container(wrong, newest, is_here)
        found.append(f"{wrong.container}: " + text.format(**wrong._asdict(), **words))
    ready = any(c["type"] == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    if not found and not ready and status.get("phase") not in ("Succeeded", "Failed"):
        found = _of_events(newest, words) or [INIT.format(container=c, **words) for c in _awaited(doc)]
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


#: What the scheduler's sentence says for clusters.
_UNHELPFUL = re.compile(r"^0/1 nodes are available: 1 | preemption: 0/1 nodes are available: 1 [^.]*\.?")


def _refined(reason: str, message: str) -> str:
    """The sentence for this message of a reason, "" where there is no other than the reason's."""
    return next((text for part, text in REFINED.get(reason, {}).items() if part in message), "")


def _of_container(wrong: _Wrong, newest: list[Json], is_here: Callable[[str], bool]) -> str:
    if wrong.reason in _PULLS and is_here(wrong.image):
        return HERE
    if wrong.reason == "CrashLoopBackOff" and (killed := _killed(wrong, newest)):
        return killed
    text = _refined(wrong.reason, wrong.message) or CONTAINER.get(wrong.reason)
    return text or f"{wrong.reason}: kubelite describe pod {{pod}}"


def _killed(wrong: _Wrong, newest: list[Json]) -> str:
    """Why the node ended the instance that ended last; "" when it ended by itself."""
    mine = [e for e in newest if f"{{{wrong.container}}}" in e.get("involvedObject", {}).get("fieldPath", "")]
    last = next((e for e in mine if e.get("reason") == "Killing"), {})
    if str(last.get("lastTimestamp", "")) < wrong.since:
        return ""
    text = next((text for part, text in KILLED.items() if part in str(last.get("message", ""))), "")
    said = next((_short(e) for e in mine if e.get("reason") in ("Unhealthy", "FailedPostStartHook")), "")
    return text.replace("{message}", _braced(said))


def _braced(text: str) -> str:
    """For str.format to leave as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def _of_events(newest: list[Json], words: dict[str, str]) -> list[str]:
    """The newest Warning that there are words for: one or none."""
    for event in newest:
        reason, message = event.get("reason", ""), _short(event)
        if event.get("type") == "Warning" and reason in EVENT:
            message = message.removeprefix("Failed to create pod sandbox: ")
            return [(_refined(reason, message) or EVENT[reason]).format(message=message, **words)]
    return []


def _short(event: Json) -> str:
    """Its first line."""
    return str(event.get("message", "")).strip().partition("\n")[0].rstrip(".: ")


def _wrongs(doc: Json) -> Iterator[_Wrong]:
    """All that is wrong now; for one that waits to start again, why it ended, where that says more."""
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
            if key == "ephemeralContainerStatuses":  # how somebody's shell ended keeps the pod from nothing
                ended = {}
            told = ended.get("reason", "") not in (*_NORMAL, *(_PLAIN if loops else ()))
            if waiting.get("reason") and waiting["reason"] not in _NORMAL and not (loops and told):
                yield _Wrong(*who, waiting["reason"], waiting.get("message", ""), ended.get("startedAt", ""))
            if told:
                yield _Wrong(*who, ended["reason"], ended.get("message", ""))


def _awaited(doc: Json) -> Iterator[str]:
    """Init containers that run and are no sidecars: the others wait for their end."""
    sidecars = {
        c["name"] for c in doc["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"
    }
    for found in doc.get("status", {}).get("initContainerStatuses") or ():
        if "running" in (found.get("state") or {}) and found["name"] not in sidecars:
            yield found["name"]
