"""The parent's side of the conversation with a child before execve: receive its messages, answer its requests, and
raise its error."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from runtime import errors
from runtime.errors import RuntimeFault, StateError, SyscallError
from runtime.oci import execve_arguments, execve_stub

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds a child may take from clone3 to ready, and from start to execve. It normally takes milliseconds; only a hung
# file system takes longer, and the shim must not hang with it.
HANDSHAKE_SECONDS: Final = 60.0


class Answers(NamedTuple):
    """Callbacks for the child's requests before it is ready."""

    mappings: Callable[[], None]
    hooks: Callable[[], None]
    console: Callable[[int], None] | None
    listener: Callable[[int], None]  # the number of the seccomp listener among the child's descriptors
    net_devices: Callable[[], None]
    # Id-maps a detached mount of the child, and closes our descriptor of it.
    map_ids: Callable[[dict[str, Any], int], None]
    # Continues with the process (pid, pidfd) that the child has cloned to take its place (pid_entry.py).
    cloned: Callable[[int, int], None]

    def after_cloned(self) -> Answers:
        """The answers to a process in a pid namespace with hostile processes, which could take over its socket. It may
        only pass on a seccomp listener; all other requests are refused."""
        return self._replace(
            mappings=_refuse,
            hooks=_refuse,
            console=None,
            net_devices=_refuse,
            map_ids=_refuse,
            cloned=_refuse,
        )


def _refuse(*_: object) -> NoReturn:
    raise StateError("an init asked for what it can only ask for before it is in its pid namespace")


def converse(
    channel: socket.socket,
    who: str,
    *,
    until_exec: bool = False,
    program: str = "",
    answers: Answers | None = None,
    times: list[str] | None = None,
) -> list[str]:
    """Receive and answer the child's messages until it is ready or, with `until_exec`, until execve closes the channel.

    Returns the child's warnings. Appends the times of its steps (runtime.oci.init_protocol.written) to `times`. Raises
    the error that the child reports; StateError if it does not answer within HANDSHAKE_SECONDS or dies.
    """
    warnings: list[str] = []
    may_send_fds = answers is not None
    channel.settimeout(HANDSHAKE_SECONDS)
    while True:
        try:
            message = next_message(channel, who, program)
        except TimeoutError as error:
            raise StateError(f"{who}: its init did not answer within {HANDSHAKE_SECONDS:.0f} s") from error
        if message is None:
            if until_exec:
                return warnings
            raise StateError(f"{who}: its init was killed before it was ready")
        if "fd" in message and not may_send_fds:
            os.close(message["fd"])
            raise StateError(f"{who}: its process sent a descriptor that nothing asked for")
        warnings += message.get("warnings", [])
        if times is not None and "steps" in message:
            times.append(message["steps"])
        if answers is not None:
            _answer(channel, message, answers)
            if message.get("cloned"):
                answers, may_send_fds = answers.after_cloned(), False
        if message.get("ready"):
            return warnings


def _answer(channel: socket.socket, message: dict[str, Any], answers: Answers) -> None:
    if message.get("cloned"):
        answers.cloned(message["cloned"], message.get("fd", -1))
    if message.get("mappings"):
        answers.mappings()
        channel.send(b"mapped")
    if message.get("map_ids"):
        answers.map_ids(message["map_ids"], message["fd"])
        channel.send(b"mapped ids")
    if message.get("net_devices"):
        answers.net_devices()
        channel.send(b"moved")
    if message.get("hooks"):
        answers.hooks()
        channel.send(b"hooked")
    if message.get("listener"):
        answers.listener(message["listener"])
        channel.send(b"listened")
    if message.get("console") and answers.console is not None:
        answers.console(message["fd"])


def next_message(channel: socket.socket, who: str, program: str = "") -> dict[str, Any] | None:
    """Receive one message from the child; None if the channel is closed. A descriptor that came with it is its "fd".

    An error that the child reports is raised here. If execve failed, it names the program `program`.
    """
    try:
        packet, ancillary, _, _ = channel.recvmsg(1 << 17, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        packet, ancillary = b"", []
    if not packet:
        return None
    fds = [int.from_bytes(rights[:4], sys.byteorder) for _, _, rights in ancillary]
    try:
        if (failed := execve_stub.failure(packet)) is not None:
            raise stub_failed(*failed, program if program and failed[1] == "execve" else who)
        pid = execve_stub.announced(packet)
        message: dict[str, Any] = {"cloned": pid, "waits": True} if pid else _parsed(packet, who)
        if "error" in message:
            _raise(who, message["error"])
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return {**message, "fd": fds[0]} if fds else message


def _parsed(packet: bytes, who: str) -> dict[str, Any]:
    """Parse a message. StateError if it cannot be one of the child's: in a pid namespace with hostile processes,
    another process may have taken over its socket."""
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not _is_valid(message):
        raise StateError(f"{who}: its process sent something that is no message")
    return message


_FIELDS: Final = {"warnings": list, "error": dict, "steps": str, "listener": int, "cloned": int}


def _is_valid(message: dict[str, Any]) -> bool:
    if "fd" in message:  # the sender's number of a descriptor would be taken for one of ours
        return False
    if not all(isinstance(message[name], kind) for name, kind in _FIELDS.items() if name in message):
        return False
    warnings, listener = message.get("warnings", ()), message.get("listener", 0)
    return all(isinstance(warning, str) for warning in warnings) and 0 <= listener < 1 << 31


def stub_failed(code: int, call: str, who: str) -> RuntimeFault:
    """The stub's failure as the exception that the interpreter would raise."""
    if call == "execve":
        return errors.StartError(f"exec {who}: {execve_arguments.lower(OSError(code, ''))}")
    if call == "clone3" and code == errno.ENOMEM:
        return StateError(f"{who}: cannot join the pid namespace: its init process is dead")
    return SyscallError(code, f"{who}: {call}")


def raise_reported(who: str, packet: bytes) -> None:
    """Raise the error in a child's packet, if it holds one."""
    message = json.loads(packet)
    if "error" in message:
        _raise(who, message["error"])


_UNKNOWN: Final = {"class": "", "step": "?", "errno": 0, "call": "?", "about": "", "message": "?"}


def _raise(who: str, reported: dict[str, Any]) -> NoReturn:
    """Raise the child's error here, prefixed with its step. A StartError keeps runc's text without a prefix."""
    reported = {
        name: value if isinstance(value := reported.get(name), type(unknown)) else unknown
        for name, unknown in _UNKNOWN.items()
    }
    kind = getattr(errors, reported["class"], RuntimeFault)
    where = f"{who}: {reported['step']}"
    if reported["class"] in ("OSError", "SyscallError") and 0 < reported["errno"] < 1 << 31:
        raise SyscallError(reported["errno"], f"{where}: {reported['call']}", reported["about"])
    if not (isinstance(kind, type) and issubclass(kind, RuntimeFault)) or kind is SyscallError:
        kind = RuntimeFault
    raise kind(reported["message"] if kind is errors.StartError else f"{where}: {reported['message']}")
