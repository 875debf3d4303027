"""Sets up a pod's volumes on the host, opens sub-paths safely, and unmounts tmpfs volumes.

All functions are idempotent: they check what exists and do the rest. A tmpfs for `medium: Memory`, and for the /dev/shm
that a pod's containers share, is mounted below the pod's directory. `unmount_below` finds these mounts in the mount
table, so they need not be recorded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import threading
import time

from kubelite.node.model.errors import ConfigError, MountError
from kubelite.node.spec.volume_plans import File, Kind, VolumePlan
from kubelite.node.storage import quota
from kubelite.node.storage.slow_mounts import is_mounted
from runtime import syscalls
from runtime.errors import SyscallError
from runtime.tree import make_directories, walk

_DATA = "..data"
MAX_ENV_FILE = 64 << 10  # bytes (KEP-3721)
DETACH_WAIT = 20.0  # seconds


def set_up(plan: VolumePlan) -> None:
    """Set up the volume. Raises MountError with kubelet's message."""
    try:
        if plan.kind is Kind.HOST:
            _host_path(plan)
        elif plan.kind is Kind.FILES:
            if plan.secret:
                _in_memory(plan.path)
            write_files(plan)
        elif plan.kind is Kind.CLAIM:
            _claim(plan)
        elif plan.kind is Kind.IMAGE:
            _image(plan)
        elif plan.kind is Kind.NFS:
            if not is_mounted(plan.path):  # unmounted meanwhile: the next start mounts it
                raise MountError(f'MountVolume.SetUp failed for volume "{plan.name}" : it is not mounted')
        else:
            _empty_dir(plan)
    except OSError as error:
        raise MountError(f'MountVolume.SetUp failed for volume "{plan.name}" : {error}') from error


def _empty_dir(plan: VolumePlan) -> None:
    os.makedirs(os.path.dirname(plan.path), mode=0o755, exist_ok=True)
    fresh = not os.path.isdir(plan.path)
    if fresh:
        os.mkdir(plan.path)
        if plan.kind is Kind.DIRECTORY:
            with contextlib.suppress(OSError):  # without a project, the directory is walked to measure it
                quota.count(plan.path)
    if plan.kind is Kind.HUGE_PAGES and not _is_mounted(plan.path):
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("nodev", plan.path, "hugetlbfs", flags, f"pagesize={plan.size},mode=0777")
        fresh = True
    if plan.kind is Kind.MEMORY and not _is_mounted(plan.path):
        size = f",size={plan.size}" if plan.size else ""
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        # the default mode of a tmpfs, which kubelet keeps (pkg/volume/emptydir/empty_dir.go, setupTmpfs)
        if plan.name == "shm":
            syscalls.mount("tmpfs", plan.path, "tmpfs", flags, f"mode=1777{size}")
        else:
            _unswapped_tmpfs(plan.path, flags, f"mode=1777{size}")
        fresh = True
    if fresh:  # the umask may have removed bits
        os.chmod(plan.path, 0o1777 if plan.kind is Kind.MEMORY else 0o777)
    if plan.fs_group is not None:
        give_to_group(plan.path, plan.fs_group, whole_tree=plan.whole_tree, fresh=fresh)


# -- fsGroup ----------------------------------------------------------------------------------------------------


def give_to_group(path: str, group: int, *, whole_tree: bool, fresh: bool, done: str = "") -> None:
    """Apply fsGroup (Kubernetes pkg/volume/volume_linux.go): all files get the group, and owner and group may read and
    write them. Directories get the set-group-ID bit, so that new files get the group too. Without `whole_tree`
    (OnRootMismatch), a correct root means that all files are correct. This is done once per pod, which the file `done`
    records (by default a file beside the volume)."""
    done = done or f"{path}.fsgroup"
    if not fresh and _read(done) == str(group):
        return
    root = os.stat(path, follow_symlinks=False)
    right = root.st_gid == group and root.st_mode & 0o2070 == 0o2070
    if fresh or whole_tree or not right:
        for fd, name, _ in walk(path) if stat.S_ISDIR(root.st_mode) else ():
            _give(name, group, fd)
        _give(path, group, None)  # last, so that an interrupted walk starts again
    with open(done, "w", encoding="ascii") as file:
        file.write(str(group))


def _give(name: str, group: int, fd: int | None) -> None:
    with contextlib.suppress(FileNotFoundError):  # another user of the volume may remove it meanwhile
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        os.chown(name, -1, group, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return
        more = 0o2770 if stat.S_ISDIR(found.st_mode) else 0o660
        opened = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:  # by descriptor, because the name may have become a link to anywhere
            os.chmod(f"/proc/self/fd/{opened}", stat.S_IMODE(os.fstat(opened).st_mode) | more)
        finally:
            os.close(opened)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


# -- kubelite's own mounts --------------------------------------------------------------------------------------


def _in_memory(path: str) -> None:
    """Mount a tmpfs for secrets. A volume that an older version wrote to disk stays, because containers use it."""
    os.makedirs(path, mode=0o755, exist_ok=True)
    if not _is_mounted(path) and not os.path.lexists(f"{path}/{_DATA}"):
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        _unswapped_tmpfs(path, flags, "mode=0755")


def _unswapped_tmpfs(path: str, flags: int, options: str) -> None:
    """Mount a tmpfs whose pages are never written to swap, where the kernel can do that (Linux 6.4 and later; kubelet:
    generateTmpfsMountOptions in pkg/volume/emptydir/empty_dir.go)."""
    try:
        syscalls.mount("tmpfs", path, "tmpfs", flags, f"{options},noswap")
    except SyscallError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.mount("tmpfs", path, "tmpfs", flags, options)


def _claim(plan: VolumePlan) -> None:
    """Check the claim's directory, which exists since the claim was bound, and apply fsGroup once for each pod."""
    failed = f'MountVolume.SetUp failed for volume "{plan.name}" : {plan.path}'
    if not os.path.isdir(plan.path):
        there = os.path.lexists(plan.path)
        raise MountError(
            f"{failed}{': only directory and block device are supported' if there else ' is gone'}"
        )
    if plan.disk is not None and plan.disk.device != plan.path and not is_mounted(plan.path):
        raise MountError(f"{failed} is not mounted")  # unmounted meanwhile: the next start mounts it
    if plan.fs_group is not None:
        done = f"{plan.done}/{plan.name}.fsgroup"
        give_to_group(plan.path, plan.fs_group, whole_tree=plan.whole_tree, fresh=False, done=done)


def _image(plan: VolumePlan) -> None:
    """Mount an image's layers read-only and noexec, as kubelet requires."""
    os.makedirs(plan.path, mode=0o755, exist_ok=True)
    if _is_mounted(plan.path):
        return
    nothing = f"{os.path.dirname(plan.path)}/.nothing"  # overlayfs needs at least two layers
    os.makedirs(nothing, mode=0o755, exist_ok=True)
    with contextlib.ExitStack() as stack:
        layers = plan.layers
        if plan.users:
            userns = os.open(plan.users, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, userns)
            layers = tuple(
                _mapped(layer, f"{plan.path}.layer{number}", userns, stack)
                for number, layer in enumerate(plan.layers)
            )
        context = syscalls.fsopen("overlay")
        stack.callback(os.close, context)
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "source", "overlay")
        for layer in (*layers, nothing):
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "lowerdir+", layer)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        attributes = (
            syscalls.MOUNT_ATTR_RDONLY
            | syscalls.MOUNT_ATTR_NOSUID
            | syscalls.MOUNT_ATTR_NODEV
            | syscalls.MOUNT_ATTR_NOEXEC
        )
        tree = syscalls.fsmount(context, attr_flags=attributes)
        stack.callback(os.close, tree)
        flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH
        syscalls.move_mount(tree, "", syscalls.AT_FDCWD, plan.path, flags, about=plan.path)


def _mapped(layer: str, place: str, userns: int, stack: contextlib.ExitStack) -> str:
    """A layer id-mapped by a user namespace, mounted until the overlay is created: overlayfs itself cannot be
    id-mapped, and before Linux 6.15 it only accepts layers that are mounted somewhere."""
    tree = syscalls.open_tree(syscalls.AT_FDCWD, layer, syscalls.OPEN_TREE_CLONE)
    stack.callback(os.close, tree)
    about = f"{layer} (id-mapped)"
    syscalls.mount_setattr(
        tree, "", syscalls.AT_EMPTY_PATH, syscalls.MOUNT_ATTR_IDMAP, userns_fd=userns, about=about
    )
    os.makedirs(place, exist_ok=True)
    stack.callback(os.rmdir, place)
    syscalls.move_mount(tree, "", syscalls.AT_FDCWD, place, syscalls.MOVE_MOUNT_F_EMPTY_PATH, about=about)
    stack.callback(syscalls.umount2, place, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    return place


def _is_mounted(path: str) -> bool:
    return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev


def unmount_below(path: str) -> None:
    """Unmount everything below a directory, the deepest first. Does nothing if there are no mounts."""
    prefix = path.rstrip("/") + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        table = file.read()
    if prefix not in table and prefix not in _unescaped(table):  # the usual case
        return
    mounted = [(_unescaped(line.split(" ")[4]), " - nfs" in line) for line in table.splitlines()]
    for point, of_server in sorted(mounted, key=lambda one: len(one[0]), reverse=True):
        if not point.startswith(prefix):
            continue
        try:
            if of_server:
                _detach_share(point)
            else:
                syscalls.umount2(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except SyscallError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise


def _detach_share(point: str) -> None:
    """Detach an NFS mount. umount2(2) detaches it at once, but then waits minutes for a server that does not answer. So
    wait only until the mount has left the mount table. Raises SyscallError."""
    failed: list[SyscallError] = []

    def work() -> None:
        try:
            syscalls.umount2(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW, waits=True)
        except SyscallError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name=f"umount {point}", daemon=True)
    thread.start()
    deadline = time.monotonic() + DETACH_WAIT
    while thread.is_alive() and is_mounted(point):
        if time.monotonic() > deadline:
            raise SyscallError(errno.ETIMEDOUT, "umount2", point)
        thread.join(0.01)
    if failed:
        raise failed[0]


def _unescaped(field: str) -> str:
    """Decode a field of mountinfo, which writes blanks, tabs, newlines and backslashes in octal."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


# -- hostPath ---------------------------------------------------------------------------------------------------

_CHECKS = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "FileOrCreate": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket file"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}


def _host_path(plan: VolumePlan) -> None:
    """Create and check a hostPath by its type (Kubernetes pkg/volume/hostpath/host_path.go)."""
    path, kind = plan.path, plan.host_type
    failed = f'MountVolume.SetUp failed for volume "{plan.name}" : hostPath '
    if not os.path.isabs(path):  # it would be relative to the daemon's working directory
        raise MountError(f"{failed}{path} is not absolute")
    missing = not os.path.lexists(path)
    if missing and kind in ("", "DirectoryOrCreate"):
        make_directories(path)
    elif missing and kind == "FileOrCreate":
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        os.fchmod(fd, 0o644)
        os.close(fd)
    if kind not in _CHECKS:
        return
    check, words = _CHECKS[kind]
    found = None
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(path)
    if found is None or not check(found.st_mode):
        raise MountError(f"{failed}type check failed: {path} {words}")


# -- files replaced as a whole ----------------------------------------------------------------------------------


def write_files(plan: VolumePlan) -> bool:
    """Write a payload as kubelet's atomic writer does: a new directory, then one rename of the ..data link, so that
    readers see either all old or all new files. Return whether anything changed."""
    make_directories(plan.path)
    data = f"{plan.path}/{_DATA}"
    old = os.path.realpath(data) if os.path.islink(data) else ""
    if old and _holds(old, plan):
        return False
    name = f"..{secrets.token_hex(6)}"
    fresh = f"{plan.path}/{name}"
    with contextlib.ExitStack() as undo:
        os.mkdir(fresh, 0o755)
        undo.callback(shutil.rmtree, fresh, ignore_errors=True)
        for path, file in plan.files.items():
            target = f"{fresh}/{path}"
            make_directories(os.path.dirname(target))
            _write(target, file, plan.fs_group)
        os.chmod(fresh, 0o755)
        temporary = f"{plan.path}/..data_tmp"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(name, temporary)
        os.rename(temporary, data)
        undo.pop_all()
    _link_names(plan)
    if old and os.path.dirname(old) == os.path.realpath(plan.path):
        shutil.rmtree(old, ignore_errors=True)
    return True


def _write(path: str, wanted: File, group: int | None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(wanted.content)
        if group is not None or wanted.owner is not None:
            os.fchown(fd, wanted.owner or 0, -1 if group is None else group)
        os.fchmod(fd, _mode(wanted.mode, group))


def _holds(directory: str, plan: VolumePlan) -> bool:
    """Whether the directory contains exactly the plan's payload."""
    found: dict[str, tuple[bytes, int, int, int | None]] = {}
    for root, _, names in os.walk(directory):
        for name in names:
            path = f"{root}/{name}"
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                group = None if plan.fs_group is None else status.st_gid
                mode = stat.S_IMODE(status.st_mode)
                found[os.path.relpath(path, directory)] = (file.read(), mode, status.st_uid, group)
    return found == {
        path: (file.content, _mode(file.mode, plan.fs_group), file.owner or 0, plan.fs_group)
        for path, file in plan.files.items()
    }


def _mode(mode: int, group: int | None) -> int:
    """The mode of a file. With fsGroup, the group may read it."""
    return mode if group is None else mode | 0o440


def _link_names(plan: VolumePlan) -> None:
    """Create the visible names as links into ..data, and remove those that are no longer in the payload."""
    wanted = {path.split("/")[0] for path in plan.files}
    for name in os.listdir(plan.path):
        if not name.startswith("..") and name not in wanted:
            os.unlink(f"{plan.path}/{name}")
    for name in wanted:
        if not os.path.lexists(f"{plan.path}/{name}"):
            os.symlink(f"{_DATA}/{name}", f"{plan.path}/{name}")


# -- subPath ----------------------------------------------------------------------------------------------------


def open_sub_path(volume: str, sub_path: str) -> int:
    """A descriptor (O_PATH) of a path inside a volume, created as directories if it does not exist.

    No symbolic link leads out of the volume, whatever a container that shares it does at the same time
    (CVE-2017-1002101). The engine opens the path again below the volume, in the mount namespace where it mounts it.
    """
    parts = [part for part in sub_path.split("/") if part not in ("", ".")]
    if sub_path.startswith("/") or ".." in parts:
        raise ConfigError(f'subPath "{sub_path}" must be relative and must not contain ".."')
    with contextlib.ExitStack() as stack:
        base = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, base)
        mode = stat.S_IMODE(os.fstat(base).st_mode)
        for depth in range(1, len(parts)):
            stack.callback(os.close, _directory(base, parts[:depth], mode))
        try:
            return _beneath(base, "/".join(parts) or ".")
        except FileNotFoundError:
            return _directory(base, parts, mode)
        except OSError as error:
            raise _sub_path_error(sub_path, error) from error


def _directory(base: int, parts: list[str], mode: int) -> int:
    path = "/".join(parts)
    with contextlib.suppress(FileNotFoundError):
        return _beneath(base, path)
    parent = _beneath(base, "/".join(parts[:-1]) or ".")
    made = False
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(parts[-1], dir_fd=parent)
            made = True
    finally:
        os.close(parent)
    fd = _beneath(base, path)
    if made:
        os.chmod(f"/proc/self/fd/{fd}", mode)  # by descriptor, because the name may be replaced meanwhile
    return fd


def _beneath(base: int, path: str) -> int:
    flags = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
    try:
        return syscalls.openat2(base, path, os.O_PATH, resolve=flags)
    except SyscallError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(error.errno, os.strerror(errno.ENOENT), path) from error
        raise _sub_path_error(path, error) from error


def read_beneath(volume: str, path: str) -> str | None:
    """The text of a small file inside a volume; None if it does not exist. Raises ConfigError if the path leads out of
    the volume or is no regular file."""
    try:
        base = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        flags = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
        fd = syscalls.openat2(
            base, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, resolve=flags
        )
    except SyscallError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise _sub_path_error(path, error) from error
    finally:
        os.close(base)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f'"{path}" is not a regular file')
        content = file.read(MAX_ENV_FILE + 1)
    if len(content) > MAX_ENV_FILE:
        raise ConfigError(f'"{path}" is larger than {MAX_ENV_FILE} bytes')
    return content.decode(errors="replace")


def _sub_path_error(path: str, error: OSError) -> ConfigError:
    if error.errno == errno.EXDEV:
        return ConfigError(
            f'failed to prepare subPath "{path}": it leads out of its volume through a symbolic link'
        )
    return ConfigError(f'failed to prepare subPath "{path}": {os.strerror(error.errno or 0)}')


def host_devices() -> list[dict[str, int | str]]:
    """All device nodes in the host's /dev as OCI linux.devices, for privileged containers."""
    devices: list[dict[str, int | str]] = []
    for root, directories, names in os.walk("/dev"):
        directories[:] = [d for d in directories if d not in ("pts", "shm", "fd", "mqueue", ".lxc", ".udev")]
        for name in names:
            path = f"{root}/{name}"
            try:
                found = os.lstat(path)
            except OSError:
                continue
            kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
            if not kind or path in ("/dev/console", "/dev/ptmx"):
                continue
            devices.append(
                {
                    "type": kind,
                    "path": path,
                    "major": os.major(found.st_rdev),
                    "minor": os.minor(found.st_rdev),
                    "fileMode": stat.S_IMODE(found.st_mode),
                    "uid": found.st_uid,
                    "gid": found.st_gid,
                }
            )
    return devices
