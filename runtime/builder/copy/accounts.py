"""User and group names, resolved by the image's own passwd(5) and group(5)."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.builder.copy.copying import Owner
from runtime.builder.overlay import read_file


class AccountError(ValueError):
    """A user or group that the image does not have."""


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class Accounts:
    users: tuple[tuple[str, int, int, str], ...]  # name, uid, gid, home
    groups: tuple[tuple[str, int, tuple[str, ...]], ...]

    def user(self, text: str) -> User:
        """Resolve USER: `name`, `uid`, `name:group`, … A number need not be listed. The group is also a supplementary
        group, as in containerd: a program must not gain access by dropping its supplementary groups (CVE-2022-36109).
        Raises AccountError."""
        name, _, group = text.partition(":")
        uid, gid, home, known = self._find(name or "0")
        if group:
            number = self._group(group)
            return User(uid, number, (number,), home)
        extra = sorted({number for _, number, members in self.groups if known and known in members} - {gid})
        return User(uid, gid, (gid, *extra), home)

    def owner(self, text: str) -> Owner:
        """Resolve --chown. A user given by number without a group gets the group of the same number, as in docker.
        Raises AccountError."""
        name, _, group = text.partition(":")
        uid, gid, _, _ = self._find(name or "0")
        if group:
            return Owner(uid, self._group(group))
        return Owner(uid, uid if name.isdigit() else gid)

    def _find(self, name: str) -> tuple[int, int, str, str]:
        for known, uid, gid, home in self.users:
            if (name.isdigit() and int(name) == uid) or name == known:
                return uid, gid, home or "/", known
        if name.isdigit() and int(name) < 1 << 32:
            return int(name), 0, "/root" if int(name) == 0 else "/", ""
        raise AccountError(f"the image's /etc/passwd has no user {name}")

    def _group(self, name: str) -> int:
        if name.isdigit() and int(name) < 1 << 32:
            return int(name)
        for known, gid, _ in self.groups:
            if known == name:
                return gid
        raise AccountError(f"the image's /etc/group has no group {name}")


def read(root: int) -> Accounts:
    """Read the accounts of the image whose root is open as `root`. Invalid lines are skipped."""
    users, groups = [], []
    for fields in _lines(read_file(root, "etc/passwd")):
        if len(fields) > 5 and fields[2].isdigit() and fields[3].isdigit():
            users.append((fields[0], int(fields[2]), int(fields[3]), fields[5]))
    for fields in _lines(read_file(root, "etc/group")):
        if len(fields) > 2 and fields[2].isdigit():
            members = tuple(filter(None, fields[3].split(","))) if len(fields) > 3 else ()
            groups.append((fields[0], int(fields[2]), members))
    return Accounts(tuple(users), tuple(groups))


def _lines(content: bytes) -> list[list[str]]:
    return [line.split(":") for line in content.decode(errors="replace").splitlines()]
