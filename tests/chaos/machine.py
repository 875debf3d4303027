"""A node on an imitated machine that can fail as a whole: full disk, changed clock, power cut."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import lens
from tests.chaos.strike import Strike
from tests.e2e.node import Node

#: Crashed containers restart at once, so that tests do not wait.
QUICK = {"CRASH_BACKOFF_INITIAL": "0.2", "CRASH_BACKOFF_MAX": "0.8"}


@dataclass(slots=True)
class Machine(Node):
    """See the module's docstring. `disk_mb`: size of the root directory's file system; 0 = the test's directory."""

    disk_mb: int = 0
    preload: str = ""  # the library that changes the clock, "" = the machine's clock
    strike: Strike | None = None  # kills a process of the node at its Nth system call

    @classmethod
    @contextlib.contextmanager
    def running(
        cls,
        base: Path,
        images: Path,
        *,
        disk_mb: int = 0,
        clock: bool = False,
        strike: bool = False,
        **settings: str,
    ) -> Iterator[Machine]:
        """A started machine. The test fails if anything is left at the end."""
        machine = cls(
            base, settings={**QUICK, **{k.upper(): v for k, v in settings.items()}}, disk_mb=disk_mb
        )
        with contextlib.ExitStack() as stack:
            if disk_mb:
                stack.enter_context(_tmpfs(machine.root, disk_mb))
            if clock:
                machine.preload = str(_compile(base))
                machine.step_clock(0.0)
            if strike:
                machine.strike = stack.enter_context(Strike.ready(base))
            machine.prepare()
            subprocess.run(["cp", "-a", str(images), str(machine.root / "images")], check=True)
            try:
                machine.start()
                yield machine
                found = machine.doctor()
                assert not found, found
            finally:
                machine.free_disk()
                machine.destroy()
            left = machine.leftovers()
            assert not left, left

    def environ(self) -> dict[str, str]:
        found = Node.environ(self)
        if self.preload:
            found |= {"LD_PRELOAD": self.preload, "CHAOS_CLOCK": str(self._clock)}
        if self.strike is not None:
            found |= self.strike.environment
        return found

    def leftovers(self) -> list[str]:
        return [found for found in Node.leftovers(self) if found != f"mount {self.root}"]

    # -- disk ---------------------------------------------------------------------------------------------------

    @property
    def _filler(self) -> Path:
        return self.root / "filler"

    @property
    def _read_only(self) -> bool:
        return bool(os.statvfs(self.root).f_flag & os.ST_RDONLY)

    def fill_disk(self) -> None:
        """Fill the disk completely, unless it is read-only."""
        if self._read_only:
            return
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)

    def free_disk(self) -> None:
        """Free the disk, unless it is read-only: then it can be done later."""
        if not self._read_only:
            self._filler.unlink(missing_ok=True)

    # -- clock --------------------------------------------------------------------------------------------------

    @property
    def _clock(self) -> Path:
        return self.base / "clock"

    def step_clock(self, seconds: float) -> None:
        """Shift the daemon's clock by this much from now on. The shims' clock and earlier records do not change."""
        if not self._clock.exists():
            self._clock.write_bytes(struct.pack("d", seconds))
        with self._clock.open("r+b") as file, mmap.mmap(file.fileno(), 8) as memory:
            memory[:] = struct.pack("d", seconds)

    # -- power --------------------------------------------------------------------------------------------------

    def cut_power(self, *, run_dir_stays: bool = False) -> None:
        """Lose everything but the disk. `run_dir_stays`: the run directory is on the disk, as on some systems."""
        daemon, holder = self.daemon, self.holder
        assert daemon is not None and holder is not None
        if daemon.poll() is None:
            self.kill(signal.SIGKILL)
        until = time.monotonic() + 20.0
        while left := [p.pid for p in lens.processes(self)]:
            for pid in left:
                lens.kill(pid)
            assert time.monotonic() < until, left
            time.sleep(0.01)
        holder.kill()  # and the network namespace with it
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            place = line.split()[4]
            if place.startswith(f"{self.root}/"):
                subprocess.run(["umount", place], check=True)
        self.remove_cgroups()
        if not run_dir_stays:
            shutil.rmtree(self.run_dir)
        self.prepare()


@contextlib.contextmanager
def _tmpfs(path: Path, megabytes: int) -> Iterator[None]:
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "chaos", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def _compile(directory: Path) -> Path:
    library = directory / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library
