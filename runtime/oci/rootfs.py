"""The container's root file system: the plan (data, made in the parent) and its execution (in init, before pivot_root).

`plan` turns config.json into a tuple of operations; each can `describe()` itself and `execute(root)`. Everything
happens in the container's own mount namespace, so the end of its last process is the undo of all of it.

No path inside the root is ever given to the kernel as a string to follow: `Root` resolves it by
openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) and mounts go onto the resulting descriptor. A symlink in an image
(/proc → /etc, /dev/shm → /) or one swapped in through a shared volume can therefore point nowhere but into the same
root (CVE-2019-16884, CVE-2021-30465, CVE-2025-31133, CVE-2025-52565). Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SpecError, SyscallError
from runtime.oci import mounts
from runtime.oci.spec import Device, Mount, Spec, namespaces

if TYPE_CHECKING:
    from runtime.cgroups.layout import Layout
    from runtime.shim.protocol import RootfsOverlay

_IN_ROOT: Final = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
_SYMLINKS_MAX: Final = 40  # as the kernel's own MAXSYMLINKS

# Files below /proc that LXCFS and its like may put their own over; anything else there is an attack (runc's list)
_PROC_FILES: Final = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)


class Root:
    """An open root directory, and safe ways to reach and to make what is below it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.warnings: list[str] = []

    def open(self, path: str, flags: int = os.O_PATH, *, resolve: int = _IN_ROOT) -> int:
        """`path` as seen from inside; symlinks are followed and stay inside."""
        return sc.openat2(self.fd, path.lstrip("/") or ".", flags, 0, resolve)

    def make(self, path: str, *, directory: bool, mode: int = 0o755) -> int:
        """An O_PATH descriptor of `path`, made (with its parents) where missing; dangling symlinks are made good
        inside the root, as an image's /etc/resolv.conf → ../run/resolvconf/… asks for."""
        try:
            return self._checked(self.open(path), path, directory)
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
        done, todo, links = "", [part for part in path.split("/") if part not in ("", ".")], 0
        while todo:
            part = todo.pop(0)
            here = f"{done}/{part}"
            parent = self.open(done, os.O_PATH | os.O_DIRECTORY)
            try:
                if part != ".." and not self._exists(here):
                    _make_one(parent, part, directory=directory or bool(todo), mode=mode)
                done = here
            except FileExistsError:  # a symlink to nowhere: go where it points
                links += 1
                if links > _SYMLINKS_MAX:
                    raise SyscallError(errno.ELOOP, "openat2", path) from None
                target = os.readlink(part, dir_fd=parent)
                todo = [p for p in target.split("/") if p not in ("", ".")] + todo
                done = "" if target.startswith("/") else done
            finally:
                os.close(parent)
        return self._checked(self.open(done), path, directory)

    def _exists(self, path: str) -> bool:
        try:
            os.close(self.open(path))
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    @staticmethod
    def _checked(fd: int, path: str, directory: bool) -> int:
        if stat.S_ISDIR(os.fstat(fd).st_mode) == directory:
            return fd
        os.close(fd)
        raise SyscallError(errno.ENOTDIR if directory else errno.EISDIR, "mount", path)


def _make_one(parent: int, name: str, *, directory: bool, mode: int) -> None:
    if directory:
        os.mkdir(name, mode, dir_fd=parent)
        return
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o644, dir_fd=parent))


def proc_path(fd: int) -> str:
    """A path of the object behind `fd` for mount(2). /proc is the host's own until pivot_root."""
    return f"/proc/self/fd/{fd}"


class Operation(Protocol):
    """One step of the plan."""

    def describe(self) -> str: ...

    def execute(self, root: Root) -> None: ...


# --- mounts ---


@dataclass(frozen=True, slots=True)
class FsMount:
    """A new instance of a file system (proc, sysfs, tmpfs, devpts, mqueue, …)."""

    target: str
    fstype: str
    source: str
    options: mounts.Options
    late_readonly: bool = False  # mounted read-write, FsReadonly follows when all is in it

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"

    def execute(self, root: Root) -> None:
        fd = self._target(root)
        try:
            flags = self.options.flags & ~(sc.MS_RDONLY if self.late_readonly else 0)
            about = f"{self.fstype} on {self.target}"
            sc.mount(self.source, proc_path(fd), self.fstype, flags, self.options.data or None, about=about)
        finally:
            os.close(fd)
        if self.options.propagation or self.options.recursive_set or self.options.recursive_clear:
            fd = root.open(self.target)
            _set_attributes(fd, mounts.Options(0, 0, *self.options[2:]), about=self.target)
            os.close(fd)

    def _target(self, root: Root) -> int:
        if self.fstype not in ("proc", "sysfs"):
            return root.make(self.target, directory=True)
        # What is masked below /proc and /sys is looked up by these very names: they must be ordinary directories
        # of the image, not links to where a copy without masks would appear (CVE-2019-19921, CVE-2023-27561).
        os.close(root.make(self.target, directory=True))
        try:
            return root.open(
                self.target, os.O_PATH | os.O_DIRECTORY, resolve=_IN_ROOT | sc.RESOLVE_NO_SYMLINKS
            )
        except SyscallError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                message = (
                    f"filesystem {self.fstype!r} must be mounted on an ordinary directory: {self.target}"
                )
                raise SpecError(message) from error
            raise


@dataclass(frozen=True, slots=True)
class BindMount:
    """A file or directory of the host. The clone is detached while it gets its attributes: it is never seen rw."""

    source: str
    target: str
    options: mounts.Options

    def describe(self) -> str:
        return f"bind {self.source} on {self.target}"

    def execute(self, root: Root) -> None:
        recursive = sc.AT_RECURSIVE if self.options.flags & sc.MS_REC else 0
        tree = self._clone(sc.OPEN_TREE_CLONE | recursive)
        try:
            target = root.make(self.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
            self._check_outside_proc(tree, target)
            _set_attributes(tree, self.options, about=self.target)
            sc.attach_mount(tree, target, about=self.describe())
            os.close(target)
        finally:
            os.close(tree)

    def _clone(self, flags: int) -> int:
        """The source's mount. With x-beneath the kernel itself sees to it that the path stays in that directory, at the
        moment it is opened: a container that shares the directory cannot swap a link in (CVE-2017-1002101)."""
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
        raise SpecError(f"{self.target} cannot be mounted because it is inside /proc")


def _set_attributes(mount_fd: int, options: mounts.Options, *, about: str) -> None:
    """mount_setattr(2) on the root of an open mount: its own attributes, recursive ones, propagation."""
    add, drop = options.attrs
    if add or drop:
        sc.mount_setattr(mount_fd, "", sc.AT_EMPTY_PATH, add, drop, about=about)
    if options.recursive_set or options.recursive_clear:
        flags = sc.AT_EMPTY_PATH | sc.AT_RECURSIVE
        sc.mount_setattr(mount_fd, "", flags, options.recursive_set, options.recursive_clear, about=about)
    for kind in options.propagation:
        flags = sc.AT_EMPTY_PATH | (sc.AT_RECURSIVE if kind & sc.MS_REC else 0)
        sc.mount_setattr(mount_fd, "", flags, propagation=kind & ~sc.MS_REC, about=about)


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """/sys/fs/cgroup: what the machine has (v1, hybrid, v2), seen from inside the container's cgroup namespace; without
    such a namespace the container's own cgroup directories are bound instead (cgroup_namespaces(7))."""

    target: str
    options: mounts.Options
    hierarchies: tuple[tuple[str, str, str], ...]  # (directory below target or "", fstype, mount data)
    links: tuple[tuple[str, str], ...] = ()  # co-mounted v1 controllers: (name, directory)
    binds: tuple[str, ...] = ()  # host directories, one for each hierarchy, when there is no cgroup namespace

    def describe(self) -> str:
        return f"mount cgroup on {self.target}"

    def execute(self, root: Root) -> None:
        flags = self.options.flags & ~(sc.MS_BIND | sc.MS_REC)
        split = self.hierarchies[0][0] != ""
        if split:
            data = "mode=755,size=1m"
            FsMount(self.target, "tmpfs", "tmpfs", mounts.Options(flags & ~sc.MS_RDONLY, data=data)).execute(
                root
            )
        for index, (name, fstype, data) in enumerate(self.hierarchies):
            where = f"{self.target}/{name}".rstrip("/")
            if self.binds:
                bind = mounts.Options(flags | sc.MS_BIND, self.options.cleared)
                BindMount(self.binds[index], where, bind).execute(root)
            else:
                FsMount(where, fstype, "cgroup", mounts.Options(flags, data=data)).execute(root)
        if not split:
            return
        top = root.open(self.target)
        for name, directory in self.links:
            os.symlink(directory, name, dir_fd=top)
        if flags & sc.MS_RDONLY:
            sc.mount_setattr(top, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about=self.target)
        os.close(top)


@dataclass(frozen=True, slots=True)
class Readonly:
    """Make the mount at `target` read-only, now that all is in it."""

    target: str

    def describe(self) -> str:
        return f"make {self.target} read-only"

    def execute(self, root: Root) -> None:
        fd = root.open(self.target)
        sc.mount_setattr(fd, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about=self.target)
        os.close(fd)


@dataclass(frozen=True, slots=True)
class ReadonlyPath:
    """A path becomes a read-only mount of itself with all below it (linux.readonlyPaths); absent ones are fine."""

    target: str

    def describe(self) -> str:
        return f"make path {self.target} read-only"

    def execute(self, root: Root) -> None:
        target = _open_if_there(root, self.target)
        if target < 0:
            return
        flags = sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH | sc.AT_RECURSIVE
        tree = sc.open_tree(target, "", flags)
        flags = sc.AT_EMPTY_PATH | sc.AT_RECURSIVE
        sc.mount_setattr(tree, "", flags, sc.MOUNT_ATTR_RDONLY, about=self.target)
        sc.attach_mount(tree, target, about=self.describe())
        os.close(tree)
        os.close(target)


@dataclass(frozen=True, slots=True)
class MaskPaths:
    """Files get the host's /dev/null over them, directories one shared empty read-only tmpfs (linux.maskedPaths).
    The container's /dev/null is never used: an image or a volume could have put something else there."""

    targets: tuple[str, ...]

    def describe(self) -> str:
        return f"mask {', '.join(self.targets)}"

    def execute(self, root: Root) -> None:
        # Only attached mounts can be cloned before Linux 6.15: the first empty directory is the tmpfs itself, the
        # others are clones of it where it is attached.
        sources = {"null": _null_device(), "empty": -1}
        for path in self.targets:
            target = _open_if_there(root, path)
            if target < 0:
                continue
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                tree = _clone_mount(sources["null"])
            elif sources["empty"] >= 0:
                tree = _clone_mount(sources["empty"])
            else:
                tree = sources["empty"] = _empty_directory()
            sc.attach_mount(tree, target, about=f"mask {path}")
            os.close(target)
            if tree not in sources.values():
                os.close(tree)
        for fd in sources.values():
            if fd >= 0:
                os.close(fd)


def _clone_mount(fd: int) -> int:
    return sc.open_tree(fd, "", sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH)


def _open_if_there(root: Root, path: str) -> int:
    try:
        return root.open(path)
    except SyscallError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return -1
        raise


def _null_device() -> int:
    """The host's /dev/null, checked to be character device 1:3."""
    fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        raise CapabilityError(
            "/dev/null of this machine is not the null device: paths cannot be masked with it"
        )
    return fd


def _empty_directory() -> int:
    """A detached tmpfs, empty and read-only."""
    context = sc.fsopen("tmpfs")
    for key, value in (("mode", "0755"), ("nr_inodes", "1")):
        sc.fsconfig(context, sc.FSCONFIG_SET_STRING, key, value)
    sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
    attributes = sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV | sc.MOUNT_ATTR_NOEXEC
    fd = sc.fsmount(context, sc.FSMOUNT_CLOEXEC, attributes)
    os.close(context)
    return fd


# --- /dev ---


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """mknod(2), or a bind mount of the host's node where mknod is not allowed (user namespaces)."""

    path: str
    mode: int  # with S_IFCHR, S_IFBLK or S_IFIFO
    device: int = 0
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"device {self.path} {os.major(self.device)}:{os.minor(self.device)}"

    def execute(self, root: Root) -> None:
        parent_path, name = os.path.split(self.path)
        parent = root.make(parent_path, directory=True)
        try:
            self._make(root, parent, name)
        finally:
            os.close(parent)

    def _make(self, root: Root, parent: int, name: str) -> None:
        try:
            os.mknod(name, self.mode, self.device, dir_fd=parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(there.st_mode) == stat.S_IFMT(self.mode) and there.st_rdev == self.device:
                return
            os.unlink(name, dir_fd=parent)
            os.mknod(name, self.mode, self.device, dir_fd=parent)
        except PermissionError:
            tree = sc.open_tree(sc.AT_FDCWD, self.path, sc.OPEN_TREE_CLONE)
            if os.fstat(tree).st_rdev != self.device:
                raise
            target = root.make(self.path, directory=False)
            sc.attach_mount(tree, target, about=self.describe())
            os.close(tree)
            os.close(target)
            return
        if self.uid or self.gid:
            os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class DevLinks:
    """The symlinks the specification wants in /dev (config-linux.md, "Default Devices"; "dev/core" as runc)."""

    links: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "links in /dev"

    def execute(self, root: Root) -> None:
        dev = root.make("/dev", directory=True)
        for name, target in self.links:
            try:
                if name == "ptmx" and os.path.lexists(f"{proc_path(dev)}/ptmx"):
                    os.unlink(
                        name, dir_fd=dev
                    )  # a multiplexer of another devpts instance would be the host's
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                continue
        os.close(dev)


@dataclass(frozen=True, slots=True)
class Console:
    """The terminal as /dev/console. `path` is the slave's on the host, checked to be the very device of `slave`."""

    slave: int

    def describe(self) -> str:
        return "bind the terminal on /dev/console"

    def execute(self, root: Root) -> None:
        path = os.readlink(proc_path(self.slave))
        tree = sc.open_tree(sc.AT_FDCWD, path, sc.OPEN_TREE_CLONE)
        there, wanted = os.fstat(tree), os.fstat(self.slave)
        if (there.st_rdev, there.st_ino, there.st_dev) != (wanted.st_rdev, wanted.st_ino, wanted.st_dev):
            raise SpecError(f"console: {path} is not the terminal that was given")
        target = root.make("/dev/console", directory=False)
        if not stat.S_ISREG(os.fstat(target).st_mode):
            # CVE-2025-52565: only a plain file of ours may be covered, never what a link or a mount put there
            raise SpecError("console: /dev/console of the image is not a plain file")
        sc.attach_mount(tree, target, about=self.describe())
        os.close(tree)
        os.close(target)


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """process.cwd: made where the image lacks it, root-owned 0755, as runc does."""

    target: str

    def describe(self) -> str:
        return f"make working directory {self.target}"

    def execute(self, root: Root) -> None:
        try:
            os.close(root.make(self.target, directory=True))
        except SyscallError as error:
            if error.errno not in (errno.ENOTDIR, errno.EROFS):  # chdir(2) will say it in its own words
                raise
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise


# --- the root itself ---


@dataclass(frozen=True, slots=True)
class RootMount:
    """Mounts the root: an overlay of image layers, or the bundle's directory bound onto itself (pivot_root(2) needs a
    mount). Not part of the plan's `operations`: it is what makes the Root they work on."""

    path: str
    propagation: int  # what the whole tree of the new mount namespace gets first
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    userxattr: bool = False  # in a user namespace overlayfs cannot use trusted.*

    def describe(self) -> str:
        return f"overlay on {self.path}" if self.lower else f"bind {self.path} as the root"

    def execute(self) -> Root:
        sc.mount(None, "/", None, self.propagation)
        if self.propagation & sc.MS_SHARED:
            _make_parent_private(self.path)  # else the container's root would show up on the host
        fd = (
            self._overlay()
            if self.lower
            else sc.open_tree(sc.AT_FDCWD, self.path, sc.OPEN_TREE_CLONE | sc.AT_RECURSIVE)
        )
        # pivot_root refuses a shared put_old, and that is the new root itself (pivot_root(".", "."))
        sc.mount_setattr(fd, "", sc.AT_EMPTY_PATH, propagation=sc.MS_PRIVATE, about=self.path)
        sc.move_mount(fd, "", sc.AT_FDCWD, self.path, sc.MOVE_MOUNT_F_EMPTY_PATH, about=self.describe())
        return Root(fd)

    def _overlay(self) -> int:
        """fsconfig(2) with one lowerdir+ a layer (Linux 6.5): no limit on the length of all paths together."""
        context = sc.fsopen("overlay")
        try:
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "source", "overlay")
            for layer in self.lower:
                sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "lowerdir+", layer)
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "upperdir", self.upper)
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "workdir", self.work)
            # The layer dies with this container and after a crash is never mounted again: its end need not wait
            # for a sync of the file system that holds it.
            sc.fsconfig(context, sc.FSCONFIG_SET_FLAG, "volatile")
            if self.userxattr:
                sc.fsconfig(context, sc.FSCONFIG_SET_FLAG, "userxattr")
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
        """mount(2) for older kernels: all options must fit one page, so layers go by descriptor, 18 bytes each."""
        fds = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*self.lower, self.upper, self.work)]
        *lower, upper, work = (proc_path(fd) for fd in fds)
        data = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}{',userxattr' if self.userxattr else ''}"
        if len(data) >= 4096:
            raise CapabilityError(
                f"{len(self.lower)} layers are too many for this kernel: Linux 6.5 lifts the limit"
            )
        sc.mount("overlay", self.path, "overlay", 0, data)
        for fd in fds:
            os.close(fd)
        tree = sc.open_tree(sc.AT_FDCWD, self.path, sc.OPEN_TREE_CLONE)
        sc.umount2(self.path, sc.MNT_DETACH)
        return tree


def _make_parent_private(path: str) -> None:
    """The mount that holds `path`: the longest mount point that is a prefix of it (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ", 5)[4].replace("\\040", " ") for line in file]
    real = os.path.realpath(path)
    holder = max((p for p in points if real == p or real.startswith(p.rstrip("/") + "/")), key=len)
    sc.mount(None, holder, None, sc.MS_PRIVATE)


def pivot(root: Root, *, propagation: int) -> None:
    """pivot_root(2), "pivot_root(".", ".")": the old root is stacked under the new one and detached, no directory is
    needed. It is made a slave first so that taking it down reaches no other namespace."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root.fd)
    sc.pivot_root(".", ".")
    os.fchdir(old)
    sc.mount(None, ".", None, sc.MS_SLAVE | sc.MS_REC)
    sc.umount2(".", sc.MNT_DETACH)
    os.chdir("/")
    os.close(old)
    os.close(root.fd)
    if propagation:
        sc.mount(None, "/", None, propagation)


# --- the plan ---


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is mounted for a container, in order."""

    root: RootMount
    operations: tuple[Operation, ...]
    propagation: int = 0  # of "/" at the end, 0 = as it is

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
    """What the plan needs to know of the machine and of the caller."""

    layout: Layout | None = None  # None: cgroup mounts are left out
    cgroup: dict[str, str] = field(default_factory=dict)  # mount point → the container's directory below it


def plan(
    spec: Spec,
    *,
    bundle: str,
    overlay: RootfsOverlay | None = None,
    host: Host | None = None,
    console: int | None = None,
) -> Plan:
    """The mount plan of `spec`. Pure. Raises SpecError/CapabilityError for what cannot be mounted."""
    linux, namespace = spec.get("linux", {}), namespaces(spec)
    wanted = mounts.PROPAGATION.get(linux.get("rootfsPropagation", ""), 0)
    root = RootMount(
        path=os.path.join(bundle, spec["root"]["path"]),
        propagation=(sc.MS_SHARED if wanted & sc.MS_SHARED else sc.MS_SLAVE) | sc.MS_REC,
        lower=tuple(overlay.lower) if overlay else (),
        upper=overlay.upper if overlay else "",
        work=overlay.work if overlay else "",
        userxattr="user" in namespace,
    )
    operations: list[Operation] = []
    late: list[Operation] = []
    own_dev = False
    for entry in spec.get("mounts", []):
        operation = _mount(entry, bundle, host or Host(), own_cgroup_ns="cgroup" in namespace)
        if operation is None:
            continue
        operations.append(operation)
        if isinstance(operation, FsMount) and operation.late_readonly:
            late.append(Readonly(operation.target))
        if os.path.normpath(operation.target) == "/dev":
            own_dev = isinstance(operation, BindMount)  # the caller's /dev is the caller's business
    if not own_dev:
        operations += _devices(linux.get("devices", []))
        operations.append(DevLinks(_DEV_LINKS))
    if console is not None:
        operations.append(Console(console))
    if (cwd := spec["process"].get("cwd", "/")) != "/":
        operations.append(MakeDirectory(cwd))
    operations += late
    operations += [ReadonlyPath(path) for path in linux.get("readonlyPaths", [])]
    if masked := tuple(linux.get("maskedPaths", [])):
        operations.append(MaskPaths(masked))
    if spec["root"].get("readonly"):
        operations.append(Readonly("/"))
    return Plan(root, tuple(operations), wanted)


def _mount(
    entry: Mount, bundle: str, host: Host, *, own_cgroup_ns: bool
) -> FsMount | BindMount | CgroupMount | None:
    options = mounts.parse(entry.get("options", []))
    target = "/" + entry["destination"].lstrip("/")
    fstype, source = entry.get("type", ""), entry.get("source", "")
    if fstype in ("cgroup", "cgroup2"):
        return _cgroup_mount(target, options, host, own_cgroup_ns) if host.layout else None
    if options.is_bind or fstype == "bind":
        if not source:
            raise SpecError(f"mounts: {target}: a bind mount needs a source")
        return BindMount(os.path.join(bundle, source), target, options)
    if not fstype or fstype == "none":
        raise SpecError(f"mounts: {target}: a type is required")
    late = bool(options.flags & sc.MS_RDONLY) and (fstype == "tmpfs" or os.path.normpath(target) == "/dev")
    return FsMount(target, fstype, source or fstype, options, late)


def _cgroup_mount(target: str, options: mounts.Options, host: Host, own_namespace: bool) -> CgroupMount:
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
        nodes[path] = DeviceNode(path, mode, device, entry.get("uid", 0), entry.get("gid", 0))
    return list(nodes.values())
