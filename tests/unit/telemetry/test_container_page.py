"""The container page caches text: after any change it equals a page without a cache."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from functools import partial

from kubelite.telemetry.metrics.cadvisor.page import ContainerPage
from kubelite.telemetry.metrics.exposition import render
from kubelite.telemetry.metrics.packed import Shelf
from kubelite.telemetry.sampling.disk_usage import Usage
from kubelite.telemetry.sampling.machine import Disk, FileSystem, Root
from kubelite.telemetry.sampling.sampler import Limits, Sample, Snapshot
from kubelite.telemetry.sampling.targets import Sandbox, Target
from runtime.cgroups.reading.limits import Spec
from runtime.cgroups.reading.stats import (
    CpuStats,
    IoStats,
    MemoryStats,
    PidsStats,
    Pressure,
    PressureStats,
    Stats,
)

NOTHING = Stats(CpuStats(), MemoryStats(), PidsStats(), (), PressureStats())
SYSTEM = FileSystem("/dev/vda", 1000, 500, 400, 100, 50)
DISK = Disk("/dev/vda", 1, 0, 8, 2, 3, 0, 16, 4, 0, 5, 6)


class World:
    """Pods with one or two containers that appear, disappear, run and are sampled."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.samples: dict[str, Sample] = {}
        self.networks: dict[str, tuple[Sandbox, dict[str, tuple[int, ...]]]] = {}
        self.layers: dict[str, Usage] = {}
        self.healthy: dict[str, int] = {}
        self.born = 0

    def step(self) -> None:
        for _ in range(self.rng.randrange(4)):
            self.rng.choice(
                [self.add, self.remove, self.run, self.run, self.limit, self.wire, self.measure]
            )()

    def add(self) -> None:
        self.born += 1
        uid = f"uid{self.born:03}"
        pod = Target(f"/k/{uid}", "ns", f"p{self.born}", uid).with_head()
        self.samples[pod.cgroup] = Sample(pod, NOTHING, Limits())
        for name in ("a", "b")[: self.rng.randrange(1, 3)]:
            one = replace(pod, cgroup=f"/k/{uid}/{name}", container=name, upper=f"/{uid}/{name}").with_head()
            self.samples[one.cgroup] = Sample(one, NOTHING, Limits(Spec(2), 1024), (self.born,), 4)
        if self.rng.random() < 0.8:
            self.networks[uid] = Sandbox(1, uid, pod), {"eth0": tuple(range(16))}

    def remove(self) -> None:
        if self.samples:
            uid = self.rng.choice(list(self.samples.values())).target.uid
            self.samples = {k: s for k, s in self.samples.items() if s.target.uid != uid}
            self.networks.pop(uid, None)

    def run(self) -> None:
        if not self.samples:
            return
        cgroup, sample = self.rng.choice(list(self.samples.items()))
        stats, number = sample.stats, self.rng.randrange(3)
        changes = [
            replace(stats, cpu=stats.cpu._replace(usage_ns=stats.cpu.usage_ns + number)),
            replace(stats, memory=stats.memory._replace(usage=number, pgfault=number)),
            replace(stats, io=tuple(IoStats(254, disk, rbytes=number) for disk in range(number))),
            replace(stats, pressure=PressureStats(Pressure(number, 0) if number else None)),
        ]
        fresh: Stats = self.rng.choice(changes)
        self.samples[cgroup] = replace(sample, stats=fresh, descriptors=sample.descriptors + number)
        self.healthy[cgroup] = number - 1

    def limit(self) -> None:
        if self.samples:
            cgroup, sample = self.rng.choice(list(self.samples.items()))
            limits = Limits(Spec(2, self.rng.choice((0, 5000)), 10000), self.rng.choice((None, 99)))
            self.samples[cgroup] = replace(sample, limits=limits)

    def wire(self) -> None:
        if self.networks:
            uid, (sandbox, found) = self.rng.choice(list(self.networks.items()))
            counters = tuple(value + self.rng.randrange(2) for value in found["eth0"])
            self.networks[uid] = sandbox, {"eth0": counters}

    def measure(self) -> None:
        for sample in self.samples.values():
            sockets = self.rng.choice((None, 1))
            self.layers[sample.target.upper] = Usage(self.rng.randrange(9), 1, SYSTEM, sockets)

    def snapshot(self) -> Snapshot:
        busy = self.rng.randrange(100)
        memory, wires = {"MemTotal": 100, "Cached": busy}, {"eth0": tuple(range(busy, busy + 16))}
        root = Root(busy, 1.0, 2.0, memory, {"pgfault": busy}, 7, (DISK,), (SYSTEM,), wires, {})
        every = self.samples.values()
        return Snapshot(
            self.rng.randrange(10**9),
            tuple(s for s in every if s.target.container),
            tuple(s for s in every if not s.target.container),
            (),
            tuple(self.networks.values()),
            root,
        )

    def page(self) -> ContainerPage:
        return ContainerPage(self.layers.get, lambda sample: self.healthy.get(sample.target.cgroup, -1))


def text(page: ContainerPage, snapshot: Snapshot, shelf: Shelf | None) -> list[str]:
    write = partial(page.write, snapshot=snapshot)
    body = render(write, openmetrics=False, compressed=shelf is not None, shelf=shelf)
    return (gzip.decompress(body) if shelf is not None else body).decode().splitlines()


def test_the_cached_page_equals_a_new_one() -> None:
    for seed in range(20):
        world, shelf = World(seed), Shelf()
        page = world.page()
        for _ in range(25):
            world.step()
            snapshot = world.snapshot()
            assert text(page, snapshot, shelf) == text(world.page(), snapshot, None)
