"""How far the rollout of a workload has come, in the words of `kubectl rollout status`. Pure.

Source: kubectl pkg/polymorphichelpers/rollout_status.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubelite.cli.errors import CliError
from kubelite.cli.objects.pod_progress import PROGRESS_SECONDS, Progress

if TYPE_CHECKING:
    from kubelite.kube.json import Json

ROLLED_OUT = ("Deployment", "DaemonSet", "StatefulSet")
#: progressDeadlineSeconds of a Deployment without a deadline (deploymentutil.HasProgressDeadline)
_ENDLESS = 2**31 - 1
#: time in which the controller of a Deployment reports by itself that the deadline has passed
_CONTROLLER_SECONDS = 30.0
_ONLY_ROLLING = "error: rollout status is only available for RollingUpdate strategy type"


def rollout_of(kind: str, doc: Json | None) -> Progress:
    """Return the progress of a workload. `words` are a whole line. `ready` grows with progress. Raises CliError for a
    strategy that has no rollout."""
    if doc is None:
        return Progress(done=False, failed=False, words="Waiting for the object to be created...")
    state = {"Deployment": _deployment, "DaemonSet": _daemon_set, "StatefulSet": _stateful_set}[kind]
    return state(doc, doc["metadata"]["name"], doc["spec"], doc.get("status") or {})


def patience_of(doc: Json) -> float | None:
    """Return for how many seconds a rollout may make no progress; None: without limit. The controller of a Deployment
    observes its progressDeadlineSeconds itself. A pod of a set counts minReadySeconds after it is ready."""
    spec = doc["spec"]
    if doc["kind"] != "Deployment":
        return PROGRESS_SECONDS + float(spec.get("minReadySeconds") or 0)
    own = spec.get("progressDeadlineSeconds", PROGRESS_SECONDS)
    return None if own == _ENDLESS else max(PROGRESS_SECONDS, own) + _CONTROLLER_SECONDS


def _deployment(doc: Json, name: str, spec: Json, status: Json) -> Progress:
    if not _is_observed(doc):
        return _going("Waiting for deployment spec update to be observed...")
    progressing: Json = next((c for c in status.get("conditions") or () if c["type"] == "Progressing"), {})
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return Progress(done=False, failed=True, words=f'deployment "{name}" exceeded its progress deadline')
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas") or 0
    every, available = status.get("replicas") or 0, status.get("availableReplicas") or 0
    # A paused Deployment is scaled, but gets no pods of a new template. kubectl waits for ever.
    if spec.get("paused") and (every > updated or (wanted and not every)):
        said = f"is paused: resume it with kubelite rollout resume deployment/{name}{namespace_flag(doc)}"
        return Progress(done=False, failed=True, words=f'deployment "{name}" {said}')
    waits, mark = f'Waiting for deployment "{name}" rollout to finish: ', updated + available
    if updated < wanted:
        return _going(f"{waits}{updated} out of {wanted} new replicas have been updated...", mark)
    if every > updated:
        return _going(f"{waits}{every - updated} old replicas are pending termination...", mark)
    if available < updated:
        return _going(f"{waits}{available} of {updated} updated replicas are available...", mark)
    return _done(f'deployment "{name}" successfully rolled out')


def _daemon_set(doc: Json, name: str, spec: Json, status: Json) -> Progress:
    if (spec.get("updateStrategy") or {}).get("type") != "RollingUpdate":
        raise CliError(_ONLY_ROLLING)
    if not _is_observed(doc):
        return _going("Waiting for daemon set spec update to be observed...")
    wanted, updated = status.get("desiredNumberScheduled") or 0, status.get("updatedNumberScheduled") or 0
    available = status.get("numberAvailable") or 0
    waits, mark = f'Waiting for daemon set "{name}" rollout to finish: ', updated + available
    if updated < wanted:
        return _going(f"{waits}{updated} out of {wanted} new pods have been updated...", mark)
    if available < wanted:
        return _going(f"{waits}{available} of {wanted} updated pods are available...", mark)
    return _done(f'daemon set "{name}" successfully rolled out')


def _stateful_set(doc: Json, name: str, spec: Json, status: Json) -> Progress:
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") != "RollingUpdate":
        raise CliError(_ONLY_ROLLING)
    if not status.get("observedGeneration") or not _is_observed(doc):
        return _going("Waiting for statefulset spec update to be observed...")
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas") or 0
    updated = status.get("updatedReplicas") or 0
    if ready < wanted:
        return _going(f"Waiting for {wanted - ready} pods to be ready...", ready + updated)
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    if partition:
        new = wanted - partition
        if updated < new:
            said = f"{updated} out of {new} new pods have been updated..."
            return _going(f"Waiting for partitioned roll out to finish: {said}", ready + updated)
        return _done(f"partitioned roll out complete: {updated} new pods have been updated...")
    revision = status.get("updateRevision")
    if revision != status.get("currentRevision"):
        said = f"{updated} pods at revision {revision}..."
        return _going(f"waiting for statefulset rolling update to complete {said}", ready + updated)
    current = status.get("currentReplicas") or 0
    return _done(f"statefulset rolling update complete {current} pods at revision {revision}...")


def namespace_flag(doc: Json) -> str:
    """Return ` -n NAMESPACE` for a command about the object; "" in the default namespace."""
    namespace = doc["metadata"].get("namespace") or "default"
    return "" if namespace == "default" else f" -n {namespace}"


def _is_observed(doc: Json) -> bool:
    seen = (doc.get("status") or {}).get("observedGeneration") or 0
    return bool(seen >= (doc["metadata"].get("generation") or 0))


def _going(words: str, mark: int = 0) -> Progress:
    return Progress(done=False, failed=False, words=words, ready=mark)


def _done(words: str) -> Progress:
    return Progress(done=True, failed=False, words=words)
