"""The index of owners, beside a plain search through all objects, in random worlds."""

from __future__ import annotations

from random import Random

from kubelite.controllers.index import Index
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from state.records import Record

KINDS, SPACES, OWNERS = ("Pod", "ReplicaSet"), ("a", "b"), ("x", "y", "z")


def record(draw: Random, uid: str) -> Record:
    names = draw.sample(OWNERS, draw.choice((0, 1, 1, 2)))
    references: list[Json] = [{"uid": name, "controller": False} for name in names]
    if references and draw.random() < 0.7:
        references[0]["controller"] = True
    metadata: Json = {"name": uid, "uid": uid, "ownerReferences": references}
    if draw.random() < 0.3:
        metadata["annotations"] = {SOURCE: "file.yaml"}
    namespace = draw.choice(SPACES)
    return Record(draw.choice(KINDS), namespace, uid, uid, 1, {"kind": "Pod", "metadata": metadata})


def owners(found: Record) -> list[str]:
    return [reference["uid"] for reference in found.metadata["ownerReferences"]]


def controllers(found: Record) -> list[str]:
    return [ref["uid"] for ref in found.metadata["ownerReferences"] if ref["controller"]]


def check(index: Index, objects: dict[str, Record]) -> None:
    for owner in OWNERS:
        assert sorted(index.dependents(owner)) == sorted(
            u for u, one in objects.items() if owner in owners(one)
        )
        for kind in KINDS:
            expected = [u for u, one in objects.items() if one.kind == kind and controllers(one) == [owner]]
            assert sorted(index.controlled(owner, kind)) == sorted(expected)
    for space in SPACES:
        for kind in KINDS:
            expected = [
                uid
                for uid, one in objects.items()
                if (one.namespace, one.kind) == (space, kind)
                and not controllers(one)
                and "annotations" not in one.metadata
            ]
            assert sorted(index.orphans(space, kind)) == sorted(expected)
    assert sorted(index.owned()) == sorted(uid for uid, one in objects.items() if owners(one))


def test_the_index_is_what_a_search_finds() -> None:
    for seed in range(100):
        draw, index = Random(seed), Index()
        objects: dict[str, Record] = {}
        for _ in range(40):
            uid = f"o{draw.randrange(8)}"
            if draw.random() < 0.3:
                index.remove(uid)
                objects.pop(uid, None)
            else:
                before = index.place(uid)
                objects[uid] = record(draw, uid)
                assert index.put(objects[uid]) is before
            check(index, objects)


def test_an_empty_index_retains_nothing() -> None:
    """Owners come and go for as long as the daemon runs."""
    draw, index = Random(1), Index()
    for number in range(50):
        index.put(record(draw, f"o{number}"))
    for number in range(50):
        index.remove(f"o{number}")
    assert (index._places, index._dependents, index._orphans) == ({}, {}, {})
