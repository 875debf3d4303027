"""Finds the devices of the host that device plugins pass to containers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from kubelite.node.devices.model import DeviceNode
from kubelite.node.model.errors import CreateError
from kubelite.node.spec.container_spec import HostNode
from kubelite.node.spec.users import ResolvedUser


def host_nodes(wanted: Iterable[DeviceNode], user: ResolvedUser) -> list[HostNode]:
    """Return the devices. Their owner is the container's user if that is not root, because it could not open them
    otherwise. A directory stands for all devices below it. Raises CreateError."""
    return [HostNode(node, one.access or "rwm", host) for one in wanted for host, node in _nodes(one, user)]


def _nodes(one: DeviceNode, user: ResolvedUser) -> Iterator[tuple[str, dict[str, Any]]]:
    if "\0" in one.host_path:  # the functions of os raise ValueError
        raise CreateError(f"device {one.host_path!r} of a device plugin: the path contains a NUL byte")
    host, path = os.path.realpath(one.host_path), one.path or one.host_path
    try:
        found = os.stat(host)
    except OSError as error:
        raise CreateError(f"device {one.host_path} of a device plugin: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        yield host, _node(path, host, found, user)
        return
    for root, _, names in os.walk(host):
        for name in names:
            below = f"{root}/{name}"
            found = os.lstat(below)
            if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
                yield below, _node(path + below.removeprefix(host), below, found, user)


def _node(path: str, host: str, found: os.stat_result, user: ResolvedUser) -> dict[str, Any]:
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        raise CreateError(f"device {host} of a device plugin: it is neither a device nor a directory")
    owner = (user.uid, user.gid) if user.uid else (found.st_uid, found.st_gid)
    return {
        "type": kind,
        "path": path,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": owner[0],
        "gid": owner[1],
    }
