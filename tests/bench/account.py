"""A peer's account: a cgroup in every hierarchy, where the kernel counts its CPU time and lists its processes."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
UNIFIED = (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The root cgroup of every hierarchy that a peer may use: cgroup2, or the v1 ones."""
    if UNIFIED:
        return [ROOT]
    found = [path for path in sorted(ROOT.iterdir()) if path.is_dir() and not path.is_symlink()]
    return [path for path in found if path.name != "unified" and (path / "cgroup.procs").exists()]


class Account:
    """`others`: cgroups that the peer creates outside of this one."""

    def __init__(self, name: str, others: tuple[str, ...] = ()) -> None:
        self.cgroup = f"bench-{os.getpid()}-{name}-{secrets.token_hex(2)}"
        self._counting = ROOT if UNIFIED else ROOT / "cpuacct"
        self._names = (self.cgroup, *others)
        for root in hierarchies():
            (root / self.cgroup).mkdir()

    def add_tree(self, pid: int) -> None:
        """Move a process and its children, to be counted and, as what is in a cage, to have a share of its own in the
        processors where others want them too."""
        leaf = self._counting / self.cgroup
        if UNIFIED:  # a cgroup with processes gives no controllers to others
            leaf /= "work"
            leaf.mkdir(exist_ok=True)
        share = ROOT / "cpu" / self.cgroup
        todo = [pid]
        while todo:
            one = todo.pop()
            with contextlib.suppress(OSError):
                todo.extend(int(c) for c in Path(f"/proc/{one}/task/{one}/children").read_text().split())
                (leaf / "cgroup.procs").write_text(str(one))
                if share.exists():
                    (share / "cgroup.procs").write_text(str(one))

    def used_ms(self) -> float:
        """Milliseconds of CPU time of all processes that run or ran in it."""
        return sum(map(self._used, self._names)) / 1e6

    def _used(self, name: str) -> int:
        with contextlib.suppress(OSError):
            if not UNIFIED:
                return int((self._counting / name / "cpuacct.usage").read_text())
            stat = (self._counting / name / "cpu.stat").read_text().split()
            return int(stat[stat.index("usage_usec") + 1]) * 1000
        return 0

    def processes(self) -> set[int]:
        return {pid for name in self._names for pid in _processes(self._counting / name)}

    def pss_kib(self) -> int:
        """Memory of the peer's own processes, each with its share of what it shares (proc_pid_smaps(5)): daemons,
        guardians, pause containers; not the containers themselves, nor the process that passes our orders on."""
        return sum(map(pss_kib, filter(_is_the_peers, self.processes())))

    def close(self) -> None:
        """Kill the remaining processes and remove it with its descendants."""
        _end(self.cgroup)


def sweep() -> None:
    """Remove leftovers of killed runs: cgroups named after a process that has exited."""
    for root in (*hierarchies(), ROOT / "unified"):
        for path in (*root.glob("bench-*"), *root.glob("kubelite-b*")):
            found = re.match(r"(?:bench-|kubelite-b)(\d+)(?:-|$)", path.name)
            if found and not os.path.exists(f"/proc/{found[1]}"):
                _end(path.name)


def _end(cgroup: str) -> None:
    for root in (*hierarchies(), ROOT / "unified"):
        for _ in range(200):
            for pid in _processes(root / cgroup):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if _remove(root / cgroup):
                break
            time.sleep(0.02)


def _processes(cgroup: Path) -> set[int]:
    found: set[int] = set()
    for path, _, _ in os.walk(cgroup):
        with contextlib.suppress(OSError):  # it has just exited
            found.update(map(int, Path(path, "cgroup.procs").read_text().split()))
    return found - {0}


def _is_the_peers(pid: int) -> bool:
    words = command_line(pid)
    return bool(words) and words[0] != "/stamp" and not any(word.endswith("/bench/cage.py") for word in words)


def _remove(cgroup: Path) -> bool:
    for path, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    return not cgroup.exists()


def pss_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def command_line(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return []


def containers(name: str = "") -> list[int]:
    """Pids of the stamp program, seen from here: of the pod `name`, or of all."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        words = command_line(int(pid))
        if words[:1] == ["/stamp"] and (not name or words[1:2] == [name]):
            found.append(int(pid))
    return found
