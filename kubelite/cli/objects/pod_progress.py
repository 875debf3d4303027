"""Determine how far the rollout of a pod has progressed, for `kubelite rollout status`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kubelite.diagnosis.unready import probe_words

if TYPE_CHECKING:
    from kubelite.kube.json import Json

PROGRESS_SECONDS = 600.0  # the default progressDeadlineSeconds of a Deployment
_PASSING = ("ContainerCreating", "PodInitializing")  # waiting reasons that resolve by themselves


class Progress(NamedTuple):
    """A pod's progress: `done`, or `words` says what is missing. `failed`: the pod does not recover by itself. `ready`
    counts the ready containers, sidecars included, as in the column READY."""

    done: bool
    failed: bool
    words: str
    ready: int = 0


def progress_of(pod: Json | None) -> Progress:
    """Evaluate a pod's document (None: the pod does not exist yet)."""
    if pod is None:
        return Progress(done=False, failed=False, words="the pod does not exist yet")
    metadata, status = pod["metadata"], pod.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return Progress(done=False, failed=False, words="the old pod is terminating")
    if status.get("phase") == "Failed":
        why = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
        return Progress(done=False, failed=True, words=f"has failed{f' ({why})' if why else ''}")
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    seen = ready.get("observedGeneration") or 0
    if seen and seen < (metadata.get("generation") or 0):
        return Progress(done=False, failed=False, words="its last change has not taken effect yet")
    count, total = ready_of(pod)
    if ready.get("status") == "True" or status.get("phase") == "Succeeded":
        return Progress(done=True, failed=False, words="successfully rolled out", ready=count)
    placed = conditions.get("PodScheduled") or {}
    if placed.get("status") == "False":
        words = f"it cannot be scheduled: {placed.get('message') or placed.get('reason')}"
        return Progress(done=False, failed=False, words=words)
    missing = "; ".join(_missing(pod, ready))
    words = f"{count} of {total} containers are ready" + (f" ({missing})" if missing else "")
    return Progress(done=False, failed=False, words=words, ready=count)


def settled(pod: Json, found: Progress, decision: Json) -> Progress:
    """Return `found`, the progress of a pod that is done by its status, unless containers of an earlier definition
    still run: until they have ended, the status describes them. `decision`: the node's, as `why` has it; its instances
    are those of the present definition."""
    current, status = decision.get("current"), pod.get("status") or {}
    if current is None or status.get("phase") == "Succeeded":
        return found
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    running = {c["name"]: c.get("containerID") for c in statuses if "running" in (c.get("state") or {})}
    old = sorted(name for name, instance in running.items() if current.get(name) != instance)
    if not old:
        return found
    words = "; ".join(f"container {name}: its earlier instance is terminating" for name in old)
    return Progress(done=False, failed=False, words=words)


def ready_of(pod: Json) -> tuple[int, int]:
    """Return the numbers of ready and of all containers. Sidecars count, other init containers do not (kubectl's
    printPod)."""
    spec, status = pod["spec"], pod.get("status") or {}
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    ready = sum(bool(c.get("ready")) for c in status.get("containerStatuses") or ())
    started = (c for c in status.get("initContainerStatuses") or () if c.get("name") in sidecars)
    ready += sum(bool(c.get("started") and c.get("ready")) for c in started)
    return ready, len(spec.get("containers") or ()) + len(sidecars)


def _missing(pod: Json, ready: Json) -> Iterator[str]:
    """Say what the pod waits for: the reasons of waiting containers, the probes that have not succeeded, the gates."""
    spec, status = pod["spec"], pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    reasons = (((c.get("state") or {}).get("waiting") or {}).get("reason") for c in statuses)
    yield from (reason for reason in dict.fromkeys(reasons) if reason not in (None, *_PASSING))
    specs = {c.get("name"): c for key in ("initContainers", "containers") for c in spec.get(key) or ()}
    for found in statuses:
        if "running" not in (found.get("state") or {}):
            continue
        kind = "" if found.get("ready") else "readiness" if found.get("started") else "startup"
        probe = (specs.get(found.get("name")) or {}).get(f"{kind}Probe") if kind else None
        if probe:
            yield f"container {found['name']}: its {kind} probe ({probe_words(probe)}) has not succeeded"
    if ready.get("reason") == "ReadinessGatesNotReady":
        yield str(ready.get("message") or "a readiness gate is closed")
