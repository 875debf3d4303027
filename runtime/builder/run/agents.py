"""RUN --mount=type=ssh: a socket inside the container, forwarded to an ssh agent outside.

The agent's own socket is not bind-mounted: an agent serves only its own user (SO_PEERCRED), and the mount has an owner
and mode of its own.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 1 << 16
_PATIENCE = 30.0  # seconds


@contextmanager
def forwarded(path: str, agent: str, *, uid: int, gid: int, mode: int) -> Iterator[None]:
    """Serve a socket at `path` while the context lasts. Its end closes the socket and every connection. Raises
    OSError."""
    ended, waker = os.pipe2(os.O_CLOEXEC)
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            short = f"/proc/self/fd/{directory}/{os.path.basename(path)}"  # sun_path holds only 108 bytes
            listener.bind(short)
            os.chmod(short, mode)
            os.chown(short, uid, gid)
            listener.listen()
            thread = threading.Thread(target=_serve, args=(listener, agent, ended), name="ssh-agent")
            thread.start()
            try:
                yield
            finally:
                os.close(waker)
                waker = -1
                thread.join()
    finally:
        os.close(directory)
        os.close(ended)
        if waker >= 0:
            os.close(waker)


def _serve(listener: socket.socket, agent: str, ended: int) -> None:
    threads: list[threading.Thread] = []
    while not _wait(listener.fileno(), ended):
        with suppress(OSError):
            inside, _ = listener.accept()
            threads.append(threading.Thread(target=_connect, args=(inside, agent, ended)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _wait(fd: int, ended: int) -> bool:
    """Wait until `fd` is readable. True if forwarding has ended instead."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(ended, select.POLLIN)
    return any(ready == ended for ready, _ in poll.poll())


def _connect(inside: socket.socket, agent: str, ended: int) -> None:
    with inside, suppress(OSError), socket.socket(socket.AF_UNIX) as outside:
        for end in (inside, outside):  # a stuck peer must not delay the end of the build
            end.settimeout(_PATIENCE)
        outside.connect(agent)
        to = {inside.fileno(): (inside, outside), outside.fileno(): (outside, inside)}
        poll = select.poll()
        for fd in (*to, ended):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == ended:
                    return
                source, target = to[fd]
                data = source.recv(_CHUNK)
                if not data:
                    return
                target.sendall(data)
