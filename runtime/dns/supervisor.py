"""The supervisor: holds the DNS server's sockets, forks the server, and forks it again when it ends.

    python -c … DIRECTORY ADDRESS…      every address with port 53, unless it ends with #PORT

DIRECTORY belongs to one node: a lock in it makes the supervisor the only one, and holds its pid. Standard output gets
one line: `ready`, or a sentence that says what failed. A query that arrives while no server runs waits in its socket.

The server is a fork, not a program of its own, so that it answers milliseconds later; it gives up root for good. This
process is single-threaded and does nothing but wait. It leaves on SIGTERM, and its server with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from runtime import syscalls

LOCK, CONTROL = "lock", "control.sock"
PORT = 53
UNPRIVILEGED = 65534  # nobody and nogroup
SO_RCVBUFFORCE = 33  # asm-generic/socket.h: past net.core.rmem_max
BACKLOG = 128
BUFFER = 1 << 20  # bytes of queries that wait in a socket
FIRST, LAST = 0.02, 5.0  # seconds between two servers of which the first ended at once
STEADY = 10.0  # seconds after which a server's end is no longer one "at once"
DESCRIPTORS = 4096
RECORD_TYPES = {
    "IN": "A AAAA HTTPS NAPTR SRV SVCB",
    "ANY": "CAA CNAME DNAME DNSKEY DS MX NS NSEC NSEC3 OPT PTR RRSIG SOA TLSA TXT",
}
PATIENCE = 2.0  # seconds for a server to end after SIGTERM


@dataclass(frozen=True, slots=True)
class Sockets:
    """What the server answers on. `directory`: a descriptor of the zone file's directory."""

    udp: tuple[socket.socket, ...]
    tcp: tuple[socket.socket, ...]
    control: socket.socket
    directory: int


def main(directory: str, addresses: Sequence[str]) -> int:
    """Run until SIGTERM. Returns 1 if a socket cannot be had."""
    try:
        with contextlib.ExitStack() as stack:
            lock = _locked(directory, stack)
            sockets = _bound(directory, addresses, stack)
            _preload()
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n{' '.join(addresses)}\n".encode())
            _say("ready")
            _supervise(sockets)
    except OSError as error:
        _say(f"the DNS server cannot start: {error}")
        return 1
    return 0


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())
        os.dup2(2, 1)  # whoever reads the line waits for its end


def _locked(directory: str, stack: contextlib.ExitStack) -> int:
    fd = os.open(f"{directory}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(errno.EBUSY, "another supervisor holds the lock", f"{directory}/{LOCK}") from error
    return fd


def _bound(directory: str, addresses: Sequence[str], stack: contextlib.ExitStack) -> Sockets:
    udp: list[socket.socket] = []
    tcp: list[socket.socket] = []
    for text in addresses:
        address, _, number = text.partition("#")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind, sockets in ((socket.SOCK_DGRAM, udp), (socket.SOCK_STREAM, tcp)):
            sock = stack.enter_context(socket.socket(family, kind | socket.SOCK_CLOEXEC))
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            # the address is the bridge's, which may be set up anew at any time
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_FREEBIND", 15), 1)
            try:
                sock.bind((address, int(number or PORT)))
            except OSError as error:
                name = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
                raise OSError(error.errno, f"{name} {text}: {os.strerror(error.errno or 0)}") from error
            if kind == socket.SOCK_STREAM:
                sock.listen(BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
    control = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
    path = f"{directory}/{CONTROL}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a supervisor that was killed; the lock says that it is gone
    control.bind(path)
    os.chmod(path, 0o600)
    control.listen(BACKLOG)
    control.setblocking(False)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return Sockets(tuple(udp), tuple(tcp), control, fd)


def _preload() -> None:
    """Import what the server needs, with the record types that dnspython imports when it meets them: the server may be
    unable to read the modules' files, and starts without reading any."""
    importlib.import_module("runtime.dns.server")
    for room, kinds in RECORD_TYPES.items():
        for kind in kinds.split():
            importlib.import_module(f"dns.rdtypes.{room}.{kind}")
    importlib.import_module("encodings.idna")
    gc.collect()
    gc.freeze()  # pages that the fork shares stay shared


class _Ended(Exception):
    """SIGTERM arrived."""


def _supervise(sockets: Sockets) -> None:
    """Fork servers until SIGTERM."""
    server = 0

    def end(_number: int, _frame: object) -> None:
        raise _Ended

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    delay = FIRST
    try:
        signal.signal(signal.SIGTERM, end)
        while True:
            began = time.monotonic()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            parent = os.getpid()
            server = os.fork()
            if server == 0:
                os._exit(_become_server(sockets, parent))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            _, status = os.waitpid(server, 0)
            server = 0
            _complain(os.waitstatus_to_exitcode(status))
            if time.monotonic() - began > STEADY:
                delay = FIRST
            time.sleep(delay)
            delay = min(delay * 2, LAST)
    except _Ended:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if server:
            _end(server)


def _end(server: int) -> None:
    """SIGTERM, and SIGKILL to a server that does not end."""
    fd = os.pidfd_open(server)
    os.kill(server, signal.SIGTERM)
    if not select.select([fd], [], [], PATIENCE)[0]:
        os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
    os.close(fd)


def _complain(code: int) -> None:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    sys.stderr.write(f"the DNS server ended ({how}) and is started again\n")
    sys.stderr.flush()


def _become_server(sockets: Sockets, parent: int) -> int:
    """In the fork: give up root, and serve."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    from runtime.dns.server import serve

    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setgroups([])
    os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # after setresuid, which clears it
    if os.getppid() != parent:
        return 1
    serve(sockets.udp, sockets.tcp, sockets.control, sockets.directory)
    return 0
