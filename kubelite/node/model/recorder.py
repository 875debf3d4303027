"""The interfaces by which the node reports events about objects, and the steps and durations of its operations."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any, Protocol

from kubelite.node.model.ephemeral import every_container
from kubelite.node.model.pod_view import pod_ref
from manifests.types.core import Container, Pod

NORMAL, WARNING = "Normal", "Warning"


class Recorder(Protocol):
    """Its methods never wait and never fail."""

    def event(self, reference: dict[str, Any], type_: str, reason: str, message: str) -> None: ...


class PodEvents:
    """A recorder for the events of one pod and its containers."""

    def __init__(self, recorder: Recorder, pod: Pod) -> None:
        self._recorder = recorder
        self._pod = pod
        self.name = pod_ref(pod)
        self._reference = {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": pod.metadata.namespace or "default",
            "name": pod.metadata.name or "",
            "uid": pod.metadata.uid or "",
        }

    def pod(self, type_: str, reason: str, message: str) -> None:
        self._recorder.event(self._reference, type_, reason, message)

    def resize(self, type_: str, reason: str, what: str, *, error: str = "") -> None:
        """Record an event with the resources of the manifest and kubelet's message, `Pod resize <what>: {…}`
        (Kubernetes pkg/kubelet/events, podResizeMessage)."""
        spec, said = self._pod.spec, {}
        for key, found in (("initContainers", spec.init_containers), ("containers", spec.containers)):
            if found:
                said[key] = [
                    {"name": c.name, "resources": c.resources.to_json() if c.resources is not None else {}}
                    for c in found
                ]
        summary = {
            **said,
            "generation": self._pod.metadata.generation or 0,
            **({"error": error} if error else {}),
        }
        text = json.dumps(summary, separators=(",", ":"), ensure_ascii=False)
        self.pod(type_, reason, f"Pod resize {what}: {text}")

    def container(self, name: str, type_: str, reason: str, message: str) -> None:
        init = any(c.name == name for c in self._pod.spec.init_containers)
        path = f"spec.{'initContainers' if init else 'containers'}{{{name}}}"
        self._recorder.event({**self._reference, "fieldPath": path}, type_, reason, message)


def find_container(pod: Pod, name: str) -> Container | None:
    return next((c for c in every_container(pod) if c.name == name), None)


class StepRecorder(Protocol):
    """Its methods never wait and never fail. Durations are in seconds."""

    def step(
        self, uid: str, step: str, *, container: str = "", detail: str = ""
    ) -> AbstractContextManager[None]:
        """Record a step of a pod's start that lasts as long as the context, and an error that ends it."""

    def inner(self, uid: str, container: str, text: str, *, step: str) -> None:
        """Record the steps that a shim reports from the engine and the container's init
        (runtime.oci.init_protocol.written)."""

    def count(self, step: str) -> AbstractContextManager[None]:
        """Count an operation of the engine that lasts as long as the context."""

    def counted(self, step: str, took: float, detail: str = "") -> None:
        """Count an operation that has ended."""
