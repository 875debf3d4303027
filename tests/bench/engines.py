"""Engines alone: from a bundle to the first instruction, without image store, network (except loopback) and daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.account import Account, containers, pss_kib
from tests.bench.caged import Cage, Refused
from tests.bench.peers import Bench, CagedPeer, Peer, Span

FIRST = re.compile(rb"first (\d+)")
REPO = Path(__file__).resolve().parents[2]


class Engine(CagedPeer):
    """`run --detach` and `delete` as runc has them. `run_bundle` starts one; its stamp comes on standard output."""

    many = False
    command: tuple[str, ...] = ()

    def prepare(self) -> None:
        self.bundle = self.base / "bundle"
        self.bundle.mkdir()
        self.out = self.bundle / "out"
        write_bundle(self.bundle, self.bench.rootfs, "/container")
        self.once = self.base / "once"
        self.once.mkdir()
        write_bundle(self.once, self.bench.rootfs, "/once", "--once")
        self._command = [*self.command, "--root", "/run/engine"]

    def run_bundle(self, name: str) -> int:
        run = [*self._command, "run", "--detach", "--bundle", str(self.bundle), name]
        done = self.cage.run(run, out=self.out)
        return first_instruction(self.out) - done.began

    def delete(self, name: str) -> None:
        self.cage.run([*self._command, "delete", "--force", name])

    def life(self, name: str) -> dict[str, float]:
        """How long each command takes (ms), and what is left of it after create (MB), by the rows' keys."""
        found = {}

        def timed(key: str, *words: str) -> None:
            out = self.out if key == "create" else None  # what the container says comes later, into the same
            done = self.cage.run([*self._command, key, *words], out=out)
            found[key] = (done.ended - done.began) / 1e6

        timed("run", "--bundle", str(self.once), f"{name}-once")
        before = self.account.processes()
        timed("create", "--bundle", str(self.bundle), name)
        found["rest"] = sum(map(pss_kib, self.account.processes() - before)) / 1024
        timed("start", name)
        first_instruction(self.out)
        timed("exec", name, "/stamp", "--once")
        timed("delete", "--force", name)
        return found


class Crun(Engine):
    name = program = "crun"
    command = ("crun",)


class Runc(Engine):
    name = program = "runc"
    command = ("runc",)


class KubeliteOci(Engine):
    """kubelite's engine in place of runc: an interpreter starts first, which never happens on a node."""

    name = "kubelite-oci"
    command = (str(Path(sys.executable).with_name("kubelite-oci")),)
    program = command[0]


class Library(Peer):
    """kubelite's engine in a warm process, like the shims of a node: library.py, in a cage like the others."""

    name = "kubelite engine"
    many = False

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._account = Account(self.base.name)
        self.bundle = self.base / "bundle"
        self.bundle.mkdir()
        self.out = self.bundle / "out"
        try:
            self.spec = write_bundle(self.bundle, bench.rootfs, "/container")
            code = f"import sys; sys.path.insert(0, {str(REPO)!r}); from tests.bench import library; library.main()"
            self._cage = Cage(self._account, self.base / "cage", sys.executable, "-c", code)
        except BaseException:
            self.close()
            raise

    @property
    def account(self) -> Account:
        return self._account

    def run_bundle(self, name: str) -> int:
        self.out.unlink(missing_ok=True)
        answer = self._cage.order(start=name, bundle=str(self.bundle), out=str(self.out))
        return first_instruction(self.out) - int(answer["began"])

    def delete(self, name: str) -> None:
        self._cage.order(delete=name)

    def close(self) -> None:
        if hasattr(self, "_cage"):
            self._cage.close()
        self._account.close()
        shutil.rmtree(self.base, ignore_errors=True)


class Bare(CagedPeer):
    """The minimal C program (bare.c)."""

    name = "bare C"

    def prepare(self) -> None:
        self.out = self.base / "bare.out"
        self._made: set[str] = set()

    def _command(self, name: str, *names: str) -> list[str]:
        *places, data = (self.base / name / part for part in ("upper", "work", "merged", "data"))
        if name not in self._made:
            for place in (*places, data):
                place.mkdir(parents=True)
            self._made.add(name)
        volumes = ["-v", str(data), "data", "-v", str(self.stamps), "bench"] if names else []
        return [str(self.bench.bare), str(self.bench.rootfs), *map(str, places), *volumes, "/stamp", *names]

    def start(self, names: list[str]) -> int:
        return self.cage.spawn(*[self._command(name, name) for name in names], out=self.out)

    def remove(self, names: list[str]) -> Span:
        pids = [pid for name in names for pid in containers(name)]
        began = time.time_ns()
        end(pids, signal.SIGTERM)
        return Span(began, time.time_ns())

    def restarts(self) -> bool:
        return False

    def run_bundle(self, name: str) -> int:
        began = self.cage.spawn(self._command(name), out=self.out)
        return first_instruction(self.out) - began

    def delete(self, _name: str) -> None:
        end([pid for pid in containers() if pid in self.account.processes()], signal.SIGKILL)


def end(pids: list[int], number: int) -> None:
    """Signal processes and wait until each has ended."""
    with contextlib.ExitStack() as stack:
        watched = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                watched.append(os.pidfd_open(pid))
                stack.callback(os.close, watched[-1])
        for fd in watched:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        for fd in watched:
            wait_ended(fd)


def wait_ended(pidfd: int, patience: float = 60.0) -> int:
    """Wait until the process has ended. Return the time in Unix nanoseconds."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(patience * 1000):
        raise Refused(f"a container did not end within {patience:.0f} s")
    return time.time_ns()


def write_bundle(bundle: Path, rootfs: Path, cgroup: str, *args: str) -> dict[str, Any]:
    """runc's own example with our program: all namespaces, its mounts, its masked paths, a cgroup."""
    if shutil.which("runc"):
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    else:
        subprocess.run(["crun", "spec"], cwd=bundle, check=True)
    spec: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    spec["root"] = {"path": str(rootfs), "readonly": True}
    spec["process"].update(terminal=False, args=["/stamp", *args])
    spec["linux"]["cgroupsPath"] = cgroup
    (bundle / "config.json").write_text(json.dumps(spec))
    return spec


def first_instruction(out: Path, patience: float = 30.0) -> int:
    """Wait for the stamp and return the time in it, which does not depend on when it is read."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            if match := FIRST.search(out.read_bytes()):
                return int(match[1])
        time.sleep(0.0005)
    raise Refused("the container never said that it ran")
