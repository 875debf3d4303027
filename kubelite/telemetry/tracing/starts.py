"""Traces of pods' starts: what collects them, by the settings, and their first steps."""

from __future__ import annotations

import contextlib
import os
import time

from kubelite.settings import Settings
from kubelite.sources.plan import ManifestState
from kubelite.telemetry.metrics.meters import Meters
from kubelite.telemetry.tracing.otlp import Exporter, trace_id
from kubelite.telemetry.tracing.trace import Tracer
from state.store import Store

FRESH = 5.0  # seconds; a manifest that was read earlier is not part of the pod's start


def trace_manifest(tracer: Tracer, uid: str, state: ManifestState, *, started: float) -> None:
    """Add the first steps to a pod's trace: the file changed (or the daemon started and found it), the file was read,
    and the pod was recorded in the store."""
    name = os.path.basename(state.file)
    if (
        time.time() - state.loaded_at < FRESH
    ):  # otherwise the pod is created again from a file that was read earlier
        if state.changed_at < started:
            tracer.mark(uid, "daemon started", at=started)
        else:
            tracer.mark(uid, "manifest changed", at=state.changed_at, detail=name)
        tracer.mark(uid, "manifest read", at=state.loaded_at, detail=name)
    tracer.mark(uid, "recorded")


def make_exporter(settings: Settings, store: Store) -> Exporter | None:
    if not settings.otlp_endpoint:
        return None

    def pod(uid: str) -> dict[str, str] | None:
        record = store.get_uid(uid)
        return (
            {"namespace": record.namespace, "name": record.name, "uid": uid} if record is not None else None
        )

    return Exporter(settings.otlp_endpoint, settings.node_name, pod)


def make_tracer(
    settings: Settings, meters: Meters, exporter: Exporter | None, stack: contextlib.AsyncExitStack
) -> Tracer:
    directory = f"{settings.run_dir}/traces"
    if exporter:
        tracer = Tracer(meters.step, started=exporter.started, directory=directory)
    else:
        tracer = Tracer(meters.step, directory=directory)
    if tracer.files is not None:
        stack.callback(tracer.files.close)
    return tracer


def trace_of(tracer: Tracer, uid: str) -> str:
    """Return the id of the trace of a pod's first start; "" if there is none."""
    begin = tracer.begin(uid)
    return trace_id(uid, begin) if begin is not None else ""
