"""Send the listener of a filter with SCMP_ACT_NOTIFY to a seccomp agent (config-linux.md, "The Container Process
State").

Each filtered process gets one connection, over which its state and the listener's descriptor are sent.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SyscallError

_SECONDS: Final = 10.0  # for an agent that listens but does not accept
_ADDRESS_MAX: Final = 107  # bytes of a path in struct sockaddr_un


def tell(
    profile: Mapping[str, Any], state: Mapping[str, Any], *, pid: int, pidfd: int, listener: int
) -> None:
    """Send `listener`, a descriptor of the process `pid`, to the agent.

    Raises SyscallError if no agent accepts it, CapabilityError if the listener cannot be fetched from the process.
    """
    try:
        fd = sc.pidfd_getfd(pidfd, listener)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        raise CapabilityError(
            "linux.seccomp: SCMP_ACT_NOTIFY needs CAP_SYS_PTRACE to fetch the listener for the agent"
        ) from error
    try:
        _send(profile["listenerPath"], fd, json.dumps(process_state(profile, state, pid)).encode())
    finally:
        os.close(fd)


def process_state(profile: Mapping[str, Any], state: Mapping[str, Any], pid: int) -> dict[str, Any]:
    """The state that is sent to the agent with the descriptor (runtime-spec config-linux.md,
    "containerProcessState")."""
    said: dict[str, Any] = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid}
    if metadata := profile.get("listenerMetadata"):
        said["metadata"] = metadata
    return {**said, "state": dict(state)}


def _send(path: str, fd: int, text: bytes) -> None:
    directory, name = os.path.split(path)
    parent = -1
    try:
        if len(os.fsencode(path)) > _ADDRESS_MAX:
            parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            path = f"/proc/self/fd/{parent}/{name}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(_SECONDS)
            agent.connect(path)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
            sent = agent.sendmsg([text], [rights])
            if sent < len(text):  # the descriptor was sent with the first part
                agent.sendall(text[sent:])
    except OSError as error:
        raise SyscallError(
            error.errno or errno.ETIMEDOUT,
            "connect",
            f"failed to connect with seccomp agent {directory}/{name}",
        ) from error
    finally:
        if parent >= 0:
            os.close(parent)
