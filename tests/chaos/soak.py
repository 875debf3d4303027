"""`make soak`: start and stop thousands of containers, eight at a time, and kill their callers at random points. At the
end nothing of them is left.

python -m tests.chaos.soak [--containers 5000] [--workers 8] [--seed N]

Each container gets create, start, sometimes exec, pause and kill, then delete, by `kubelite-oci`. At a seeded moment
one of these commands is killed (SIGKILL, with its children). Then the container is cleaned up as a caller would:
`delete --force`. The checks at the end cover processes, mounts, cgroups, network namespaces, state directories, and the
number of open files of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime import syscalls as sc
from tests.programs import BUSYBOX

OURS = str(Path(sys.executable).with_name("kubelite-oci"))
SECONDS = 120.0
KILLED = 0.35  # of all containers have a killed command
LONGEST = 0.06  # latest moment of the kill in seconds; a command takes about half of that


class Leak(AssertionError):
    """Something of a container is left, or a command misbehaved."""


@dataclass
class Soak:
    base: Path
    seed: int
    cgroup: str = field(default_factory=lambda: f"/kubelite-soak-{secrets.token_hex(4)}")
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.base / "state"

    def prepare(self) -> None:
        rootfs = self.base / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "tmp"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, rootfs / "bin/busybox")
        for name in ("sh", "true", "sleep"):
            (rootfs / "bin" / name).symlink_to("busybox")
        sc.prctl(
            sc.PR_SET_CHILD_SUBREAPER, 1
        )  # processes that a killed command leaves become our children, and are found

    def bundle(self, name: str) -> Path:
        made = self.base / name
        made.mkdir()
        kinds = ("pid", "network", "mount", "ipc", "uts", "cgroup")
        mounts = [("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/sys", "sysfs")]
        config = {
            "ociVersion": "1.2.0",
            "root": {"path": str(self.base / "rootfs"), "readonly": True},
            "process": {
                "args": ["sleep", "1000"],
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
            },
            "mounts": [{"destination": place, "type": kind, "source": kind} for place, kind in mounts],
            "linux": {
                "cgroupsPath": f"{self.cgroup}/{name}",
                "namespaces": [{"type": kind} for kind in kinds],
                "resources": {"pids": {"limit": 64}},
            },
        }
        (made / "config.json").write_text(json.dumps(config))
        return made

    def life(self, number: int) -> None:
        """One container, from create to removal."""
        chance = random.Random(f"{self.seed}:{number}")
        name = f"c{number}"
        bundle = self.bundle(name)
        steps = [("create", "--bundle", str(bundle), name), ("start", name)]
        steps += [
            args
            for args in (("exec", name, "true"), ("pause", name), ("resume", name))
            if chance.random() < 0.3
        ]
        steps += [("kill", name, "KILL")] if chance.random() < 0.5 else []
        steps.append(("delete", "--force", name))
        victim = chance.randrange(len(steps)) if chance.random() < KILLED else -1
        for index, args in enumerate(steps):
            code = self._command(args, chance.uniform(0, LONGEST) if index == victim else None)
            if code == -signal.SIGKILL:
                self.done[f"{args[0]} killed"] += 1
                break
            if args[0] in ("create", "start", "delete") and code != 0:
                raise Leak(f"{args[0]} of {name} ended with {code}")
        # as podman and containerd do after any failure; a killed delete is repeated
        if self._command(("delete", "--force", name), None) != 0:
            raise Leak(f"{name} cannot be deleted")
        shutil.rmtree(bundle)
        self.done["lives"] += 1

    def _command(self, args: tuple[str, ...], killed_after: float | None) -> int:
        child = subprocess.Popen(
            [OURS, "--root", str(self.root), *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if killed_after is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(killed_after)
            child.kill()
        return child.wait(SECONDS)

    def run(self, count: int, workers: int, say: Callable[[str], None]) -> None:
        numbers = iter(range(count))
        lock = threading.Lock()

        def work() -> None:
            while not self.faults:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    self.life(number)
                except (Leak, OSError, subprocess.SubprocessError) as error:
                    self.faults.append(f"life {number}: {error}")
                if number % 500 == 499:
                    say(f"{number + 1} of {count}")

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # --- what is left ---

    def left(self, before: Traces) -> list[str]:
        """Everything that is left of it, as sentences."""
        found = list(self.faults)
        if self.root.exists():
            found += [
                f"state directory {name}" for name in sorted(os.listdir(self.root)) if name != "@seccomp"
            ]
        found += [f"process {pid}" for pid in self._children()]
        for top in (
            "/sys/fs/cgroup",
            *(entry.path for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir()),
        ):
            with contextlib.suppress(FileNotFoundError):
                found += [
                    f"cgroup {entry.path}" for entry in os.scandir(f"{top}{self.cgroup}") if entry.is_dir()
                ]
        now = traces(self.base)
        found += [f"mount {line}" for line in now.mounts]
        found += [f"descriptor {name}" for name in sorted(set(now.descriptors) - set(before.descriptors))]
        return found

    def _children(self) -> list[int]:
        """Orphans are our children: exited ones are reaped, running ones are leaks."""
        deadline = time.monotonic() + 10
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return []
            if not pid and time.monotonic() > deadline:
                text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
                return [int(word) for word in text.split()]
            time.sleep(0 if pid else 0.02)

    def close(self) -> None:
        for top in (
            "/sys/fs/cgroup",
            *(entry.path for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir()),
        ):
            for place, _, _ in os.walk(f"{top}{self.cgroup}", topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(place)


@dataclass(frozen=True)
class Traces:
    mounts: tuple[str, ...]
    descriptors: tuple[str, ...]


def traces(base: Path) -> Traces:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = tuple(line for line in file if str(base) in line)
    return Traces(mounts, tuple(os.listdir("/proc/self/fd")))


def soak(
    base: Path, *, seed: int, containers: int, workers: int, say: Callable[[str], None]
) -> tuple[Soak, list[str]]:
    """Run the soak. The calling process becomes a subreaper and must have no other children."""
    one = Soak(base, seed)
    one.prepare()
    before = traces(base)
    try:
        one.run(containers, workers, say)
        return one, one.left(before)
    finally:
        one.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--containers", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("the soak needs root: it makes containers", file=sys.stderr)
        return 2
    print(
        f"soak with seed {options.seed}: {options.containers} containers, {options.workers} at a time",
        flush=True,
    )
    base = Path(tempfile.mkdtemp(prefix="kubelite-soak-"))
    began = time.monotonic()
    try:
        one, left = soak(
            base, seed=options.seed, containers=options.containers, workers=options.workers,
            say=lambda line: print(line, flush=True),
        )  # fmt: skip
    finally:
        shutil.rmtree(base, ignore_errors=True)
    for line in left:
        print(f"LEFT: {line}")
    killed = ", ".join(f"{count} {what}" for what, count in sorted(one.done.items()) if what != "lives")
    print(
        f"{one.done['lives']} lives in {time.monotonic() - began:.0f} s ({killed}); {len(left)} things left"
    )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
