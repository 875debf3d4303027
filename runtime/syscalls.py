"""System calls that Python's `os` lacks, with the names and argument order of their man pages.

All calls go through `ctypes.PyDLL`, which keeps the GIL. So after a raw `clone3` the child owns the interpreter lock,
and no other thread can run in between. With `waits`, for calls that a server or a disk may delay, the GIL is released.
Every failure is a SyscallError with errno, the call and its object. Constants keep the kernel's spelling. Sources:
man-pages section 2, include/uapi/linux/*.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from runtime.errors import SyscallError

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, *[ctypes.c_void_p] * 6)  # registers: integers or addresses
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_NOTHING = (0,) * 6
#: The names of the calls made, in order, for the trace of a start (runtime.oci.optional.calls). None: not recorded.
noted: list[str] | None = None

# Calls added since Linux 5.1 have the same number on every architecture; older ones differ.
_NR_COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
_NR_GENERIC = {  # include/uapi/asm-generic/unistd.h: aarch64, riscv64, loongarch64
    "pivot_root": 41,
    "ioprio_set": 30,
    "keyctl": 219,
    "set_mempolicy": 237,
    "sched_setattr": 274,
    "seccomp": 277,
    "bpf": 280,
    "execveat": 281,
}
_NR_OLD = {
    "x86_64": {
        "pivot_root": 155,
        "set_mempolicy": 238,
        "keyctl": 250,
        "ioprio_set": 251,
        "sched_setattr": 314,
        "seccomp": 317,
        "bpf": 321,
        "execveat": 322,
    },
    "s390x": {
        "pivot_root": 217,
        "set_mempolicy": 270,
        "keyctl": 280,
        "ioprio_set": 282,
        "sched_setattr": 345,
        "seccomp": 348,
        "bpf": 351,
        "execveat": 354,
    },
    "ppc64le": {
        "pivot_root": 203,
        "set_mempolicy": 261,
        "keyctl": 271,
        "ioprio_set": 273,
        "sched_setattr": 355,
        "seccomp": 358,
        "bpf": 361,
        "execveat": 362,
    },
}
NR = {**_NR_COMMON, **_NR_OLD.get(os.uname().machine, _NR_GENERIC)}
AT_ONLY = os.uname().machine not in _NR_OLD  # there is mkdirat(2), but no mkdir(2)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_POSIXACL = 1 << 16
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLOSE_RANGE_CLOEXEC = 4

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

KEYCTL_JOIN_SESSION_KEYRING = 1

# statfs f_type, to check that a file system is the expected one before writing to it (linux/magic.h)
PROC_SUPER_MAGIC = 0x9FA0
TMPFS_MAGIC = 0x01021994
DEVPTS_SUPER_MAGIC = 0x1CD1
PIPEFS_MAGIC = 0x50495045
CGROUP2_SUPER_MAGIC = 0x63677270
NSFS_MAGIC = 0x6E736673
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_Path = str | bytes
_Argument = int | bytes | ctypes.c_ulong | ctypes.c_int | None


def _bytes(text: _Path | None) -> bytes | None:
    return os.fsencode(text) if text is not None else None


def note(name: str) -> None:
    """Record the name of a call that is about to be made, if calls are being traced."""
    if noted is not None:
        noted.append(name)


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all of `data` is written: a file system that is nearly full takes only a part."""
    rest = memoryview(data)
    while rest:
        note("write")
        rest = rest[os.write(fd, rest) :]


def syscall(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None, about: str = "") -> int:
    """The raw system call `name` (a key of NR). Integers are passed at register width, bytes by address."""
    note(name)
    if (result := int(_libc.syscall(NR[name], *args, *_NOTHING[len(args) :]))) < 0:
        raise SyscallError(ctypes.get_errno(), name, about)
    return result


def _libcall(name: str, *args: _Argument, about: str = "", waits: bool = False) -> int:
    note(name)
    result: int = getattr(ctypes.CDLL(None, use_errno=True) if waits else _libc, name)(*args)
    if result < 0:
        raise SyscallError(ctypes.get_errno(), name, about)
    return result


# --- processes and namespaces ---


def clone3(flags: int, *, exit_signal: int, cgroup: int | None = None) -> tuple[int, int]:
    """clone3(2) without a new stack, like fork. Returns (pid, pidfd) in the parent and (0, -1) in the child.

    The child is a copy of a single-threaded interpreter. Python's after-fork hooks have not run. The child must end
    with os._exit or execve, and must not return from the function that called clone3.
    """
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD
    if cgroup is not None:
        flags |= CLONE_INTO_CGROUP
    # struct clone_args, 88 bytes: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid … cgroup
    args = struct.pack("=11Q", flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup or 0)
    pid = syscall("clone3", args, len(args))
    return pid, (pidfd.value if pid else -1)


def unshare(flags: int) -> None:
    _libcall("unshare", ctypes.c_int(flags), about=f"{flags:#x}")


def setns(fd: int, nstype: int, *, about: str = "") -> None:
    """setns(2). `fd` is a namespace file (nstype may be 0) or a pidfd (nstype is a mask of CLONE_NEW*)."""
    _libcall("setns", fd, ctypes.c_int(nstype), about=about)


def pidfd_open(pid: int, flags: int = 0) -> int:
    return syscall("pidfd_open", pid, flags, about=str(pid))


def pidfd_getfd(pidfd: int, targetfd: int) -> int:
    return syscall("pidfd_getfd", pidfd, targetfd, 0, about=f"descriptor {targetfd}")


def pidfd_send_signal(pidfd: int, sig: int) -> None:
    syscall("pidfd_send_signal", pidfd, sig, None, 0, about=f"signal {sig}")


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    return _libcall("prctl", option, arg2, arg3, arg4, arg5, about=str(option))


def sethostname(name: str) -> None:
    raw = os.fsencode(name)
    _libcall("sethostname", raw, ctypes.c_ulong(len(raw)), about=name)


def setdomainname(name: str) -> None:
    raw = os.fsencode(name)
    _libcall("setdomainname", raw, ctypes.c_ulong(len(raw)), about=name)


def personality(persona: int) -> int:
    return _libcall("personality", ctypes.c_ulong(persona), about=f"{persona:#x}")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2), version 3, for the calling thread. Masks have 64 bits; bit n is capability n."""
    header = struct.pack("=Ii", 0x20080522, 0)
    low, high = 0xFFFFFFFF, 32
    sets = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(s & low for s in sets), *(s >> high for s in sets))
    _libcall("capset", header, data)


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of the calling thread."""
    data = ctypes.create_string_buffer(24)
    note("capget")
    if _libc.capget(struct.pack("=Ii", 0x20080522, 0), data) < 0:
        raise SyscallError(ctypes.get_errno(), "capget")
    low = struct.unpack("=6I", data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


_Rlimit = ctypes.c_ulong * 2
_RLIM_INFINITY = 0xFFFFFFFFFFFFFFFF


def prlimit(pid: int, resource: int, new: tuple[int, int] | None = None) -> tuple[int, int]:
    """prlimit(2): returns the previous (soft, hard) limits; -1: unlimited. (Importing `resource` is slower.)"""
    old = _Rlimit()
    note("prlimit64")
    if _libc.prlimit(pid, resource, None if new is None else _Rlimit(*new), old) < 0:
        raise SyscallError(ctypes.get_errno(), "prlimit", str(resource))
    soft, hard = (-1 if value == _RLIM_INFINITY else value for value in old)
    return soft, hard


def keyctl(operation: int, arg2: bytes | int | None = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    return syscall("keyctl", operation, arg2, arg3, arg4, arg5, about=str(operation))


def ioprio_set(which: int, who: int, ioprio: int) -> None:
    syscall("ioprio_set", which, who, ioprio)


def set_mempolicy(mode: int, nodes: frozenset[int]) -> None:
    """set_mempolicy(2) for the calling thread; execve preserves it. An empty set is a null mask."""
    words = max(nodes, default=-1) // 64 + 1
    mask = sum(1 << node for node in nodes).to_bytes(words * 8, "little")
    # the kernel uses one bit less than maxnode
    syscall("set_mempolicy", mode, mask or None, words * 64 + 1 if words else 0, about=f"mode {mode:#x}")


def sched_setattr(pid: int, attr: bytes, flags: int = 0) -> None:
    """sched_setattr(2). `attr` is a packed struct sched_attr, whose first word is its size."""
    syscall("sched_setattr", pid, attr, flags)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2), inclusive."""
    try:
        syscall("close_range", first, last, flags)
    except SyscallError as error:
        if error.errno != errno.ENOSYS:
            raise
        for fd in (int(name) for name in os.listdir("/proc/self/fd")):
            if first <= fd <= last and flags & CLOSE_RANGE_CLOEXEC:
                os.set_inheritable(fd, False)
            elif first <= fd <= last:
                os.closerange(fd, fd + 1)


def close_all_except(keep: set[int]) -> None:
    """Close all descriptors that are not in `keep`."""
    first = 0
    for fd in [*sorted(keep), 0x7FFFFFFF]:
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1


# --- mounts ---


def mount(
    source: _Path | None,
    target: _Path,
    fstype: _Path | None,
    flags: int = 0,
    data: _Path | None = None,
    *,
    about: str = "",
    waits: bool = False,
) -> None:
    _libcall(
        "mount",
        _bytes(source),
        _bytes(target),
        _bytes(fstype),
        ctypes.c_ulong(flags),
        _bytes(data),
        about=about or f"{os.fsdecode(fstype or source or '')} on {os.fsdecode(target)}",
        waits=waits,
    )


def umount2(target: _Path, flags: int = 0, *, waits: bool = False) -> None:
    _libcall("umount2", _bytes(target), flags, about=os.fsdecode(target), waits=waits)


def pivot_root(new_root: _Path, put_old: _Path) -> None:
    syscall("pivot_root", _bytes(new_root), _bytes(put_old), about=os.fsdecode(new_root))


def open_tree(dirfd: int, path: _Path, flags: int) -> int:
    return syscall("open_tree", dirfd, _bytes(path), flags | OPEN_TREE_CLOEXEC, about=os.fsdecode(path))


def move_mount(
    from_dirfd: int, from_path: _Path, to_dirfd: int, to_path: _Path, flags: int, *, about: str = ""
) -> None:
    about = about or os.fsdecode(to_path)
    syscall("move_mount", from_dirfd, _bytes(from_path), to_dirfd, _bytes(to_path), flags, about=about)


def attach_mount(mount_fd: int, target_fd: int, *, about: str) -> None:
    """Attach a detached mount to an open O_PATH descriptor with move_mount(2), without resolving a path."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    move_mount(mount_fd, "", target_fd, "", flags, about=about)


def fsopen(fsname: str, flags: int = FSOPEN_CLOEXEC) -> int:
    return syscall("fsopen", _bytes(fsname), flags, about=fsname)


def fsconfig(fd: int, command: int, key: str | None = None, value: _Path | None = None, aux: int = 0) -> None:
    about = f"{key or 'create'}={os.fsdecode(value)}" if value is not None else (key or "create")
    syscall("fsconfig", fd, command, _bytes(key), _bytes(value), aux, about=about)


def fsmount(fs_fd: int, flags: int = FSMOUNT_CLOEXEC, attr_flags: int = 0) -> int:
    return syscall("fsmount", fs_fd, flags, attr_flags)


def fs_messages(fs_fd: int) -> str:
    """The kernel's messages about a failed fsconfig or fsmount (fsopen's message log); "" if there are none."""
    said = []
    try:
        while text := os.read(fs_fd, 4096):
            said.append(text.decode(errors="replace").strip())
    except OSError:
        pass  # ENODATA: the log is empty
    return "; ".join(said)


def mount_setattr(  # noqa: PLR0917 - the man page's argument order
    dirfd: int,
    path: _Path,
    flags: int,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    *,
    about: str = "",
) -> None:
    attr = struct.pack("=4Q", attr_set, attr_clr, propagation, userns_fd)
    syscall("mount_setattr", dirfd, _bytes(path), flags, attr, len(attr), about=about or os.fsdecode(path))


# --- files ---


def openat2(dirfd: int, path: _Path, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), always with O_CLOEXEC. Retries EAGAIN (a rename raced with "..") up to 32 times."""
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(32):
        try:
            return syscall("openat2", dirfd, _bytes(path), how, len(how), about=os.fsdecode(path))
        except SyscallError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise SyscallError(errno.EAGAIN, "openat2", os.fsdecode(path))


# ioctl_tty(2): asm-generic's numbers, except on ppc64le
_TIOCSPTLCK = 0x40045431 if os.uname().machine != "ppc64le" else 0x80045431
_TIOCGPTPEER = 0x5441 if os.uname().machine != "ppc64le" else 0x20005441


def open_peer(master: int) -> int:
    """Unlock the terminal of `master` and open its slave by descriptor (TIOCGPTPEER), not by its name, which the owner
    of the mount namespace controls."""
    import fcntl

    if fstatfs_type(master) != DEVPTS_SUPER_MAGIC:
        raise SyscallError(errno.ENOTTY, "TIOCGPTPEER", "the file system on /dev/pts is not devpts")
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
        return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise SyscallError(error.errno or 0, "TIOCGPTPEER") from error


# Create the array type once: create_string_buffer creates one per call, 0.1 ms in a new child.
_Statfs = ctypes.c_char * 256


def fstatfs_type(fd: int) -> int:
    """The f_type of the file system of `fd`, which may be an O_PATH descriptor: one of the *_MAGIC constants."""
    if _libc.fstatfs(fd, buffer := _Statfs()) < 0:
        raise SyscallError(ctypes.get_errno(), "fstatfs", str(fd))
    return int(struct.unpack_from("=I", buffer.raw)[0])  # little endian or 32 bits wide


def pack_sched_attr(  # noqa: PLR0917 - the structure's order
    policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> bytes:
    """Pack a struct sched_attr, version 0 (48 bytes). Times are in nanoseconds."""
    return struct.pack("=IIQiIQQQ", 48, policy, flags, nice, priority, runtime, deadline, period)
