"""`make scrapes`: what /metrics costs with 50, 100, 250 and 500 containers, and what an hour of scrapes leaves.

python -m tests.bench.scrapes [--containers 500] [--each 5] [--busy] [--hour 3600] [--json FILE]

Pods of `--each` containers that sleep, and are looked at when they have come to rest; with `--busy` each wakes once a
second and takes some memory, and a second passes between two scrapes: every cgroup is read whole, a third of the
families change. A scrape is one GET with gzip over loopback, on a connection that is kept, as
Prometheus does it; its time is from the request's first byte to the answer's last. "CPU ms" is what the daemon worked
for it, gzip included: on a busy machine the one that counts.

The hour is its number of scrapes, one after the other over one connection, after a warm-up (`WARM`): a minute in which
every pod is looked at once more, and the first round that measures disks. Memory is the daemon's own pages (RssAnon:
what it shares with others is no growth of its own), said after each tenth, and measured after each fortieth: a line
through those of the second half, by least squares, says what 1,000 scrapes add, and its standard error (what is kept of
each scrape goes on; what has to settle has by then). More than `NOTHING`, and more than two errors, is growth: the
command says so and fails. The first tenth and the last are there to be compared by eye.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.cgroups.reading.reader import SETTLE
from tests.bench.account import pss_kib
from tests.bench.slope import slope
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, pack_image, running_node

STAGES = (50, 100, 250, 500)
WARM = (120, 1.0)  # scrapes, and seconds before each
PARTS = 40  # of an hour, each with a measure
NOTHING = 50.0  # kB that 1,000 scrapes may add: in an hour of them 0.2 % of what the daemon has
_SCRAPE = """
import gzip, http.client, json, sys, time
connection, took = http.client.HTTPConnection("127.0.0.1", 10255), []
times, pause, parts = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
for part in range(parts):
    if part:
        print("weigh it", flush=True)
        input()
    for _ in range(times):
        time.sleep(pause)
        began = time.perf_counter()
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        body = connection.getresponse().read()
        took.append((time.perf_counter() - began) * 1e3)
text = gzip.decompress(body)
print(json.dumps({"ms": took, "gzip": len(body), "text": len(text), "samples": sum(
    1 for line in text.splitlines() if not line.startswith(b"#"))}))
"""


def scrape(node: Node, times: int, pause: float = 0.0) -> dict[str, Any]:
    """`pause`: seconds before each."""
    command = node.in_netns(sys.executable, "-c", _SCRAPE, str(times), str(pause), "1")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


IDLE = "exec sleep 100000"
BUSY = (
    "mkfifo /pipe; exec 9<>/pipe; while :; do read -t 1 -r _ <&9; x=$x................................; done"
)


def grow(node: Node, before: int, wanted: int, each: int, script: str) -> None:
    for number in range(before // each, wanted // each):
        names = [container(f"c{i}", script) for i in range(each)]
        node.apply(f"load{number}.yaml", pod(f"load{number}", *names, terminationGracePeriodSeconds=0))

    def all_run() -> bool:
        lines = node.cli("get", "pods", "--no-headers", check=False).out.splitlines()
        return sum(" Running " in f"{line} " for line in lines) >= wanted // each

    node.wait(all_run, f"{wanted} containers", timeout=600)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make scrapes", description=__doc__)
    parser.add_argument("--containers", type=int, default=STAGES[-1], help="at the last stage (default 500)")
    parser.add_argument("--each", type=int, default=5, help="containers of a pod (default 5)")
    parser.add_argument("--busy", action="store_true", help="containers that are never at rest")
    parser.add_argument("--hour", type=int, default=3600, help="scrapes at the end (default 3600)")
    parser.add_argument("--json", default="", help="also write the values to this file")
    options = parser.parse_args()
    stages = [*(stage for stage in STAGES if stage < options.containers), options.containers]
    found: dict[str, Any] = {}
    columns = ("samples", "ms", "CPU ms", "for 100", "text MB", "gzip MB", "daemon MB")
    print(f"{'containers':>10}" + "".join(f"{column:>10}" for column in columns))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        base = Path(directory)
        with running_node(base / "node", pack_image(base / "image"), pod_cidr="10.77.0.0/16") as node:
            before = 0
            for stage in stages:
                grow(node, before, stage, options.each, BUSY if options.busy else IDLE)
                before = stage
                for _ in range(2):  # the second look is the first at pods that have come to rest
                    scrape(node, 3)
                    time.sleep(SETTLE + 1)
                daemon = int((node.run_dir / "kubelite.pid").read_text())
                used = cpu_ms(daemon)
                at = scrape(node, 20, 1.0 if options.busy else 0.0)
                cpu = (cpu_ms(daemon) - used) / 20
                ms = statistics.median(at.pop("ms"))
                weight = pss_kib(daemon) / 1024
                found[str(stage)] = {**at, "ms": ms, "cpu": cpu, "daemon": weight}
                print(
                    f"{stage:>10}{at['samples']:>10}{ms:>10.1f}{cpu:>10.1f}{cpu / stage * 100:>10.1f}"
                    f"{at['text'] / 1e6:>10.2f}{at['gzip'] / 1e6:>10.2f}{weight:>10.1f}",
                    flush=True,
                )
            grew = hour(node, options.hour, found)
            for file in node.manifests.glob("*.yaml"):
                file.unlink()
            node.wait(lambda: not node.cli("get", "pods", "-o", "name").out, "all to go", timeout=600)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")
    return int(grew)


def cpu_ms(pid: int) -> float:
    """User and system time of a process, milliseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def hour(node: Node, scrapes: int, found: dict[str, Any]) -> bool:
    """Whether the daemon grew meanwhile."""
    daemon, each = int((node.run_dir / "kubelite.pid").read_text()), max(1, scrapes // PARTS)
    scrape(node, *WARM)
    weights = list(weighed(node, daemon, each))
    first = PARTS // 2
    line = slope([number * each / 1000 for number in range(first, PARTS)], weights[first:])
    grows = line.grows(NOTHING)
    found["hour"] = {"kB": weights, "kB for 1000": line.rise, "error": line.error, "grows": grows}
    tenths = weights[PARTS // 10 - 1 :: PARTS // 10]
    print(f"{each * PARTS} scrapes, the daemon's own MB after each tenth:")
    print("  " + " ".join(f"{weight / 1024:.2f}" for weight in tenths))
    print(
        f"growth for 1,000 scrapes, of the second half: {line.rise:.0f} kB, standard error {line.error:.0f}: "
        + ("it GROWS" if grows else f"nothing (less than {NOTHING:.0f} kB, or than two errors)")
    )
    return grows


def weighed(node: Node, daemon: int, each: int) -> Iterator[int]:
    """The daemon's own KiB after each of the `PARTS`, all of them over one connection."""
    command = node.in_netns(sys.executable, "-c", _SCRAPE, str(each), "0", str(PARTS))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None and client.stdout is not None
        for line in client.stdout:  # the last one is what all the scrapes came to
            yield own_kib(daemon)
            if line == "weigh it\n":
                client.stdin.write("\n")
                client.stdin.flush()
    if client.returncode:
        raise subprocess.CalledProcessError(client.returncode, command)


def own_kib(pid: int) -> int:
    """Anonymous pages of a process (proc_pid_status(5), RssAnon), KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    sys.exit(main())
