"""Process 1 of the guest: make the machine, run the job, report, power off. Started by `harness.py`; standard
library only, and nothing it does reaches the host: the root is read-only under an overlay in guest memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
import termios
import threading
import time
import traceback
from pathlib import Path
from typing import Any

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 8192, 16384, 1 << 18
RB_POWER_OFF = 0x4321FEDC
TIMED_OUT = 124
MODULES = ("overlay", "veth", "bridge", "tun", "dummy", "nf_tables", "nft_compat", "loop")
_MODULE_ROOTS = ("/usr/lib/uml/modules", "/usr/lib/modules")
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    if _libc.mount(*arguments) < 0:
        raise OSError(ctypes.get_errno(), f"mount {kind} on {target}")


def writable_root() -> None:
    """Put an overlay with a tmpfs above the read-only hostfs root, and make it the root."""
    mount("tmpfs", "/tmp", "tmpfs")
    for name in ("upper", "work", "root"):
        Path("/tmp", name).mkdir()
    mount("overlay", "/tmp/root", "overlay", 0, "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work")
    for place in ("/dev", "/proc"):
        mount(place, f"/tmp/root{place}", "", MS_MOVE)
    os.chdir("/tmp/root")
    if _libc.syscall(155, b".", b".") < 0:  # pivot_root, the old root stacked below the new one …
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chroot(".")
    if _libc.umount2(b".", 2) < 0:  # … and taken off (MNT_DETACH)
        raise OSError(ctypes.get_errno(), "umount of the old root")
    os.chdir("/")


def load_modules(wanted: tuple[str, ...]) -> list[str]:
    """modprobe from where Debian keeps the guest kernel's modules; gives what could not be loaded."""
    release = platform.release()
    root = next((root for root in _MODULE_ROOTS if Path(root, release).is_dir()), "")
    order = _dependencies(Path(root, release))
    failed = []
    loaded: set[str] = set()
    for name in wanted:
        for path in order.get(name, []):
            if path not in loaded and not _insmod(path):
                failed.append(name)
                break
            loaded.add(path)
        else:
            if name not in order:
                failed.append(name)
    return failed


def _dependencies(root: Path) -> dict[str, list[str]]:
    """modules.dep: module name → its files, dependencies first."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (root / "modules.dep").read_text().splitlines():
            file, _, needs = line.partition(":")
            name = Path(file).name.split(".")[0].replace("-", "_")
            found[name] = [str(root / path) for path in (*reversed(needs.split()), file)]
    return found


def _insmod(path: str) -> bool:
    with open(path, "rb") as file:
        result = _libc.syscall(313, file.fileno(), b"", 0)  # finit_module
    return result == 0 or ctypes.get_errno() == 17  # EEXIST


def make_machine(work: str) -> list[str]:
    """Everything an ordinary boot would have mounted; cgroup v2 with all controllers on; lo up. Modules come first:
    overlay is one. `work` is the directory that stays in sight, also below /tmp. Gives the modules that are missing."""
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    with contextlib.suppress(OSError):
        mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID)
    missing = load_modules(MODULES)
    writable_root()
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    with contextlib.suppress(OSError):
        mount("securityfs", "/sys/kernel/security", "securityfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    kept = os.open(work, os.O_PATH | os.O_DIRECTORY)
    for place, mode in (("/tmp", "1777"), ("/run", "755"), ("/dev/shm", "1777")):
        Path(place).mkdir(exist_ok=True)
        # devices and setuid work there: tests keep root file systems in /tmp
        mount("tmpfs", place, "tmpfs", 0, f"mode={mode}")
    if not os.path.isdir(work):
        Path(work).mkdir(parents=True)
        mount(f"/proc/self/fd/{kept}", work, "", MS_BIND)
    os.close(kept)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        Path("/dev", name).symlink_to(f"/proc/self/fd{target}")
    Path("/dev/pts").mkdir(exist_ok=True)
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    controllers = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
    # mounts made by tests must not be shared with anything
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    link_modules()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    _libc.sethostname(b"uml", 3)
    return missing


def link_modules() -> None:
    """So that modprobe, and the kernel's own module requests, find the rest."""
    for root in _MODULE_ROOTS:
        source = Path(root, platform.release())
        target = Path("/usr/lib/modules", platform.release())
        if source.is_dir() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)


def run(job: dict[str, Any]) -> int:
    """The command with its output on con1, as a pipe to it rather than a terminal. Process 1 also reaps."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": "-o cache_dir=/tmp/.pytest_cache",
        **job["env"],
    }
    console = raw_console("/dev/tty1")
    child = subprocess.Popen(
        job["command"],
        cwd=job["cwd"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert child.stdout is not None
    pump = threading.Thread(target=copy, args=(child.stdout.fileno(), console), daemon=True)
    pump.start()
    code = reap_until(child.pid, time.monotonic() + float(job["timeout"]))
    pump.join(2.0)  # a process left behind may hold the pipe open: do not wait for it
    termios.tcdrain(console)
    return code


def copy(source: int, target: int) -> None:
    while data := os.read(source, 65536):
        while data:
            data = data[os.write(target, data) :]


def reap_until(pid: int, deadline: float) -> int:
    """The exit code of `pid` as a shell would have it; 124 when it takes too long."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if ended == 0:
            if time.monotonic() >= deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                return TIMED_OUT
            time.sleep(0.01)


def raw_console(path: str) -> int:
    """Output as it is: no carriage returns put in."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    attributes = termios.tcgetattr(fd)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    return fd


def main() -> None:
    started = time.monotonic()
    code = 125
    status = -1
    try:
        job = json.loads(Path(sys.argv[1]).read_text())
        missing = make_machine(job["cwd"])
        status = raw_console("/dev/tty2")
        os.write(status, f"ready {time.monotonic() - started:.2f}\n".encode())
        if missing:
            os.write(status, f"no modules {' '.join(missing)}\n".encode())
        code = run(job)
    except Exception:  # noqa: BLE001 - process 1 must not die: the kernel would panic
        traceback.print_exc()
    if status >= 0:
        os.write(status, f"exit {code}\n".encode())
        termios.tcdrain(status)
    sys.stdout.flush()
    _libc.reboot(RB_POWER_OFF)


if __name__ == "__main__":
    main()
