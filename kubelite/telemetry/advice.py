"""PURE: what to do next about a pod that is not as it should be: for each reason of its status one sentence with the
command or the field that helps (the reasons of kubelet's status, spec C5)."""

from __future__ import annotations

from collections.abc import Iterator
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
    "Terminated": "the machine shut down: it starts again with the node",
}
_NORMAL = frozenset({"ContainerCreating", "PodInitializing", "Completed"})


def advice(doc: Json) -> list[str]:
    """Sentences, the pod's own first, each once; none for a pod that is well."""
    status = doc.get("status", {})
    words = {"pod": doc["metadata"]["name"]}
    if (namespace := doc["metadata"].get("namespace", "default")) != "default":
        words["pod"] += f" -n {namespace}"
    found = [POD[status["reason"]]] if status.get("reason") in POD else []
    for container, image, reason in _reasons(doc):
        text = CONTAINER.get(reason, f"{reason}: kubelite describe pod {{pod}}")
        found.append(f"{container}: " + text.format(container=container, image=image, **words))
    return list(dict.fromkeys(found))


def _reasons(doc: Json) -> Iterator[tuple[str, str, str]]:
    """(container, image, reason) of all that is wrong now; for one that waits to start again, also why it ended."""
    status, spec = doc.get("status", {}), doc.get("spec", {})
    images = {
        c["name"]: c.get("image", "") for key in ("initContainers", "containers") for c in spec.get(key) or ()
    }
    for key in ("initContainerStatuses", "containerStatuses"):
        for found in status.get(key) or ():
            state, last = found.get("state") or {}, found.get("lastState") or {}
            waiting = state.get("waiting", {}).get("reason", "")
            ended = state.get("terminated") or (
                last.get("terminated") if waiting == "CrashLoopBackOff" else None
            )
            for reason in (waiting, (ended or {}).get("reason", "")):
                if reason and reason not in _NORMAL:
                    yield found["name"], images.get(found["name"], ""), reason
