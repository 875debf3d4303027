"""`make bench`: kubelite beside docker, podman, runc and crun, as far as they are installed, and beside a minimal C
program.

One table, one run, the same program in the same image, with the same volumes. Read the ratios: milliseconds on a shared
machine swing by half, ratios and CPU time much less. docs/explanation/performance.md says how each row is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench import builds, pulls
from tests.bench.account import sweep
from tests.bench.compose import Compose
from tests.bench.engines import Bare, Crun, KubeliteOci, Library, Runc
from tests.bench.measure import FAILURES, Bout, Plan
from tests.bench.node_peer import MEMORY, PREFIX, Kubelite, pack
from tests.bench.peers import Bench, Buildah, Docker, Peer, Podman, PodmanRunc, SkopeoUmoci
from tests.bench.record import record
from tests.bench.rows import ROWS, Found, table
from tests.e2e.node import IMAGE

HERE = Path(__file__).parent
PEERS: tuple[type[Peer], ...] = (
    *(Kubelite, Podman, PodmanRunc, Docker, Compose, SkopeoUmoci, Buildah),
    *(Library, KubeliteOci, Crun, Runc, Bare),
)


def main() -> int:
    options = arguments()
    if why := missing():
        print(why, file=sys.stderr)
        return 2
    plan = Plan(
        rounds=options.rounds or (3 if options.quick else 10),
        batches=1 if options.quick else 3,
        many=options.many,
        some=max(options.many // 2, 1),
        idle=0.5 if options.quick else 1.0,
        rows=frozenset(options.rows or (row.key for row in ROWS)),
    )
    kinds = [k for k in PEERS if not options.only or short(k) in options.only or k.name in options.only]
    if not kinds:
        print(f"--only takes {', '.join(map(short, PEERS))}", file=sys.stderr)
        return 2
    began = time.monotonic()
    found = Found({}, [])
    try:
        with guarded(), directory() as base:
            compete(base, plan, kinds, found)
    except KeyboardInterrupt:
        found.left_out.append("everything after the interrupt")
    progress("")
    shown = f"{machine()}\n{table(found, [kind.name for kind in kinds], many=plan.many, some=plan.some)}"
    print(f"{shown}\n{time.monotonic() - began:.0f} s in all")
    if options.record:
        record("bench", shown)
    if options.json:
        whole = {"machine": machine(), "rows": found.samples, "left_out": found.left_out}
        Path(options.json).write_text(json.dumps(whole, indent=1))
    ours_failed = any(why.startswith((f"{Kubelite.name},", f"{Kubelite.name}:")) for why in found.left_out)
    return 1 if ours_failed else 0


def arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="counted turns of each single row (default 10)")
    parser.add_argument("--many", type=int, default=100, help="pods at once (default 100)")
    parser.add_argument("--only", type=words, help=f"peers of {','.join(map(short, PEERS))}")
    parser.add_argument("--rows", type=words, help=f"rows of {','.join(row.key for row in ROWS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a few minutes")
    parser.add_argument("--json", default="", help="also write all samples to this file")
    parser.add_argument(
        "--record", action="store_true", help="put the table into docs/development/measurements.md"
    )
    options = parser.parse_args()
    if unknown := set(options.rows or ()) - {row.key for row in ROWS}:
        parser.error(f"no such row: {', '.join(unknown)}")
    if unknown := set(options.only or ()) - {name for kind in PEERS for name in (kind.name, short(kind))}:
        parser.error(f"no such peer: {', '.join(unknown)}")
    return options


def short(kind: type[Peer]) -> str:
    """A peer's name for the command line."""
    return kind.name.replace(" ", "-").replace("(", "").replace(")", "").lower()


def missing() -> str:
    """Why the benchmark cannot run, or ""."""
    if os.geteuid() != 0:
        return "make bench needs root: sudo make bench"
    for program, package in (("gcc", "gcc libc6-dev"), ("curl", "curl"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"make bench needs {program}: apt-get install {package}"
    return ""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, and the undo is not interrupted by a second one."""

    def stop(_number: int, _frame: object) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """The directory of this run. Leftovers of killed runs are removed."""
    sweep()
    for place in filter(None, (tempfile.gettempdir(), MEMORY)):
        for path in Path(place).glob("kubelite-bench-*-*"):
            if not os.path.exists(f"/proc/{path.name.split('-')[2]}"):
                shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as base:
        yield Path(base)


def compete(base: Path, plan: Plan, kinds: list[type[Peer]], found: Found) -> None:
    """Build, start, measure and end all installed peers."""
    bench = build(base)
    if plan.wants(*pulls.ROWS):
        if lacking := pulls.missing():
            found.left_out.append(f"pulls: {lacking} is not installed")
            plan = replace(plan, rows=plan.rows - pulls.ROWS)
        else:
            progress("making the images that are pulled")
            bench = replace(bench, registry=pulls.prepare(base))
    if plan.wants("build"):
        if lacking := builds.missing():
            found.left_out.append(f"builds: {lacking} is not installed")
            plan = replace(plan, rows=plan.rows - {"build"})
        else:
            bench = replace(bench, context=builds.prepare(base))
    with contextlib.ExitStack() as stack:
        peers: list[Peer] = []
        for kind in kinds:
            if kind.program and shutil.which(kind.program) is None:
                found.left_out.append(f"{kind.name}: {Path(kind.program).name} is not installed")
                continue
            progress(f"preparing {kind.name}")
            try:
                peer = kind(bench)
            except (*FAILURES, subprocess.SubprocessError) as error:
                found.left_out.append(f"{kind.name}: {' '.join(str(error).split())[:300]}")
                continue
            stack.callback(close, peer, found)
            peers.append(peer)
        Bout(plan, peers, found, progress).run()
        progress("cleaning up")


def close(peer: Peer, found: Found) -> None:
    """Close a peer. A failure must not affect the others."""
    try:
        peer.close()
    except (*FAILURES, subprocess.SubprocessError) as error:
        found.left_out.append(f"{peer.name}, cleaning up: {' '.join(str(error).split())[:300]}")


def build(base: Path) -> Bench:
    """Build the stamp program as root file system, tar and kubelite image, and the C program."""
    rootfs = base / "rootfs"
    rootfs.mkdir()
    compile_c("stamp.c", rootfs / "stamp", "-static")
    compile_c("bare.c", base / "bare-start")
    for name in ("proc", "sys", "dev", "etc", "tmp", "data", "bench"):
        (rootfs / name).mkdir()
    archive = base / "rootfs.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(rootfs, arcname=".")
    return Bench(base, rootfs, archive, pack(base, rootfs, IMAGE), base / "bare-start")


def compile_c(source: str, target: Path, *flags: str) -> None:
    subprocess.run(["gcc", "-O2", *flags, "-o", target, HERE / source], check=True)


def machine() -> str:
    """The machine and the versions of the peers."""
    cpu = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "?",
    )
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    cgroups = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1"
    python = f"Python {sys.version.split()[0]}"
    versions = "; ".join([python, *filter(None, map(version, ("podman", "docker", "crun", "runc")))])
    first = f"{os.cpu_count()} × {cpu}, Linux {os.uname().release}, cgroup {cgroups}, load {load}"
    return f"{first}\n{versions}\n"


def version(program: str) -> str:
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else ""


LAST = [0]


def progress(text: str) -> None:
    """One line that overwrites itself on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{text:<{LAST[0]}}", end="" if text else "\r", file=sys.stderr, flush=True)
        LAST[0] = len(text)


if __name__ == "__main__":
    sys.exit(main())
