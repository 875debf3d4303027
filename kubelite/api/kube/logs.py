"""`GET …/pods/NAME/log`: chooses the log file by kubelet's rules, with kubelet's error messages, and streams it.

With `follow`, the stream continues across rotations and restarts of the container, as long as the pod may start the
container again (kubelet's stream ends with the container). inotify and changes of the pod wake it; it does not poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from kubelite.api.kube.logfiles import LogQuery, LogReader, attempts
from kubelite.api.node import NodeApi
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.inotify import DirectoryWatch
from kubelite.kube.json import Json

_POLL_SECONDS = 0.05  # only used if inotify is not available
_SAFETY_SECONDS = 5.0
_SPEC_LISTS = ("containers", "initContainers", "ephemeralContainers")
_STATUS_LISTS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_PULL_WORDS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def pick_container(pod: Json, name: str) -> str:
    """Return the name of the requested container. Raises BadRequest with the API server's message if the container does
    not exist or the choice is ambiguous."""
    spec = pod.get("spec", {})
    pod_name = pod["metadata"]["name"]
    if name:
        if any(c["name"] == name for part in _SPEC_LISTS for c in spec.get(part) or ()):
            return name
        raise bad_request(f"container {name} is not valid for pod {pod_name}")
    names = [c["name"] for c in spec.get("containers") or ()]
    if len(names) == 1:
        return str(names[0])
    message = f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(names)}]"
    init = [c["name"] for c in spec.get("initContainers") or ()]
    if init:
        message += f" or one of the init containers: [{' '.join(init)}]"
    raise bad_request(message)


def container_status(pod: Json, container: str) -> Json:
    status = pod.get("status") or {}
    found = (c for part in _STATUS_LISTS for c in status.get(part) or () if c.get("name") == container)
    return next(found, {})


def can_grow(pod: Json | None, container: str) -> bool:
    """Whether the container runs or may be started again, so that its log can still grow."""
    if pod is None or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    terminated = container_status(pod, container).get("state", {}).get("terminated")
    if terminated is None:
        return True
    if pod["metadata"].get("deletionTimestamp"):
        return False
    spec = pod["spec"]
    policy = spec.get("restartPolicy") or "Always"
    init = next((c for c in spec.get("initContainers") or () if c["name"] == container), None)
    if init is not None:
        policy = init.get("restartPolicy") or ("Never" if policy == "Never" else "OnFailure")
    if any(c["name"] == container for c in spec.get("ephemeralContainers") or ()):
        policy = "Never"
    return policy == "Always" or (policy == "OnFailure" and terminated.get("exitCode", 0) != 0)


def pick_attempt(directory: str, pod: Json, container: str, *, previous: bool) -> int:
    """Return the attempt whose log is requested. Raises BadRequest with kubelet's message if there is none."""
    found = attempts(directory)
    status = container_status(pod, container)
    pod_name = pod["metadata"]["name"]
    if previous:
        # While the container waits to restart, its last instance is both the current and the previous one.
        waits = "waiting" in status.get("state", {})
        if len(found) < (1 if waits else 2):
            raise bad_request(f'previous terminated container "{container}" in pod "{pod_name}" not found')
        return found[-1 if waits else -2]
    if found:
        return found[-1]
    reason = (status.get("state", {}).get("waiting") or {}).get("reason") or ""
    if status.get("containerID") and reason in ("", "CrashLoopBackOff"):  # a log is created before the start
        words = f'the log of container "{container}" in pod "{pod_name}" was removed from {directory}'
        raise ApiError("NotFound", words)
    reason = reason or "ContainerCreating"
    words = _PULL_WORDS.get(reason, reason)
    raise bad_request(f'container "{container}" in pod "{pod_name}" is waiting to start: {words}')


def open_log(
    node: NodeApi, pod: Json, container: str, query: LogQuery, *, previous: bool
) -> AsyncGenerator[bytes, None]:
    """Return the log as a stream. Errors are raised here, before the answer starts."""
    directory = node.container_log_dir(pod, container)
    attempt = pick_attempt(directory, pod, container, previous=previous)
    if query.follow and not previous:
        return _follow(node, pod, container, (directory, attempt), query)
    return _read_all(directory, attempt, replace(query, follow=False))


async def _read_all(directory: str, attempt: int, query: LogQuery) -> AsyncGenerator[bytes, None]:
    reader = LogReader(directory, attempt, query)
    try:
        while chunk := reader.read_some():
            yield chunk
        if last := reader.finish():
            yield last
    finally:
        reader.close()


async def _follow(
    node: NodeApi, pod: Json, container: str, log: tuple[str, int], query: LogQuery
) -> AsyncGenerator[bytes, None]:
    wake = asyncio.Event()
    watcher = asyncio.create_task(_wake_on_change(node, pod["metadata"]["uid"], wake))
    reader = LogReader(*log, query)
    try:
        with DirectoryWatch(log[0], wake.set) as changes:
            while not reader.done:
                wake.clear()
                now = _current(node, pod)  # before reading, so that everything written until then is read
                while chunk := reader.read_some():
                    yield chunk
                if not can_grow(now, container):
                    break
                if "running" not in container_status(now or {}, container).get("state", {}) and (
                    last := reader.finish()
                ):
                    yield last
                await _wait(wake, _SAFETY_SECONDS if changes.active else _POLL_SECONDS)
            if last := reader.finish():
                yield last
    finally:
        watcher.cancel()
        reader.close()


def _current(node: NodeApi, pod: Json) -> Json | None:
    """Return the current document of the pod; None if the pod is deleted, even if a new pod has its name."""
    metadata = pod["metadata"]
    record = node.store.get("Pod", metadata.get("namespace", ""), metadata["name"])
    return record.doc if record is not None and record.uid == metadata["uid"] else None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


async def _wake_on_change(node: NodeApi, uid: str, wake: asyncio.Event) -> None:
    watch = node.store.watch("Pod")
    try:
        while change := await watch.next():
            if change.record.uid == uid:
                wake.set()
    finally:
        watch.close()
