"""Run cases with `kubelite-oci`: create, start and delete, then check for leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from runtime import syscalls as sc
from tests.fuzz import cases, mutate
from tests.fuzz.decide import CONTAINER, Unclean
from tests.fuzz.leash import leashed, leashed_state
from tests.programs import BUSYBOX

OURS = str(Path(sys.executable).with_name("kubelite-oci"))
SECONDS = 60.0
CODES = (0, 1)


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Ground:
    """A directory, a mount namespace and a cgroup for the containers."""

    def __init__(self, base: Path) -> None:
        """`base` is new and empty. The calling process changes its namespaces and cannot be used for anything else
        afterwards."""
        self.base = base
        self.cgroup = f"/kubelite-fuzz-{secrets.token_hex(4)}"
        self.root = base / "state"
        sc.unshare(sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS)
        sc.mount(None, "/", None, sc.MS_PRIVATE | sc.MS_REC)
        sc.mount("tmpfs", str(base), "tmpfs", 0, "mode=755")
        sc.prctl(
            sc.PR_SET_CHILD_SUBREAPER, 1
        )  # processes that a command leaves become our children, and are found
        for name in ("source", "bundle"):
            (base / name).mkdir()
        (base / "source/file").write_text("x\n")
        (base / "source/loop").symlink_to("loop")
        shutil.copy(BUSYBOX, base / "busybox")
        self._mounts = _mounts()
        self._only_above = False  # the case's cgroup is below the one that it is to have

    def close(self) -> None:
        """Remove everything, also what a failed case has left."""
        for place in self._cgroups():
            for pid in Path(place, "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(Unclean):
            self._no_child_left()
        for place in self._cgroups():
            with contextlib.suppress(OSError):
                os.rmdir(place)
        sc.umount2(str(self.base), sc.MNT_DETACH)

    def command(self, *args: str) -> Done:
        with open(self.base / "out", "w+b") as out, open(self.base / "err", "w+b") as err:
            code = subprocess.run(
                [OURS, "--root", str(self.root), *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                timeout=SECONDS, check=False,
            ).returncode  # fmt: skip
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        done = Done(code, *texts)
        program = args[0] == "exec"  # the exit code is the program's, which a damaged filter may kill
        if (code not in CODES and not program) or "Traceback" in done.err or "Error:" in done.err:
            raise Unclean(f"{args[0]}: {done}")
        if code and not program and sum("error: " in line for line in done.err.splitlines()) != 1:
            raise Unclean(f"{args[0]} says no one error: {done}")
        return done

    def try_config(self, seed: int, number: int) -> str:
        """Run case `number` as a container. Return CONTAINER or the error. Raises Unclean."""
        self._bundle(cases.config(seed, number))
        done = self.command("create", "--bundle", str(self.base / "bundle"), "fuzz")
        if done.code == 0:
            if json.loads(self.command("state", "fuzz").out)["status"] not in ("created", "stopped"):
                raise Unclean("it is not created")
            self.command("start", "fuzz")
            if self.command("delete", "--force", "fuzz").code:
                raise Unclean("it cannot be deleted")
        self._nothing_left()
        return CONTAINER if done.code == 0 else done.err

    def try_state(self, seed: int, number: int) -> str:
        """Change the files of a container in the state directory: every command must end cleanly, and the last, delete
        --force, must leave nothing."""
        random = Random(f"state:{seed}:{number}")
        self._bundle(json.dumps(random.choice(cases.real())).encode())
        self.command("create", "--bundle", str(self.base / "bundle"), "fuzz")
        file = self.root / "fuzz" / random.choice(("state.json", "state.json", "config.json", "seccomp.bpf"))
        if file.exists():
            file.write_bytes(self._damaged(file, random))
        for args in (
            ("state", "fuzz"),
            ("list",),
            ("start", "fuzz"),
            ("exec", "fuzz", "true"),
            ("kill", "fuzz", "9"),
        ):
            if random.random() < 0.5:
                self.command(*args)
        if self.command("delete", "--force", "fuzz").code:
            raise Unclean("it cannot be deleted")
        self._nothing_left()
        return CONTAINER

    def _damaged(self, file: Path, random: Random) -> bytes:
        raw = file.read_bytes()
        if file.suffix != ".json":
            return bytes(random.randrange(256) for _ in range(random.choice((0, 5, 8, 80))))
        made = mutate.mutated(json.loads(raw), random)
        if file.name == "config.json":
            return leashed(made, self.base, f"{self.cgroup}/c")
        return leashed_state(made, f"{self.cgroup}/c")

    def _bundle(self, case: bytes) -> None:
        rootfs = self.base / "bundle/rootfs"
        shutil.rmtree(rootfs, ignore_errors=True)
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            (rootfs / name).mkdir(parents=True)
        os.link(self.base / "busybox", rootfs / "bin/busybox")
        for name in ("sh", "true"):
            (rootfs / "bin" / name).symlink_to("busybox")
        (rootfs / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (rootfs / "link").symlink_to("tmp")
        placed = cases.placed(case, source=self.base / "source", cgroup=f"{self.cgroup}/c")
        made = leashed(placed, self.base, f"{self.cgroup}/c")
        self._only_above = f"{self.cgroup}/c/".encode() in made
        (self.base / "bundle/config.json").write_bytes(made)

    # --- what could be left ---

    def _nothing_left(self) -> None:
        if self.root.exists() and (left := [name for name in os.listdir(self.root) if name != "@seccomp"]):
            shutil.rmtree(self.root)
            raise Unclean(f"left in the state directory: {left}")
        self._no_child_left()
        for place in self._cgroups():
            if Path(place, "cgroup.procs").read_text():
                raise Unclean(f"processes are left in {place}")
            if place.endswith(f"{self.cgroup}/c") and not self._only_above:  # what is made on the way stays
                with contextlib.suppress(OSError):  # not the last: something is below it
                    os.rmdir(place)
                    raise Unclean(f"the cgroup {place} is left")
        if left := sorted(set(_mounts()) - set(self._mounts)):  # those of others may disappear meanwhile
            raise Unclean(f"mounts are left: {left}")

    def _no_child_left(self) -> None:
        """An exited init is our child and is reaped; a running one is a leak."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid and time.monotonic() > deadline:
                raise Unclean("a process is left")
            time.sleep(0 if pid else 0.002)

    def _cgroups(self) -> Iterator[str]:
        """Our cgroups in every hierarchy, the innermost first."""
        tops = ["/sys/fs/cgroup", *(entry.path for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir())]
        for top in tops:
            for place, _, _ in os.walk(f"{top}{self.cgroup}", topdown=False):
                yield place


def _mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()
