"""`make churn`: does a node grow while people use it? Edits, crashes, builds, pulls, scrapes and execs, for two hours.

python -m tests.chaos.churn [--seconds 7200] [--pods 12] [--pause 1.0] [--seed N]

A round edits a pod, kills the first process of another, replaces a third, builds an image from a changed file and
removes it, pulls an image from a registry on the node's own loopback, scrapes /metrics, runs a command in a container,
and reads logs. After it the kernel must show exactly one instance of each container, of the generation that its
manifest says. Then it takes the memory (RssAnon, kB) and open descriptors of the daemon and of its helpers, the size of
the node's database, and the number of its files.

No process of the node is killed, because its successor would start with fresh memory; `make chaos` kills them. At the
end, a least-squares line through the second half of the measures gives the growth per hour. A measure grows if that is
more than its limit in `LIMITS` and more than two standard errors. Every ten minutes it prints the verdict so far.

Three things grow by design until they are full: history up to `history_size`, which is small here so that it is full
after some minutes; the changes that watches resume from (`state.store.HISTORY`), which are complete after half an hour;
and events, which are kept for an hour. Only a run of two hours judges memory and database without them. Questions to
the node from outside change the result: an answer with all events leaves half a megabyte of heap.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.scrapes import own_kib
from tests.bench.slope import slope
from tests.chaos import lens, pods
from tests.e2e import node as nodes
from tests.e2e.node import IMAGE, Node
from tests.kernel.images_support import member, tar, write_layout

HOST = "127.0.0.1:5000"
PULLED = f"{HOST}/churn/pulled:1"
#: Restarts without a long delay, and a history that is full after some minutes: at its default of 64 MiB, the database
#: would grow for hours.
SETTINGS = {"crash_backoff_initial": "0.2", "crash_backoff_max": "0.8", "history_size": str(1 << 20)}
VERDICT_EACH = 600.0  # seconds
PATIENCE = 5.0  # the machine has other work
#: Allowed growth per hour, by kind of measure: kB of a process, descriptors, kB of the database, files of the node.
LIMITS = {"kB": 500.0, "fds": 1.0, "database": 2048.0, "files": 50.0}


@dataclass
class Churn:
    node: Node
    size: int
    chance: random.Random
    pause: float
    done: Counter[str] = field(default_factory=Counter)
    generations: dict[str, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)  # seconds since the first measure
    measures: dict[str, list[float]] = field(default_factory=dict)

    def prepare(self) -> None:
        for number in range(self.size):
            self._apply(f"churn{number}")
        self._settled()

    def round(self) -> None:
        edited, crashed, replaced = self.chance.sample(sorted(self.generations), 3)
        acts: dict[str, Callable[[], None]] = {
            "edits": lambda: self._apply(edited),
            "crashes": lambda: self._crash(crashed),
            "replaced pods": lambda: self._replace(replaced),
            "builds": self._build,
            "pulls": self._pull,
            "scrapes": self._scrape,
            "execs": lambda: self._look(crashed),
        }
        for what, act in acts.items():
            act()
            self.done[what] += 1
            time.sleep(self.pause)
        self._settled()
        self.done["rounds"] += 1

    # --- what people do ---

    def _apply(self, name: str) -> None:
        self.generations[name] = self.generations.get(name, -1) + 1
        self.node.apply(f"{name}.yaml", pods.manifest(name, generation=self.generations[name]))

    def _crash(self, name: str) -> None:
        for one in lens.instances(self.node):
            if one.pod == name:
                lens.kill(one.pid, one.start)

    def _replace(self, name: str) -> None:
        (self.node.manifests / f"{name}.yaml").unlink()
        self.node.wait_gone(name)
        self._apply(name)

    def _build(self) -> None:
        context = self.node.base / "context"
        context.mkdir(exist_ok=True)
        (context / "data").write_text(f"{self.done['builds']}\n" * 1000)
        (context / "Containerfile").write_text(f"FROM {IMAGE}\nCOPY data /data\nRUN wc -l /data > /count\n")
        name = "localhost/churn/built:1"
        self.node.cli("build", "-q", "-t", name, str(context))
        self.node.cli("rmi", name)
        if self.done["builds"] % 20 == 19:  # as a timer does it, else the cache grows as it should
            self.node.cli("image", "prune", "--build-cache", "--force")

    def _pull(self) -> None:
        self.node.cli("pull", "-q", PULLED)
        self.node.cli("rmi", PULLED)

    def _scrape(self) -> None:
        assert "kubelet_running_pods" in self.node.get("http://127.0.0.1:10255/metrics")

    def _look(self, name: str) -> None:
        self.node.wait(lambda: self._agree() == [], "the node to be settled")
        assert self.node.cli("exec", name, "--", "echo", "here").out == "here\n"
        self.node.cli("logs", name, "--tail=5")

    # --- what must hold ---

    def _agree(self) -> list[str]:
        """The pods whose processes are not what their manifests say."""
        seen = Counter((one.pod, one.generation) for one in lens.instances(self.node))
        wanted = Counter(dict.fromkeys(self.generations.items(), 1))
        return sorted(name for name, _ in (seen - wanted) + (wanted - seen))

    def _settled(self) -> None:
        self.node.wait(lambda: not self._agree(), "one instance of each container")
        self.node.wait(
            lambda: all(self.node.status_of(name) == "Running" for name in self.generations), "all to run"
        )

    def measure(self, now: float) -> None:
        daemon = int((self.node.run_dir / "kubelite.pid").read_text())
        self.times.append(now)
        for name, pid in (("daemon", daemon), *lens.children(self.node).items()):
            self._note(f"{name} kB", own_kib(pid))
            self._note(f"{name} fds", len(os.listdir(f"/proc/{pid}/fd")))
        databases = self.node.root.glob("*.db*")
        self._note("node database", sum(path.stat().st_size for path in databases) / 1024)
        self._note("node files", sum(len(files) for _, _, files in os.walk(self.node.root)))

    def _note(self, name: str, value: float) -> None:
        self.measures.setdefault(name, []).append(value)

    def verdict(self) -> list[str]:
        """A line for each measure. What grows begins with GROWS."""
        found = []
        for name, values in sorted(self.measures.items()):
            if len(values) != len(self.times):
                found.append(f"GROWS {name}: a process came or went ({len(values)} of {len(self.times)})")
                continue
            first = len(values) // 2
            line = slope([at / 3600 for at in self.times[first:]], values[first:])
            grows = line.grows(LIMITS[name.rpartition(" ")[2]])
            tenths = values[:: max(1, len(values) // 10)]
            found.append(
                f"{'GROWS' if grows else 'flat'} {name}: {line.rise:+.1f} ± {line.error:.1f} an hour; "
                + " ".join(f"{value:.0f}" for value in tenths)
            )
        return found


@contextmanager
def registry(node: Node) -> Iterator[None]:
    """docker-registry on the node's loopback, with one image."""
    base = node.base / "registry"
    base.mkdir()
    (base / "config.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {base}/data}}}}\nhttp: {{addr: '{HOST}'}}\n"
    )
    layout = base / "layout"
    write_layout(layout, [tar((member(f"file{n}"), os.urandom(50_000))) for n in range(3)])
    with (base / "log").open("wb") as log:
        command = node.in_netns("docker-registry", "serve", str(base / "config.yml"))
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        asking = node.in_netns("curl", "-sfo", str(base / "answer"), f"http://{HOST}/v2/")
        node.wait(lambda: subprocess.run(asking, check=False).returncode == 0, "the registry")
        source = f"oci:{layout}:latest"
        copy = ("skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{PULLED}")
        subprocess.run(node.in_netns(*copy), check=True)
        yield
    finally:
        process.terminate()
        process.wait(10)


def run(base: Path, options: argparse.Namespace) -> list[str]:
    images = nodes.pack_image(base / "pack")
    with nodes.running_node(base / "node", images, **SETTINGS) as node, registry(node):
        churn = Churn(node, options.pods, random.Random(options.seed), options.pause)
        churn.prepare()
        began = time.monotonic()
        told = 0.0
        while (now := time.monotonic() - began) < options.seconds or len(churn.times) < 6:
            churn.round()
            churn.measure(now)
            if churn.done["rounds"] % 20 == 0:
                latest = ", ".join(f"{name} {values[-1]:.0f}" for name, values in churn.measures.items())
                print(f"{now:.0f} s: {latest}", flush=True)
            if now - told >= VERDICT_EACH:
                told = now
                print(f"verdict after {now:.0f} s:", *churn.verdict(), sep="\n  ", flush=True)
        print(", ".join(f"{count} {what}" for what, count in churn.done.items()), flush=True)
        for path in node.manifests.glob("*.yaml"):
            path.unlink()
        node.wait(lambda: not node.cli("get", "pods", "-o", "name").out, "all to go")
        return churn.verdict()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make churn", description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--pods", type=int, default=12)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds after each act")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("churn needs root: it drives a whole node", file=sys.stderr)
        return 2
    nodes.PATIENCE = max(nodes.PATIENCE, PATIENCE)
    print(f"churn with seed {options.seed}, {options.pods} pods, {options.seconds:g} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="kubelite-churn-", dir="/var/tmp") as directory:
        found = run(Path(directory), options)
    print("\n".join(found))
    return int(any(line.startswith("GROWS") for line in found))


if __name__ == "__main__":
    sys.exit(main())
