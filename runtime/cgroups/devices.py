"""A container's device access: translate the OCI rule list to a v1 allow list or a v2 BPF program.

The rules are evaluated in order (runtime-spec config-linux.md, "Allowed Device list") to an `Access`, which is a
default and its exceptions. Both kernel forms are generated from the `Access`. Sources:
admin-guide/cgroup-v1/devices.rst, admin-guide/cgroup-v2.rst "Device controller", bpf(2), linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from runtime.errors import SpecError, SyscallError
from runtime.syscalls import syscall

# Allowed in every container regardless of its rules (runtime-spec config-linux.md "Default Devices", and runc's
# AllowedDevices): mknod of any device, the standard devices, pseudo-terminals. As in runc since 1.2, not TUN.
DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))
    ),
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
)


# The beginning of the warning that device access is not restricted. prepare.apply_limits searches for it.
UNRESTRICTED = "device access is not restricted"


class Node(NamedTuple):
    """The devices that an exception applies to. None means `*`."""

    type: str  # "b" or "c"
    major: int | None
    minor: int | None

    def __str__(self) -> str:
        major, minor = ("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{self.type} {major}:{minor}"


class Access(NamedTuple):
    """`allow` is the default for all devices. `exceptions` lists the access letters (r, w, m) with the opposite
    verdict."""

    allow: bool
    exceptions: dict[Node, frozenset[str]]


def resolve(rules: Iterable[Mapping[str, Any]]) -> Access:
    """Evaluate the rules in order, followed by DEFAULT_RULES, starting from "nothing is allowed". Raises SpecError."""
    allow, exceptions = False, dict[Node, frozenset[str]]()
    for rule in (*rules, *DEFAULT_RULES):
        # runc accepts and ignores an "a" in access, as in "rwa".
        letters = frozenset((rule.get("access") or "rwm").replace("a", ""))
        kind = rule.get("type") or "a"
        if kind not in ("a", "b", "c", "u", "p") or not letters <= frozenset("rwm"):
            raise SpecError(f"linux.resources.devices: {dict(rule)} is not a device rule")
        major, minor = (None if rule.get(key) in (None, -1) else int(rule[key]) for key in ("major", "minor"))
        if kind == "a":
            if major is not None or minor is not None:
                raise SpecError("linux.resources.devices: a rule with device numbers needs the type b or c")
            allow, exceptions = bool(rule.get("allow")), {}
            continue
        node = Node("c" if kind == "u" else kind, major, minor)
        had = exceptions.get(node, frozenset())
        now = had - letters if bool(rule.get("allow")) is allow else had | letters
        exceptions = {**exceptions, node: now}
    return Access(
        allow, {node: letters for node, letters in exceptions.items() if letters and node.type in "bc"}
    )


def v1_writes(current: str, wanted: Access) -> list[tuple[str, str]]:
    """The (file, value) writes that change a cgroup with devices.list `current` to `wanted`.

    A reset with `a` fails in a cgroup with children, and would briefly deny running processes all devices. So only a
    list that allows everything (a new cgroup's) is reset; any other is changed entry by entry.
    """
    have = _parse_list(current)
    if wanted.allow:
        reset = [] if have is None and not wanted.exceptions else [("devices.allow", "a")]
        return reset + [("devices.deny", f"{n} {_letters(a)}") for n, a in wanted.exceptions.items()]
    writes = []
    if have is None:
        writes.append(("devices.deny", "a"))
        have = {}
    for node, letters in have.items():
        if extra := letters - wanted.exceptions.get(node, frozenset()):
            writes.append(("devices.deny", f"{node} {_letters(extra)}"))
    for node, letters in wanted.exceptions.items():
        if lacking := letters - have.get(node, frozenset()):
            writes.append(("devices.allow", f"{node} {_letters(lacking)}"))
    return writes


def _parse_list(text: str) -> dict[Node, frozenset[str]] | None:
    """Parse devices.list. None for `a *:* rwm`, which allows everything except possible exceptions that the kernel does
    not list."""
    found: dict[Node, frozenset[str]] = {}
    for line in text.splitlines():
        kind, numbers, letters = line.split()
        if kind == "a":
            return None
        major, minor = (None if part == "*" else int(part) for part in numbers.split(":"))
        found[Node(kind, major, minor)] = frozenset(letters)
    return found


def _letters(access: frozenset[str]) -> str:
    return "".join(letter for letter in "rwm" if letter in access)


# --- v2: a BPF_PROG_TYPE_CGROUP_DEVICE program -------------------------------------------------------------------

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_DEVICE = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LOG_SIZE = 65536


def program(access: Access) -> bytes:
    """The BPF instructions. struct bpf_cgroup_dev_ctx is {access << 16 | type, major, minor}, all u32.

    An exception to "deny" matches if it contains all requested access letters; an exception to "allow" matches if it
    contains any of them.
    """
    code = [
        _insn(0x61, dst=2, src=1, off=0),  # r2 = ctx->access_type
        _insn(0xBC, dst=3, src=2),  # w3 = w2
        _insn(0x54, dst=2, imm=0xFFFF),  # w2 &= 0xffff: the type
        _insn(0x74, dst=3, imm=16),  # w3 >>= 16: the letters
        _insn(0x61, dst=4, src=1, off=4),  # r4 = ctx->major
        _insn(0x61, dst=5, src=1, off=8),  # r5 = ctx->minor
    ]
    for node, letters in access.exceptions.items():
        code += _block(node, letters, allow=not access.allow)
    code += [_insn(0xB4, dst=0, imm=int(access.allow)), _insn(0x95)]  # w0 = default; exit
    return b"".join(code)


def _block(node: Node, letters: frozenset[str], *, allow: bool) -> list[bytes]:
    """The code for one exception: jump past its verdict at the first mismatch."""
    mask = sum(_ACCESS[letter] for letter in letters)
    tests: list[tuple[int, int, int]] = [(0x55, 2, _DEVICE[node.type])]  # jne r2, type
    if node.major is not None:
        tests.append((0x55, 4, node.major))
    if node.minor is not None:
        tests.append((0x55, 5, node.minor))
    prepare: list[bytes] = []
    if mask != 7:
        prepare = [_insn(0xBC, dst=1, src=3), _insn(0x54, dst=1, imm=mask)]  # w1 = w3 & mask
    verdict = [_insn(0xB4, dst=0, imm=int(allow)), _insn(0x95)]
    end = len(tests) + len(prepare) + bool(prepare) + len(verdict)
    block = [_insn(op, dst=reg, imm=imm, off=end - at - 1) for at, (op, reg, imm) in enumerate(tests)]
    block += prepare
    if prepare:  # allow: all requested bits in the mask (w1 == w3); deny: any (w1 != 0)
        skip = _insn(0x5D, dst=1, src=3, off=2) if allow else _insn(0x15, dst=1, imm=0, off=2)
        block.append(skip)
    return block + verdict


def _insn(op: int, *, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", op, src << 4 | dst, off, imm)


def attach_v2(directory: str, access: Access) -> str | None:
    """Load the program and attach it to the cgroup, then detach earlier programs, so that access is never unrestricted.

    Returns a warning if this kernel refuses BPF; device access is then not restricted.
    """
    code = program(access)
    try:
        cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SyscallError(error.errno or 0, "open", directory) from error
    try:
        before = _attached(cgroup)
        loaded = _load(code)
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIII", cgroup, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(loaded)
        for program_id in before:
            _detach(cgroup, program_id)
    except SyscallError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        if access == Access(True, {}):  # no restriction was requested
            return None
        return f"{UNRESTRICTED}: this kernel refuses a BPF device program ({error})"
    finally:
        os.close(cgroup)
    return None


def _load(code: bytes) -> int:
    """bpf(BPF_PROG_LOAD): the descriptor of the verified program. The verifier's log is requested only after a
    failure."""
    buffer = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        return _bpf(
            _PROG_LOAD,
            struct.pack(
                "=IIQQIIQ",
                _TYPE_CGROUP_DEVICE,
                len(code) // 8,
                ctypes.addressof(buffer),
                ctypes.addressof(licence),
                1 if log is not None else 0,
                len(log) if log is not None else 0,
                ctypes.addressof(log) if log is not None else 0,
            ).ljust(128, b"\0"),
        )

    try:
        return attempt(None)
    except SyscallError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        return attempt(ctypes.create_string_buffer(_LOG_SIZE))


def _attached(cgroup: int) -> list[int]:
    """The ids of device programs attached to this cgroup itself (BPF_PROG_QUERY)."""
    ids = (ctypes.c_uint32 * 64)()
    query = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", cgroup, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 64).ljust(
            128, b"\0"
        )
    )
    _bpf(_PROG_QUERY, query)
    count = struct.unpack_from("=I", query, 24)[0]
    return list(ids[:count])


def _detach(cgroup: int, program_id: int) -> None:
    fd = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0))
    try:
        _bpf(_PROG_DETACH, struct.pack("=III", cgroup, fd, _ATTACH_CGROUP_DEVICE))
    finally:
        os.close(fd)


def _bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    return syscall("bpf", command, attributes, len(attributes), about=f"command {command}")
