"""The operations of a mount plan: each frozen, able to `describe()` itself and to `execute()` on a Root.

File systems, binds, cgroups, hidden and read-only paths, and what is in /dev (config.md "Mounts", config-linux.md
"Default Devices", "Masked Paths", "Readonly Paths"). They run in init, before pivot_root, with the host's /proc and
/dev still in reach. Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SpecError, SyscallError
from runtime.oci.rootfs import copyup, mount_options
from runtime.oci.rootfs.binds import BindMount, set_attributes
from runtime.oci.rootfs.root import IN_ROOT, Root, proc_path

# --- mounts ---


@dataclass(frozen=True, slots=True)
class FsMount:
    """A new instance of a file system (proc, sysfs, tmpfs, devpts, mqueue, …)."""

    target: str
    fstype: str
    source: str
    options: mount_options.Options
    late_readonly: bool = False  # mounted read-write, FsReadonly follows when all is in it

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"

    def execute(self, root: Root) -> None:
        covers = self.fstype != "tmpfs" or root.exists(self.target)
        fd = self._target(root)
        below = os.dup(fd) if self.options.copy_up else -1
        self.mount_on(fd, covers=covers)
        if below >= 0:
            self._fill(root, below)
            os.close(below)
        if self.options.propagation or self.options.recursive_set or self.options.recursive_clear:
            fd = root.open(self.target)
            set_attributes(fd, mount_options.Options(0, 0, *self.options[2:]), about=self.target)
            os.close(fd)

    def mount_on(self, fd: int, *, covers: bool = True) -> None:
        """The mount itself; closes `fd`. `covers`: a directory that was there before us."""
        try:
            self._mount(fd, covers)
        finally:
            os.close(fd)

    def _mount(self, fd: int, covers: bool) -> None:
        copies = self.options.copy_up
        flags = self.options.flags & ~(sc.MS_RDONLY if self.late_readonly or copies else 0)
        about = f"{self.fstype} on {self.target}"
        data = self.options.data or None
        given = any(option.startswith("mode=") for option in self.options.data.split(","))
        if self.fstype == "tmpfs" and covers and not given:
            # as the directory that it covers (runc), not the kernel's 1777, which is for one that was not there
            data = f"{data + ',' if data else ''}mode={stat.S_IMODE(os.fstat(fd).st_mode):o}"
        try:
            sc.mount(self.source, proc_path(fd), self.fstype, flags, data, about=about)
        except SyscallError as error:
            if error.errno != errno.EBUSY or self.fstype != "cgroup2":
                raise
            self._mount_over_its_like(fd)

    def _mount_over_its_like(self, fd: int) -> None:
        """mount(2) puts no file system on itself, as it would here: the machine's cgroup2 came along with a bound /sys.
        Made first and attached then, it may."""
        context = sc.fsopen(self.fstype)
        try:
            sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
            tree = sc.fsmount(context, sc.FSMOUNT_CLOEXEC, self.options.attrs[0])
        finally:
            os.close(context)
        try:
            sc.attach_mount(tree, fd, about=self.describe())
        finally:
            os.close(tree)

    def _fill(self, root: Root, below: int) -> None:
        """tmpcopyup: from the directory that the mount covers."""
        made = root.open(self.target)
        copyup.copy(below, made)
        if self.options.flags & sc.MS_RDONLY and not self.late_readonly:
            sc.mount_setattr(made, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about=self.target)
        os.close(made)

    def _target(self, root: Root) -> int:
        if self.fstype not in ("proc", "sysfs"):
            return root.make(self.target, directory=True)
        # What is masked below /proc and /sys is looked up by these very names: they must be ordinary directories
        # of the image, not links to where a copy without masks would appear (CVE-2019-19921, CVE-2023-27561).
        flags, resolve = os.O_PATH | os.O_DIRECTORY, IN_ROOT | sc.RESOLVE_NO_SYMLINKS
        try:
            try:
                return root.open(self.target, flags, resolve=resolve)
            except SyscallError as error:
                if error.errno != errno.ENOENT:
                    raise
            os.close(root.make(self.target, directory=True))
            return root.open(self.target, flags, resolve=resolve)
        except SyscallError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                message = f'filesystem "{self.fstype}" must be mounted on ordinary directory: {self.target}'
                raise SpecError(message) from error
            raise


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """/sys/fs/cgroup: what the machine has (v1, hybrid, v2), seen from inside the container's cgroup namespace; without
    such a namespace the container's own cgroup directories are bound instead (cgroup_namespaces(7))."""

    target: str
    options: mount_options.Options
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
            FsMount(
                self.target, "tmpfs", "tmpfs", mount_options.Options(flags & ~sc.MS_RDONLY, data=data)
            ).execute(root)
        top = root.open(self.target) if split else -1
        for index, (name, fstype, data) in enumerate(self.hierarchies):
            where = f"{self.target}/{name}".rstrip("/")
            if self.binds:
                bind = mount_options.Options(flags | sc.MS_BIND, self.options.cleared)
                BindMount(self.binds[index], where, bind).execute(root)
                continue
            mount = FsMount(where, fstype, "cgroup", mount_options.Options(flags, data=data))
            if split:  # in the tmpfs of a moment ago: nothing is in the way
                os.mkdir(name, 0o755, dir_fd=top)
                mount.mount_on(sc.openat2(top, name, os.O_PATH, resolve=IN_ROOT))
            else:
                mount.execute(root)
        if not split:
            return
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
    The container's /dev/null is never used: an image or a volume could have put something else there. Read-only, or a
    container's root could chmod(2) the host's device through it; reading and writing a device go on all the same."""

    targets: tuple[str, ...]
    label: str = ""  # linux.mountLabel

    def describe(self) -> str:
        return f"mask {', '.join(self.targets)}"

    def execute(self, root: Root) -> None:
        # Only attached mounts can be cloned before Linux 6.15: the first of a kind is the source itself, the others are
        # clones of it where it is attached.
        sources = {"null": -1, "empty": -1}
        for path in self.targets:
            target = _open_if_there(root, path)
            if target < 0:
                continue
            kind = "empty" if stat.S_ISDIR(os.fstat(target).st_mode) else "null"
            if sources[kind] >= 0:
                tree = _clone_mount(sources[kind])
            else:
                tree = sources[kind] = _empty_directory(self.label) if kind == "empty" else _null_device()
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
    """A detached read-only mount of the host's /dev/null, checked to be character device 1:3."""
    fd = sc.open_tree(sc.AT_FDCWD, "/dev/null", sc.OPEN_TREE_CLONE)
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        raise CapabilityError(
            "/dev/null of this machine is not the null device: paths cannot be masked with it"
        )
    sc.mount_setattr(fd, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about="/dev/null")
    return fd


def _empty_directory(label: str) -> int:
    """A detached tmpfs, empty and read-only."""
    context = sc.fsopen("tmpfs")
    for key, value in (("mode", "0755"), ("nr_inodes", "1"), *((("context", label),) if label else ())):
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
    asked_for: bool = False  # by config.json, and not one of the default devices

    def describe(self) -> str:
        return f"device {self.path} {os.major(self.device)}:{os.minor(self.device)}"

    def execute(self, root: Root) -> None:
        parent_path, name = os.path.split(self.path)
        self._make(root, root.held(parent_path), name)

    def _make(self, root: Root, parent: int, name: str) -> None:
        try:
            os.mknod(name, self.mode, self.device, dir_fd=parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(there.st_mode) == stat.S_IFMT(self.mode) and there.st_rdev == self.device:
                return
            if self.asked_for:  # config-linux.md, "Devices": "the runtime MUST generate an error"
                raise SpecError(
                    f"{self.path} is there already, and is not the device that linux.devices asks for"
                ) from None
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
        dev = root.held("/dev")
        for name, target in self.links:
            try:
                if name == "ptmx" and os.path.lexists(f"{proc_path(dev)}/ptmx"):
                    os.unlink(
                        name, dir_fd=dev
                    )  # a multiplexer of another devpts instance would be the host's
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                continue


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
