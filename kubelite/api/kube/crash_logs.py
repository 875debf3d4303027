"""Read the last log lines of failed containers, which usually explain the failure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kubelite.api.kube.logfiles import LogQuery
from kubelite.api.kube.logs import open_log
from kubelite.api.node import NodeApi
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json

LINES = 3  # lines of each container
WIDTH = 200  # characters of each line


async def crash_log_lines(node: NodeApi, pod: Json) -> list[str]:
    """Return lines like "main: cannot open /etc/app.conf", oldest first. Control characters are replaced by question
    marks, because a terminal would interpret them."""
    found = []
    for container, loops in _ended_badly(pod):
        with contextlib.suppress(ApiError, OSError):  # the container's log was deleted
            chunks = open_log(node, pod, container, LogQuery(tail=LINES), previous=loops)
            text = b"".join([chunk async for chunk in chunks]).decode(errors="replace")
            found += [
                f"{container}: {_printable(line)[:WIDTH]}" for line in text.splitlines() if line.strip()
            ]
    return found


def _ended_badly(pod: Json) -> Iterator[tuple[str, bool]]:
    """Yield each failed container and whether it waits to restart."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for status in (pod.get("status") or {}).get(key) or ():
            state = status.get("state") or {}
            loops = (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
            ended = (status.get("lastState") or {}) if loops else state
            if (ended.get("terminated") or {}).get("exitCode", 0) not in (0, 128):  # 128: never ran
                yield status["name"], loops


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line.replace("\t", " "))
