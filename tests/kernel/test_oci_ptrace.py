"""What a container with CAP_SYS_PTRACE sees of processes that start in its pid namespace."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import syscalls as sc
from runtime.errors import RuntimeFault, StateError
from runtime.oci import handshake
from runtime.oci.pending import PendingExec
from tests.kernel.conftest import Engine
from tests.kernel.shim_kit import Node, node  # noqa: F401 - a fixture
from tests.waiting import until, until_async

pytestmark = pytest.mark.kernel

# It notes each process whose root has the file, and each that has a directory open.
WATCH = """
while :; do
    for p in /proc/[0-9]*; do
        [ -e "$p/root$0" ] && echo "$p has the host's root" >> /found
        for f in "$p"/fd/*; do [ -d "$f/" ] && [ "$p" != /proc/$$ ] && echo "$p has a directory open" >> /found; done
    done
    echo >> /rounds
done
"""
ROUNDS = 100


def watcher(spec: dict[str, Any]) -> None:
    """Give the container CAP_SYS_PTRACE."""
    for names in spec["process"].setdefault("capabilities", {}).values():
        names.append("CAP_SYS_PTRACE")


def found(upper: Path) -> str:
    notes = upper / "found"
    return notes.read_text() if notes.exists() else ""


def test_an_exec_exposes_nothing_of_the_host(oci: Engine) -> None:
    secret = oci.tmp / "secret"
    secret.write_text("of the host")
    spec = oci.spec("sh", "-c", WATCH, str(secret))
    watcher(spec)
    container = oci.start(spec)
    upper = oci.tmp / "bundle0/upper"
    until((upper / "rounds").exists)
    for _ in range(ROUNDS):
        assert oci.exec(container, "true").code == 0
    assert found(upper) == ""
    assert oci.exec(container, "ls", "/proc/1/root/").code == 0  # it may look


def test_a_start_exposes_nothing_of_the_host_in_a_shared_pid_namespace(node: Node) -> None:  # noqa: F811
    secret = node.base / "secret"
    secret.write_text("of the host")

    def shares(spec: dict[str, Any]) -> None:
        spec["process"]["capabilities"] = {
            kind: ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")
        }
        own = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]
        spec["linux"]["namespaces"] = [*own, {"type": "pid", "path": f"/proc/{pause[0]}/ns/pid"}]

    pause: list[int] = []

    async def story(node: Node) -> None:
        pod = await node.pod(share_pid=True)
        pause.append(pod.record.pause)
        watching = await pod.start("sh", "-c", WATCH, str(secret), change=shares)
        upper = node.base / "bundles" / watching / "upper"
        await until_async((upper / "rounds").exists)
        for _ in range(ROUNDS):
            record = await pod.run(
                "sh", "-c", "[ $(id -u) = 0 ] && [ -e /proc/1/status ] && exit 7", change=shares
            )
            assert record.exit_code == 7
        assert found(upper) == ""
        # no path leads to the procfs that the inits clone, which is without masks
        record = await pod.run(
            "sh", "-c", "cat /proc/1/comm; ls /proc/1/root/ /proc/1/root/../", change=shares
        )
        assert [text for _, _, text in pod.log(record.id) if text and not text.endswith(":")] == ["pause"]

    node.run(story)


# -- what neighbours could say in the name of a process whose socket they have taken ---------------------------------


def pending() -> tuple[PendingExec, socket.socket]:
    """A pending exec whose first process sleeps, and the socket of that process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    first = subprocess.Popen(["sleep", "1000"])
    return PendingExec(first.pid, os.pidfd_open(first.pid), ours, "exec", [], final=False), theirs


@pytest.fixture
def no_descriptors_left() -> Iterator[None]:
    gc.collect()  # what an earlier test no longer uses
    before = os.listdir("/proc/self/fd")
    yield
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    "packet",
    [
        b"nothing",
        b"[]",
        b'{"cloned": 1}',
        b'{"cloned": "1"}',
        b'{"warnings": 7}',
        b'{"error": "x"}',
        b'{"error": {"class": 1}}',
        b'{"error": {"class": "OSError", "errno": "x"}}',
        b'{"error": {"class": "OSError", "errno": 1e30}}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("kind", ["nothing", "a file", "another process"])
@pytest.mark.usefixtures("no_descriptors_left")
def test_an_announcement_that_is_none_ends_the_exec_alone(packet: bytes, kind: str) -> None:
    found, theirs = pending()
    with theirs, contextlib.ExitStack() as stack:
        sent = []
        if kind == "a file":
            sent = [os.open("/dev/null", os.O_RDONLY)]
        elif kind == "another process":
            sent = [os.pidfd_open(os.getpid())]
        for fd in sent:
            stack.callback(os.close, fd)
        socket.send_fds(theirs, [packet], sent * 2)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(RuntimeFault):
            while found.step() is None:
                pass
        found.abandon()
    assert found.pid != 1


@pytest.mark.usefixtures("no_descriptors_left")
def test_a_namespace_without_init_is_named() -> None:
    found, theirs = pending()
    with theirs:
        theirs.send(struct.pack("=3q", 0, errno.ENOMEM, sc.NR["clone3"]))
        with pytest.raises(StateError, match="cannot join the pid namespace: its init process is dead"):
            found.step()
        found.abandon()


@pytest.mark.usefixtures("no_descriptors_left")
def test_a_process_that_was_killed_before_it_may_go_on_counts_as_started() -> None:
    found, theirs = pending()
    with subprocess.Popen(["sleep", "60"]) as second:
        pidfd = os.pidfd_open(second.pid)
        socket.send_fds(theirs, [struct.pack("=8si4x", b"\0cloned\0", second.pid)], [pidfd])
        os.close(pidfd)
        theirs.close()
        handle = found.step()
        assert handle is not None
        assert handle.pid == second.pid
        second.kill()
        found.done()
        os.close(handle.pidfd)


@pytest.mark.usefixtures("no_descriptors_left")
def test_a_process_is_announced_once() -> None:
    found, theirs = pending()
    with theirs, subprocess.Popen(["sleep", "1000"]) as second, subprocess.Popen(["sleep", "1000"]) as third:
        for process in (second, third):
            pidfd = os.pidfd_open(process.pid)
            socket.send_fds(theirs, [json.dumps({"cloned": process.pid}).encode()], [pidfd])
            os.close(pidfd)
        with pytest.raises(StateError, match="something else"):
            found.step()
        assert found.pid == second.pid
        found.abandon()
        assert third.poll() is None
        third.kill()


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.usefixtures("no_descriptors_left")
def test_no_message_names_a_descriptor_of_the_receiver(final: bool) -> None:
    """Otherwise a neighbour could close any descriptor of the shim, or have it kill another container's process."""
    found, theirs = pending()
    found.final = final
    with theirs, open("/dev/null", encoding="ascii") as ours:
        theirs.send(json.dumps({"cloned": os.getpid(), "fd": ours.fileno()}).encode())
        with pytest.raises(StateError, match="no message"):
            found.step()
        found.abandon()
        os.fstat(ours.fileno())


@pytest.mark.parametrize(
    "fields",
    [
        {"warnings": [7]},
        {"steps": 7},
        {"listener": "3"},
        {"listener": -1},
        {"listener": 1 << 40},
        {"cloned": []},
    ],
)
def test_fields_of_another_type_are_rejected(fields: dict[str, Any]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(json.dumps(fields).encode())
        with pytest.raises(StateError, match="no message"):
            handshake.next_message(ours, "exec")


@pytest.mark.parametrize("phase", ["create", "start"])
@pytest.mark.usefixtures("no_descriptors_left")
def test_a_process_in_the_pid_namespace_cannot_fill_the_shim_with_descriptors(phase: str) -> None:
    def nothing(*_: object) -> None:
        pass

    answers = handshake.Answers(nothing, nothing, None, nothing, nothing, nothing, cloned=nothing)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open("/dev/null", encoding="ascii") as file:
        if phase == "create":
            theirs.send(b'{"cloned": 1}')
        socket.send_fds(theirs, [b'{"warnings": []}'], [file.fileno()])
        theirs.send(b'{"ready": true}')
        with pytest.raises(StateError, match="nothing asked for"):
            handshake.converse(ours, "container x", answers=answers if phase == "create" else None)
