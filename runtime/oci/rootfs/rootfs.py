"""The container's root file system: plan it in the parent, mount it, and change to it.

`plan` turns config.json into a tuple of operations (`operations.py`) on a root (`root.py`). They run in the container's
own mount namespace, so all mounts end with its last process. `shared_root.py` handles containers without one.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SpecError, SyscallError
from runtime.oci.config.spec import Device, Linux, Mount, Spec, namespaces
from runtime.oci.rootfs import mount_options
from runtime.oci.rootfs.binds import BindMount, IdMaps
from runtime.oci.rootfs.console import Console, ConsolePlace
from runtime.oci.rootfs.operations import (
    CgroupMount,
    DeviceNode,
    DevLinks,
    FsMount,
    MakeDirectory,
    MaskPaths,
    Readonly,
    ReadonlyPath,
)
from runtime.oci.rootfs.root import Operation, Root, proc_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.cgroups.layout import Layout
    from runtime.shim.protocol import RootfsOverlay


# --- the root itself ---


@dataclass(frozen=True, slots=True)
class RootMount:
    """Mounts the root: an overlay of image layers, or the bundle's directory bound on itself (pivot_root(2) needs a
    mount).

    It is not one of the plan's `operations`, because it creates the Root they work on.
    """

    path: str
    propagation: int  # set first on all mounts of the new mount namespace
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    userxattr: bool = False  # in a user namespace overlayfs cannot use trusted.*
    portable: bool = False  # see RootfsOverlay
    tree: int = -1  # already mounted, but not yet attached
    attached: bool = False  # `tree` is already attached

    def describe(self) -> str:
        return f"overlay on {self.path}" if self.lower else f"bind {self.path} as the root"

    def execute(self) -> Root:
        if self.attached:  # in a shared mount namespace: change nothing else in it
            return Root(self.tree)
        sc.mount(None, "/", None, self.propagation)
        if self.tree >= 0:  # attach over "/", the one directory that every user can reach
            sc.move_mount(self.tree, "", sc.AT_FDCWD, "/", sc.MOVE_MOUNT_F_EMPTY_PATH, about=self.describe())
            return Root(self.tree)
        if self.propagation & sc.MS_SHARED:
            _make_parent_private(self.path)  # otherwise the container's root would appear on the host
        fd = self.tree_at(sc.AT_FDCWD, self.path)
        # pivot_root refuses a shared put_old, which is the new root itself here (pivot_root(".", "."))
        sc.mount_setattr(fd, "", sc.AT_EMPTY_PATH, propagation=sc.MS_PRIVATE, about=self.path)
        sc.move_mount(fd, "", sc.AT_FDCWD, self.path, sc.MOVE_MOUNT_F_EMPTY_PATH, about=self.describe())
        return Root(fd)

    def tree_at(self, dirfd: int, path: str = "") -> int:
        """The root's mount, detached: the overlay, or a clone of the directory at `dirfd` and `path` (as in openat(2);
        an empty path is `dirfd` itself)."""
        if self.lower:
            return self._overlay()
        flags = sc.OPEN_TREE_CLONE | sc.AT_RECURSIVE | (0 if path else sc.AT_EMPTY_PATH)
        return sc.open_tree(dirfd, path, flags)

    def in_place(self, tree: int) -> RootMount:
        """A copy for a root that is already mounted in its place."""
        return RootMount(self.path, 0, tree=tree, attached=True)

    def mapped(self, userns: int, root: tuple[int, int]) -> RootMount:
        """A copy mounted by us, with the ids of a user namespace.

        The layers are id-mapped in place, in our own mount namespace. Written files belong to the host ids. `root`:
        host uid and gid of the namespace's root.
        """
        if not self.lower:
            # Unchanged: setting the files' owners is the bundle author's task (config-linux.md, "User namespace
            # mappings").
            tree = sc.open_tree(sc.AT_FDCWD, self.path, sc.OPEN_TREE_CLONE | sc.AT_RECURSIVE)
            sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, propagation=sc.MS_PRIVATE, about=self.path)
            return self._with(tree)
        for layer in self.lower:
            tree = sc.open_tree(sc.AT_FDCWD, layer, sc.OPEN_TREE_CLONE)
            about = f"{layer} (id-mapped)"
            sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_IDMAP, userns_fd=userns, about=about)
            sc.move_mount(tree, "", sc.AT_FDCWD, layer, sc.MOVE_MOUNT_F_EMPTY_PATH, about=about)
            os.close(tree)
        os.chown(self.upper, *root)
        return self._with(self._with(-1)._overlay())

    def _with(self, tree: int) -> RootMount:
        """A copy mounted by the host's root, for which overlayfs uses trusted.* attributes."""
        return RootMount(
            self.path, self.propagation, self.lower, self.upper, self.work, False, self.portable, tree
        )

    def _overlay(self) -> int:
        """Mount with fsconfig(2) and one lowerdir+ per layer (Linux 6.5). This has no limit on the total length of
        paths."""
        context = sc.fsopen("overlay")
        try:
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "source", "overlay")
            for layer in self.lower:
                sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "lowerdir+", layer)
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "upperdir", self.upper)
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "workdir", self.work)
            # The upper layer is deleted with the container and never mounted again after a crash. So unmounting need
            # not wait for a sync of its file system.
            sc.fsconfig(context, sc.FSCONFIG_SET_FLAG, "volatile")
            if self.userxattr:
                sc.fsconfig(context, sc.FSCONFIG_SET_FLAG, "userxattr")
            if self.portable:
                for key in ("redirect_dir", "metacopy", "index"):
                    sc.fsconfig(context, sc.FSCONFIG_SET_STRING, key, "off")
            sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
            return sc.fsmount(context)
        except SyscallError as error:
            said = sc.fs_messages(context)
            if error.errno == errno.EINVAL and error.about.startswith("lowerdir+"):
                return self._overlay_by_mount()
            raise SyscallError(
                error.errno or 0, "mount overlay", f"{self.path} ({said or error.about})"
            ) from error
        finally:
            os.close(context)

    def _overlay_by_mount(self) -> int:
        """Mount with mount(2), for older kernels. All options must fit one page, so layers are named by descriptor, 18
        bytes each."""
        fds = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*self.lower, self.upper, self.work)]
        *lower, upper, work = (proc_path(fd) for fd in fds)
        data = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}{',userxattr' if self.userxattr else ''}"
        data += ",redirect_dir=off,metacopy=off,index=off" if self.portable else ""
        if len(data) >= 4096:
            raise CapabilityError(
                f"{len(self.lower)} layers are too many for this kernel: Linux 6.5 or later has no such limit"
            )
        sc.mount("overlay", self.path, "overlay", 0, data)
        for fd in fds:
            os.close(fd)
        tree = sc.open_tree(sc.AT_FDCWD, self.path, sc.OPEN_TREE_CLONE)
        sc.umount2(self.path, sc.MNT_DETACH)
        return tree


def _make_parent_private(path: str) -> None:
    """Make the mount that holds `path` private. It has the longest mount point that is a prefix of `path`
    (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ", 5)[4].replace("\\040", " ") for line in file]
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    real = os.readlink(proc_path(fd))
    os.close(fd)
    holder = max((p for p in points if real == p or real.startswith(p.rstrip("/") + "/")), key=len)
    sc.mount(None, holder, None, sc.MS_PRIVATE)


class RootChange(StrEnum):
    """How the container's root becomes its "/"."""

    PIVOT = "pivot_root"
    MOVE = "MS_MOVE"  # --no-pivot: for a root that cannot be pivoted from (an initramfs)
    CHROOT = "chroot"  # if other processes share "/"


def change_root(how: RootChange, root: Root, *, propagation: int) -> None:
    """Change to the root and close its descriptor. `propagation`: set on its mount at the end; 0: unchanged."""
    if how == RootChange.PIVOT:
        _pivot(root)
    elif how == RootChange.MOVE:
        _move(root)
    else:
        os.fchdir(root.fd)
        os.chroot(".")
    os.chdir("/")
    os.close(root.fd)
    if propagation:
        sc.mount(None, "/", None, propagation)


def _pivot(root: Root) -> None:
    """pivot_root(2) with the idiom pivot_root(".", "."), which needs no directory for the old root.

    The old root is stacked under the new one and then detached. It is made a slave first, so that the unmount does not
    propagate to other namespaces.
    """
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root.fd)
    sc.pivot_root(".", ".")
    os.fchdir(old)
    sc.mount(None, ".", None, sc.MS_SLAVE | sc.MS_REC)
    sc.umount2(".", sc.MNT_DETACH)
    os.close(old)


def _move(root: Root) -> None:
    """Move the root over "/" and enter it with chroot(2), because pivot_root(2) cannot leave an initramfs.

    The old file systems stay mounted below it, but no path leads to them. /proc and /sys must not stay mounted, so they
    are unmounted first, or covered (runc's msMoveRoot).
    """
    os.fchdir(root.fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split(" - ") for line in file]
    where = os.getcwd()
    for before, after in lines:
        point, kind = before.split(" ")[4].replace("\\040", " "), after.split(" ", 1)[0]
        if kind not in ("proc", "sysfs") or point.startswith(where):
            continue
        sc.mount(None, point, None, sc.MS_SLAVE | sc.MS_REC)
        try:
            sc.umount2(point, sc.MNT_DETACH)
        except SyscallError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            sc.mount("tmpfs", point, "tmpfs", 0)  # locked in a user namespace: cover it instead
    sc.mount(".", "/", None, sc.MS_MOVE)
    os.chroot(".")


# --- the plan ---


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is mounted for a container, in order."""

    root: RootMount
    operations: tuple[Operation, ...]
    propagation: int = 0  # set on "/" at the end; 0: unchanged

    def mapped(self, userns: int, root: tuple[int, int]) -> Plan:
        """A copy for a container in an existing user namespace: we open everything that comes from the host, and id-map
        it if requested."""
        opened = [op.opened(userns) if isinstance(op, BindMount) else op for op in self.operations]
        return Plan(self.root.mapped(userns, root), tuple(opened), self.propagation)

    def with_open_sources(self) -> Plan:
        """A copy with the sources of bind mounts opened by us, for an init in another user namespace that may not
        access them.

        The caller closes each `tree`.
        """
        opened = [op.opened() if isinstance(op, BindMount) else op for op in self.operations]
        return Plan(self.root, tuple(opened), self.propagation)

    def on(self, root: RootMount) -> Plan:
        """A copy with another root."""
        return Plan(root, self.operations, self.propagation)

    @property
    def maps_ids(self) -> tuple[bool, ...]:
        """For each bind mount, whether it is an id-mapped host path. We have to open those too."""
        return tuple(
            op.id_maps is not None and not op.inside for op in self.operations if isinstance(op, BindMount)
        )

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All descriptors already opened for the plan: `sources` and the root's."""
        return (*self.sources, *((self.root.tree,) if self.root.tree >= 0 else ()))

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(op.tree for op in self.operations if isinstance(op, BindMount) and op.tree >= 0)

    def describe(self) -> list[str]:
        return [self.root.describe(), *(operation.describe() for operation in self.operations)]


_DEFAULT_DEVICES: Final = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
_DEV_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_TYPES: Final = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


@dataclass(frozen=True, slots=True)
class Host:
    """What the plan needs to know about the host and the caller."""

    layout: Layout | None = None  # None: cgroup mounts are left out
    cgroup: dict[str, str] = field(default_factory=dict)  # mount point → the container's directory in it


def plan(
    spec: Spec,
    *,
    bundle: str,
    overlay: RootfsOverlay | None = None,
    host: Host | None = None,
    console: int | None = None,
) -> Plan:
    """The mount plan of `spec`. Pure. Raises SpecError or CapabilityError for what cannot be mounted."""
    linux, namespace = spec.get("linux", {}), namespaces(spec)
    wanted = mount_options.PROPAGATION.get(linux.get("rootfsPropagation", ""), 0)
    root = RootMount(
        path=os.path.join(bundle, spec["root"]["path"]),
        propagation=(sc.MS_SHARED if wanted & sc.MS_SHARED else sc.MS_SLAVE) | sc.MS_REC,
        lower=tuple(overlay.lower) if overlay else (),
        upper=overlay.upper if overlay else "",
        work=overlay.work if overlay else "",
        userxattr="user" in namespace,
        portable=overlay is not None and overlay.portable,
    )
    operations: list[Operation] = []
    at = os.path.normpath(root.path)
    late: list[Operation] = []
    own_dev = False
    for entry in spec.get("mounts", []):
        target = _below(at, entry["destination"])
        operation = _mount(entry, target, bundle, host or Host(), namespace=namespace, linux=linux)
        if operation is None:
            continue
        if isinstance(operation, BindMount) and not operation.options.beneath:
            operation = operation.at_home(_inside(at, operation.source))
        operations.append(operation)
        if isinstance(operation, FsMount) and operation.late_readonly:
            late.append(Readonly(operation.target))
        if os.path.normpath(operation.target) == "/dev":
            own_dev = isinstance(operation, BindMount)  # a bind-mounted /dev is left as it is
    if not own_dev:
        operations += _devices(linux.get("devices", []))
        operations.append(DevLinks(_DEV_LINKS))
    if console is not None:
        operations.append(Console(console))
    elif spec["process"].get("terminal"):  # its own terminal, opened once everything is mounted
        operations.append(ConsolePlace())
    if (cwd := spec["process"].get("cwd", "/")) != "/":
        operations.append(MakeDirectory(cwd))
    operations += late
    operations += [ReadonlyPath(path) for path in linux.get("readonlyPaths", [])]
    if masked := tuple(dict.fromkeys(linux.get("maskedPaths", []))):
        operations.append(MaskPaths(masked, linux.get("mountLabel", "")))
    if spec["root"].get("readonly"):
        operations.append(Readonly("/"))
    return Plan(root, tuple(operations), wanted)


def _below(root: str, destination: str) -> str:
    """A mount's destination as a path in the container.

    That is what the specification requires. runc also accepts a destination that begins with the root's host path,
    which it removes; bundles written for runc rely on that.
    """
    target = "/" + destination.lstrip("/")
    return _inside(root, target) or target


def _inside(root: str, path: str) -> str:
    """A host path as seen from inside the root; "" if it is outside."""
    path = os.path.normpath(path)
    if root == "/" or not f"{path}/".startswith(f"{root}/"):
        return ""
    return path.removeprefix(root) or "/"


def _mount(
    entry: Mount, target: str, bundle: str, host: Host, *, namespace: Mapping[str, str], linux: Linux
) -> FsMount | BindMount | CgroupMount | None:
    options = mount_options.parse(entry.get("options", []))
    fstype, source = entry.get("type", ""), entry.get("source", "")
    if fstype in ("cgroup", "cgroup2"):
        return _cgroup_mount(target, options, host, "cgroup" in namespace) if host.layout else None
    if options.is_bind or fstype == "bind":
        if not source:
            raise SpecError(f"mounts: {target}: a bind mount needs a source")
        return BindMount(os.path.join(bundle, source), target, options, _id_maps(entry, options, linux))
    if options.idmap or entry.get("uidMappings"):
        raise SpecError(f"mounts: {target}: only a bind mount can be id-mapped")
    if not fstype or fstype == "none":
        raise SpecError(f"mounts: {target}: a type is required")
    if (label := linux.get("mountLabel")) and fstype not in _UNLABELLED:
        options = options._replace(data=",".join(filter(None, (options.data, f'context="{label}"'))))
    late = bool(options.flags & sc.MS_RDONLY) and (fstype == "tmpfs" or os.path.normpath(target) == "/dev")
    return FsMount(target, fstype, source or fstype, options, late)


# The kernel accepts no context option for these: their files have labels of their own, or none.
_UNLABELLED: Final = ("proc", "sysfs", "mqueue")


def _id_maps(entry: Mount, options: mount_options.Options, linux: Linux) -> IdMaps | None:
    """The mount's own mappings or, with only the option, those of the container's user namespace."""
    own = IdMaps(entry.get("uidMappings") or [], entry.get("gidMappings") or [])
    if not options.idmap and not own.uids and not own.gids:
        return None
    if own.uids or own.gids:
        maps = own._replace(own=True)
    else:
        maps = IdMaps(linux.get("uidMappings", []), linux.get("gidMappings", []))
    if not maps.uids or not maps.gids:
        raise SpecError(
            f"mounts: {entry['destination']}: an id-mapped mount needs uidMappings and gidMappings"
        )
    return maps


def _cgroup_mount(
    target: str, options: mount_options.Options, host: Host, own_namespace: bool
) -> CgroupMount:
    layout = host.layout
    assert layout is not None
    by_point: dict[str, list[str]] = {}
    for controller, point in layout.v1.items():
        by_point.setdefault(point, []).append(controller)
    hierarchies: list[tuple[str, str, str]] = []
    links: list[tuple[str, str]] = []
    for point, controllers in by_point.items():
        name = os.path.basename(point)
        named = all(c.startswith("name=") for c in controllers)
        hierarchies.append((name, "cgroup", ("none," if named else "") + ",".join(controllers)))
        links += [(c, name) for c in controllers if c != name and not named]
    points = list(by_point)
    if layout.unified is not None:
        hierarchies.append((os.path.basename(layout.unified) if by_point else "", "cgroup2", ""))
        points.append(layout.unified)
    binds = () if own_namespace else tuple(host.cgroup.get(point, point) for point in points)
    return CgroupMount(target, options, tuple(hierarchies), tuple(links), binds)


def _devices(wanted: list[Device]) -> list[Operation]:
    nodes: dict[str, Operation] = {}
    for path, major, minor in _DEFAULT_DEVICES:
        nodes[path] = DeviceNode(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for entry in wanted:
        kind = _TYPES[entry["type"]]
        device = 0 if kind == stat.S_IFIFO else os.makedev(entry["major"], entry["minor"])
        mode = kind | (entry.get("fileMode", 0o666) & 0o7777)
        path = os.path.normpath(entry["path"])
        ids = (entry.get("uid", 0), entry.get("gid", 0))
        nodes[path] = DeviceNode(path, mode, device, *ids, explicit=True)
    return list(nodes.values())
