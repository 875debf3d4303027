"""RUN --mount=type=ssh: an agent's socket inside, whose connections go to the agent outside.

A socket of its own rather than a bind of the agent's: an agent answers its own user alone (SO_PEERCRED), and the
mount's owner and mode are not the agent's.
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
    """A socket at `path` for as long as this is held; it and every connection end with it."""
    over, waker = os.pipe2(os.O_CLOEXEC)
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            short = f"/proc/self/fd/{directory}/{os.path.basename(path)}"  # sun_path has 108 bytes
            listener.bind(short)
            os.chmod(short, mode)
            os.chown(short, uid, gid)
            listener.listen()
            thread = threading.Thread(target=_serve, args=(listener, agent, over), name="ssh-agent")
            thread.start()
            try:
                yield
            finally:
                os.close(waker)
                waker = -1
                thread.join()
    finally:
        os.close(directory)
        os.close(over)
        if waker >= 0:
            os.close(waker)


def _serve(listener: socket.socket, agent: str, over: int) -> None:
    threads: list[threading.Thread] = []
    while not _waited(listener.fileno(), over):
        with suppress(OSError):
            inside, _ = listener.accept()
            threads.append(threading.Thread(target=_connect, args=(inside, agent, over)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _waited(fd: int, over: int) -> bool:
    """Until `fd` can be read; true when it is all over instead."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(over, select.POLLIN)
    return any(ready == over for ready, _ in poll.poll())


def _connect(inside: socket.socket, agent: str, over: int) -> None:
    with inside, suppress(OSError), socket.socket(socket.AF_UNIX) as outside:
        for end in (inside, outside):  # one that takes nothing any more does not hold the build's end up
            end.settimeout(_PATIENCE)
        outside.connect(agent)
        to = {inside.fileno(): (inside, outside), outside.fileno(): (outside, inside)}
        poll = select.poll()
        for fd in (*to, over):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == over:
                    return
                source, target = to[fd]
                data = source.recv(_CHUNK)
                if not data:
                    return
                target.sendall(data)
