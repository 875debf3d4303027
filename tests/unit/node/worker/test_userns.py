"""User id ranges of pods."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from kubelite.node.model.errors import CreateError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.worker.userns import FIRST, LAST, Ids, claim, claimed, free_range, subordinate
from runtime.shim.protocol import ID_RANGE as R


@pytest.mark.parametrize(
    ("taken", "allowed", "found"),
    [
        ([], [], R),
        ([Ids(R, R)], [], 2 * R),
        ([Ids(2 * R, R)], [], R),
        ([Ids(100000, 65536)], [], 3 * R),  # useradd's first range overlaps two ranges of ID_RANGE
        ([Ids(R, 1)], [], 2 * R),
        ([Ids(3 * R, R), Ids(R, 2 * R)], [], 4 * R),
        ([], [Ids(10 * R + 5, 3 * R)], 11 * R),
        ([Ids(11 * R, R)], [Ids(10 * R + 5, 3 * R)], 12 * R),
        ([Ids(11 * R, 2 * R)], [Ids(10 * R + 5, 3 * R)], None),
        ([], [Ids(R, R - 1), Ids(7 * R, R)], 7 * R),
        ([Ids(FIRST, LAST - FIRST)], [], None),
    ],
)
def test_the_lowest_free_range_is_chosen(taken: list[Ids], allowed: list[Ids], found: int | None) -> None:
    assert free_range(taken, allowed) == found


def test_ranges_never_overlap() -> None:
    chance = random.Random(6)
    for _ in range(200):
        people = [Ids(chance.randrange(1000, 40 * R), chance.randrange(1, 3 * R)) for _ in range(3)]
        pods: list[int] = []
        for _ in range(30):
            if pods and chance.random() < 0.4:
                pods.remove(chance.choice(pods))
            found = free_range([*people, *(Ids(p, R) for p in pods)])
            assert found is not None
            assert found % R == 0
            assert not any(Ids(found, R).overlaps(ids) for ids in people)
            assert not any(Ids(found, R).overlaps(Ids(p, R)) for p in pods)
            pods.append(found)


def test_subuid_is_parsed_by_owner() -> None:
    ours, others = subordinate("alice:100000:65536\nkubelet:262144:131072\n#x\nbad:1\n")
    assert (ours, others) == ([Ids(262144, 131072)], [Ids(100000, 65536)])


def test_each_pod_keeps_its_own_range(tmp_path: Path) -> None:
    config = dataclasses.replace(NodeConfig("n", "", str(tmp_path), str(tmp_path)))
    first = claim(config, "a")
    assert claim(config, "a") == first == claimed(config, "a")
    second = claim(config, "b")
    assert abs(second - first) >= R
    assert claimed(config, "c") == 0
    (tmp_path / "pods/b/userns").write_text("{")
    with pytest.raises(CreateError, match="cannot be read"):
        claim(config, "b")
