"""The last words of a container that left none: with terminationMessagePolicy FallbackToLogsOnError the end of its log.

As kubelet's fallback (C5): the last 80 lines, at most 2048 bytes, only after a failure and an empty message file.
"""

from __future__ import annotations

import os
from dataclasses import replace

from kubelite.node.cri import ContainerSeen, ContainerState, PodSeen
from kubelite.node.ephemeral import ephemeral_containers
from kubelite.node.recorder import find_container
from manifests.core import Pod

MAX_BYTES, MAX_LINES = 2048, 80
_READ = 64 * 1024  # bytes of the log's end that are looked at: every line has a head of its own


def with_messages(pod: Pod, seen: PodSeen) -> PodSeen:
    """What is seen, with messages taken from logs where the manifest asks for that."""
    if not any(
        c.termination_message_policy == "FallbackToLogsOnError"
        for c in [*pod.spec.init_containers, *pod.spec.containers, *ephemeral_containers(pod)]
    ):
        return seen
    return replace(seen, containers=tuple(_with_message(pod, container) for container in seen.containers))


def _with_message(pod: Pod, seen: ContainerSeen) -> ContainerSeen:
    spec = find_container(pod, seen.name)
    failed = seen.state is ContainerState.EXITED and seen.exit_code != 0 and not seen.message
    if not failed or spec is None or spec.termination_message_policy != "FallbackToLogsOnError":
        return seen
    return replace(seen, message=log_tail(seen.log_path))


def log_tail(path: str) -> str:
    """The texts of the last lines of a CRI log; "" when it cannot be read."""
    try:
        # neither followed nor waited for: a pod with /var/log in its hands may have put a link or a pipe there
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _READ))
            lines = file.read(_READ).split(b"\n")
    except OSError:
        return ""
    texts = []
    for line in lines:
        fields = line.split(b" ", 3)  # time, stream, tag, text
        if len(fields) == 4 and fields[1] in (b"stdout", b"stderr"):
            texts.append(fields[3] + (b"\n" if fields[2].startswith(b"F") else b""))
    whole = b"".join(texts[-MAX_LINES:])
    return whole[-MAX_BYTES:].decode(errors="replace")
