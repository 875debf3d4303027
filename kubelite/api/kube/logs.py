"""`GET …/pods/NAME/log`: which file it is (kubelet's rules and sentences), and the stream of it.

With `follow`, the stream goes on over rotation and over restarts of the container for as long as the pod may still
start it again (kubectl's ends with the container); it is woken by inotify and by the pod's own changes, not by polling.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from kubelite.api.kube.logfiles import LogQuery, LogReader, attempts
from kubelite.api.node import NodeApi
from kubelite.kube.errors import bad_request
from kubelite.kube.inotify import DirectoryWatch
from kubelite.kube.json import Json

_POLL_SECONDS = 0.05  # only where inotify is not to be had
_SAFETY_SECONDS = 5.0
_SPEC_LISTS = ("containers", "initContainers", "ephemeralContainers")
_STATUS_LISTS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_PULL_WORDS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def pick_container(pod: Json, name: str) -> str:
    """The container meant; raises BadRequest in the apiserver's words when that is not clear."""
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


def goes_on(pod: Json | None, container: str) -> bool:
    """Whether this container runs or may be started again: whether its log can still grow."""
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
    """The attempt whose log is asked for. Raises BadRequest when there is none (kubelet's sentences)."""
    found = attempts(directory)
    status = container_status(pod, container)
    pod_name = pod["metadata"]["name"]
    if previous:
        # While it waits for its next start the last instance is both the current and the previous one.
        waits = "waiting" in status.get("state", {})
        if len(found) < (1 if waits else 2):
            raise bad_request(f'previous terminated container "{container}" in pod "{pod_name}" not found')
        return found[-1 if waits else -2]
    if found:
        return found[-1]
    reason = (status.get("state", {}).get("waiting") or {}).get("reason") or "ContainerCreating"
    words = _PULL_WORDS.get(reason, reason)
    raise bad_request(f'container "{container}" in pod "{pod_name}" is waiting to start: {words}')


def open_log(
    node: NodeApi, pod: Json, container: str, query: LogQuery, *, previous: bool
) -> AsyncGenerator[bytes, None]:
    """The log as a stream. Errors are raised here, before an answer has begun."""
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
                now = _current(node, pod)  # before the reading: what was written until then is then read
                while chunk := reader.read_some():
                    yield chunk
                if not goes_on(now, container):
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
    """The pod as it is now; None when it is gone (or another one has its name)."""
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
