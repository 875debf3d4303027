"""A scrape keeps nothing: of a node that does nothing, there are as many objects after many scrapes as after a few."""

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
    """What the pages keep between two scrapes, over files that stand for the kernel's."""

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
        """Of Python's allocator, after so many more."""
        for _ in range(times):
            self.once()
        gc.collect()
        return sys.getallocatedblocks()


@pytest.fixture
def scrapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scrapes:
    monkeypatch.setattr("kubelite.telemetry.web.recent.APART", 0.0)  # each is noted
    return Scrapes(Node(tmp_path, monkeypatch, **{f"pod{number}": "ab" for number in range(PODS)}))


@pytest.mark.uninstrumented
def test_scrapes_of_a_node_at_rest_keep_nothing(scrapes: Scrapes) -> None:
    assert FEW + MANY < KEEP
    before = scrapes.blocks(FEW)
    grown = scrapes.blocks(MANY) - before
    assert grown < MANY  # one object a scrape would be as many; a pod's one, twenty times that


def test_this_would_show(scrapes: Scrapes) -> None:
    kept: list[object] = []
    before = scrapes.blocks(FEW)
    for _ in range(MANY):
        kept.append(scrapes.node.sampler.sample())
    assert scrapes.blocks(0) - before >= MANY
