"""The seam to the start trace and the metrics: the steps of a start, and how long operations of the engine take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class StepRecorder(Protocol):
    """Never waits, never fails. Durations are seconds."""

    def step(
        self, uid: str, step: str, *, container: str = "", detail: str = ""
    ) -> AbstractContextManager[None]:
        """Record a step of a pod's start that lasts as long as the context; an error that leaves it is recorded too."""

    def inner(self, uid: str, container: str, text: str) -> None:
        """Record the steps that a shim reports of the engine and of the container's init (runtime.oci.job.written)."""

    def count(self, step: str) -> AbstractContextManager[None]:
        """Count an operation of the engine, for as long as the context lasts."""

    def counted(self, step: str, took: float, detail: str = "") -> None:
        """Count an operation that is over."""
