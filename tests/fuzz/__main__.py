"""`make fuzz`: config.json and state files from a seed; each results in a container or in one clean error.

python -m tests.fuzz [--cases 100000] [--real 2000] [--state 500] [--foreign 100000] [--api 100000]
    [--seed N] [--first K]

`cases` are decided in this process: reading, validation, the plans for mounts, cgroups, capabilities and seccomp.
`real` of them (from `--first` on) are then tried with the command, and `state` containers have their files damaged
(root only). The first that is neither ends it, with how to repeat that one alone. `foreign` cases are bytes for the
parsers of what others write (foreign.py), for each parser in turn. `api` cases are requests to the API (api.py).
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import cases, decide
from tests.fuzz.decide import CONTAINER, Unclean
from tests.fuzz.run import Ground


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=2_000)
    parser.add_argument("--state", type=int, default=500)
    parser.add_argument("--foreign", type=int, default=100_000)
    parser.add_argument("--api", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    if os.geteuid() != 0 and (options.real or options.state):
        print("containers need root: --real 0 --state 0 does the rest", file=sys.stderr)
        return 2
    print(f"fuzz with seed {options.seed}", flush=True)
    base = Path(tempfile.mkdtemp(prefix="kubelite-fuzz-"))
    try:
        return _all(base, options)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _all(base: Path, options: argparse.Namespace) -> int:
    seed, first = options.seed, options.first
    placed = base / "config.json"

    def decided(number: int) -> str:
        case = cases.config(seed, number)
        placed.write_bytes(cases.placed(case, source=base, cgroup="/kubelite-fuzz/c"))
        return decide.decide(placed)

    if not _each("cases", decided, range(first, first + options.cases), seed):
        return 1
    if not _foreign(base, options) or not _api(base, options):
        return 1
    if not options.real and not options.state:
        return 0
    (base / "ground").mkdir()
    ground = Ground(base / "ground")
    try:
        good = _each(
            "real", lambda number: ground.try_config(seed, number), range(first, first + options.real), seed
        )
        return (
            0
            if good
            and _each("state", lambda number: ground.try_state(seed, number), range(options.state), seed)
            else 1
        )
    finally:
        ground.close()


def _foreign(base: Path, options: argparse.Namespace) -> bool:
    from tests.fuzz import foreign  # imports the node, which the other cases do not need

    logging.getLogger("kubelite").addHandler(logging.NullHandler())  # what it says of damaged files
    names, where = list(foreign.PARSERS), base / "foreign"
    where.mkdir()

    def parsed(number: int) -> str:
        name = names[number % len(names)]
        data = foreign.case(foreign.PARSERS[name], options.seed, number)
        try:
            return CONTAINER if foreign.attempt(name, data, where) else "an error"
        except AssertionError as error:
            raise Unclean(str(error)) from error

    return _each(
        "foreign", parsed, range(options.first, options.first + options.foreign), options.seed, "values"
    )


def _api(base: Path, options: argparse.Namespace) -> bool:
    from tests.fuzz import api

    logging.disable(logging.CRITICAL)  # what the node says of requests that it refuses
    target = api.Api(base / "api")
    # A request depends on those before it in its batch.
    first = options.first - options.first % api.BATCH
    numbers = range(first, options.first + options.api)
    try:
        return _each(
            "api",
            lambda number: CONTAINER if target.attempt(options.seed, number) else "an error",
            numbers, options.seed, "answers",
        )  # fmt: skip
    finally:
        target.close()
        logging.disable(logging.NOTSET)


def _each(
    kind: str, attempt: Callable[[int], str], numbers: range, seed: int, good: str = "containers"
) -> bool:
    began, ended = time.monotonic(), Counter[bool]()
    for number in numbers:
        try:
            ended[attempt(number) == CONTAINER] += 1
        except Unclean as error:
            only = {"cases": 0, "real": 0, "state": 0, "foreign": 0, "api": 0, kind: 1}
            flags = " ".join(f"--{name} {count}" for name, count in only.items())
            print(f"FAILED at {kind} {number}: {error}")
            print(f"to repeat: python -m tests.fuzz --seed {seed} --first {number} {flags}", flush=True)
            return False
    took = time.monotonic() - began
    print(
        f"{kind}: {len(numbers)}, {ended[True]} {good} and {ended[False]} clean errors, in {took:.0f} s",
        flush=True,
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
