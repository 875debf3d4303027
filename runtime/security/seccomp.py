"""System call filters: compile OCI `linux.seccomp` to BPF once, and install it with one system call.

Compiling with libseccomp (through pyseccomp, imported only then) takes some milliseconds. The result depends only on
the profile, the machine and the library, so it is cached in memory and, if a directory is given, on disk. A start then
takes only a comparison and seccomp(2). Sources: runtime-spec config-linux.md "Seccomp", seccomp(2),
seccomp_rule_add(3).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from runtime.errors import CapabilityError, RuntimeFault, SpecError
from runtime.syscalls import AT_ONLY, note, syscall

if TYPE_CHECKING:
    from hashlib import sha256

    import pyseccomp
else:
    try:  # hashlib would bring OpenSSL into every shim
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256  # Python 3.11
        except ImportError:
            from hashlib import sha256

#: Increment this when the same profile compiles to something else, so that old cache files are no longer used.
_FORMAT = 1
_EPERM, _ENOSYS = 1, 38
_SET_MODE_FILTER = 1
_MAX_INSNS = 4096 * 8
_REMEMBERED = 16
_CACHED = 128  # files in a cache directory; with more than these it is emptied

ACTIONS: dict[str, int] = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
OPERATORS: dict[str, int] = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
FLAGS: dict[str, int] = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
# AUDIT_ARCH_* (linux/audit.h) of architectures that libseccomp 2.6 supports but pyseccomp does not name
_NEWER_ARCHITECTURES: dict[str, int] = {
    "LOONGARCH64": 0xC0000102,
    "M68K": 0x00000004,
    "SH": 0x4000002A,
    "SHEB": 0x0000002A,
}
NEW_LISTENER = 8
_TSYNC_ESRCH = 16  # for TSYNC with a listener: the result is a descriptor, so report a failure as an errno

_cache_dir: str | None = None
_memory: list[tuple[Mapping[str, Any], bytes]] = []  # short: a node uses a handful of profiles


def default_profile(caps: frozenset[str], *, socketcall: bool = True) -> dict[str, Any]:
    """The default profile as OCI `linux.seccomp`, for a container with these capabilities on this machine and kernel.
    `socketcall`: see `seccomp_default.resolve`."""
    from runtime.security import seccomp_default

    system = os.uname()
    kernel = _kernel(system.release)
    return seccomp_default.resolve(caps, machine=system.machine, kernel=kernel, socketcall=socketcall)


def _kernel(release: str) -> tuple[int, int]:
    """`6.18.44-fc` → (6, 18); `4.19-rc1` → (4, 19)."""
    major, _, rest = release.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return int(major), int(rest[:digits] or 0)


def compile(profile: Mapping[str, Any], *, cache_dir: str | None = None) -> bytes:
    """Compile a profile to BPF, an array of struct sock_filter.

    Names unknown to this libseccomp are skipped, as in every runtime, because profiles name calls of newer kernels.
    Calls that are newer than the profile (with numbers above all that it names) get ENOSYS instead of the default
    EPERM, so that a newer libc falls back instead of failing (as in runc). Raises SpecError for a malformed profile,
    CapabilityError if libseccomp is not installed.
    """
    for known, code in _memory:
        if known == profile:
            return code
    cache_dir = cache_dir or _cache_dir
    key = _key(profile) if cache_dir is not None else ""
    found = _load(cache_dir, key)
    if found is None:
        if _cache_dir is not None:
            (found,) = compile_apart([profile])
        else:
            found = _compile(profile)
        _save(cache_dir, key, found)
    _remember(profile, found)
    return found


def _remember(profile: Mapping[str, Any], code: bytes) -> None:
    _memory.append((json.loads(json.dumps(profile)), code))
    del _memory[:-_REMEMBERED]


def compile_in_children(directory: str) -> None:
    """For long-running processes: from now on `compile` runs the compiler in a child and caches the result in
    `directory`.

    Only root may have access to the directory, because its files are trusted.
    """
    global _cache_dir  # noqa: PLW0603
    _cache_dir = directory


def compile_apart(profiles: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Compile each profile in a child, because the compiler's imports (half of the standard library) use more memory
    than a shim. Only for a single-threaded process."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reading, "rb") as answer:
        note("clone")
        child = os.fork()
        if child == 0:
            try:
                with os.fdopen(writing, "wb") as file:
                    file.write(json.dumps(_attempt(profiles)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        text = answer.read()
    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored here
        os.waitpid(child, 0)
    said = json.loads(text or '{"error": "CapabilityError", "message": "the seccomp compiler died"}')
    if "error" in said:
        raise (SpecError if said["error"] == "SpecError" else CapabilityError)(said["message"])
    codes = [bytes.fromhex(code) for code in said["codes"]]
    for profile, code in zip(profiles, codes, strict=True):
        _remember(profile, code)
    return codes


def _attempt(profiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    try:
        return {"codes": [_compile(profile).hex() for profile in profiles]}
    except RuntimeFault as fault:
        return {"error": type(fault).__name__, "message": str(fault)}


def install_flags(profile: Mapping[str, Any]) -> int:
    """The `flags` for `install`. The default is SPEC_ALLOW, as in runc (the filter then enables no speculation
    mitigation). Raises SpecError."""
    names = profile.get("flags")
    listener = NEW_LISTENER if needs_listener(profile) else 0
    if names is None:
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] | listener
    if unknown := sorted(set(names) - set(FLAGS)):
        raise SpecError(f"linux.seccomp.flags: unknown {', '.join(unknown)}")
    flags = sum(FLAGS[name] for name in set(names)) | listener
    return flags | _TSYNC_ESRCH if listener and flags & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"] else flags


def needs_listener(profile: Mapping[str, Any]) -> bool:
    """Whether a rule notifies user space (SCMP_ACT_NOTIFY). Such a filter is installed with NEW_LISTENER, and the
    descriptor is passed on."""
    actions = {profile.get("defaultAction"), *(rule.get("action") for rule in profile.get("syscalls") or [])}
    return "SCMP_ACT_NOTIFY" in actions


def architectures() -> list[str]:
    """The SCMP_ARCH_* names that a profile may use; empty if libseccomp is not installed."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError):
        return []
    known = [name for name in vars(pyseccomp.Arch) if name.isupper() and name != "NATIVE"]
    return [f"SCMP_ARCH_{name}" for name in (*known, *_NEWER_ARCHITECTURES)]


def install(bpf: bytes, flags: int = 0) -> int:
    """Install the filter in the calling thread: seccomp(SECCOMP_SET_MODE_FILTER). It cannot be removed, and execve
    preserves it.

    Needs no_new_privs or CAP_SYS_ADMIN. Returns the listener's descriptor with NEW_LISTENER, else 0.
    """
    code = ctypes.create_string_buffer(bpf, len(bpf))
    program = struct.pack("@HP", len(bpf) // 8, ctypes.addressof(code))
    return syscall("seccomp", _SET_MODE_FILTER, flags, program, about="SECCOMP_SET_MODE_FILTER")


# --- the cache ---


def _key(profile: Mapping[str, Any]) -> str:
    text = json.dumps([_FORMAT, os.uname().machine, library_version(), profile])
    return sha256(text.encode()).hexdigest()


@cache
def library_version() -> str:
    """libseccomp's version; "" if it is not installed. Does not import pyseccomp, which starts a process to find the
    library."""
    try:
        library = ctypes.PyDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return ""
    library.seccomp_version.restype = ctypes.c_void_p
    return ".".join(map(str, (ctypes.c_uint * 3).from_address(library.seccomp_version())))


def _load(cache_dir: str | None, key: str) -> bytes | None:
    """Read a cache file, or None. The directory must be accessible only to us, and the content must have a valid
    length."""
    if cache_dir is None:
        return None
    try:
        info = os.lstat(cache_dir)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            return None
        with open(f"{cache_dir}/{key}.bpf", "rb") as file:
            code = file.read(_MAX_INSNS + 1)
    except OSError:
        return None
    return code if code and len(code) % 8 == 0 and len(code) <= _MAX_INSNS else None


def _save(cache_dir: str | None, key: str, code: bytes) -> None:
    """Write a cache file by rename, so that a reader never sees part of it. Ignore errors: without the file, the
    profile is compiled again."""
    if cache_dir is None:
        return
    draft = f"{cache_dir}/.{key}.{os.getpid()}"
    try:
        for call in (
            "mkdirat" if AT_ONLY else "mkdir",
            "openat",
            "write",
            "renameat" if AT_ONLY else "rename",
        ):
            note(call)
        os.makedirs(cache_dir, mode=0o700, exist_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(code)
        os.replace(draft, f"{cache_dir}/{key}.bpf")
        names = os.listdir(cache_dir)
        for name in names if len(names) > _CACHED else ():
            os.unlink(f"{cache_dir}/{name}")
    except OSError:
        return


# --- the compiler ---


def _compile(profile: Mapping[str, Any]) -> bytes:
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise CapabilityError(
            f"seccomp needs libseccomp 2 and pyseccomp ({error}): apt install libseccomp2"
        ) from error

    default = _action(
        "linux.seccomp.defaultAction", profile.get("defaultAction"), profile.get("defaultErrnoRet")
    )
    try:
        made = pyseccomp.SyscallFilter(default)
    except OSError as error:  # an invalid errno; the library accepts those below 4095
        raise SpecError(
            f"linux.seccomp.defaultErrnoRet: {profile.get('defaultErrnoRet')} is not an errno"
        ) from error
    made.set_attr(pyseccomp.Attr.CTL_NNP, 0)  # process.noNewPrivileges sets no_new_privs
    made.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree of the call numbers
    architectures = _add_architectures(made, profile.get("architectures") or [])
    named: set[str] = set()
    for rule in profile.get("syscalls") or []:
        named.update(rule.get("names") or [])
        action = _action("linux.seccomp.syscalls", rule.get("action"), rule.get("errnoRet"))
        if action != default:  # libseccomp rejects a rule that equals the default
            _add_rules(made, action, rule)
    code = _export(made)
    if default == ACTIONS["SCMP_ACT_ERRNO"] | _EPERM:
        code = _enosys_prefix(architectures, named) + code
    return code


def _action(where: str, name: Any, errno_: Any) -> int:
    value = ACTIONS.get(name)
    if value is None:
        raise SpecError(f"{where}: unknown action {name!r}")
    if name not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return value
    return value | (_EPERM if errno_ is None else int(errno_)) & 0xFFFF


def _add_architectures(made: pyseccomp.SyscallFilter, names: Iterable[str]) -> list[int]:
    """Add the profile's architectures; returns them with the native one, which is always included.

    SpecError for one that this library (or byte order) cannot filter. Leaving it out would be unsafe only if this
    machine ran its programs, but the profile requests it.
    """
    import pyseccomp

    found = [pyseccomp.system_arch()]
    for name in names:
        short = name.removeprefix("SCMP_ARCH_")
        token = getattr(pyseccomp.Arch, short, None) or _NEWER_ARCHITECTURES.get(short)
        if token is None:
            raise SpecError(f"linux.seccomp.architectures: unknown {name!r}")
        if token in found:
            continue
        try:
            made.add_arch(token)
        except FileExistsError:
            continue
        except OSError as error:
            raise SpecError(
                f"linux.seccomp.architectures: cannot filter {name} on this machine ({error})"
            ) from error
        found.append(token)
    return found


def _add_rules(made: pyseccomp.SyscallFilter, action: int, rule: Mapping[str, Any]) -> None:
    """Add a rule for each name. Conditions are combined with AND.

    libseccomp cannot combine several conditions on one argument. Those become separate rules, which means OR, as in
    runc.
    """
    import pyseccomp

    args = rule.get("args") or []
    indexes = [arg.get("index") for arg in args]
    joined = [args] if len(set(indexes)) == len(indexes) else [[arg] for arg in args]
    for name in rule.get("names") or []:
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        if number == -1:  # __NR_SCMP_ERROR: unknown to this library on every architecture
            continue
        for conditions in joined:
            try:
                made.add_rule(action, number, *(_condition(name, arg) for arg in conditions))
            except OSError as error:
                raise SpecError(
                    f"linux.seccomp: libseccomp rejected the rule for {name} ({error})"
                ) from error


def _condition(name: str, arg: Mapping[str, Any]) -> pyseccomp.Arg:
    import pyseccomp

    operator, index = OPERATORS.get(arg.get("op", "")), arg.get("index")
    if operator is None or not isinstance(index, int) or not 0 <= index <= 5:
        raise SpecError(f"linux.seccomp: {name} has a malformed condition {dict(arg)}")
    return pyseccomp.Arg(index, operator, arg.get("value", 0), arg.get("valueTwo", 0))


def _export(made: pyseccomp.SyscallFilter) -> bytes:
    with open(os.memfd_create("seccomp", os.MFD_CLOEXEC), "w+b", buffering=0) as file:
        made.export_bpf(file)
        file.seek(0)
        return file.readall()


# classic BPF (linux/filter.h): load a word of struct seccomp_data, jump, return
_LD, _JEQ, _JGE, _JGT, _JA, _RET = 0x20, 0x15, 0x35, 0x25, 0x05, 0x06
_OFF_NR, _OFF_ARCH = 0, 4
_X32_BIT = 0x40000000


def _enosys_prefix(architectures: Iterable[int], named: Iterable[str]) -> bytes:
    """Instructions in front of the filter that return ENOSYS for system calls newer than the profile.

    Those have numbers above all that the profile names, per architecture. x32 shares the token of x86_64 and is
    recognized by a bit in the number.
    """
    import pyseccomp

    names = tuple(named)
    code = b""
    for token in architectures:
        highest = max((pyseccomp.resolve_syscall(token, name) for name in names), default=-1)
        if token == pyseccomp.Arch.X32 or highest < 0:
            continue
        block = [
            _stmt(_LD, _OFF_ARCH),
            _jump(_JEQ, token, 0, 4),  # another architecture: jump past this block
            _stmt(_LD, _OFF_NR),
            _jump(_JGE, _X32_BIT, 2, 0),
            _jump(_JGT, highest, 0, 1),
            _stmt(_RET, ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS),
        ]
        code += b"".join(block)
    return code


def _stmt(op: int, k: int) -> bytes:
    return struct.pack("=HBBI", op, 0, 0, k)


def _jump(op: int, k: int, jt: int, jf: int) -> bytes:
    return struct.pack("=HBBI", op, jt, jf, k)
