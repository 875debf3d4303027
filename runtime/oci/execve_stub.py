"""A program of a few hundred bytes that does the last steps of a container's start in place of the interpreter.

It only executes a list of system calls, of which execve is the last. This module builds the list and everything it
points to (argv, the environment, the seccomp filter) and places them in the program, a static ELF in a memfd. Hence

- a created container that waits for `start` uses two pages of memory, not a Python heap;
- /proc/self/exe in the container is that memfd and never the host's Python, so an entry point `#!/proc/self/exe` finds
  nothing worth overwriting (CVE-2019-5736);
- the clone that enters a pid namespace last (pid_entry.py) copies two pages, not a Python heap, and has nothing of that
  heap in its memory.

It exists for x86_64 and aarch64. On other machines the interpreter waits and calls execve itself (`available`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without `signal`'s enum conversions
import fcntl
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from runtime.security.capabilities import CapSets

# for entry in list: rax = syscall(entry.nr, entry.args); rax - (entry.verdict >> 1) is an error?
#     entry.verdict & 1 or die : *entry.result = rax; rax or list += entry.skip
# die: errno and the number of the call into a report, write(report.fd, report, 24); end: exit_group(1)
_X86_64: Final = (
    "bb{table}488b03488b7b08488b7310488b53184c8b53204c8b43284c8b4b300f05"
    "488b4b4048d1e94889c24829ca4881fa01f0ffff7316488b4b384889014883c3504885c075bd48035bf8ebb7f643400175eb"
    "b9{report}48f7d848894108488b0348894110488b79184889ceba18000000b8010000000f05bf01000000b8e70000000f05"
)
_AARCH64: Final = (
    "33040058680240a9610a41a9631242a9651a40f9010000d4692240f9090449cb3ffd3fb102010054"
    "691e40f9200100f97342019180feffb569825ff87302098bf1ffff17692240f949ff073709020058e00300cb200500f9"
    "6a0240f92a0900f9200d40f9e10309aa020380d2080880d2010000d4200080d2c80b80d2010000d4"
    "00000000{table}00000000{report}00000000"
)
OPTIONAL, MORE_THAN_ZERO = 1, 2  # verdict: errors are ignored; a result of 0 is an error
_NR: Final = {
    "write": 1,
    "ioctl": 16,
    "pause": 34,
    "recvfrom": 45,
    "sendmsg": 46,
    "execve": 59,
    "fcntl": 72,
    "setsid": 112,
    "prctl": 157,
    "exit_group": 231,
    "accept4": 288,
    "capset": 126,
    "seccomp": 317,
    "clone3": 435,
    "rt_sigaction": 13,
}
# include/uapi/asm-generic/unistd.h. It has no pause(2); ppoll(2) of nothing without a timeout does the same.
_NR_GENERIC: Final = {
    "write": 64,
    "ioctl": 29,
    "pause": 73,
    "recvfrom": 207,
    "sendmsg": 211,
    "execve": 221,
    "fcntl": 25,
    "setsid": 157,
    "prctl": 167,
    "exit_group": 94,
    "accept4": 242,
    "capset": 91,
    "seccomp": 277,
    "clone3": 435,
    "rt_sigaction": 134,
}


class _Machine(NamedTuple):
    code: str
    end: str  # the part of the code that calls exit_group(1)
    elf: int  # e_machine of elf.h
    numbers: Mapping[str, int]
    page: int  # the largest page size of its kernels, bytes


_MACHINES: Final = {
    "x86_64": _Machine(_X86_64, "bf01000000b8e70000000f05", 62, _NR, 4096),
    "aarch64": _Machine(_AARCH64, "200080d2c80b80d2010000d4", 183, _NR_GENERIC, 65536),
}

_CODE_AT: Final = 0x400000
_DATA_AT: Final = 0x600000
_HEADERS: Final = 64 + 2 * 56
_ENDING: Final = (1, 2, 3, 15)  # SIGHUP, SIGINT, SIGQUIT, SIGTERM
_SA_RESTORER: Final = 0x04000000  # x86_64 and aarch64 call no handler without it
_MFD_EXEC: Final = 0x10  # since Linux 6.3; without it vm.memfd_noexec may forbid execution
_ENTRY: Final = 80  # bytes: the number of the call, 6 arguments, result, verdict, skip
_REPORT: Final = struct.Struct("=4q")  # 0, errno, number of the call, descriptor to write to
REPORT_SIZE: Final = 24
_WORD: Final = 8  # bytes: more than "start"

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAP_AMBIENT, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 1, 4, 47, 2, 4
_CLONE_PIDFD, _CLONE_PARENT, _CLONE_PARENT_SETTID = 0x1000, 0x8000, 0x100000
# ioctl_tty(2): asm-generic's number, except on ppc64le. Importing termios would take half a millisecond.
TIOCSCTTY: Final = 0x540E
_ANNOUNCED: Final = struct.Struct("=8si4x")  # the mark, and a pid in our parent's pid namespace
_ANNOUNCED_MARK: Final = b"\0cloned\0"
_RIGHTS: Final = struct.Struct("=Qiii4x")  # struct cmsghdr with one descriptor, padded (CMSG_SPACE)
_SOCK_CLOEXEC: Final = 0o2000000
_CAP_SYS_ADMIN: Final = 21


def available() -> bool:
    return os.uname().machine in _MACHINES


class Program:
    """A list of system calls in order. Arguments given as bytes are placed in the program and become addresses."""

    def __init__(self, machine: str = "") -> None:
        """`machine`: an architecture as in uname(2); "" means this machine's."""
        self._machine = _MACHINES[machine or os.uname().machine]
        self._data = bytearray(_REPORT.size + 8)  # the report; 8 bytes for unused results
        self._calls: list[tuple[list[int], int, int, int]] = []

    def call(self, name: str, *args: int | bytes, result: int = 0, verdict: int = 0, skip: int = 0) -> None:
        """Append a call. `result`: the address to store its return value at; 0: discard it. `skip`: how many of the
        next calls are left out if it returns 0."""
        words = [a if isinstance(a, int) else self.place(a) for a in args]
        entry = [self._machine.numbers[name], *words, *[0] * (6 - len(words))]
        self._calls.append((entry, result or _DATA_AT + _REPORT.size, verdict, skip))

    def place(self, data: bytes) -> int:
        """Place `data` in the program; returns its address."""
        self._data += b"\0" * (-len(self._data) % 8)
        where = _DATA_AT + len(self._data)
        self._data += data
        return where

    def vector(self, texts: list[bytes]) -> int:
        """Place a NULL-terminated array of strings for execve; returns its address."""
        addresses = [self.place(text + b"\0") for text in texts]
        return self.place(struct.pack(f"={len(addresses) + 1}Q", *addresses, 0))

    def ends_with(self, signals: Sequence[int]) -> None:
        """Make these signals end the program until execve. Without handlers, the first process of a pid namespace
        ignores them (kill(2))."""
        machine = self._machine
        code = bytes.fromhex(machine.code.format(table="0" * 8, report="0" * 8))
        end = _CODE_AT + _HEADERS + code.rindex(bytes.fromhex(machine.end))
        action = self.place(struct.pack("=4Q", end, _SA_RESTORER, end, 0))
        for number in signals:
            self.call("rt_sigaction", number, action, 0, 8)

    def report_to(self, fd: int) -> None:
        _REPORT.pack_into(self._data, 0, 0, 0, 0, fd)

    @property
    def report_fd(self) -> int:
        """The address of the descriptor to which a failure is written."""
        return _DATA_AT + 24

    def image(self) -> bytes:
        """The ELF file, with one code and one data segment."""
        table = b"".join(
            struct.pack("=7Q", *(word & 0xFFFFFFFFFFFFFFFF for word in entry))
            + struct.pack("=3Q", result, verdict, skip * _ENTRY)
            for entry, result, verdict, skip in self._calls
        )
        where = self.place(table)
        machine = self._machine
        code = bytes.fromhex(
            machine.code.format(
                table=struct.pack("=I", where).hex(), report=struct.pack("=I", _DATA_AT).hex()
            )
        )
        page = machine.page
        data_offset = -(-(_HEADERS + len(code)) // page) * page
        entry_point = _CODE_AT + _HEADERS
        header = struct.pack(
            "=16sHHIQQQIHHHHHH",
            b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 2, machine.elf, 1, entry_point, 64, 0, 0, 64, 56, 2, 0, 0, 0,
        )  # fmt: skip
        read_execute, read_write, size = 5, 6, _HEADERS + len(code)
        first = struct.pack("=IIQQQQQQ", 1, read_execute, 0, _CODE_AT, _CODE_AT, size, size, page)
        length = len(self._data)
        second = struct.pack(
            "=IIQQQQQQ", 1, read_write, data_offset, _DATA_AT, _DATA_AT, length, length, page
        )
        return (header + first + second + code).ljust(data_offset, b"\0") + bytes(self._data)


class Exec(NamedTuple):
    """What remains to be done after the start."""

    program: bytes
    argv: list[bytes]
    environment: Mapping[bytes, bytes]
    caps: CapSets
    seccomp: tuple[bytes, int] | None  # (BPF, SECCOMP_FILTER_FLAG_*)
    filter_last: bool  # False: installing it needs CAP_SYS_ADMIN, which the final sets may lack

    @property
    def kept_caps(self) -> int:
        """The capabilities that the stub needs, as a mask."""
        return self.caps.permitted | (1 << _CAP_SYS_ADMIN if self.seccomp and not self.filter_last else 0)


def waiting(last: Exec, listener: int, lock: int, machine: str = "") -> Program:
    """A program that waits for a connection to `listener` and writes a failure to it. It holds `lock` until execve."""
    made = Program(machine)
    made.call("prctl", _PR_SET_DUMPABLE, 0)  # execve made it dumpable, and so open to ptrace
    for fd in (listener, lock):
        made.call("fcntl", fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    made.ends_with(_ENDING)  # so that they end the program, as they end runc's init (a Go program)
    made.call("accept4", listener, 0, 0, _SOCK_CLOEXEC, result=made.report_fd)
    _finish(made, last)
    return made


def at_once(last: Exec, channel: int, machine: str = "", *, word: bool = False) -> Program:
    """Return a program that executes `last` at once, and writes to `channel` if that fails.

    `word`: wait for a message on `channel` first. If the channel is closed instead, the program exits.
    """
    made = Program(machine)
    made.call("prctl", _PR_SET_DUMPABLE, 0)
    made.report_to(channel)
    made.call("fcntl", channel, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    if word:
        made.call("recvfrom", channel, bytes(_WORD), _WORD, verdict=MORE_THAN_ZERO)
    _finish(made, last)
    return made


def cloning(last: Exec, channel: int, *, pdeathsig: int, terminal: bool, machine: str = "") -> Program:
    """A program that clones a process, announces it on `channel` (`announced`) and exits.

    The clone is a child of our parent. It waits for a message on `channel`, becomes the leader of a session, whose
    terminal is its stdin if `terminal` is true, and executes `last`. It exits if the channel is closed instead. The
    kernel writes the clone's pid and pidfd to the memory of the first process only (clone(2)).
    """
    made = Program(machine)
    made.call("prctl", _PR_SET_DUMPABLE, 0)
    made.report_to(channel)
    made.call("fcntl", channel, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    packet = made.place(_ANNOUNCED.pack(_ANNOUNCED_MARK, 0))
    rights = made.place(_RIGHTS.pack(_RIGHTS.size - 4, socket.SOL_SOCKET, socket.SCM_RIGHTS, -1))
    vector = made.place(struct.pack("=2Q", packet, _ANNOUNCED.size))
    message = struct.pack("=7Q", 0, 0, vector, 1, rights, _RIGHTS.size, 0)  # struct msghdr
    # struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
    wanted = _CLONE_PIDFD | _CLONE_PARENT | _CLONE_PARENT_SETTID
    clone_args = struct.pack("=11Q", wanted, rights + 16, 0, packet + 8, *[0] * 7)
    made.call("clone3", clone_args, len(clone_args), skip=2)
    made.call("sendmsg", channel, message, socket.MSG_NOSIGNAL)
    made.call("exit_group", 0)
    if pdeathsig:
        made.call("prctl", _PR_SET_PDEATHSIG, pdeathsig)
    made.call("recvfrom", channel, bytes(_WORD), _WORD, verdict=MORE_THAN_ZERO)
    made.call("setsid")
    if terminal:
        made.call("ioctl", 0, TIOCSCTTY, 0)
    _finish(made, last)
    return made


def announced(packet: bytes) -> int:
    """The pid that a `cloning` program announces with this packet; 0 if it is something else."""
    if len(packet) != _ANNOUNCED.size:
        return 0
    mark, pid = _ANNOUNCED.unpack(packet)
    return int(pid) if mark == _ANNOUNCED_MARK else 0


def _finish(made: Program, last: Exec) -> None:
    if not last.filter_last:
        _filter(made, last.seccomp)
    made.call("prctl", _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, verdict=OPTIONAL)
    sets = (last.caps.effective, last.caps.permitted, last.caps.inheritable)
    words = struct.pack("=6I", *(s & 0xFFFFFFFF for s in sets), *(s >> 32 for s in sets))
    made.call("capset", struct.pack("=Ii", 0x20080522, 0), words)
    for number in range(64):
        if last.caps.ambient >> number & 1:
            made.call("prctl", _PR_CAP_AMBIENT, _AMBIENT_RAISE, number)
    if last.filter_last:
        _filter(made, last.seccomp)
    pairs = [name + b"=" + value for name, value in last.environment.items()]
    made.call("execve", last.program + b"\0", made.vector(last.argv), made.vector(pairs))


def _filter(made: Program, seccomp: tuple[bytes, int] | None) -> None:
    if seccomp is not None:
        code, flags = seccomp
        made.call("seccomp", 1, flags, made.place(struct.pack("=H6xQ", len(code) // 8, made.place(code))))


def execute(made: Program, argv: Sequence[bytes] = (b"kubelite-oci", b"init")) -> None:
    """Execute the program in place of this one. Returns without effect if this machine cannot execute a memfd."""
    try:
        fd = os.memfd_create("kubelite-oci", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create("kubelite-oci", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write(fd, made.image())
        fcntl.fcntl(
            fd,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE,
        )
        os.execve(fd, list(argv), {})
    except OSError:
        os.close(fd)


def _write(fd: int, image: bytes) -> None:
    """Write the image. OSError EFBIG, and no signal, if the container's RLIMIT_FSIZE is smaller (setrlimit(2))."""
    before = _signal.signal(_signal.SIGXFSZ, _signal.SIG_IGN)
    try:
        rest = memoryview(image)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        _signal.signal(_signal.SIGXFSZ, before)


def failure(packet: bytes) -> tuple[int, str] | None:
    """(errno, name of the call) of a failure report; None if the packet is something else."""
    if len(packet) != REPORT_SIZE or packet[:8] != bytes(8):
        return None
    _, code, number = struct.unpack("=3q", packet)
    names = {of: name for name, of in _MACHINES[os.uname().machine].numbers.items()}
    return code, names.get(number, str(number))
