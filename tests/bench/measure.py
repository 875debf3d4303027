"""How each row is measured, in the same way for every peer. Peers take turns, so that a drifting speed of the machine
affects all of them equally. A peer that fails is excluded with its error message, and the others continue."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench import builds, pulls, workloads
from tests.bench.account import containers
from tests.bench.caged import Refused
from tests.bench.compose import Compose
from tests.bench.engines import Bare, Engine, Library, wait_ended
from tests.bench.node_peer import Kubelite
from tests.bench.peers import CannotDo, Peer
from tests.bench.rows import Found

SETTLED = 0.3  # seconds; deferred work (a log line, a commit, the next spare shim) counts for this pod
SCRAPES = 3
FAILURES = (Refused, OSError, AssertionError, ValueError, LookupError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Plan:
    """The number of repetitions."""

    rounds: int
    batches: int
    many: int
    some: int  # pods that the daemon is killed with
    idle: float  # factor for the duration of idle measurements
    rows: frozenset[str]

    def wants(self, *keys: str) -> bool:
        return bool(self.rows.intersection(keys))


@dataclass(slots=True)
class Bout:
    """The remaining peers, and the results."""

    plan: Plan
    peers: list[Peer]
    found: Found
    say: Callable[[str], None]

    def run(self) -> None:
        plan = self.plan
        self._turns("one pod", self._one, plan.rounds, "first", "cpu", "ended", "gone")
        self._turns("user namespaces", self._own_users, plan.rounds, "users", "userscpu")
        self._turns("edit and restart", self._change, plan.rounds, "edited", "restart")
        self._turns("engines alone", self._engine, plan.rounds * 2, "engine")
        life = ("run", "create", "start", "exec", "delete", "rest")
        self._turns("OCI commands", self._commands, plan.rounds * 2, *life)
        self._turns("adoption", self._adopt, plan.batches, "adopted", warm=0)
        self._turns("pulls", self._pull, plan.batches, "pull", "layers", "pullcpu", "pullmem", warm=0)
        self._turns("builds", self._build, plan.rounds, "build")
        self._turns(f"{plan.many} probed", self._probed, 1, "probes", "late", warm=0)
        deployed = ("deployed", "deployedratio", "rolled")
        self._turns(f"a Deployment of {plan.many}", self._deployment, plan.batches, *deployed, warm=0)
        self._turns("Jobs", self._jobs, plan.batches, "jobs", warm=0)
        self._turns("idle workloads", self._idle_workloads, 1, "cronjobs", "ownmemory", warm=0)
        keys = ("hundred", "removed", "memory", "further", "idle", "scrape", "list")
        self._turns(f"{plan.many} at once", self._many, plan.batches, *keys, warm=0)

    def _turns(
        self, what: str, measure: Callable[[Peer, int], None], rounds: int, *keys: str, warm: int = 1
    ) -> None:
        """Rounds with negative numbers warm up and are not counted."""
        if not self.plan.wants(*keys):
            return
        for turn in range(-warm, rounds):
            for peer in list(self.peers):
                self.say(f"{what}, round {turn + 1} of {rounds}: {peer.name}")
                with self._or_out(peer, what), contextlib.suppress(CannotDo):
                    measure(peer, turn)

    @contextlib.contextmanager
    def _or_out(self, peer: Peer, what: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            self.found.left_out.append(f"{peer.name}, from {what} on: {' '.join(str(error).split())[:300]}")
            self.peers.remove(peer)
            peer.close()

    def _add(self, turn: int, key: str, peer: Peer, value: float) -> None:
        if turn >= 0 and key in self.plan.rows:
            self.found.add(key, peer.name, value)

    # -- rows ---------------------------------------------------------------------------------------------------

    def _one(self, peer: Peer, turn: int) -> None:
        if isinstance(peer, Engine | Library):
            raise CannotDo
        name = f"one{turn + 1}"
        used = peer.account.used_ms()
        began = peer.start([name])
        first = peer.wait_stamps([name])[0]
        time.sleep(SETTLED)
        cpu = peer.account.used_ms() - used
        with _watched(name) as ended:
            span = peer.remove([name])
        self._add(turn, "first", peer, (first - began) / 1e6)
        self._add(turn, "cpu", peer, cpu)
        self._add(turn, "ended", peer, (ended() - span.began) / 1e6)
        self._add(turn, "gone", peer, span.ms)
        time.sleep(SETTLED)

    def _own_users(self, peer: Peer, turn: int) -> None:
        """As `_one`, of a pod in a user namespace: the difference is what the setting user_namespaces costs."""
        if not isinstance(peer, Kubelite):
            raise CannotDo
        name = f"users{turn + 1}"
        used = peer.account.used_ms()
        began = peer.start([name], own_users=True)
        first = peer.wait_stamps([name])[0]
        time.sleep(SETTLED)
        self._add(turn, "users", peer, (first - began) / 1e6)
        self._add(turn, "userscpu", peer, peer.account.used_ms() - used)
        (pid,) = containers(name)
        if os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user"):
            raise Refused("the pod is in the host's user namespace")
        peer.remove([name])
        time.sleep(SETTLED)

    def _change(self, peer: Peer, turn: int) -> None:
        if isinstance(peer, Engine | Library | Bare):
            raise CannotDo
        name = f"edit{turn + 1}"
        peer.start([name])
        peer.wait_stamps([name])
        time.sleep(SETTLED)
        with contextlib.suppress(CannotDo):
            began = peer.edit(name)
            self._add(turn, "edited", peer, (peer.wait_stamps([name], 2)[0] - began) / 1e6)
        peer.remove([name])
        name = f"kill{turn + 1}"
        peer.start([name])
        peer.wait_stamps([name])
        time.sleep(SETTLED)
        if peer.restarts():
            (pid,) = containers(name)
            killed = time.time_ns()
            os.kill(pid, signal.SIGKILL)
            self._add(turn, "restart", peer, (peer.wait_stamps([name], 2)[0] - killed) / 1e6)
            time.sleep(SETTLED)
        peer.remove([name])
        time.sleep(SETTLED)

    def _engine(self, peer: Peer, turn: int) -> None:
        if not isinstance(peer, Engine | Library | Bare):
            raise CannotDo
        name = f"engine{turn + 1}"
        took = peer.run_bundle(name)
        peer.delete(name)
        self._add(turn, "engine", peer, took / 1e6)

    def _commands(self, peer: Peer, turn: int) -> None:
        if not isinstance(peer, Engine):
            raise CannotDo
        for key, value in peer.life(f"life{turn + 1}").items():
            self._add(turn, key, peer, value)

    def _pull(self, peer: Peer, turn: int) -> None:
        for key, reference in (("pull", pulls.LARGE), ("layers", pulls.LAYERS)):
            os.sync()  # this peer must not wait for the disk writes of others
            used = peer.account.used_ms()
            with pulls.peak(peer.account) as megabytes:
                took = peer.pull(reference, f"{key}{turn}")
            if reference == pulls.LARGE:
                self._add(turn, "pullcpu", peer, (peer.account.used_ms() - used) / 1e3)
            self._add(turn, key, peer, took.ms / 1e3)
            self._add(turn, "pullmem", peer, megabytes[0])

    def _build(self, peer: Peer, turn: int) -> None:
        """The first build warms up and fills the cache. Counted builds have sources that have not changed for a
        while."""
        if turn >= 0 and peer.bench.context is not None:
            builds.settle(peer.bench.context)
        self._add(turn, "build", peer, peer.build().ms)

    def _adopt(self, peer: Peer, turn: int) -> None:
        if not isinstance(peer, Kubelite):
            raise CannotDo
        names = [f"adopt{turn}-{number}" for number in range(self.plan.some)]
        peer.start(names)
        peer.wait_stamps(names)
        peer.wait_ready(len(names))
        before = sorted(containers())
        self._add(turn, "adopted", peer, peer.adopt_ms(names))
        time.sleep(SETTLED)
        if sorted(containers()) != before:
            raise Refused("containers were not left alone by the restart")
        peer.remove(names)

    def _probed(self, peer: Peer, turn: int) -> None:
        """The cost of probing each of many containers once a second, relative to the same idle pods, and in total."""
        if not isinstance(peer, Kubelite):
            raise CannotDo
        names = [f"probed{turn}-{number}" for number in range(self.plan.many)]
        with peer.answering() as port:
            peer.start(names, probed=port)
            peer.wait_stamps(names)
            time.sleep(SETTLED + 2)
            gap = f"http://127.0.0.1:{port}/gap"
            peer.node.get(gap)
            self._add(turn, "probes", peer, self._idle_share(peer))
            self._add(turn, "late", peer, float(peer.node.get(gap)))
            peer.remove(names)

    def _deployment(self, peer: Peer, turn: int) -> None:
        """Pods from files and pods of a Deployment in turn, on the same node: their ratio is the row."""
        many = self.plan.many
        if isinstance(peer, Compose):
            self._composed(peer, turn)
        if not isinstance(peer, Kubelite):
            raise CannotDo
        names = [f"bare{turn}-{number}" for number in range(many)]
        began = peer.start(names)
        alone = (max(peer.wait_stamps(names)) - began) / 1e9
        time.sleep(SETTLED)
        peer.remove(names)
        name = f"deployed{turn}"
        took = workloads.deployed(peer, name, many)
        self._add(turn, "deployed", peer, took)
        self._add(turn, "deployedratio", peer, took / alone)
        peer.wait_ready(many)
        time.sleep(SETTLED)
        if self.plan.wants("rolled"):
            self._add(turn, "rolled", peer, workloads.rolled_out(peer, name, many))
        peer.remove([name])
        time.sleep(SETTLED)

    def _composed(self, peer: Compose, turn: int) -> None:
        name = f"deployed{turn}"
        try:
            self._add(turn, "deployed", peer, peer.deploy(name, self.plan.many))
            if self.plan.wants("rolled"):
                time.sleep(SETTLED)
                self._add(turn, "rolled", peer, peer.deploy(name, self.plan.many, edition=2))
        finally:
            peer.undeploy(name)
        time.sleep(SETTLED)

    def _jobs(self, peer: Peer, turn: int) -> None:
        if not isinstance(peer, Kubelite):
            raise CannotDo
        prefix = f"true{turn}"
        self._add(turn, "jobs", peer, workloads.completed(peer, prefix))
        time.sleep(SETTLED)
        peer.remove([f"{prefix}-{number}" for number in range(workloads.JOBS)])
        time.sleep(SETTLED)

    def _idle_workloads(self, peer: Peer, turn: int) -> None:
        """What objects cost that have no pods: in memory, and in CPU beside the same node without them."""
        if not isinstance(peer, Kubelite):
            raise CannotDo
        for key, amount, write in (
            ("ownmemory", workloads.IDLE_DEPLOYMENTS, lambda name: workloads.deployment(peer, name, 0)),
            ("cronjobs", workloads.CRON_JOBS, workloads.cron_job),
        ):
            if not self.plan.wants(key):
                continue
            peer.restart_daemon()  # what earlier rows have freed would take the objects
            peer.put({"first": write("first")})  # loads what the kind needs
            time.sleep(2)
            before = peer.memory_kib()
            names = [f"idle-{number}" for number in range(amount)]
            peer.put({name: write(name) for name in names})
            workloads.wait_seen(peer, amount + 1, key)
            time.sleep(2)
            if key == "ownmemory":
                self._add(turn, key, peer, (peer.memory_kib() - before) / amount)
            else:
                self._add(turn, key, peer, self._idle_share(peer))
            peer.remove([*names, "first"])

    def _idle_share(self, peer: Peer) -> float:
        """Percent of a core that the peer uses now."""
        used, began = peer.account.used_ms(), time.monotonic()
        time.sleep(peer.idle_seconds * self.plan.idle)
        return (peer.account.used_ms() - used) / (time.monotonic() - began) / 10

    def _many(self, peer: Peer, turn: int) -> None:
        if isinstance(peer, Engine | Library):
            raise CannotDo
        many = self.plan.many
        names = [f"many{turn}-{number}" for number in range(many)]
        empty = peer.memory_kib()
        began = peer.start(names)
        self._add(turn, "hundred", peer, (max(peer.wait_stamps(names)) - began) / 1e9)
        time.sleep(2 if self.plan.wants("memory", "further", "idle") else SETTLED)
        if not isinstance(peer, Bare):
            self._weigh(peer, turn, empty)
        self._add(turn, "removed", peer, peer.remove(names).ms / 1e3)
        time.sleep(SETTLED)

    def _weigh(self, peer: Peer, turn: int, empty: int) -> None:
        """The cost of a hundred idle pods, and of queries about them."""
        if self.plan.wants("idle"):
            self._add(turn, "idle", peer, self._idle_share(peer))
        kib = peer.memory_kib()
        self._add(turn, "memory", peer, kib / 1024)
        self._add(turn, "further", peer, (kib - empty) / 1024 / self.plan.many)
        for key, measure in (("scrape", peer.scrape_ms), ("list", peer.list_ms)):
            if not self.plan.wants(key):
                continue
            with contextlib.suppress(CannotDo):
                measure()  # the first query reads what later ones have cached
                for _ in range(SCRAPES):
                    self._add(turn, key, peer, measure())


@contextlib.contextmanager
def _watched(name: str) -> Iterator[Callable[[], int]]:
    """When the pod's process ends (Unix nanoseconds), seen by the kernel's word and not by looking again and again."""
    (pid,) = containers(name)
    pidfd = os.pidfd_open(pid)
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(wait_ended(pidfd)), daemon=True)
    thread.start()

    def when() -> int:
        thread.join(60)
        if not ended:
            raise Refused(f"{name}'s process did not end")
        return ended[0]

    try:
        yield when
    finally:
        thread.join(60 if ended else 1)
        os.close(pidfd)
