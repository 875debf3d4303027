"""Opens sessions in a running pod: a program (exec), a container's input and output (attach), a TCP connection."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
from typing import TYPE_CHECKING

from kubelite.kube.json import Json
from kubelite.node.cri.commands import exec_process
from kubelite.node.cri.exec_session import Session
from kubelite.node.cri.local import LocalCri
from kubelite.node.model.cri import ObservedContainer
from runtime.errors import StateError
from runtime.shim.protocol import ExecRequest

if TYPE_CHECKING:
    from kubelite.node.cri.attach_session import Attached

CONNECTING = 10.0  # seconds for a connection to a port of a pod


async def open_exec(
    cri: LocalCri,
    pod: Json,
    container: str,
    command: list[str],
    *,
    stdin: bool,
    tty: bool,
    width: int,
    height: int,
) -> Session:
    """Start a program. Raises StateError if the container does not run, StartError if it cannot be executed."""
    observed = await _running(cri, pod, container)
    request = ExecRequest(
        container_id=observed.id, exec_id=secrets.token_hex(16), tty=tty, width=width, height=height, stdin=stdin,
        process=exec_process(observed.bundle, command, tty=tty), ends_with_client=True,
    )  # fmt: skip
    return await Session.open(cri.run_dir(pod["metadata"]["uid"]), request)


async def open_attach(cri: LocalCri, pod: Json, container: str, *, stdin: bool) -> Attached:
    """Attach to a container. Raises StateError if it does not run."""
    from kubelite.node.cri.attach_session import Attached  # imported on first use

    observed = await _running(cri, pod, container)
    parts = ("containers", "initContainers", "ephemeralContainers")
    spec = next(c for part in parts for c in pod["spec"].get(part) or () if c["name"] == container)
    wishes = {"once": bool(spec.get("stdinOnce")), "tty": bool(spec.get("tty"))}
    return await Attached.open(cri.run_dir(pod["metadata"]["uid"]), observed.id, stdin=stdin, **wishes)


async def _running(cri: LocalCri, pod: Json, container: str) -> ObservedContainer:
    observed = (await cri.observe(pod["metadata"]["uid"])).latest(container)
    if observed is None or observed.state != "running":
        raise StateError(f"container {container} of pod {pod['metadata']['name']} is not running")
    return observed


async def connect(cri: LocalCri, uid: str, port: int) -> socket.socket:
    """Return a non-blocking socket that is connected to a port of the pod's loopback interface, with IPv4 or else IPv6,
    as kubelet does. The pod's shim makes the socket, in the pod's network namespace; nothing here enters that.

    Raises OSError, NotFoundError (the pod has no running sandbox), RuntimeFault (UnknownOp: the shim of a pod that an
    earlier version started cannot do it)."""
    shim = await cri.client(uid)
    first: OSError | None = None
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        found = socket.socket(fileno=await shim.socket(family))
        with contextlib.ExitStack() as undo:
            undo.callback(found.close)
            found.setblocking(False)
            try:
                async with asyncio.timeout(CONNECTING):
                    await asyncio.get_running_loop().sock_connect(found, (address, port))
            except OSError as error:  # TimeoutError is one, too
                first = first or error
                continue
            undo.pop_all()
            return found
    assert first is not None
    number = first.errno or errno.ETIMEDOUT
    raise OSError(number, os.strerror(number))
