"""Bind mounts (config.md "Mounts") of host paths and of paths in the container's own root, with their attributes and id
mappings. Needs Linux 5.12 (mount_setattr)."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SpecError, SyscallError
from runtime.oci.rootfs import mount_options

if TYPE_CHECKING:
    from runtime.oci.config.spec import IDMapping
    from runtime.oci.rootfs.root import Root

# Files in /proc that may be covered, as LXCFS does. Any other target in /proc is treated as an attack (runc's list).
_PROC_FILES: Final = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)


class IdMaps(NamedTuple):
    """uidMappings and gidMappings of a mount (config.md, "Mounts")."""

    uids: list[IDMapping]
    gids: list[IDMapping]
    own: bool = False  # the mount's own mappings, not those of the container's user namespace


@dataclass(frozen=True, slots=True)
class BindMount:
    """A bind mount of a file or directory. The clone gets its attributes while it is detached, so it is never visible
    read-write."""

    source: str
    target: str
    options: mount_options.Options
    id_maps: IdMaps | None = None
    tree: int = -1  # the source's mount if already opened: from another user namespace it may be unreachable
    inside: str = ""  # the source's path in the container's root, resolved when this mount is executed

    def at_home(self, inside: str) -> BindMount:
        """A copy whose source is at `inside` in the container's root. "" means it is elsewhere: no change."""
        if not inside:
            return self
        return BindMount(self.source, self.target, self.options, self.id_maps, inside=inside)

    def opened(self, userns: int = -1) -> BindMount:
        """A copy whose source this process opens now."""
        if self.inside:
            return self
        return BindMount(self.source, self.target, self.options, None, self.open(userns))

    def open(self, userns: int = -1) -> int:
        """A detached mount of the source, with all its attributes. `userns`: a user namespace with the mappings of
        id_maps."""
        tree = self._clone(self._flags)
        try:
            if self.id_maps is not None:
                recursive = self.options.idmap == "ridmap"
                map_ids(tree, self.id_maps, userns, recursive=recursive, about=self.source)
            _set_bind_attributes(tree, self.options, about=self.target)
        except BaseException:
            os.close(tree)
            raise
        return tree

    def _open_inside(self, root: Root) -> int:
        """A detached mount of a source in the container's root.

        The source is opened relative to the root's descriptor, so no link in it can lead to the host. Id-mapping needs
        a privilege that we lack in a user namespace, so the parent does it.
        """
        found = root.open(self.inside)
        try:
            tree = sc.open_tree(found, "", self._flags | sc.AT_EMPTY_PATH)
        finally:
            os.close(found)
        try:
            if self.id_maps is not None:
                wanted = {
                    "maps": [self.id_maps.uids, self.id_maps.gids],
                    "recursive": self.options.idmap == "ridmap",
                }
                root.map_ids(tree, {**wanted, "about": self.source})
            _set_bind_attributes(tree, self.options, about=self.target)
        except BaseException:
            os.close(tree)
            raise
        return tree

    @property
    def _flags(self) -> int:
        return sc.OPEN_TREE_CLONE | (sc.AT_RECURSIVE if self.options.flags & sc.MS_REC else 0)

    def describe(self) -> str:
        return f"bind {self.source} on {self.target}"

    def execute(self, root: Root) -> None:
        tree = self._mounted(root)
        try:
            target = root.make(self.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
            self._check_outside_proc(tree, target)
            sc.attach_mount(tree, target, about=self.describe())
            os.close(target)
        finally:
            os.close(tree)

    def _mounted(self, root: Root) -> int:
        if self.inside:
            return self._open_inside(root)
        return self.tree if self.tree >= 0 else self.open()

    def _clone(self, flags: int) -> int:
        """A clone of the source's mount.

        With x-beneath, the kernel ensures that the path stays in that directory at the moment it is opened. A container
        that shares the directory cannot swap in a link (CVE-2017-1002101).
        """
        if not self.options.beneath:
            return sc.open_tree(sc.AT_FDCWD, self.source, flags)
        base = os.open(self.options.beneath, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = os.path.relpath(self.source, self.options.beneath)
            found = sc.openat2(base, path, os.O_PATH, resolve=sc.RESOLVE_BENEATH | sc.RESOLVE_NO_MAGICLINKS)
        finally:
            os.close(base)
        try:
            return sc.open_tree(found, "", flags | sc.AT_EMPTY_PATH)
        finally:
            os.close(found)

    def _check_outside_proc(self, tree: int, target: int) -> None:
        if sc.fstatfs_type(target) != sc.PROC_SUPER_MAGIC or os.path.normpath(self.target) in _PROC_FILES:
            return
        if os.path.normpath(self.target) == "/proc" and sc.fstatfs_type(tree) == sc.PROC_SUPER_MAGIC:
            return
        raise SpecError("it cannot be mounted because it is inside /proc")  # `describe` adds the paths


def map_ids(tree: int, maps: IdMaps, userns: int = -1, *, recursive: bool, about: str) -> None:
    """Id-map a detached mount (mount_setattr(2)). `userns`: a user namespace with these mappings; -1, or the mount's
    own mappings: create one."""
    from runtime.oci.rootfs import idmap

    made = idmap.namespace(maps.uids, maps.gids) if userns < 0 or maps.own else -1
    try:
        flags = sc.AT_EMPTY_PATH | (sc.AT_RECURSIVE if recursive else 0)
        sc.mount_setattr(
            tree, "", flags, sc.MOUNT_ATTR_IDMAP, userns_fd=made if made >= 0 else userns,
            about=f"{about} (id-mapped)",
        )  # fmt: skip
    finally:
        if made >= 0:
            os.close(made)


def set_attributes(mount_fd: int, options: mount_options.Options, *, about: str) -> None:
    """Apply the options to an open mount with mount_setattr(2): its own attributes, recursive attributes,
    propagation."""
    add, drop = options.attrs
    if add or drop:
        sc.mount_setattr(mount_fd, "", sc.AT_EMPTY_PATH, add, drop, about=about)
    _set_further_attributes(mount_fd, options, about=about)


def _set_bind_attributes(mount_fd: int, options: mount_options.Options, *, about: str) -> None:
    """Apply the options to the clone of a bind's source. Raises CapabilityError if they ask for a flag to be cleared
    that is locked.

    A mount that came from a more privileged user namespace has its flags locked (mount_namespaces(7)): they stay, as
    with runc, unless an option explicitly asks for the opposite.
    """
    add, drop = options.bind_attrs
    if add or drop:
        try:
            sc.mount_setattr(mount_fd, "", sc.AT_EMPTY_PATH, add, drop, about=about)
        except SyscallError as error:
            if error.errno != errno.EPERM:
                raise
            flags = os.fstatvfs(mount_fd).f_flag
            if refused := mount_options.locked(options, flags):
                raise CapabilityError(
                    f"{about}: the source is mounted {','.join(refused)}, which a user namespace cannot change"
                ) from error
            drop &= ~mount_options.inherited(flags)
            sc.mount_setattr(mount_fd, "", sc.AT_EMPTY_PATH, add, drop, about=about)
    _set_further_attributes(mount_fd, options, about=about)


def _set_further_attributes(mount_fd: int, options: mount_options.Options, *, about: str) -> None:
    if options.recursive_set or options.recursive_clear:
        flags = sc.AT_EMPTY_PATH | sc.AT_RECURSIVE
        sc.mount_setattr(mount_fd, "", flags, options.recursive_set, options.recursive_clear, about=about)
    for kind in options.propagation:
        flags = sc.AT_EMPTY_PATH | (sc.AT_RECURSIVE if kind & sc.MS_REC else 0)
        sc.mount_setattr(mount_fd, "", flags, propagation=kind & ~sc.MS_REC, about=about)
