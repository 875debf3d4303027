"""Termination messages: the end of the log for a container without a message (terminationMessagePolicy
FallbackToLogsOnError), and the limits on their length.

As in kubelet: the last 80 lines and at most 2048 bytes of the log, only after a failure and only if the message file is
empty (Kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go). All messages of a pod together have at most 12 KiB,
in equal parts (pkg/kubelet/status/status_manager.go, normalizeStatus).
"""

from __future__ import annotations

import os
from dataclasses import replace

from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedPod
from kubelite.node.model.ephemeral import every_container
from kubelite.node.model.recorder import find_container
from manifests.types.core import Pod
from runtime.tree import directory_of

MAX_BYTES, MAX_LINES = 2048, 80
POD_BYTES = 12 * 1024  # bytes of all messages of a pod
_READ = 64 * 1024  # bytes read from the end of the log; each line also has a timestamp, a stream and a tag


def with_messages(pod: Pod, observed: ObservedPod) -> ObservedPod:
    """Return the observation with messages from logs where the manifest requires them, each cut to its maximum
    length."""
    every = every_container(pod)
    part = POD_BYTES // max(1, len(every))
    asked = any(c.termination_message_policy == "FallbackToLogsOnError" for c in every)
    if not asked and not any(4 * len(container.message) > part for container in observed.containers):
        return observed
    return replace(
        observed, containers=tuple(_with_message(pod, container, part) for container in observed.containers)
    )


def _with_message(pod: Pod, observed: ObservedContainer, part: int) -> ObservedContainer:
    spec, message = find_container(pod, observed.name), observed.message
    failed = observed.state is ContainerState.EXITED and observed.exit_code != 0 and not message
    if failed and spec is not None and spec.termination_message_policy == "FallbackToLogsOnError":
        message = log_tail(observed.log_path)
    return replace(observed, message=message.encode()[:part].decode(errors="ignore"))


def log_tail(path: str) -> str:
    """Return the text of the last lines of a CRI log; "" if it cannot be read."""
    try:
        # a pod that mounts /var/log may have put a symbolic link or a FIFO there
        with directory_of(path) as directory:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(os.path.basename(path), flags, dir_fd=directory)
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
