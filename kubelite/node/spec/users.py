"""Who a container runs as: the image's USER and the manifest's runAs… against the image's own passwd(5) and group(5).

The files are looked up in the image's layer directories (topmost first), as overlayfs would show them: whiteouts hide,
opaque directories cut, symbolic links are followed inside the image only. Nothing outside a layer can be reached: every
step is one openat(2) of one name without following links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from kubelite.node.model.errors import ConfigError, CreateError
from manifests.types.core import Container, Pod

_T = TypeVar("_T")
MAX_FILE = 1 << 20  # bytes of passwd or group that are read
MAX_LINKS = 40
MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ResolvedUser:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()  # supplementary, sorted


def resolve_user(pod: Pod, container: Container, image_user: str, layers: Sequence[str]) -> ResolvedUser:
    """uid, gid and supplementary groups; with supplementalGroupsPolicy Strict none that only the image names. Raises
    ConfigError (runAsNonRoot) and CreateError (no such user)."""
    own, shared = container.security_context, pod.spec.security_context
    uid = _first(own.run_as_user if own else None, shared.run_as_user if shared else None)
    gid = _first(own.run_as_group if own else None, shared.run_as_group if shared else None)
    non_root = _first(own.run_as_non_root if own else None, shared.run_as_non_root if shared else None)
    if non_root:
        check_non_root(pod, container, uid, image_user)
    strict = shared is not None and shared.supplemental_groups_policy == "Strict"
    extra = set(shared.supplemental_groups) if shared else set()
    if shared is not None and shared.fs_group is not None:
        extra.add(shared.fs_group)
    if (
        uid is None
        and gid is None
        and not extra
        and not strict
        and image_user in ("", "0", "root", "0:0", "root:root")
    ):
        return _image_root(tuple(layers))
    name, _, group = (str(uid) if uid is not None else image_user).partition(":")
    accounts = _accounts(tuple(layers))
    found = accounts.user(name or "0")
    primary = gid if gid is not None else accounts.group(group) if group else found.gid
    groups = extra | (accounts.memberships(found.name) if not group and not strict else set())
    return ResolvedUser(found.uid, primary, tuple(sorted(groups)))


@lru_cache(maxsize=64)
def _image_root(layers: tuple[str, ...]) -> ResolvedUser:
    accounts = _accounts(layers)
    found = accounts.user("0")
    return ResolvedUser(0, found.gid, tuple(sorted(accounts.memberships(found.name))))


def check_non_root(pod: Pod, container: Container, uid: int | None, image_user: str) -> None:
    """kubelet's verifyRunAsNonRoot (K kuberuntime/security_context.go)."""
    where = f'(pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})", container: {container.name})'
    if uid is not None:
        if uid == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    name = image_user.partition(":")[0]
    if not name or (name.isdigit() and int(name) == 0):
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if not name.isdigit():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({name}), "
            f"cannot verify user is non-root {where}"
        )


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Accounts:
    """The image's passwd and group."""

    users: tuple[_User, ...]
    groups: tuple[tuple[str, int, tuple[str, ...]], ...]

    def user(self, wanted: str) -> _User:
        """By number (which need not be listed: gid 0 then) or by name (which must be)."""
        number = _number(wanted)
        for user in self.users:
            if user.uid == number if number is not None else user.name == wanted:
                return user
        if number is None:
            raise CreateError(f"unable to find user {wanted}: no matching entries in passwd file")
        return _User("", number, 0)

    def group(self, wanted: str) -> int:
        number = _number(wanted)
        if number is not None:
            return number
        for name, gid, _ in self.groups:
            if name == wanted:
                return gid
        raise CreateError(f"unable to find group {wanted}: no matching entries in group file")

    def memberships(self, name: str) -> set[int]:
        return {gid for _, gid, members in self.groups if name and name in members}


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() and int(text) <= MAX_ID else None


@lru_cache(maxsize=64)
def _accounts(layers: tuple[str, ...]) -> _Accounts:
    users = []
    for fields in _records(read_in_layers(layers, "etc/passwd"), 4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            users.append(_User(fields[0], uid, gid))
    groups = []
    for fields in _records(read_in_layers(layers, "etc/group"), 3):
        number = _number(fields[2])
        if number is not None:
            members = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            groups.append((fields[0], number, members))
    return _Accounts(tuple(users), tuple(groups))


def _records(content: bytes, least: int) -> Iterator[list[str]]:
    for line in content.decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) >= least and not line.startswith("#"):
            yield fields


def read_in_layers(layers: Sequence[str], path: str) -> bytes:
    """A regular file of the image as overlayfs would show it; b"" when there is none."""
    parts = [part for part in path.split("/") if part]
    for _ in range(MAX_LINKS):
        found = _lookup(layers, parts)
        if isinstance(found, bytes):
            return found
        parts = found
    return b""


def _lookup(layers: Sequence[str], parts: list[str]) -> bytes | list[str]:
    """The file's content, or the path to go on with after a symbolic link."""
    with contextlib.ExitStack() as stack:
        merged = [_open(stack, None, layer) for layer in layers]
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            below: list[int] = []
            for directory in merged:
                found = _stat(directory, part)
                if found is None:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    if last:
                        return b""
                    below.append(_open(stack, directory, part))
                    if _is_opaque(below[-1]):
                        break
                    continue
                if below or _is_whiteout(found):
                    break
                if stat.S_ISLNK(found.st_mode):
                    target = os.readlink(part, dir_fd=directory)
                    return _joined(parts[:depth], target, parts[depth + 1 :])
                return _read(directory, part) if last and stat.S_ISREG(found.st_mode) else b""
            if not below:
                return b""
            merged = below
    return b""


def _open(stack: contextlib.ExitStack, directory: int | None, name: str) -> int:
    follow = 0 if directory is None else os.O_NOFOLLOW
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow, dir_fd=directory)
    stack.callback(os.close, fd)
    return fd


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def _joined(before: list[str], target: str, after: list[str]) -> list[str]:
    """The path after a link, resolved inside the image: `..` stops at its root."""
    parts = [] if target.startswith("/") else list(before)
    for part in [*target.split("/"), *after]:
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _read(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb") as file:
        return file.read(MAX_FILE)
