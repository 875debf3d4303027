"""`make bench`: kubelite beside whatever of docker, podman, runc and crun is installed, and the bare kernel work.

One table, one run, the same program in the same image. Peers take turns, so that a machine whose speed drifts is
unfair to nobody. Read the ratios: milliseconds on a shared machine swing by half, ratios and CPU time much less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.bench import peers
from tests.bench.peers import Peer, Sample
from tests.e2e.node import IMAGE, Node

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="counted starts of each (default 15)")
    parser.add_argument("--only", default="", help="comma-separated peers, for example kubelite,crun,bare")
    parser.add_argument("--json", default="", help="also write the samples to this file")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("make bench needs root: sudo make bench", file=sys.stderr)
        return 2
    if shutil.which("gcc") is None:
        print("make bench needs gcc for the bare kernel work: apt-get install gcc libc6-dev", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="kubelite-bench-") as directory:
        samples, left_out = measure(
            Path(directory), options.rounds, set(filter(None, options.only.split(",")))
        )
    print(table(samples, left_out))
    if options.json:
        Path(options.json).write_text(json.dumps({n: [vars_of(s) for s in ss] for n, ss in samples.items()}))
    return 0


def measure(base: Path, rounds: int, only: set[str]) -> tuple[dict[str, list[Sample]], list[str]]:
    rootfs, store, archive, bare = build(base)
    wanted: dict[str, Callable[[], AbstractContextManager[Peer]]] = {
        "bare": lambda: peers.bare(base, rootfs, bare),
        "kubelite": lambda: peers.kubelite(base, store),
        "crun": lambda: peers.oci("crun", base, rootfs),
        "runc": lambda: peers.oci("runc", base, rootfs),
        "podman": lambda: peers.podman(base, archive),
        "docker": lambda: peers.docker(base, archive),
    }
    programs = {"crun": "crun", "runc": "runc", "podman": "podman", "docker": "dockerd"}
    left_out: list[str] = []
    samples: dict[str, list[Sample]] = {}
    with contextlib.ExitStack() as stack:
        running: list[Peer] = []
        for name, make in wanted.items():
            if only and name not in only:
                continue
            if name in programs and shutil.which(programs[name]) is None:
                left_out.append(f"{name}: not installed")
                continue
            try:
                running.append(stack.enter_context(make()))
            except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
                left_out.append(f"{name}: {words(error)}")
        for turn in range(-2, rounds):
            for peer in list(running):
                try:
                    sample = peer.sample(f"b{turn + 2}")
                except (OSError, subprocess.CalledProcessError) as error:
                    left_out.append(f"{peer.name}: {words(error)}")
                    running.remove(peer)
                    continue
                if turn >= 0:
                    samples.setdefault(peer.name, []).append(sample)
    return samples, left_out


def build(base: Path) -> tuple[Path, Path, Path, Path]:
    """The stamp program as root file system, kubelite image store and docker archive; and the bare starter."""
    rootfs = base / "rootfs"
    rootfs.mkdir()
    subprocess.run(["gcc", "-O2", "-static", "-o", rootfs / "stamp", HERE / "stamp.c"], check=True)
    subprocess.run(["gcc", "-O2", "-o", base / "bare-start", HERE / "bare.c"], check=True)
    for name in ("proc", "sys", "dev", "etc", "tmp"):
        (rootfs / name).mkdir()
    node = Node(base / "pack")
    node.prepare()
    try:
        node.start()
        node.cli("image", "pack", str(rootfs / "stamp"), "-t", IMAGE, "--file", f"{rootfs}/stamp:/stamp")
        store = base / "store"
        shutil.copytree(node.root / "images", store, symlinks=True)
    finally:
        node.destroy()
    archive = base / "image.tar"
    copy = ["skopeo", "copy", f"oci:{store}:{IMAGE}", f"docker-archive:{archive}:{IMAGE}"]
    if shutil.which("skopeo"):
        subprocess.run(copy, check=True, capture_output=True)
    return rootfs, store, archive, base / "bare-start"


COLUMNS = (
    ("start_ms", "start → first instruction, ms"),
    ("stop_ms", "stop → gone, ms"),
    ("cpu_ms", "CPU a pod (start + stop), ms"),
    ("pod_kib", "memory a pod (PSS of shim), KiB"),
    ("daemon_kib", "daemon idle (PSS), KiB"),
)


def table(samples: dict[str, list[Sample]], left_out: list[str]) -> str:
    """A block a column, a line a peer: median (minimum–maximum), and the ratio to kubelite's median (above 1: worse
    than kubelite's), and to the bare kernel work's."""
    lines = []
    for key, title in COLUMNS:
        found = {name: [float(getattr(s, key)) for s in ss] for name, ss in samples.items()}
        medians = {name: statistics.median(values) for name, values in found.items()}
        lines.append(f"{title:<34} {'median (min–max)':>28} {'/ kubelite':>11} {'/ bare':>8}")
        for name, values in found.items():
            if not any(values):
                continue  # has none
            ratios = [
                ratio(medians[name], medians.get(other, 0.0)) for other in ("kubelite", "bare kernel work")
            ]
            lines.append(f"  {name:<32} {spread(values):>28} {ratios[0]:>11} {ratios[1]:>8}")
    lines.extend(f"left out: {reason}" for reason in left_out)
    return "\n".join(lines)


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}×" if base else "-"


def words(error: Exception) -> str:
    """The end of what a command said, or of the error itself, in one line."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return " ".join((said.decode(errors="replace") if said else str(error)).split())[-200:]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def vars_of(sample: Sample) -> dict[str, float]:
    return {key: getattr(sample, key) for key, _ in COLUMNS}


if __name__ == "__main__":
    sys.exit(main())
