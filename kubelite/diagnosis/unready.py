"""What a pod lacks although the node has nothing to do for it: containers that are not ready, each with the reason, and
processes that the kernel killed while their container went on. Also why the node restarted a container. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubelite.kube.json import Json

_NEXT = frozenset({"ContainerCreating", "PodInitializing"})  # waiting reasons that say nothing more


def unready(doc: Json, events: Iterable[Json] = ()) -> list[str]:
    """Return a sentence for each container that is not ready, for each OOM kill that the present instance of a
    container has survived, and for each restart because of a probe; none for an ended pod.

    `events`: the pod's events."""
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed") or doc["metadata"].get("deletionTimestamp"):
        return []
    newest = sorted(events, key=lambda event: str(event.get("lastTimestamp")), reverse=True)
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    statuses = {
        found["name"]: found
        for key in ("initContainerStatuses", "containerStatuses")
        for found in status.get(key) or ()
    }
    found = []
    for container in [*sidecars, *(spec.get("containers") or ())]:
        seen = statuses.get(container["name"]) or {}
        if not seen.get("ready"):
            found.append(f"container {container['name']} is not ready: {_why(container, seen, newest)}")
        found += _survived(seen, newest)
        found += _restarted(container, seen, newest)
    ready: Json = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
    if ready.get("reason") == "ReadinessGatesNotReady":
        found.append(f"the pod is not ready: {ready.get('message') or 'a readiness gate is closed'}")
    return found


def with_unready(reasons: Iterable[str], sentences: Iterable[str]) -> list[str]:
    """Return the decision's reasons and these sentences, without those that repeat one: that a container waits for a
    reason (kubelite/node/decide) says that it is not ready, too."""
    known = list(reasons)
    return [*known, *(one for one in sentences if one.replace(" is not ready: ", " waits: ", 1) not in known)]


def _why(container: Json, seen: Json, newest: list[Json]) -> str:
    state = seen.get("state") or {}
    if "running" in state:
        return _probe(container, seen, newest)
    if ended := state.get("terminated"):
        reason = f" ({ended['reason']})" if ended.get("reason") not in (None, "Error", "Completed") else ""
        return f"it ended with exit code {ended.get('exitCode', 0)}{reason}"
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason") or "ContainerCreating", waiting.get("message")
    if reason in _NEXT and not message:
        return "it has not started yet"
    return f"{reason}: {message}" if message else str(reason)


def _probe(container: Json, seen: Json, newest: list[Json]) -> str:
    """Say which probe of a running container has not succeeded, with its last failure."""
    kind = "readiness" if seen.get("started") else "startup"
    probe = container.get(f"{kind}Probe")
    if not probe:
        return "it is about to be ready"
    failures = (
        _failure(event, kind)
        for event in newest
        if container_of(event) == container["name"] and _is_of(event, seen)
    )
    said = next(filter(None, failures), "")
    return f"its {kind} probe ({probe_words(probe)}) " + (
        f"fails: {said}" if said else "has not succeeded yet"
    )


def _survived(seen: Json, newest: list[Json]) -> Iterator[str]:
    """Yield the last OOM kill of a process in the container's present instance."""
    if "running" not in (seen.get("state") or {}):
        return
    for event in newest:
        if (
            event.get("reason") == "OOMKilling"
            and container_of(event) == seen["name"]
            and _is_of(event, seen)
        ):
            times = f", {count} times so far" if (count := event.get("count") or 1) > 1 else ""
            yield f"{event['message']}, at {event['lastTimestamp']}{times}; the container runs on"
            return


def _restarted(container: Json, seen: Json, newest: list[Json]) -> Iterator[str]:
    """Yield which probe is the reason that the node ended the instance before the one that runs."""
    since = ((seen.get("state") or {}).get("running") or {}).get("startedAt")
    before = (seen.get("lastState") or {}).get("terminated") or {}
    if not since or not before:
        return
    mine = [event for event in newest if container_of(event) == container["name"]]
    for kind in ("liveness", "startup"):
        killed = any(
            event.get("reason") == "Killing"
            and f"failed {kind} probe" in str(event.get("message", ""))
            and str(before.get("startedAt") or "") <= str(event.get("lastTimestamp") or "") <= since
            for event in mine
        )
        if killed and (probe := container.get(f"{kind}Probe")):
            said = next((text for event in mine if (text := _failure(event, kind))), "it failed")
            yield (
                f"container {container['name']} was restarted at {since} because its {kind} probe "
                f"({probe_words(probe)}) failed: {said}"
            )
            return


def _failure(event: Json, kind: str) -> str:
    """Return what a failure of a probe of this kind said; "" for another event."""
    message = str(event.get("message", "")).strip()
    if event.get("reason") != "Unhealthy" or not message.lower().startswith(kind):
        return ""
    return message.partition("\n")[0].partition(": ")[2].rstrip(".: ")


def _is_of(event: Json, seen: Json) -> bool:
    """Whether the event is about the present instance of a running container."""
    started = ((seen.get("state") or {}).get("running") or {}).get("startedAt") or ""
    return str(event.get("lastTimestamp") or "") >= str(started)


def container_of(event: Json) -> str:
    """Return the container that an event is about; "" if it is about the whole pod."""
    path: str = event.get("involvedObject", {}).get("fieldPath", "")
    return path.partition("{")[2].removesuffix("}")


def probe_words(probe: Json) -> str:
    """Describe a probe's action: `HTTP GET :80/healthz`, `TCP :5432`, `gRPC :9000`, or its command."""
    if http := probe.get("httpGet"):
        where = f"{http.get('host') or ''}:{http.get('port')}{http.get('path') or '/'}"
        return f"{http.get('scheme') or 'HTTP'} GET {where}"
    if tcp := probe.get("tcpSocket"):
        return f"TCP {tcp.get('host') or ''}:{tcp.get('port')}"
    if grpc := probe.get("grpc"):
        return f"gRPC :{grpc.get('port')}"
    return " ".join((probe.get("exec") or {}).get("command") or ())
