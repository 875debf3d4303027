"""The operations of a mount plan: frozen values with `describe()`, for a person, and `execute()`, on a Root.

They mount file systems and cgroups, mask paths or make them read-only, and fill /dev (config.md "Mounts";
config-linux.md "Default Devices", "Masked Paths", "Readonly Paths"). Init executes them before pivot_root, while the
host's /proc and /dev are still accessible. Needs Linux 5.12 (mount_setattr).
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
    late_readonly: bool = False  # mount read-write; a Readonly operation follows once the content is complete

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"

    def execute(self, root: Root) -> None:
        covers = self.fstype != "tmpfs" or root.exists(self.target)
        fd = self._target(root)
        if self.fstype == "proc" and root.procfs is not None:
            self._attach(root.procfs.cloned(), fd)
            return
        below = os.dup(fd) if self.options.copy_up else -1
        self.mount_on(fd, covers=covers)
        if below >= 0:
            self._fill(root, below)
            os.close(below)
        if self.options.propagation or self.options.recursive_set or self.options.recursive_clear:
            fd = root.open(self.target)
            set_attributes(fd, mount_options.Options(0, 0, *self.options[2:]), about=self.target)
            os.close(fd)

    def _attach(self, tree: int, fd: int) -> None:
        """Attach a detached mount, with our flags, to the directory `fd`. Closes both."""
        try:
            set_attributes(tree, self.options, about=self.target)
            sc.attach_mount(tree, fd, about=self.describe())
        finally:
            os.close(tree)
            os.close(fd)

    def mount_on(self, fd: int, *, covers: bool = True) -> None:
        """Mount on the directory `fd`, and close it. `covers`: the directory existed before."""
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
            # Use the mode of the covered directory (as runc does), not the kernel's default 1777.
            data = f"{data + ',' if data else ''}mode={stat.S_IMODE(os.fstat(fd).st_mode):o}"
        try:
            sc.mount(self.source, proc_path(fd), self.fstype, flags, data, about=about)
        except SyscallError as error:
            if error.errno != errno.EBUSY or self.fstype != "cgroup2":
                raise
            self._mount_over_its_like(fd)

    def _mount_over_its_like(self, fd: int) -> None:
        """Mount a file system on itself, which mount(2) refuses but fsmount(2) with move_mount(2) allows.

        This is needed if the host's cgroup2 is part of a bind-mounted /sys.
        """
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
        """tmpcopyup: copy the content of the covered directory."""
        made = root.open(self.target)
        copyup.copy(below, made)
        if self.options.flags & sc.MS_RDONLY and not self.late_readonly:
            sc.mount_setattr(made, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about=self.target)
        os.close(made)

    def _target(self, root: Root) -> int:
        if self.fstype not in ("proc", "sysfs"):
            return root.make(self.target, directory=True)
        # Masked paths in /proc and /sys are looked up by these names. So both must be ordinary directories of the
        # image, not links to another place where they would be mounted without masks (CVE-2019-19921, CVE-2023-27561).
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
    """Mount /sys/fs/cgroup with the host's hierarchies (v1, hybrid, v2), as seen in the container's cgroup namespace.

    Without a cgroup namespace, bind-mount the container's own cgroup directories instead (cgroup_namespaces(7)).
    """

    target: str
    options: mount_options.Options
    hierarchies: tuple[tuple[str, str, str], ...]  # (directory below target or "", fstype, mount data)
    links: tuple[tuple[str, str], ...] = ()  # co-mounted v1 controllers: (name, directory)
    binds: tuple[str, ...] = ()  # without a cgroup namespace: a host directory per hierarchy

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
            if split:  # in the tmpfs just mounted, which is empty
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
    """Make the mount at `target` read-only once its content is complete."""

    target: str

    def describe(self) -> str:
        return f"make {self.target} read-only"

    def execute(self, root: Root) -> None:
        fd = root.open(self.target)
        sc.mount_setattr(fd, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about=self.target)
        os.close(fd)


@dataclass(frozen=True, slots=True)
class ReadonlyPath:
    """Bind a path on itself recursively and read-only (linux.readonlyPaths). Ignore a path that does not exist."""

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
    """Mount the host's /dev/null over files, and a shared empty read-only tmpfs over directories (linux.maskedPaths).

    The container's /dev/null is never used, because an image or a volume could have replaced it. The mount is
    read-only; otherwise the container's root could chmod(2) the host's device. Reading and writing the device still
    work.
    """

    targets: tuple[str, ...]
    label: str = ""  # linux.mountLabel

    def describe(self) -> str:
        return f"mask {', '.join(self.targets)}"

    def execute(self, root: Root) -> None:
        # Before Linux 6.15 only attached mounts can be cloned. So the first target gets the source itself, and the
        # others get clones of that attached mount.
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
            "/dev/null on this host is not the null device, so it cannot be used to mask paths"
        )
    sc.mount_setattr(fd, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about="/dev/null")
    return fd


def _empty_directory(label: str) -> int:
    """A detached, empty, read-only tmpfs."""
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
    """Create a device with mknod(2) or, where that is not permitted (user namespaces), bind-mount the host's device."""

    path: str
    mode: int  # with S_IFCHR, S_IFBLK or S_IFIFO
    device: int = 0
    uid: int = 0
    gid: int = 0
    explicit: bool = False  # listed in config.json, not a default device

    def describe(self) -> str:
        return f"device {self.path} {os.major(self.device)}:{os.minor(self.device)}"

    def execute(self, root: Root) -> None:
        parent_path, name = os.path.split(self.path)
        self._make(root, root.cached_directory(parent_path), name)

    def _make(self, root: Root, parent: int, name: str) -> None:
        try:
            os.mknod(name, self.mode, self.device, dir_fd=parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(there.st_mode) == stat.S_IFMT(self.mode) and there.st_rdev == self.device:
                return
            if self.explicit:  # config-linux.md, "Devices": "the runtime MUST generate an error"
                raise SpecError(
                    f"linux.devices: {self.path} already exists and is another file or device"
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
    """Create the symlinks required in /dev (runtime-linux.md, "Dev symbolic links"; ptmx: config-linux.md, "Default
    Devices")."""

    links: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "links in /dev"

    def execute(self, root: Root) -> None:
        dev = root.cached_directory("/dev")
        for name, target in self.links:
            try:
                if name == "ptmx" and os.path.lexists(f"{proc_path(dev)}/ptmx"):
                    os.unlink(name, dir_fd=dev)  # the ptmx of another devpts instance could be the host's
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                continue


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Create process.cwd if the image lacks it: mode 0755, owned by root, as runc does."""

    target: str

    def describe(self) -> str:
        return f"make working directory {self.target}"

    def execute(self, root: Root) -> None:
        try:
            os.close(root.make(self.target, directory=True))
        except SyscallError as error:
            if error.errno not in (errno.ENOTDIR, errno.EROFS):  # chdir(2) reports these later
                raise
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
