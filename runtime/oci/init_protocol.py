"""What the parent passes to a child process, and how the child reports back."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

from runtime import syscalls as sc
from runtime.errors import RuntimeFault
from runtime.oci import hooks
from runtime.oci.config.spec import Process
from runtime.oci.rootfs import rootfs
from runtime.security.capabilities import CapSets

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.cgroups import Place
    from runtime.oci.rootfs.procfs import Procfs

MOST_TIMES: Final = 32 * 1024  # characters of `written` steps, which share a packet with other fields

# Characters of each field of an error: a program's name can have 128 KiB, but a packet cannot.
_MAX_TEXT: Final = 4096


@dataclass(frozen=True, slots=True)
class Detached:
    """For a parent that exits before the start."""

    listener: int  # a listening SOCK_SEQPACKET socket; a connection starts the program
    lock: int  # a file that is flock'd until the start; the lock tells `created` from `running`


@dataclass(frozen=True, slots=True)
class Command:
    """Options for a process started by a command that exits, not by a lasting parent such as a shim.

    The command has already passed config.json through `oci.validate`.
    """

    detached: Detached | None = None  # the init waits for a connection after Container.detach()
    dies_with_us: bool = False
    preserve: int = 0  # how many descriptors, from 3 on, the container keeps
    new_keyring: bool = True
    pivot: bool = True
    ignore_paused: bool = False
    scope: Callable[[int], Callable[[], None]] | None = None  # spawn.make_scope
    # Called before a mount is made that outlives the container (shared_root).
    mounted: Callable[[str], None] | None = None
    seccomp_cache: str | None = None  # a directory for compiled filters


def from_command(command: Command | None) -> dict[str, Any]:
    """The Job fields that follow from the command's options."""
    if command is None:
        return {}
    wanted: dict[str, Any] = {
        "detached": command.detached,
        "use_stub": True,
        "pdeathsig": signal.SIGKILL if command.dies_with_us else 0,
        "preserve": command.preserve,
    }
    return wanted if command.new_keyring else {**wanted, "keyring": ""}


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """A user namespace that clone3 alone cannot enter, because it exists already or others must be joined before it.

    The container's new namespaces are created inside it, so that they belong to it.
    """

    fd: int  # of an existing one; -1: it is created with the others
    flags: int  # CLONE_NEW* of the namespaces created inside it
    root: tuple[int, int]  # host uid and gid of its root


@dataclass(frozen=True, slots=True)
class Job:
    """Everything the child needs, decided and opened by the parent. The child closes all descriptors not named here."""

    process: Process
    channel: socket.socket
    parent: int  # pidfd of the parent; the child dies with it if pdeathsig is set
    caps: CapSets
    available_caps: int  # our present bounding set
    cgroup: Place
    adopted: bool = False  # `parent` is our own parent: clone the child as a child of it (CLONE_PARENT)
    join: tuple[tuple[int, int], ...] = ()  # (namespace file or pidfd, CLONE_NEW* mask), in order
    enters_pid_namespace: bool = (
        False  # `join` includes a pid namespace, which only the program's process enters, as the last step
    )
    stdio: tuple[int, int, int] | None = None
    console: int | None = None
    plan: rootfs.Plan | None = None  # None for exec: the container already has its root
    new_cgroup_namespace: bool = False
    new_user_namespace: bool = False  # wait for the parent to write the id mappings
    new_network_namespace: bool = False
    net_devices: bool = False  # wait for the parent to move the host's interfaces in
    user_namespace: UserNamespace | None = None  # to join before the init is cloned
    # The host uid that owns our stdio before we enter the user namespace; -1: leave it unchanged.
    stdio_owner: int = -1
    time_offsets: str | None = None  # of a new time namespace
    # process.execCPUAffinity: before and after joining the cgroup.
    affinity: tuple[frozenset[int], ...] = (frozenset(), frozenset())
    keyring: str = ""
    hostname: str = ""
    domainname: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    seccomp: tuple[bytes, int] | None = None  # (BPF, SECCOMP_FILTER_FLAG_*)
    notify: bool = False  # the filter has a listener (SCMP_ACT_NOTIFY), which the parent collects
    personality: int = -1  # personality(2); -1: unchanged
    memory_policy: tuple[int, frozenset[int]] | None = None  # set_mempolicy(2)
    pdeathsig: int = signal.SIGKILL
    gate: bool = True  # wait for "start" before execve
    detached: Detached | None = None
    use_stub: bool = False  # the stub does the last steps
    own_terminal: bool = False  # open a terminal in the container's devpts and send its master
    preserve: int = 0  # how many descriptors, from 3 on, the container keeps
    hooks: Mapping[str, tuple[hooks.Hook, ...]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)  # for the hooks that run in the container
    root_change: rootfs.RootChange = rootfs.RootChange.PIVOT
    procfs: Procfs | None = None  # of the pid namespace that the program's process enters last
    root: int = -1  # for exec: the container's root, if it has no mount namespace of its own
    note_calls: Callable[[], None] | None = None  # calls.note_in_init, for the trace; None: no trace


class Reporter:
    """The child's side of the channel: the current step, the times and system calls of each, warnings and errors."""

    def __init__(self, channel: socket.socket, *, timed: bool = False) -> None:
        self.channel = channel
        self.warnings: list[str] = []
        self._step = "begin"
        sc.noted = [] if timed else None

    @property
    def step(self) -> str:
        return self._step

    @step.setter
    def step(self, step: str) -> None:
        self._step = step
        if sc.noted is not None:
            sc.noted.append(stamp(monotonic_ns(), step))

    def taken(self, *ahead: str) -> str:
        """The steps since the last call, in the format of `written`; "" if they are not recorded. `ahead`: the calls
        that the last step is about to make."""
        found, sc.noted = sc.noted, [] if sc.noted is not None else None
        return written([*found, *ahead]) if found else ""

    def send(self, message: Mapping[str, Any], fd: int = -1) -> None:
        sc.note("sendmsg")
        rights = [] if fd < 0 else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]
        self.channel.sendmsg([json.dumps(message).encode()], rights)

    def failed(self, error: BaseException) -> None:
        known = isinstance(error, RuntimeFault | OSError)
        about = {
            "step": self.step,
            "class": type(error).__name__ if isinstance(error, RuntimeFault) else "OSError",
            "errno": getattr(error, "errno", None) or 0,
            "message": str(error) if known else f"{type(error).__name__}: {error}",
            "call": getattr(error, "call", "") or self.step,
            "about": getattr(error, "about", "") or getattr(error, "filename", None) or "",
        }
        self.send({"error": {key: v if isinstance(v, int) else _cut(str(v)) for key, v in about.items()}})


def stamp(at: int, step: str) -> str:
    """The note that a step begins: its start in nanoseconds of CLOCK_MONOTONIC, and its name."""
    return f"\n{at} {step.replace(chr(10), ' ')}\n"


def written(notes: list[str]) -> str:
    """Format steps as text, which is parsed only on demand.

    Each step is a line with its start (nanoseconds of CLOCK_MONOTONIC) and its name. The next line begins with a blank
    and lists the system calls that the step made.
    """
    text = " ".join(notes)
    return text[text.find("\n") + 1 :][:MOST_TIMES] + "\n"  # the text before the first step was sent earlier


def _cut(text: str) -> str:
    """Cut the middle out of a long text; its beginning and its end are the most informative."""
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]} … {text[-_MAX_TEXT // 2 :]}"
