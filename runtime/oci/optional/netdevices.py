"""linux.netDevices: move host interfaces to the container's network namespace (config-linux.md, "Network Devices").

Each keeps its permanent addresses, is renamed if requested, and is set up. When the namespace ends, the kernel returns
a physical interface to the host and deletes a virtual one; as the specification says, the runtime does not. If create
fails later, the interfaces are moved back. This module speaks rtnetlink(7) itself: the engine imports only the standard
library, and four message types suffice.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final, NamedTuple

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SpecError, SyscallError

_NEWLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 18, 20, 22
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x400
_ERROR, _DONE = 2, 3
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_PERMANENT: Final = 0x80
_SCOPE_UNIVERSE: Final = 0
_IFF_UP: Final = 1
_KEPT: Final = (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST)


class Address(NamedTuple):
    """An address to move: family and prefix of struct ifaddrmsg, and the raw attributes."""

    family: int
    prefix: int
    attributes: tuple[tuple[int, bytes], ...]


class Link(NamedTuple):
    number: int  # ifindex
    flags: int
    name: str


class Netlink:
    """A NETLINK_ROUTE socket in one network namespace. The caller calls close()."""

    def __init__(self, netns: int | None = None, own: int = -1) -> None:
        """Open a socket in `netns`. The (single-threaded) caller enters it briefly and returns to `own`."""
        if netns is not None:
            sc.setns(netns, sc.CLONE_NEWNET, about="network namespace of the container")
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._socket.bind((0, 0))
        finally:
            if netns is not None:
                sc.setns(own, sc.CLONE_NEWNET, about="own network namespace")
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def links(self) -> dict[str, Link]:
        """All interfaces, by name."""
        found = {}
        for body in self._dump(_GETLINK, bytes(16)):
            index, flags = struct.unpack_from("=4xiI", body)
            name = dict(_attributes(body[16:]))[_IFLA_IFNAME].rstrip(b"\0").decode()
            found[name] = Link(index, flags, name)
        return found

    def addresses(self, index: int) -> list[Address]:
        """The interface's permanent addresses of global scope."""
        found = []
        for body in self._dump(_GETADDR, bytes(8)):
            family, prefix, flags, scope, of = struct.unpack_from("=BBBBi", body)
            attributes = dict(_attributes(body[8:]))
            if _IFA_FLAGS in attributes:
                (flags,) = struct.unpack_from("=I", attributes[_IFA_FLAGS])
            if of == index and scope == _SCOPE_UNIVERSE and flags & _IFA_F_PERMANENT:
                kept = tuple((kind, value) for kind, value in attributes.items() if kind in _KEPT)
                found.append(Address(family, prefix, kept))
        return found

    def give(self, link: Link, netns: int, name: str) -> None:
        """Move the interface to another namespace and rename it, in one request."""
        attributes = _pack(_IFLA_NET_NS_FD, struct.pack("=i", netns)) + _pack(
            _IFLA_IFNAME, name.encode() + b"\0"
        )
        self._ask(_NEWLINK, _link(link.number, 0, 0) + attributes, about=f"{link.name} to {name}")

    def up(self, link: Link) -> None:
        self._ask(_NEWLINK, _link(link.number, _IFF_UP, _IFF_UP), about=f"{link.name} up")

    def add(self, link: Link, address: Address) -> None:
        head = struct.pack(
            "=BBBBi", address.family, address.prefix, _IFA_F_PERMANENT, _SCOPE_UNIVERSE, link.number
        )
        body = head + b"".join(_pack(kind, value) for kind, value in address.attributes)
        self._ask(_NEWADDR, body, _CREATE | _REPLACE, about=f"address of {link.name}")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST, self._sequence, 0)
        self._socket.send(head + body)

    def _ask(self, kind: int, body: bytes, flags: int = 0, *, about: str) -> None:
        self._send(kind, flags | _ACK, body)
        for of, answer in self._answers():
            if of == _ERROR:
                (code,) = struct.unpack_from("=i", answer)
                if code:
                    raise SyscallError(-code, "rtnetlink", about)
                return

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._send(kind, _DUMP, body)
        for of, answer in self._answers():
            if of == _DONE:
                return
            if of == _ERROR:
                raise SyscallError(-struct.unpack_from("=i", answer)[0], "rtnetlink", "dump")
            yield answer

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        while True:
            data, at = self._socket.recv(1 << 17), 0
            while at + 16 <= len(data):
                size, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, at)
                if sequence == self._sequence:
                    yield kind, data[at + 16 : at + size]
                at += size + -size % 4


def _link(index: int, flags: int, change: int) -> bytes:
    """struct ifinfomsg."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def _pack(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + b"\0" * (-size % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += size + -size % 4


def move(devices: Mapping[str, Mapping[str, str]], pid: int, *, undo: ExitStack, always: ExitStack) -> None:
    """Move the interfaces to the network namespace of `pid`.

    SpecError if one does not exist or its name is taken in the container. `always` must end after `undo`.
    """
    if os.geteuid() != 0:
        raise CapabilityError("linux.netDevices: only root can move host interfaces")
    theirs, ours = (_opened(f"/proc/{who}/ns/net", always) for who in (pid, "self"))
    with ExitStack() as sockets:
        if os.fstat(theirs).st_ino == os.fstat(ours).st_ino:
            raise SpecError("linux.netDevices: the container is in the host's network namespace")
        host, inside = Netlink(), Netlink(theirs, ours)
        sockets.callback(host.close)
        sockets.callback(inside.close)
        for name, wanted in devices.items():
            _move_one(host, inside, (name, wanted.get("name") or name), theirs, undo)


def _opened(path: str, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _move_one(host: Netlink, inside: Netlink, names: tuple[str, str], netns: int, undo: ExitStack) -> None:
    name, new = names
    field = f"linux.netDevices.{name}"
    link = host.links().get(name)
    if link is None:
        raise SpecError(f"{field}: the host has no such interface")
    before = inside.links()
    if new in before:
        raise SpecError(f"{field}.name: the container already has an interface {new}")
    addresses = host.addresses(link.number)
    try:
        host.give(link, netns, new)
    except SyscallError as error:
        if error.errno == errno.EINVAL:  # an interface bound to its namespace, such as a bridge or loopback
            raise SpecError(f"{field}: this interface cannot leave its network namespace") from error
        raise
    moved = next(found for found in inside.links().values() if found.name not in before)
    undo.callback(_give_back, netns=netns, link=link, name=moved.name, addresses=addresses)
    for address in addresses:
        inside.add(moved, address)
    inside.up(moved)


def _give_back(*, netns: int, link: Link, name: str, addresses: list[Address]) -> None:
    """Move an interface back and restore its name, addresses and state, after a failed create."""
    with ExitStack() as always:
        ours = _opened("/proc/self/ns/net", always)
        inside = Netlink(netns, ours)
        always.callback(inside.close)
        inside.give(inside.links()[name], ours, link.name)
        host = Netlink()
        always.callback(host.close)
        back = host.links()[link.name]
        for address in addresses:
            host.add(back, address)
        if link.flags & _IFF_UP:
            host.up(back)
