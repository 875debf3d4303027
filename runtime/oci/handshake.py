"""The conversation with a child on its way to execve: what it says, what it asks for, its error raised here."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from runtime import errors
from runtime.errors import RuntimeFault, StateError, SyscallError
from runtime.oci import program, stub

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a child may take from clone3 to ready, and from the gate to execve. Only a hung file system takes longer
# than milliseconds; the shim must not hang with it.
HANDSHAKE_SECONDS: Final = 60.0


class Answers(NamedTuple):
    """What the child may ask for on its way to the gate."""

    mappings: Callable[[], None]
    hooks: Callable[[], None]
    console: Callable[[int], None] | None
    listener: Callable[[int], None]  # seccomp's, a descriptor of the child
    net_devices: Callable[[], None]
    map_ids: Callable[[dict[str, Any], int], None]  # of a detached mount of the child's, which it closes


def converse(
    channel: socket.socket,
    who: str,
    *,
    until_exec: bool = False,
    program: str = "",
    answers: Answers | None = None,
    times: list[str] | None = None,
) -> list[str]:
    """Follow the child until it is ready (or, until_exec, until the channel closes by execve). Returns its warnings;
    the times of its steps (runtime.oci.job.written) are added to `times`."""
    warnings: list[str] = []
    channel.settimeout(HANDSHAKE_SECONDS)
    while True:
        try:
            said = next_word(channel, who, program)
        except TimeoutError as error:
            raise StateError(f"{who}: its init did not answer within {HANDSHAKE_SECONDS:.0f} s") from error
        if said is None:
            if until_exec:
                return warnings
            raise StateError(f"{who}: its init was killed before it was ready")
        warnings += said.get("warnings", [])
        if times is not None and "steps" in said:
            times.append(said["steps"])
        if said.get("mappings") and answers is not None:
            answers.mappings()
            channel.send(b"mapped")
        if said.get("map_ids") and answers is not None:
            answers.map_ids(said["map_ids"], said["fd"])
            channel.send(b"mapped ids")
        if said.get("net_devices") and answers is not None:
            answers.net_devices()
            channel.send(b"moved")
        if said.get("hooks") and answers is not None:
            answers.hooks()
            channel.send(b"hooked")
        if said.get("listener") and answers is not None:
            answers.listener(said["listener"])
            channel.send(b"listened")
        if said.get("console") and answers is not None and answers.console is not None:
            answers.console(said["fd"])
        if said.get("ready"):
            return warnings


def next_word(channel: socket.socket, who: str, program_: str = "") -> dict[str, Any] | None:
    """The child's next word; None when the channel is closed. Its error is raised here, with the program's name where
    that is what could not be executed."""
    try:
        packet, ancillary, _, _ = channel.recvmsg(1 << 17, socket.CMSG_SPACE(4))
    except ConnectionResetError:
        packet, ancillary = b"", []
    if not packet:
        return None
    if (failed := stub.failure(packet)) is not None:
        raise stub_failed(*failed, program_ if program_ and failed[1] == "execve" else who)
    said: dict[str, Any] = json.loads(packet)
    for _, _, rights in ancillary:
        said["fd"] = int.from_bytes(rights[:4], sys.byteorder)
    if "error" in said:
        _raise(who, said["error"])
    return said


def stub_failed(code: int, call: str, who: str) -> RuntimeFault:
    """What the stub could not do, as the interpreter would have said it."""
    if call == "execve":
        return errors.StartError(f"exec {who}: {program.lower(OSError(code, ''))}")
    return SyscallError(code, f"{who}: {call}")


def raise_said(who: str, packet: bytes) -> None:
    """Raise the error that a child's packet tells of."""
    said = json.loads(packet)
    if "error" in said:
        _raise(who, said["error"])


def _raise(who: str, said: dict[str, Any]) -> NoReturn:
    """The child's error as if it had been raised here; its step in front, but for the program's own (runc's text)."""
    kind = getattr(errors, said["class"], RuntimeFault)
    if said["class"] in ("OSError", "SyscallError") and said["errno"]:
        raise SyscallError(said["errno"], f"{who}: {said['step']}: {said['call']}", said["about"])
    if not (isinstance(kind, type) and issubclass(kind, RuntimeFault)) or kind is SyscallError:
        kind = RuntimeFault
    raise kind(said["message"] if kind is errors.StartError else f"{who}: {said['step']}: {said['message']}")
