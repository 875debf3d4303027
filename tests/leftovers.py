"""What a whole test run may leave on a machine, looked for when it is over: every test cleans up after itself and most
look for what they left, but a session's fixtures, and what dies late, nobody else sees.

Only where nothing else makes such things meanwhile (`TEST_ALONE`, set by CI and in guests) can what is new be
laid at the run's door."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.waiting import SECONDS

# Of others, which come and go by themselves.
_OTHERS = ("/tmp/pytest-of-", "/tmp/.", "/dev/shm/libpod_")  # the last is podman's, which keeps it
_IPROUTE = "mount /run/netns"  # made by the first `ip netns add`, for all that follow


def look(base: str) -> frozenset[str]:
    """Everything of the kinds that tests make, a line each that names it. `base`: the directory that the run's own
    files are in; a process is the run's when its command line, directory or cgroup says so."""
    return frozenset(
        [
            *_processes(base),
            *(f"mount {line.split()[4]}" for line in _lines("/proc/self/mountinfo")),
            *_cgroups(),
            *(f"network namespace {path}" for path in Path("/run/netns").glob("*")),
            *(f"network interface {path.name}" for path in Path("/sys/class/net").glob("*")),
            *_nftables(),
            *(
                f"loop device {path.parent.parent}"
                for path in Path("/sys/block").glob("loop*/loop/backing_file")
            ),
            *(entry for path in ("/tmp", "/dev/shm") for entry in _entries(path)),
        ]
    )


def left(before: frozenset[str], base: str, seconds: float = SECONDS) -> list[str]:
    """What is there that was not there `before`, after as long as it takes to go, `seconds` at most."""
    deadline = time.monotonic() + seconds
    while (found := _new(before, base)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _new(before: frozenset[str], base: str) -> list[str]:
    new = look(base) - before - {_IPROUTE}
    return sorted(found for found in new if not found.removeprefix("file ").startswith(_OTHERS))


def _processes(base: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = Path("/proc", pid, "cgroup").read_text()
            told = (words, os.readlink(f"/proc/{pid}/cwd"), groups)
            state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
            ours = any(base in text for text in told) or "/klt-" in groups or "/kubelite-" in groups
            if ours and state not in "ZX" and int(pid) != os.getpid():
                found.append(f"process {pid} {words.strip()[:120]}")
    return found


def _cgroups() -> list[str]:
    top = Path("/sys/fs/cgroup")
    return [
        f"cgroup {path}"
        for pattern in ("klt*", "kubelite*")
        for path in [*top.glob(pattern), *top.glob(f"*/{pattern}")]
    ]


def _nftables() -> list[str]:
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nft is None or os.geteuid() != 0:
        return []
    told = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=False).stdout
    return [f"nft {line}" for line in told.splitlines()]


def _entries(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [f"file {path}/{name}" for name in os.listdir(path)]
    return []


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
