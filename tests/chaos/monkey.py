"""Orders and faults drawn from a seed, and quiet moments at which the model is checked.

The rounds depend only on the seed and the model, never on observations: the same seed gives the same rounds. Their
timing in the kernel differs between runs, which is why long runs are useful.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.chaos import blows, damage, lens, pods, shortages
from tests.chaos.machine import Machine
from tests.chaos.model import Model, Seen, Wanted
from tests.e2e.node import KUBELITE, REPO

FAMILIES = {**blows.FAMILIES, **damage.FAMILIES, **shortages.FAMILIES}  # of blows, by their names

# The state has been recorded, or everything is in order, after both the time and the number of observations. Under load
# an observation takes longer, so the time alone says less.
LAG, LAG_LOOKS = 3.0, 5
QUIET, QUIET_LOOKS = 90.0, 300
HANGS = 120.0  # seconds after which a command, or a daemon that is to stop, is not believed to end any more
GARBAGE = (
    b"",
    b"apiVersion: v1\nkind: Pod\nmetadata: {name: ",
    b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containrs: []\n",
    b"\xff\xfe\x00",
    b"- just\n- a\n- list\n",
)[1:]  # an empty file defines nothing, like a removal


class Failure(AssertionError):
    """The model does not hold. Has the first reason and all that is known about it."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(slots=True)
class _Beside:
    """A command that runs at the same time."""

    process: subprocess.Popen[bytes]
    output: Path
    pod: str
    kind: str  # exec, logs


@dataclass(slots=True)
class Monkey:
    """`round()` as often as wanted."""

    machine: Machine
    seed: int
    size: int = 40
    families: tuple[str, ...] = ()  # of FAMILIES
    say: Callable[[str], None] = lambda _line: None
    model: Model = field(default_factory=Model)
    rng: random.Random = field(default_factory=random.Random)
    kills: Counter[str] = field(default_factory=Counter)
    orders: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    daemon_died: bool = False  # in this round, by the monkey
    _history: list[str] = field(default_factory=list)
    _beside: list[_Beside] = field(default_factory=list)
    _numbers: int = 0
    _undo: list[Callable[[], None]] = field(default_factory=list)
    _no_start: bool = False  # a daemon that was started in this round may have ended with an error

    def __post_init__(self) -> None:
        self.rng.seed(self.seed)

    # -- a round ------------------------------------------------------------------------------------------------

    def round(self) -> None:
        self.rounds += 1
        self._history = []
        self.daemon_died = False
        moves: dict[Callable[[], str], int] = {
            self._drop: 10,
            self._edit: 10,
            self._label: 4,
            self._break: 4,
            self._remove: 6,
            self._delete: 2,
            self._exec: 4,
            self._follow: 3,
            self._kill_init: 12,
            self._kill_shim: 8,
            self._kill_daemon: 8,
            self._kill_forkserver: 4,
            self._kill_network: 4,
            self._restart: 2,
            self._fill_disk: 1 if self.machine.disk_mb else 0,
            self._step_clock: 2 if self.machine.preload else 0,
            **{partial(self._blow, family): 2 for family in self.families},
        }
        if self.rounds == 1:
            for _ in range(self.size * 3 // 4):
                self._note(self._drop())
        for _ in range(self.rng.randint(6, 24)):
            move = self.rng.choices(list(moves), list(moves.values()))[0]
            self._note(move())
            time.sleep(self.rng.choice((0.0, 0.0, 0.01, 0.05, 0.2, 0.6)))
        self._quiet()

    def _note(self, what: str) -> None:
        self._history.append(what)

    def _quiet(self) -> None:
        self._end_blows()
        self.machine.free_disk()
        began = time.monotonic()
        seen = self._settled()
        faults = self._end_beside()
        seen, broken = self._written_down(seen)
        if faults or broken:
            raise self._failure(faults + broken)
        self.model.remember(seen, self.machine)
        self.say(
            f"round {self.rounds}: {len(self._history)} moves, quiet after {time.monotonic() - began:.1f} s, "
            f"{len(self.model.wanted)} pods, {sum(self.kills.values())} kills survived"
        )

    def _written_down(self, seen: Seen) -> tuple[Seen, list[str]]:
        """Whether the difference persists: an observation takes a moment, so a record may only have been late."""
        began, looks = time.monotonic(), 0
        broken = self.model.broken(seen, self.machine)
        while broken and (time.monotonic() - began < LAG or looks < LAG_LOOKS):
            time.sleep(0.3)
            looks += 1
            seen = self._settled()
            broken = self.model.broken(seen, self.machine)
        return seen, broken

    def _settled(self) -> Seen:
        """The first observation at which everything has been carried out."""
        began, looks = time.monotonic(), 0
        reasons = ["nothing was seen"]
        seen: Seen | None = None
        while reasons:
            if time.monotonic() - began > QUIET and looks > QUIET_LOOKS:
                raise self._failure(reasons)
            looks += 1
            time.sleep(0.05)
            assert self.machine.daemon is not None
            if self.machine.daemon.poll() is not None:
                raise self._failure([f"the daemon ended with {self.machine.daemon.returncode}"])
            try:
                seen = Seen.look(self.machine)
                reasons = self.model.unsettled(seen) or lens.network(self.machine, seen.docs, seen.instances)
            except lens.Unreachable as error:
                reasons = [f"the daemon does not answer: {error}"]
        assert seen is not None
        return seen

    def _failure(self, reasons: list[str]) -> Failure:
        moves = "\n  ".join(self._history)
        words = "\n  ".join(reasons[:20])
        return Failure(
            f"seed {self.seed}, round {self.rounds}: the model does not hold:\n  {words}\n"
            f"the moves of this round:\n  {moves}\n-- daemon:\n{self.machine.tail(60)}",
            reasons[0],
        )

    # -- orders -------------------------------------------------------------------------------------------------

    def _file(self, name: str) -> Path:
        return self.machine.manifests / f"{name}.yaml"

    def _write(self, wanted: Wanted) -> str:
        """Write its manifest, by rename or, like a careless editor, in place in two parts."""
        text = pods.manifest(wanted.name, wanted.flavour, generation=wanted.generation, label=wanted.label)
        wanted.broken = False
        if self.rng.random() < 0.7:
            self.machine.apply(f"{wanted.name}.yaml", text)
            return "by rename"
        middle = self.rng.randrange(len(text))
        with self._file(wanted.name).open("w") as file:
            file.write(text[:middle])
            file.flush()
            time.sleep(self.rng.choice((0.0, 0.01, 0.15)))
            file.write(text[middle:])
        return "in place"

    def _pick(self, test: Callable[[Wanted], bool] = lambda _wanted: True) -> Wanted | None:
        found = sorted((w for w in self.model.wanted.values() if test(w)), key=lambda w: w.name)
        return self.rng.choice(found) if found else None

    def _drop(self) -> str:
        if len(self.model.wanted) >= self.size:
            return self._remove()
        self._numbers += 1
        reused = self.rng.random() < 0.3
        name = f"c{self.rng.randrange(self.size) if reused else self._numbers + self.size}"
        if name in self.model.wanted:
            return f"{name} is there already"
        flavour = self.rng.choices(pods.FLAVOURS, (6, 3, 1, 1))[0]
        before = self.model.removed.get(name)
        if before is not None:  # it may count as an edit, so it must be a valid one
            if not before.stays:
                return f"{name} was removed only just"
            flavour = before.flavour
        wanted = Wanted(name, flavour, generation=self._numbers)
        self.model.want(wanted)
        self.orders["drop"] += 1
        return f"drop {name} ({flavour}) {self._write(wanted)}"

    def _edit(self) -> str:
        wanted = self._pick(lambda w: w.stays)
        if wanted is None:
            return "nothing to edit"
        self._numbers += 1
        wanted.generation = self._numbers
        wanted.touches += 1
        self.orders["edit"] += 1
        return f"edit {wanted.name} to generation {wanted.generation} {self._write(wanted)}"

    def _label(self) -> str:
        wanted = self._pick(lambda w: not w.broken)
        if wanted is None:
            return "nothing to label"
        wanted.label += 1
        self.orders["label"] += 1
        return f"label {wanted.name} {wanted.label} {self._write(wanted)}"

    def _break(self) -> str:
        wanted = self._pick(lambda w: w.untouched and not w.broken and not self._edited(w))
        if wanted is None:
            return "nothing to break"
        wanted.broken = True
        self._file(wanted.name).write_bytes(self.rng.choice(GARBAGE))
        self.orders["break"] += 1
        return f"break {wanted.name}"

    def _edited(self, wanted: Wanted) -> bool:
        """Whether its file was written in this round: then it is unknown which version was read last."""
        return any(
            f" {wanted.name} " in f"{move} "
            for move in self._history
            if not move.startswith(("kill", "exec"))
        )

    def _remove(self) -> str:
        wanted = self._pick()
        if wanted is None:
            return "nothing to remove"
        self._file(wanted.name).unlink()
        self.model.forget(wanted.name)
        self.orders["remove"] += 1
        return f"remove {wanted.name}"

    def _delete(self) -> str:
        """Delete it by name through the API. Its manifest still exists, so a new pod with this name replaces it."""
        wanted = self._pick(lambda w: not w.broken)
        if wanted is None:
            return "nothing to delete"
        wanted.new = True
        with contextlib.suppress(lens.Unreachable):
            path = f"/api/v1/namespaces/default/pods/{wanted.name}?manifest=keep"
            lens.ask(self.machine, path, "DELETE")
        self.orders["delete"] += 1
        return f"delete {wanted.name}"

    # -- people beside ------------------------------------------------------------------------------------------

    def _spawn(self, kind: str, pod: str, *arguments: str) -> None:
        output = self.machine.base / f"beside-{self.rounds}-{len(self._beside)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*KUBELITE, *arguments],
                cwd=REPO,
                env=self.machine.environ(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._beside.append(_Beside(process, output, pod, kind))
        self.orders[kind] += 1

    def _exec(self) -> str:
        wanted = self._pick(lambda w: w.stays)
        if wanted is None or len(self._beside) > 4:
            return "nobody to execute in"
        self._spawn(
            "exec",
            wanted.name,
            "exec",
            wanted.name,
            "-c",
            "main",
            "--",
            "sh",
            "-c",
            "echo 0; sleep 1; echo 1",
        )
        return f"exec in {wanted.name}"

    def _follow(self) -> str:
        wanted = self._pick(lambda w: w.stays)
        if wanted is None or len(self._beside) > 4:
            return "nobody to follow"
        self._spawn("logs", wanted.name, "logs", "-f", wanted.name, "-c", "main")
        return f"logs -f of {wanted.name}"

    def _end_beside(self) -> list[str]:
        """The output of the commands is in order; for an untouched pod it is complete."""
        faults = []
        for one in self._beside:
            if one.kind == "logs":
                one.process.terminate()
            try:
                code = one.process.wait(HANGS)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
                faults.append(f"kubelite {one.kind} of {one.pod} hangs")
                continue
            lines = one.output.read_text(errors="replace").splitlines()
            said = [line for line in lines if line.isdigit()]
            for run in _runs(said):
                if fault := lens.out_of_order(run):
                    faults.append(f"kubelite {one.kind} of {one.pod}: {fault}")
            wanted = self.model.wanted.get(one.pod)
            whole = (
                wanted is not None and wanted.untouched and not self.daemon_died and not self.model.no_space
            )
            if whole and one.kind == "exec" and (code, said) != (0, ["0", "1"]):
                faults.append(f"kubelite exec in {one.pod}, which nobody touched: {code}, {lines}")
            one.output.unlink()
        self._beside.clear()
        return faults

    # -- blows --------------------------------------------------------------------------------------------------

    def _kill_init(self) -> str:
        wanted = self._pick()
        if wanted is None:
            return "nobody to kill"
        container = self.rng.choice(pods.containers_of(wanted.flavour))
        wanted.killed_before_it_ended = True
        wanted.touches += 1
        for one in lens.instances(self.machine):
            if (one.pod, one.container) == (wanted.name, container) and lens.kill(one.pid, one.start):
                self.model.killed[one.uid, container].add((one.pid, one.start))
                self.kills["init"] += 1
                return f"kill init {one.pid} of {wanted.name} ({container})"
        return f"kill init of {wanted.name}: there is none"

    def _kill_shim(self) -> str:
        wanted = self._pick()
        if wanted is None:
            return "nobody to kill"
        wanted.killed_before_it_ended = True
        wanted.touches += 1
        uids = {one.uid for one in lens.instances(self.machine) if one.pod == wanted.name}
        for uid, pid in lens.shims(self.machine).items():
            if uid in (wanted.uid, *uids) and lens.kill(pid):
                self.kills["shim"] += 1
                return f"kill shim {pid} of {wanted.name}"
        return f"kill shim of {wanted.name}: there is none"

    def _kill_daemon(self) -> str:
        self.daemon_died = True
        self.machine.kill(signal.SIGKILL)
        self.kills["daemon"] += 1
        pause = self.rng.choice((0.0, 0.0, 0.3))
        time.sleep(pause)
        self.machine.start(wait=False)
        return "kill daemon"

    def _restart(self) -> str:
        self.daemon_died = True
        assert self.machine.daemon is not None
        self.machine.daemon.send_signal(signal.SIGTERM)
        try:
            self.machine.daemon.wait(HANGS)
        except subprocess.TimeoutExpired:
            raise self._failure([f"the daemon does not end within {HANGS:g} s of SIGTERM"]) from None
        self.machine.start(wait=False)
        self.orders["restart"] += 1
        return "restart daemon"

    def _kill_forkserver(self) -> str:
        pid = lens.children(self.machine).get("forkserver", 0)
        self.kills["forkserver"] += (done := lens.kill(pid))
        return f"kill forkserver {pid}" if done else "kill forkserver: there is none"

    def _kill_network(self) -> str:
        for name, pid in lens.children(self.machine).items():
            if name != "forkserver" and lens.kill(pid):
                self.kills["network helper"] += 1
                return f"kill network helper {pid} ({name})"
        return "kill network helper: there is none"

    def _fill_disk(self) -> str:
        self.model.no_space = True
        self.machine.fill_disk()
        self.orders["full disk"] += 1
        time.sleep(self.rng.uniform(0.0, 1.0))
        if self.rng.random() < 0.7:
            self.machine.free_disk()
            return "fill the disk for a moment"
        return "fill the disk"

    def _blow(self, family: str) -> str:
        """See blows.py. What is stopped or frozen misses its deadlines, so that anything may be restarted."""
        blow = FAMILIES[family](self.machine, self.rng)
        if blow.undo is not None:
            self._undo.append(blow.undo)
        self.model.damage(blow.pods)
        self._no_start |= blow.no_start
        self.orders[family] += 1
        return blow.what

    def _end_blows(self) -> None:
        while self._undo:
            self._undo.pop()()
        assert self.machine.daemon is not None
        if self._no_start and self.daemon_died and self.machine.daemon.poll() is not None:
            self.machine.start(wait=False)  # as systemd does
        self._no_start = False

    def _step_clock(self) -> str:
        seconds = self.rng.choice((0.0, 1.0, -1.0, 3600.0, -3600.0, 86400.0 * 40, -86400.0 * 40))
        self.machine.step_clock(seconds)
        self.orders["clock step"] += 1
        return f"step the clock to {seconds:+g} s"

    def close(self) -> None:
        """End the commands that still run."""
        self._end_blows()
        for one in self._beside:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()
        self._beside.clear()

    def summary(self) -> str:
        kills = ", ".join(f"{count} {what}" for what, count in self.kills.most_common())
        orders = ", ".join(f"{count} {what}" for what, count in self.orders.most_common())
        total = sum(self.kills.values())
        return f"{total} kills survived in {self.rounds} rounds ({kills}); orders: {orders}; seed {self.seed}"


def _runs(lines: list[str]) -> list[list[str]]:
    """The lines of each instance: `logs -f` continues across restarts, and each instance begins at 0."""
    runs: list[list[str]] = []
    for line in lines:
        if line == "0" or not runs:
            runs.append([])
        runs[-1].append(line)
    return runs
