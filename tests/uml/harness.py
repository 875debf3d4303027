"""Run a command under another kernel: User Mode Linux, cgroup v2, on this machine's own file system.

    tests/uml/run [--mem 2G] [--timeout 900] [--env K=V] [--verbose] -- .venv/bin/python -m pytest tests/kernel
    tests/uml/run --each tests/kernel/test_*.py -- .venv/bin/python -m pytest -m kernel

Debian's user-mode-linux boots in about a second. Its root is the host's over hostfs, mounted read-only, under an
overlay whose upper layer is guest memory (`guest.py`): the guest may write anywhere, the host sees none of it. Output
comes back as it is made, and the command's exit code is ours. Needs no privilege of its own, but sees only what its
user may read: run it as root.

Three channels, each a pipe handed to the guest as a console: con0 is the kernel's log (shown when something goes
wrong, or with --verbose), con1 the command's output, con2 what `guest.py` reports ("ready SECONDS", "exit CODE").

Processors with AMX have more registers than this UML knows how to keep: xstate.c, compiled and preloaded, helps it.

Exit codes of its own: 124 the time is up, 125 the guest died, 77 no User Mode Linux here (says what to install).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

TIMED_OUT, GUEST_DIED, NOT_HERE = 124, 125, 77
NOTHING_SELECTED = 5
# 6.12: a fork ended by SIGKILL while it copies memory leaves XA_ZERO_ENTRY (0x406) in the maple tree, and
# flush_tlb_mm (arch/um/kernel/tlb.c) takes it for a vma. Nothing of ours can do that to a sound kernel.
KNOWN_PANIC = "Kernel mode fault at addr 0x40e"
PANIC_WORDS = "panic of a fork that was killed midway, a bug of this kernel"
RETRIES = 5  # on a busy machine one guest in two of those that kill the most dies so
GRACE = 10.0  # seconds the guest gets beyond the command's own limit, to say that the time is up
KERNEL = "linux.uml"
_HERE = Path(__file__).resolve().parent


class Boot:
    """One guest: its process, its three channels, and what came out of them."""

    def __init__(self, kernel: str, mem: str, job: dict[str, object], workdir: str, boot: list[str]) -> None:
        self.log = bytearray()
        self.status = bytearray()
        self._selector = selectors.DefaultSelector()
        ours: list[int] = []
        theirs: list[int] = []
        for name in ("log", "output", "status"):
            read, write = os.pipe()
            ours.append(read)
            theirs.append(write)
            self._selector.register(read, selectors.EVENT_READ, name)
        (Path(workdir) / "job.json").write_text(json.dumps(job))
        arguments = [
            kernel,
            f"mem={mem}",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "con=null",
            *(f"con{number}=null,fd:{fd}" for number, fd in enumerate(theirs)),
            "ssl=null",
            "quiet",
            *boot,
            f"uml_dir={workdir}",
            "umid=guest",
            f"init={sys.executable}",
            "--",
            "-I",
            str(_HERE / "guest.py"),
            f"{workdir}/job.json",
        ]
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=theirs[0],
            stderr=theirs[0],
            pass_fds=theirs,
            env={
                "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                "TMPDIR": memory_place(mem),
                "HOME": workdir,
                **preloaded(workdir),
            },
            start_new_session=True,
        )
        for fd in theirs:
            os.close(fd)

    def pump(self, deadline: float) -> bool:
        """Pass output on until all channels end (True) or the deadline (False)."""
        while self._selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self._selector.select(min(left, 1.0)):
                data = os.read(key.fd, 65536)
                if not data:
                    self._selector.unregister(key.fileobj)
                    os.close(key.fd)
                elif key.data == "output":
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
                else:
                    (self.log if key.data == "log" else self.status).extend(data)
        return True

    def exit_code(self) -> int | None:
        """What the guest reported; None when it never got to it."""
        for line in reversed(self.status.decode(errors="replace").split("\n")):
            words = line.split()
            if len(words) == 2 and words[0] == "exit":
                return int(words[1])
        return None

    def end(self) -> None:
        """Everything of the guest: its processes are one session of ours."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()


def has_tiles() -> bool:
    """Whether the processors have AMX: UML does not run there without help (xstate.c)."""
    return re.search(r"^flags\b.*\bamx_tile\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE) is not None


def preloaded(workdir: str) -> dict[str, str]:
    """The environment that brings this help, compiled into `workdir`."""
    if not has_tiles():
        return {}
    library = f"{workdir}/xstate.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, str(_HERE / "xstate.c")], check=True)
    return {"LD_PRELOAD": library}


def memory_place(mem: str) -> str:
    """Where the guest's memory is a (deleted, sparse) file: /dev/shm when it has the room, else /tmp."""
    size = int(mem[:-1]) << {"K": 10, "M": 20, "G": 30}[mem[-1].upper()]
    try:
        space = os.statvfs("/dev/shm")
    except OSError:
        return tempfile.gettempdir()
    return "/dev/shm" if space.f_bavail * space.f_frsize > size else tempfile.gettempdir()


def run(
    command: list[str],
    *,
    mem: str,
    timeout: float,
    env: dict[str, str],
    verbose: bool,
    retries: int = RETRIES,
    boot: list[str],
) -> int:
    """One guest, one command; its exit code. A guest that dies of the kernel's own known bug is booted again."""
    for attempt in range(1 + retries):
        code, log = boot_once(command, mem=mem, timeout=timeout, env=env, boot=boot)
        known = code == GUEST_DIED and KNOWN_PANIC in log
        if verbose or (code in (GUEST_DIED, TIMED_OUT) and not known):
            sys.stderr.write(log)
        if not known:
            break
        again = "once more" if attempt < retries else "too often, giving up"
        print(f"{KERNEL}: {PANIC_WORDS}: {again}", file=sys.stderr)
    meaning = {
        TIMED_OUT: f"time is up after {timeout:g} s",
        GUEST_DIED: "the guest ended without an exit code; its log is above",
    }
    if code:
        print(f"{KERNEL}: {meaning.get(code, f'the command ended with {code}')}", file=sys.stderr)
    return code


def boot_once(
    command: list[str], *, mem: str, timeout: float, env: dict[str, str], boot: list[str]
) -> tuple[int, str]:
    job: dict[str, object] = {"command": command, "cwd": str(Path.cwd()), "env": env, "timeout": timeout}
    kernel = shutil.which(KERNEL) or KERNEL
    with tempfile.TemporaryDirectory(prefix="kubelite-uml-") as workdir:
        guest = Boot(kernel, mem, job, workdir, boot)
        try:
            ended = guest.pump(time.monotonic() + timeout + GRACE)
            code = guest.exit_code()
        finally:
            guest.end()
    if code is None:
        code = GUEST_DIED if ended else TIMED_OUT
    return code, (guest.log + guest.status).decode(errors="replace")


def shares(paths: list[str], most: int) -> list[list[str]]:
    """The paths in shares of up to `most`, those of one directory together: they have fixtures in common."""
    found: list[list[str]] = []
    for _, group in groupby(paths, os.path.dirname):
        of_one = list(group)
        count = -(-len(of_one) // most)
        found += [of_one[start::count] for start in range(count)]
    return found


def run_each(paths: list[str], arguments: list[str], command: list[str], jobs: int, most: int) -> int:
    """The command once for each share of up to `most` paths, each in a guest of its own, `jobs` at a time; what it said
    is shown when it has ended. The first failure's code. pytest's 5, "no test was selected", is none. A share whose
    guest dies of the kernel's own bug is run again path by path."""
    started = time.monotonic()
    guests = shares(paths, most)
    running: set[subprocess.Popen[bytes]] = set()

    def one(share: list[str]) -> list[tuple[str, int, str]]:
        once = ["--retries", "0"] if len(share) > 1 else []
        found = guest(share, once)
        if once and found[1] == GUEST_DIED and PANIC_WORDS in found[2]:
            return [guest([path], []) for path in share]
        return [found]

    def guest(share: list[str], more: list[str]) -> tuple[str, int, str]:
        ours = [sys.executable, str(Path(__file__).resolve()), *arguments, *more, "--", *command, *share]
        with subprocess.Popen(ours, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            running.add(process)
            said = process.communicate()[0].decode(errors="replace")
            running.discard(process)
        return " ".join(share), process.returncode, said

    failed: dict[str, int] = {}
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for result in as_completed([pool.submit(one, share) for share in guests]):
                for path, code, said in result.result():
                    print(f"== {path}\n{said}", end="", flush=True)
                    counts.update(outcomes(said))
                    if code not in (0, NOTHING_SELECTED):
                        failed[path] = code
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()  # its guest ends with it
            raise
    if failed:
        print(f"{KERNEL}: failed: {' '.join(failed)}")
    total = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    print(
        f"== {len(paths)} paths in {len(guests)} guests: {total or 'nothing'} in {time.monotonic() - started:.2f}s ==",
        flush=True,
    )
    return next(iter(failed.values()), 0)


def outcomes(said: str) -> dict[str, int]:
    """The numbers in pytest's closing line."""
    closing = [line for line in said.splitlines() if re.search(r"\d+ \w+.* in [\d.]+s", line)]
    found = re.findall(r"(\d+) (failed|passed|skipped|xfailed|errors?)\b", closing[-1] if closing else "")
    return {outcome: int(number) for number, outcome in found}


def reasons(path: str) -> str:
    """The skips that are expected of this kernel: one regular expression a line, `#` begins a comment."""
    lines = (line.split("#")[0].strip() for line in Path(path).read_text().splitlines())
    return ";".join(line for line in lines if line)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests/uml/run", description=str(__doc__).split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--mem", default="2G", help="the guest's memory (%(default)s)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for the command (%(default)g)")
    parser.add_argument(
        "--env", action="append", default=[], metavar="K=V", help="environment of the command"
    )
    parser.add_argument(
        "--each", nargs="+", metavar="PATH", help="the command once with each, in a new guest"
    )
    parser.add_argument(
        "--share", type=int, default=1, metavar="N", help="with --each: paths a guest (%(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="with --each: guests at a time (%(default)s)"
    )
    parser.add_argument(
        "--boot", action="append", default=[], metavar="WORD", help="a parameter of the guest's kernel"
    )
    parser.add_argument("--skips", metavar="FILE", help="the skips that are expected, as TEST_ALLOWED_SKIPS")
    parser.add_argument(
        "--retries", type=int, default=RETRIES, help="after the kernel's known panic (%(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the guest kernel's log too")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    options = parser.parse_args()
    if shutil.which(KERNEL) is None:
        print("no User Mode Linux on this machine: apt install user-mode-linux kmod", file=sys.stderr)
        return NOT_HERE
    if has_tiles() and shutil.which("cc") is None:
        print(
            "on processors with AMX User Mode Linux needs a C compiler: apt install gcc libc6-dev",
            file=sys.stderr,
        )
        return NOT_HERE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the guest is ended too
    how: dict[str, Any] = {
        "mem": options.mem,
        "timeout": options.timeout,
        "env": dict(entry.split("=", 1) for entry in options.env),
        "verbose": options.verbose,
        "retries": options.retries,
        "boot": options.boot,
    }
    if options.skips:
        how["env"]["TEST_ALLOWED_SKIPS"] = reasons(options.skips)
    if options.each:
        arguments = ["--mem", options.mem, "--timeout", f"{options.timeout * options.share:g}"]
        arguments += [f"--env={key}={value}" for key, value in how["env"].items()]
        arguments += [f"--boot={word}" for word in options.boot]
        arguments += ["--verbose"] if options.verbose else []
        return run_each(options.each, arguments, options.command, options.jobs, options.share)
    return run(options.command, **how)


if __name__ == "__main__":
    sys.exit(main())
