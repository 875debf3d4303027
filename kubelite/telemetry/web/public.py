"""Removes from pods and events the text that not everyone who can reach the port may read.

Text that a container wrote, and paths, are removed. The pages never show environment variables and commands. Names of
objects, images and addresses are in the metrics as well.
"""

from __future__ import annotations

import re

from kubelite.kube.json import Json

#: Reasons of a waiting or ended container whose message the node wrote. Other messages may be the container's output.
NODE_WROTE = frozenset(
    {
        "CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName",
        "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed", "CreateContainerConfigError",
        "CreateContainerError", "RunContainerError", "StartError", "ContainerStatusUnknown",
    }
)  # fmt: skip
#: Reasons of events whose message the node wrote. Other messages are not shown, or only in part.
EVENTS = frozenset(
    {
        "BackOff", "BackoffLimitExceeded", "Completed", "Created", "DNSConfigForming", "DeadlineExceeded",
        "ErrImageNeverPull", "Evicted", "Failed", "FailedCreatePodSandBox", "FailedMount", "FailedScheduling",
        "FailedSync", "FailedToRetrieveImagePullSecret", "InspectFailed", "Killing", "NetworkDegraded",
        "NodeAffinity", "NodePorts", "OOMKilling", "OutOfcpu", "OutOfephemeral-storage", "OutOfmemory",
        "OutOfpods", "Preempted", "Pulled", "Pulling", "ResizeCompleted", "ResizeError", "ResizeStarted",
        "Resumed", "SandboxChanged", "SawCompletedJob", "ScalingReplicaSet", "Scheduled", "SizeNotEnforced",
        "Started", "SuccessfulCreate", "SuccessfulDelete", "Suspended", "TaintManagerEviction",
    }
)  # fmt: skip
#: Reason of events whose message may have a container's output or a manifest's values → the part that is shown.
_PARTS = {
    "Unhealthy": re.compile(
        r"\w+ probe (?:failed|errored)(?:: HTTP probe failed with statuscode: \d+|: dial tcp [0-9.:\[\]a-f]+: .*)?"
    ),
    "ProbeWarning": re.compile(r"\w+ probe warning"),
    "FailedPostStartHook": re.compile(r"\w+ failed"),
    "FailedPreStopHook": re.compile(r"\w+ failed"),
    "FailedValidation": re.compile(r"[^/\s:]+:\d+(?:: [\w.\[\]-]+)?"),
}
_REFUSED = re.compile(
    r"^(\w+ probe failed): Get \"[^\"]*\": (dial tcp [0-9.:\[\]a-f]+: .*|context deadline exceeded.*)"
)
_PATH = re.compile(r"(?<![\w:/.…-])/[\w.+@:~-]+(?:/[\w.+@:~-]*)*")
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


def without_paths(text: str) -> str:
    """Replace absolute paths by an ellipsis, but not those in URLs and image names."""
    return _PATH.sub("…", text)


def pod(doc: Json) -> Json:
    """Return a copy of a pod's document without the messages that are not public."""
    status = dict(doc.get("status") or {})
    for key in _STATUSES:
        status[key] = [_container(one) for one in status.get(key) or ()]
    if status.get("message"):
        status["message"] = without_paths(str(status["message"]))
    if status.get("conditions"):
        status["conditions"] = [
            {**one, "message": without_paths(str(one.get("message", "")))} for one in status["conditions"]
        ]
    return {**doc, "status": status}


def _container(status: Json) -> Json:
    found = dict(status)
    for state in ("state", "lastState"):
        parts = (found.get(state) or {}).items()
        found[state] = {kind: _state(part or {}) for kind, part in parts}
    return found


def _state(part: Json) -> Json:
    found = {key: value for key, value in part.items() if key != "message"}
    if part.get("message") and part.get("reason") in NODE_WROTE:
        found["message"] = without_paths(str(part["message"]))
    return found


def event(doc: Json) -> Json:
    """Return a copy of an event's document without the text that is not public."""
    return {**doc, "message": _said(str(doc.get("reason", "")), str(doc.get("message", "")))}


def _said(reason: str, message: str) -> str:
    if reason in EVENTS:
        return without_paths(message)
    if reason not in _PARTS:
        return ""
    message = _REFUSED.sub(r"\1: \2", message.partition("\n")[0])
    if reason == "FailedValidation":
        message = message.partition(": ")[0].rpartition("/")[2] + ": " + message.partition(": ")[2]
    found = _PARTS[reason].match(message)
    return without_paths(found.group()) if found else ""
