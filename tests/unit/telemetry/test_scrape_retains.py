"""Scrapes retain nothing: with an idle node, there are as many objects after many scrapes as after a few."""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path

import pytest

from kubelite.telemetry.metrics.cadvisor.page import ContainerPage
from kubelite.telemetry.metrics.exposition import render
from kubelite.telemetry.metrics.packed import Shelf
from kubelite.telemetry.web.recent import KEEP, Recent
from tests.unit.telemetry.test_sampler import Node

PODS = 20
FEW, MANY = 5, 50  # fewer than `KEEP`, so that a history that fills up would show


class Scrapes:
    """The pages between scrapes, with files that imitate the kernel's."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.page, self.shelf, self.recent = (
            ContainerPage(lambda _path: None, lambda _sample: -1),
            Shelf(),
            Recent(),
        )

    def once(self) -> None:
        self.node.look()
        snapshot = self.node.sampler.sample()
        self.recent.note(snapshot)
        for compressed in (True, False):
            write = partial(self.page.write, snapshot=snapshot)
            render(write, openmetrics=False, compressed=compressed, shelf=self.shelf)

    def blocks(self, times: int) -> int:
        """The number of blocks of Python's allocator after so many more scrapes."""
        for _ in range(times):
            self.once()
        gc.collect()
        return sys.getallocatedblocks()


@pytest.fixture
def scrapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scrapes:
    monkeypatch.setattr("kubelite.telemetry.web.recent.APART", 0.0)  # each is noted
    return Scrapes(Node(tmp_path, monkeypatch, **{f"pod{number}": "ab" for number in range(PODS)}))


@pytest.mark.uninstrumented
def test_scrapes_of_an_idle_node_retain_nothing(scrapes: Scrapes) -> None:
    assert FEW + MANY < KEEP
    before = scrapes.blocks(FEW)
    grown = scrapes.blocks(MANY) - before
    assert (
        grown < MANY
    )  # one object per scrape would be as many; one object per pod and scrape twenty times as many


def test_a_leak_would_be_noticed(scrapes: Scrapes) -> None:
    kept: list[object] = []
    before = scrapes.blocks(FEW)
    for _ in range(MANY):
        kept.append(scrapes.node.sampler.sample())
    assert scrapes.blocks(0) - before >= MANY
