"""The user of a container: the image's USER and the manifest's runAs… fields, with the image's passwd(5) and
group(5)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from kubelite.node.model.errors import ConfigError, CreateError
from manifests.types.core import Container, Pod

_T = TypeVar("_T")
MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ResolvedUser:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()  # supplementary, sorted


def with_own_users(pod: Pod) -> Pod:
    """The pod with `hostUsers: false`, unless it sets the field or needs the host's users: for the host's namespaces,
    devices or files, or as a privileged container."""
    spec = pod.spec
    host = spec.host_users is not None or spec.host_network or spec.host_pid or spec.host_ipc
    files = any(one.host_path is not None or one.nfs is not None for one in spec.volumes)
    containers = [*spec.init_containers, *spec.containers]
    needy = any(
        one.volume_devices or (one.security_context and one.security_context.privileged) for one in containers
    )
    if host or files or needy:
        return pod
    return pod.model_copy(update={"spec": spec.model_copy(update={"host_users": False})})


def resolve_user(pod: Pod, container: Container, image_user: str, accounts: Accounts) -> ResolvedUser:
    """The uid, gid and supplementary groups. With supplementalGroupsPolicy Strict, the memberships in the image's
    group(5) are ignored. Raises ConfigError (runAsNonRoot) and CreateError (no such user)."""
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
    name, _, group = (str(uid) if uid is not None else image_user).partition(":")
    found = accounts.user(name or "0")
    if non_root and found.uid == 0:  # the image's passwd may give uid 0 to any name
        raise ConfigError(f"container has runAsNonRoot and image will run as root {_where(pod, container)}")
    primary = gid if gid is not None else accounts.group(group) if group else found.gid
    groups = extra | (accounts.memberships(found.name) if not group and not strict else set())
    return ResolvedUser(found.uid, primary, tuple(sorted(groups)))


def check_non_root(pod: Pod, container: Container, uid: int | None, image_user: str) -> None:
    """kubelet's verifyRunAsNonRoot (Kubernetes pkg/kubelet/kuberuntime/security_context.go)."""
    where = _where(pod, container)
    if uid is not None:
        if uid == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    name = image_user.partition(":")[0]
    number = _number(name)
    if not name or number == 0:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if number is None:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({name}), "
            f"cannot verify user is non-root {where}"
        )


def _where(pod: Pod, container: Container) -> str:
    return f'(pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})", container: {container.name})'


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts in the image's passwd and group files."""

    users: tuple[User, ...]
    groups: tuple[tuple[str, int, tuple[str, ...]], ...]

    def user(self, wanted: str) -> User:
        """The user with this number (gid 0 if it is not listed), or with this name (which must be listed)."""
        number = _number(wanted)
        for user in self.users:
            if user.uid == number if number is not None else user.name == wanted:
                return user
        if number is None:
            raise CreateError(f"unable to find user {wanted}: no matching entries in passwd file")
        return User("", number, 0)

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
    """A uid or gid; None for a name. Digits are never a name, because an image's passwd could give that name any uid.
    Raises CreateError if the number is out of range."""
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > len(str(MAX_ID)) or int(text) > MAX_ID:
        raise CreateError(f"uids and gids must be in range 0-{MAX_ID}: {text[:40]}")
    return int(text)


def _listed(text: str) -> int | None:
    """A uid or gid in passwd or group; None if it is invalid, in which case its line is ignored."""
    with contextlib.suppress(CreateError):
        return _number(text)
    return None


def accounts_of(passwd: bytes, group: bytes) -> Accounts:
    """The accounts in the content of an image's passwd and group files. Malformed lines are skipped."""
    users = []
    for fields in _records(passwd, 4):
        uid, gid = _listed(fields[2]), _listed(fields[3])
        if uid is not None and gid is not None:
            users.append(User(fields[0], uid, gid))
    groups = []
    for fields in _records(group, 3):
        number = _listed(fields[2])
        if number is not None:
            members = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            groups.append((fields[0], number, members))
    return Accounts(tuple(users), tuple(groups))


def _records(content: bytes, least: int) -> Iterator[list[str]]:
    for line in content.decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) >= least and not line.startswith("#"):
            yield fields
