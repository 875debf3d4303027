"""What a child is to do, decided and opened by its parent, and how it reports."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import RuntimeFault
from runtime.oci import hooks
from runtime.oci.config.spec import Process
from runtime.oci.rootfs import rootfs
from runtime.security.capabilities import CapSets

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.cgroups import Place

MOST_TIMES: Final = 32 * 1024  # characters of `written` steps: they share a packet with other words

_MAX_TEXT: Final = (
    4096  # characters of each part of an error: a program's name can be 128 KiB, a packet cannot
)


@dataclass(frozen=True, slots=True)
class Detached:
    """For a parent that will not be there at the start."""

    listener: int  # a listening SOCK_SEQPACKET socket: to connect is to start
    lock: int  # an flock'd file, held for as long as the gate is closed: its state is the container's


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started by a command that ends, and not by a parent that stays (a shim). Its config.json is one
    that `oci.validate` has seen."""

    detached: Detached | None = None  # the init waits for a connection; Container.detach() lets go of it
    dies_with_us: bool = False
    preserve: int = 0  # descriptors from 3 on that are the container's
    new_keyring: bool = True
    pivot: bool = True
    ignore_paused: bool = False
    scope: Callable[[int], Callable[[], None]] | None = None  # birth.make_scope
    mounted: Callable[[str], None] | None = (
        None  # told before a mount that outlives the container (shared_root)
    )
    seccomp_cache: str | None = None  # a directory for compiled filters


def from_command(command: Command | None) -> dict[str, Any]:
    """What of it is the child's affair: Job's fields."""
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
    """One that is not entered by clone3 alone: another is joined before it, or it is itself. The container's own
    namespaces are made in it, so that they belong to it."""

    fd: int  # of one that is there, -1: it is among the new ones
    flags: int  # CLONE_NEW* of what is made in it
    root: tuple[int, int]  # host ids of its root


@dataclass(frozen=True, slots=True)
class Job:
    """All the child needs, decided and opened by the parent. Descriptors named here are the only ones that survive."""

    process: Process
    channel: socket.socket
    parent: int  # pidfd of the process that must outlive us
    caps: CapSets
    available_caps: int  # our bounding set at the moment
    cgroup: Place
    join: tuple[tuple[int, int], ...] = ()  # (namespace file or pidfd, CLONE_NEW* mask), in order
    stdio: tuple[int, int, int] | None = None
    console: int | None = None
    plan: rootfs.Plan | None = None  # None: join a container that has its root already (exec)
    new_cgroup_namespace: bool = False
    new_user_namespace: bool = False  # the parent writes the mappings, we wait for them
    new_network_namespace: bool = False
    net_devices: bool = False  # the parent moves the machine's interfaces in, we wait for them
    user_namespace: UserNamespace | None = None  # an existing one, that the container is born into
    stdio_owner: int = (
        -1
    )  # host id of the user in a user namespace: whose our stdio is to be before we are in it
    time_offsets: str | None = None  # of a new time namespace
    affinity: tuple[frozenset[int], ...] = (
        frozenset(),
        frozenset(),
    )  # process.execCPUAffinity: before and after the cgroup
    keyring: str = ""
    hostname: str = ""
    domainname: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    seccomp: tuple[bytes, int] | None = None  # (BPF, SECCOMP_FILTER_FLAG_*)
    notify: bool = False  # the filter has a listener, which the parent fetches (SCMP_ACT_NOTIFY)
    personality: int = -1  # personality(2), -1 = leave it
    memory_policy: tuple[int, frozenset[int]] | None = None  # set_mempolicy(2)
    pdeathsig: int = signal.SIGKILL
    gate: bool = True  # wait for "start" before execve
    detached: Detached | None = None
    use_stub: bool = False  # the last steps are the stub's
    own_terminal: bool = False  # open the terminal in the container's devpts, and send its master
    preserve: int = 0  # descriptors after 0, 1, 2 that are the container's
    hooks: Mapping[str, tuple[hooks.Hook, ...]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)  # what hooks in the container are told
    turn: rootfs.Turn = rootfs.Turn.PIVOT
    root: int = -1  # for exec: the container's, where it is not that of a mount namespace of its own


class Reporter:
    """Where we are, when we came there, and what is said about it."""

    def __init__(self, channel: socket.socket, *, timed: bool = False) -> None:
        self.channel = channel
        self.warnings: list[str] = []
        self._step = "begin"
        self._times: list[tuple[int, str]] | None = [] if timed else None

    @property
    def step(self) -> str:
        return self._step

    @step.setter
    def step(self, step: str) -> None:
        self._step = step
        if self._times is not None:
            self._times.append((monotonic_ns(), step))

    def taken(self) -> str:
        """The steps since the last time it was asked, as `written`; "" where nobody wants to know."""
        found, self._times = self._times, [] if self._times is not None else None
        return written(found) if found else ""

    def send(self, message: Mapping[str, Any], fd: int = -1) -> None:
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


def written(times: list[tuple[int, str]]) -> str:
    """Steps as they travel: a line each, when it began (nanoseconds of CLOCK_MONOTONIC) and what it is. One text: it
    is not taken apart before somebody asks."""
    return "".join(f"{at} {step.replace(chr(10), ' ')}\n" for at, step in times)[:MOST_TIMES]


def _cut(text: str) -> str:
    """Both ends tell more than one."""
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]} … {text[-_MAX_TEXT // 2 :]}"
