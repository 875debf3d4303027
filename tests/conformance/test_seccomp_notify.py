"""config-linux.md, "Seccomp" and "The Container Process State": a filter with a seccomp agent, and the agent."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Bundle, Runtime, left_below

# seccomp_unotify(2): struct seccomp_notif and seccomp_notif_resp, and their ioctls
_RECV, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_ANSWER = -95  # EOPNOTSUPP: nothing else returns it


def whole(text: bytes) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return found


class Agent(threading.Thread):
    """An agent that accepts every listener, answers mkdir with a specific error, and lets all other calls continue."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.states: list[dict[str, Any]] = []
        self.asked: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._answering: list[threading.Thread] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer:
                    text, fds, _, _ = socket.recv_fds(peer, 65536, 4)
                    while (
                        state := whole(text)
                    ) is None:  # do not read to the end: runc closes only when it exits
                        text += peer.recv(65536)
                assert len(fds) == len(state["fds"]) == 1
                self.states.append(state)
                answering = threading.Thread(target=self._answer, args=(fds[0],), daemon=True)
                answering.start()
                self._answering.append(answering)

    def _answer(self, listener: int) -> None:
        """Serve until all filtered processes have exited. A call that a signal interrupts (Go's runtime sends signals
        to its threads) gives ENOENT here, and is repeated by the caller."""
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        while all(not events & select.POLLHUP for _, events in waiting.poll()):
            with contextlib.suppress(FileNotFoundError):
                self._answer_one(listener)
        os.close(listener)

    def _answer_one(self, listener: int) -> None:
        question = bytearray(80)
        fcntl.ioctl(listener, _RECV, question)
        number, _, _, call = struct.unpack_from("=QIIi", question)
        self.asked.append(call)
        refused = call in _MKDIR
        answer = struct.pack("=QqiI", number, 0, _ANSWER if refused else 0, 0 if refused else _CONTINUE)
        fcntl.ioctl(listener, _SEND, bytearray(answer))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join(10)


_MKDIR = (83, 258) if platform.machine() == "x86_64" else (34,)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    assert ctypes.sizeof(ctypes.c_void_p) == 8
    made = Agent(tmp_path / "agent.sock")
    made.start()
    yield made
    made.close()


def notifying(bundle: Bundle, tmp_path: Path, *names: str, **more: Any) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(tmp_path / "agent.sock"),
        "listenerMetadata": "whatever the agent needs",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
        **more,
    }


@pytest.mark.parametrize("nnp", [True, False])
def test_an_agent_answers(runtime: Runtime, bundle: Bundle, agent: Agent, tmp_path: Path, nnp: bool) -> None:
    bundle.process["noNewPrivileges"] = nnp
    bundle.config["annotations"] = {"k": "v"}
    notifying(bundle, tmp_path, "mkdir", "mkdirat")
    done = bundle.run("mkdir", "/made")
    assert done.code == 1
    assert "not supported" in done.err
    (said,) = agent.states
    assert (said["fds"], said["metadata"]) == (["seccompFd"], "whatever the agent needs")
    state = said["state"]
    assert (state["id"], state["status"], state["bundle"]) == (bundle.id, "creating", str(bundle.path))
    assert state["annotations"] == {"k": "v"}
    assert said["pid"] == state["pid"] > 1
    assert set(agent.asked) <= set(_MKDIR)


def test_an_agent_answers_for_exec(runtime: Runtime, bundle: Bundle, agent: Agent, tmp_path: Path) -> None:
    """Each filtered process has its own listener."""
    notifying(bundle, tmp_path, "mkdir", "mkdirat")
    pid = bundle.start("sleep", "60")
    done = runtime("exec", bundle.id, "mkdir", "/made")
    assert done.code == 1
    assert "not supported" in done.err
    first, second = agent.states
    assert first["pid"] == pid
    assert second["state"]["pid"] == pid
    assert second["pid"] != pid
    assert second["state"]["status"] == "running"


def test_an_agent_that_lets_calls_continue(bundle: Bundle, agent: Agent, tmp_path: Path) -> None:
    """Also for the system calls of the runtime between installing the filter and executing the program."""
    notifying(bundle, tmp_path, "execve", "close", "capset", "uname")
    bundle.run("true", check=True)
    assert agent.asked


def test_no_agent(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    notifying(bundle, tmp_path, "mkdir")
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert "agent.sock" in done.err
    assert left_below(runtime.root) == []


@pytest.mark.parametrize(
    "more",
    [
        {"listenerPath": "", "listenerMetadata": ""},
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]},
    ],
)
def test_filters_that_an_agent_cannot_serve(
    runtime: Runtime, bundle: Bundle, agent: Agent, tmp_path: Path, more: Any
) -> None:
    if runtime.name == "crun":
        pytest.skip("crun asks an agent about anything")
    notifying(bundle, tmp_path, "mkdir", **more)
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert done.err
