"""A small Debian system in a directory: made by debootstrap, booted with its own systemd in namespaces of its own,
without a network. Its processes, mounts and interfaces end with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, remove_cgroup, until

BOOT = Path(__file__).with_name("boot.sh")
TIMEOUT = 120.0 * PATIENCE
#: Files that change in a running system independently of packages.
OWN_DIRECTORIES = (
    "dev",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var/cache",
    "var/lib/dpkg",
    "var/lib/systemd",
    "var/log",
)


class Machine:
    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._cgroup = f"klt-machine-{secrets.token_hex(3)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def boot(self) -> None:
        place = _unified() / self._cgroup
        place.mkdir()
        alone = "unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child"
        boot = f"echo $$ >{place}/cgroup.procs && exec {alone} sh {BOOT} {self.tree}"
        with (self.tree.parent / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", boot], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._is_up, "the machine to be up", TIMEOUT)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.tree.parent / "boot.log").read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children or not os.path.samefile(f"/proc/{children[0]}/root", self.tree):
            return False
        self._pid = int(children[0])
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the machine and return its output."""
        done = subprocess.run(
            [*self.command(), *command], capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
        assert not check or done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def command(self) -> list[str]:
        """What a command that runs in the machine begins with."""
        if self._process is None:
            inside = ["chroot", str(self.tree)]
        else:
            inside = ["nsenter", "--all", "--root", "--wd", "--target", str(self._pid), "--"]
        clean = ["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"]
        return [*inside, *clean, "DEBIAN_FRONTEND=noninteractive"]

    def give(self, source: Path, place: str) -> None:
        shutil.copy(source, self.tree / place.lstrip("/"))

    def files(self) -> set[str]:
        """Every path in it, except those that change independently of packages."""
        found: set[str] = set()
        for directory, directories, names in os.walk(self.tree):
            here = os.path.relpath(directory, self.tree)
            directories[:] = [
                name for name in directories if os.path.normpath(f"{here}/{name}") not in OWN_DIRECTORIES
            ]
            found.update(os.path.normpath(f"{here}/{name}") for name in (*names, *directories))
        return found

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT)
            remove_cgroup(self._cgroup)


def _unified() -> Path:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split()[4])
    pytest.skip("needs cgroup v2, alone or beside v1")


def missing(*programs: str) -> str:
    if os.geteuid() != 0:
        return "root"
    return next((program for program in programs if shutil.which(program) is None), "")


@contextlib.contextmanager
def machine(directory: Path, packages: list[str]) -> Iterator[Machine]:
    """A machine with the Debian release of this host and these packages."""
    tree = directory / "tree"
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    make = ["debootstrap", "--variant=minbase", f"--include={','.join(['systemd', *packages])}"]
    log = directory / "debootstrap.log"
    found = Machine(tree)
    try:
        # its mounts are its own: one that fails leaves none
        alone = ["unshare", "--mount", "--propagation", "private"]
        with log.open("wb") as file:
            done = subprocess.run(
                [*alone, *make, release["VERSION_CODENAME"].strip('"'), str(tree)],
                stdout=file,
                stderr=file,
                check=False,
                timeout=900 * PATIENCE,
            )
        if done.returncode:
            pytest.skip(f"needs a Debian mirror: {log.read_text().splitlines()[-1:]}")
        (tree / "etc/hostname").write_text("machine\n")
        (tree / "etc/dpkg/dpkg.cfg.d/fast").write_text(
            "force-unsafe-io\n"
        )  # no fsync: power cuts are not tested
        found.boot()
        yield found
    finally:
        found.end()
        shutil.rmtree(tree, ignore_errors=True)
