"""`make chaos`: a seeded random mix of orders and faults on a whole node, for a given time.

python -m tests.chaos [--seconds 300] [--pods 40] [--seed N] [--rounds N] [--blows FAMILY ...]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.machine import Machine
from tests.chaos.monkey import FAMILIES, Failure, Monkey
from tests.e2e import node

PATIENCE = 5.0  # the node may share the machine with all other tests
DISK_MB = 256  # of the root directory's file system, which can be filled


@contextlib.contextmanager
def monkey(
    base: Path, images: Path, *, seed: int, size: int, families: tuple[str, ...] = ()
) -> Iterator[Monkey]:
    """A monkey with its own machine, which is cleaned up at the end."""
    clock = shutil.which("cc") is not None
    with Machine.running(base, images, disk_mb=DISK_MB, clock=clock, pod_cidr="10.77.0.0/22") as machine:
        found = Monkey(machine, seed, size, families)
        try:
            yield found
        finally:
            found.close()
            if machine.preload:
                machine.step_clock(0.0)
            machine.free_disk()
            if machine.daemon is None or machine.daemon.poll() is not None:
                machine.start()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--pods", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--rounds", type=int, default=0, help="stop after so many, however long they take")
    parser.add_argument(
        "--blows", nargs="*", default=[], choices=tuple(FAMILIES), help="families of blows to add"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("chaos needs root: it drives a whole node", file=sys.stderr)
        return 2
    node.PATIENCE = max(node.PATIENCE, PATIENCE)
    base = Path(tempfile.mkdtemp(prefix="kubelite-chaos-"))
    print(f"chaos with seed {options.seed}, {options.pods} pods, {options.seconds:g} s", flush=True)
    try:
        return _run(base, options)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _run(base: Path, options: argparse.Namespace) -> int:
    """Run rounds. The last line has the result."""
    found = None
    try:
        images = node.pack_image(base / "pack")
        with monkey(
            base / "node", images, seed=options.seed, size=options.pods, families=tuple(options.blows)
        ) as found:
            found.say = lambda line: print(line, flush=True)
            until = time.monotonic() + options.seconds
            while time.monotonic() < until and not 0 < options.rounds <= found.rounds:
                found.round()
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        print(error if isinstance(error, Failure) else traceback.format_exc(), file=sys.stderr)
        kept = Path(tempfile.gettempdir()) / f"kubelite-chaos-{options.seed}.log"
        with contextlib.suppress(OSError):
            shutil.copy(base / "node" / "daemon.log", kept)
        reason = error.reason if isinstance(error, Failure) else str(error).partition("\n")[0]
        rounds = found.rounds if found else 0
        print(
            f"FAILED in round {rounds}: {reason}; the daemon's log is {kept}; to replay: "
            f"python -m tests.chaos --seed {options.seed} --pods {options.pods} --rounds {rounds}",
            flush=True,
        )
        return 1
    print(found.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
