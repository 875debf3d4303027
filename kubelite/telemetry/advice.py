"""PURE: what to do next about a pod that is not as it should be: for each reason of its status one sentence with the
command or the field that helps (the reasons of kubelet's status, spec C5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Json = dict[str, Any]

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
    "Error": "it ended with an error: kubelite logs {pod} -c {container} --previous",
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
#: A pull that fails, of an image that is here.
HERE = (
    "{image} is in the store already, but imagePullPolicy is Always (as it is for :latest and for no tag): set it to "
    "IfNotPresent"
)
_PULLS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable")
_NORMAL = frozenset({"ContainerCreating", "PodInitializing", "Completed"})


def advice(
    doc: Json, events: Iterable[Json] = (), is_here: Callable[[str], bool] = lambda image: False
) -> list[str]:
    """Sentences, the pod's own first, each once; none for a pod that is well. `events` are the pod's; `is_here`: is
    an image of this name in the store?"""
    status = doc.get("status", {})
    words = {"pod": doc["metadata"]["name"]}
    if (namespace := doc["metadata"].get("namespace", "default")) != "default":
        words["pod"] += f" -n {namespace}"
    found = [POD[status["reason"]]] if status.get("reason") in POD else []
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") in SCHEDULING:
        text = scheduled.get("message", "").rstrip(".")
        found.append(SCHEDULING[scheduled["reason"]].format(message=text))
    for one in conditions.values():
        text = CONDITION.get(f"{one['type']}={one.get('status')}/{one.get('reason', '')}", "")
        found += [text.format(message=str(one.get("message", "")).rstrip("."))] if text else []
    for container, image, reason in _reasons(doc):
        text = CONTAINER.get(reason, f"{reason}: kubelite describe pod {{pod}}")
        if reason in _PULLS and is_here(image):
            text = HERE
        found.append(f"{container}: " + text.format(container=container, image=image, **words))
    ready = conditions.get("Ready", {}).get("status") == "True"
    if not found and not ready and status.get("phase") not in ("Succeeded", "Failed"):
        found = [EVENT[e["reason"]].format(message=_short(e), **words) for e in _newest_warning(events)]
    return list(dict.fromkeys(found))


def _newest_warning(events: Iterable[Json]) -> list[Json]:
    """The newest Warning that there are words for, as a list of one or none."""
    warnings = [e for e in events if e.get("type") == "Warning" and e.get("reason") in EVENT]
    warnings.sort(key=lambda e: (str(e.get("lastTimestamp")), str(e["metadata"]["name"])))
    return warnings[-1:]


def _short(event: Json) -> str:
    """Its first line."""
    return str(event.get("message", "")).strip().partition("\n")[0].rstrip(".")


def _reasons(doc: Json) -> Iterator[tuple[str, str, str]]:
    """(container, image, reason) of all that is wrong now; for one that waits to start again, also why it ended."""
    status, spec = doc.get("status", {}), doc.get("spec", {})
    images = {
        c["name"]: c.get("image", "")
        for key in ("initContainers", "containers", "ephemeralContainers")
        for c in spec.get(key) or ()
    }
    for key in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for found in status.get(key) or ():
            state, last = found.get("state") or {}, found.get("lastState") or {}
            waiting = state.get("waiting", {}).get("reason", "")
            ended = state.get("terminated") or (
                last.get("terminated") if waiting == "CrashLoopBackOff" else None
            )
            if key == "ephemeralContainerStatuses":  # how somebody's shell ended keeps the pod from nothing
                ended = None
            for reason in (waiting, (ended or {}).get("reason", "")):
                if reason and reason not in _NORMAL and (waiting, reason) != ("CrashLoopBackOff", "Error"):
                    yield found["name"], images.get(found["name"], ""), reason
