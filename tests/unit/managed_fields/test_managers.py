"""Who owns which fields after writes. The cases of applies follow those of structured-merge-diff's merge/*_test.go."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from kubelite.kube.json import Json
from kubelite.managed_fields.managers import (
    MISSING,
    MOST_UPDATERS,
    Conflicts,
    InvalidManagers,
    Manager,
    Managers,
    Operation,
    applied,
    entries_of,
    is_reset,
    managers_of,
    owner_of_all,
    recorded_managers,
    updated,
)
from kubelite.managed_fields.schema import Struct, of_kind
from manifests.yaml.loader import KINDS

MAP = of_kind(KINDS["v1", "ConfigMap"])
POD = of_kind(KINDS["v1", "Pod"])


class World:
    """An object, and who owns what of it. Each write has a time of its own."""

    def __init__(self, node: Struct = MAP) -> None:
        self.node = node
        self.value: Any = MISSING
        self.managers: Managers = {}
        self.writes = 0

    def _now(self) -> str:
        self.writes += 1
        return f"2026-01-01T00:00:{self.writes:02d}Z"

    def update(self, name: str, value: Json) -> World:
        by = Manager(name, Operation.UPDATE, "v1")
        self.managers = updated(self.managers, self.value, value, self.node, by=by, time=self._now())
        self.value = value
        return self

    def apply(self, name: str, value: Json, *, force: bool = False) -> World:
        live = {} if self.value is MISSING else self.value
        by = Manager(name, Operation.APPLY)
        self.value, self.managers = applied(
            self.managers, live, value, self.node, by=by, version="v1", force=force, time=self._now()
        )
        return self

    def owned(self) -> dict[str, Json]:
        """Return what each manager owns of `data`, or of the object."""
        found = {entry["manager"]: entry["fieldsV1"] for entry in entries_of(self.managers)}
        return {name: fields.get("f:data", fields) for name, fields in found.items()}


def data(**entries: str) -> Json:
    return {"data": entries}


def containers(*items: Json) -> Json:
    return {"spec": {"containers": list(items)}}


def test_a_new_object_belongs_to_who_creates_it_without_its_identity() -> None:
    doc = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "b"},
        **data(x="1"),
    }
    world = World().update("creator", doc)
    assert entries_of(world.managers) == [
        {
            "apiVersion": "v1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {".": {}, "f:x": {}}},
            "manager": "creator",
            "operation": "Update",
            "time": "2026-01-01T00:00:01Z",
        }
    ]


def test_an_update_takes_what_it_changes_and_what_it_removes_is_nobodys() -> None:
    world = World().update("a", data(x="1", y="1", z="1")).update("b", data(x="1", y="2", w="1"))
    assert world.owned() == {"a": {".": {}, "f:x": {}}, "b": {"f:y": {}, "f:w": {}}}
    world.update("b", data())
    assert world.owned() == {"a": {}}


def test_an_update_that_changes_nothing_leaves_the_time() -> None:
    world = World().update("a", data(x="1"))
    before = entries_of(world.managers)
    assert entries_of(world.update("a", data(x="1")).managers) == before


def test_an_apply_owns_what_it_says_and_shares_what_is_equal() -> None:
    world = World().apply("a", data(x="1")).apply("b", data(x="1", y="1"))
    assert world.value == data(x="1", y="1")
    assert world.owned() == {"a": {"f:x": {}}, "b": {"f:x": {}, "f:y": {}}}


def test_an_apply_that_changes_what_another_owns_is_a_conflict() -> None:
    world = World().update("editor", data(x="1")).apply("a", data(y="1"))
    with pytest.raises(Conflicts) as error:
        world.apply("b", data(x="2"))
    assert str(error.value) == 'Apply failed with 1 conflict: conflict with "editor" using v1: .data.x'
    with pytest.raises(Conflicts) as error:
        world.apply("b", data(x="2", y="2"))
    assert str(error.value) == (
        'Apply failed with 2 conflicts: conflicts with "a":\n- .data.y\n'
        'conflicts with "editor" using v1:\n- .data.x'
    )
    world.apply("b", data(x="2", y="2"), force=True)
    assert world.value == data(x="2", y="2")
    assert world.owned() == {"b": {"f:x": {}, "f:y": {}}, "editor": {}}


def test_one_is_no_conflict_of_ones_own() -> None:
    world = World().apply("a", data(x="1")).apply("a", data(x="2"))
    assert (world.value, world.owned()) == (data(x="2"), {"a": {"f:x": {}}})


def test_what_is_no_longer_applied_is_removed_unless_another_owns_it() -> None:
    world = World().apply("a", data(x="1", y="1", z="1")).apply("b", data(y="1"))
    world.update("editor", data(x="1", y="1", z="2"))
    world.apply("a", data(x="1"))
    assert world.value == data(x="1", y="1", z="2")
    assert world.owned() == {"a": {"f:x": {}}, "b": {"f:y": {}}, "editor": {"f:z": {}}}
    world.apply("b", {})
    assert (world.value, world.owned()) == (data(x="1", z="2"), {"a": {"f:x": {}}, "editor": {"f:z": {}}})


class Items(NamedTuple):
    case: str
    first: list[Json]
    others: list[Json]  # of a second manager
    then: list[Json]
    wanted: list[Json]


ITEMS = [
    Items(
        "an item goes with what nobody owns in it",
        [{"name": "a", "image": "x"}, {"name": "b"}],
        [],
        [{"name": "b"}],
        [{"name": "b"}],
    ),
    Items(
        "an item of which another owns a field stays, with what others own",
        [{"name": "a", "image": "x", "tty": True}],
        [{"name": "a", "image": "x"}],
        [],
        [{"name": "a", "image": "x"}],
    ),
    Items(
        "a field of an item goes, the item stays",
        [{"name": "a", "image": "x", "tty": True}],
        [],
        [{"name": "a", "image": "x"}],
        [{"name": "a", "image": "x"}],
    ),
    Items(
        "items of both, each with its own",
        [{"name": "a"}],
        [{"name": "b"}],
        [{"name": "c"}],
        [{"name": "b"}, {"name": "c"}],
    ),
    Items(
        "nested items",
        [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}]}],
        [{"name": "a", "env": [{"name": "Z", "value": "1"}]}],
        [{"name": "a", "env": [{"name": "Y", "value": "2"}]}],
        [{"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "Z", "value": "1"}]}],
    ),
]


@pytest.mark.parametrize("case", ITEMS, ids=[case.case for case in ITEMS])
def test_items_of_lists(case: Items) -> None:
    world = World(POD).apply("first", containers(*case.first))
    if case.others:
        world.apply("other", containers(*case.others))
    world.apply("first", containers(*case.then))
    assert (world.value.get("spec") or {}).get("containers") == case.wanted


def test_defaults_in_a_removed_item_go_with_it() -> None:
    world = World(POD).apply("a", containers({"name": "a"}, {"name": "b"}))
    for item in world.value["spec"]["containers"]:
        item["terminationMessagePath"] = "/dev/termination-log"  # a default, which nobody owns
    world.apply("a", containers({"name": "b"}))
    assert world.value == containers({"name": "b", "terminationMessagePath": "/dev/termination-log"})


def test_an_equal_apply_changes_nothing() -> None:
    world = World().apply("a", data(x="1"))
    before = world.managers
    world.apply("a", data(x="1"))
    assert world.managers == before


def test_an_object_of_unknown_owners_belongs_to_one() -> None:
    by = Manager("kubelite-directory", Operation.UPDATE, "v1")
    found = owner_of_all(
        {"kind": "ConfigMap", "metadata": {"name": "a"}, **data(x="1")}, MAP, by=by, time="t"
    )
    assert [entry["fieldsV1"] for entry in entries_of(found)] == [{"f:data": {"f:x": {}}}]


def test_entries_survive_the_wire() -> None:
    world = World().update("editor", data(x="1")).apply("b", data(y="1")).apply("a", data(z="1"))
    entries = entries_of(world.managers)
    assert [(one["manager"], one["operation"]) for one in entries] == [
        ("b", "Apply"),
        ("a", "Apply"),
        ("editor", "Update"),
    ]
    assert managers_of(entries) == world.managers


def test_a_subresource_is_a_manager_of_its_own() -> None:
    by = Manager("scaler", Operation.UPDATE, "v1", "scale")
    found = updated({}, MISSING, data(x="1"), MAP, by=by, time="t")
    assert entries_of(found)[0]["subresource"] == "scale"
    assert by.words == '"scaler" with subresource "scale" using v1'


def entry(**given: Any) -> Json:
    return {"manager": "a", "operation": "Apply", "fieldsType": "FieldsV1", "apiVersion": "v1", **given}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "is not a list"),
        ([1], r"managedFields\[0\]: is not an object"),
        ([{"operation": "Delete"}], "operation must be"),
        ([{"operation": "Apply"}], "fieldsType must be"),
        ([{"operation": "Apply", "fieldsType": "FieldsV1"}], "apiVersion must not be empty"),
        ([{"operation": "Apply", "fieldsType": "FieldsV1", "apiVersion": 1}], "must be strings"),
        (
            [{"operation": "Apply", "fieldsType": "FieldsV1", "apiVersion": "v1", "fieldsV1": {"x": {}}}],
            "'x' is no element",
        ),
        ([entry(time="yesterday")], "time is not an RFC 3339 time"),
        ([entry(time="2026-13-01T00:00:00Z")], "time is not an RFC 3339 time"),
        ([entry(manager="é" * 65)], "manager: Too long: may not be more than 128 bytes"),
        ([entry(manager="a\nb")], "manager: Invalid value"),
    ],
)
def test_other_entries_are_refused(entries: object, words: str) -> None:
    with pytest.raises(InvalidManagers, match=words):
        managers_of(entries)


@pytest.mark.parametrize(
    "fields",
    [
        {"f:metadata": {}},
        {"f:metadata": {".": {}, "f:name": {}, "f:namespace": {}, "f:uid": {}}},
        {"f:apiVersion": {}, "f:kind": {}},
    ],
)
def test_nobody_can_say_that_they_own_what_an_object_is(fields: Json) -> None:
    it = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "it", "namespace": "default"}}
    world = World().apply("a", {**it, **data(x="1")})
    world.managers = managers_of([entry(fieldsV1={**fields, "f:data": {"f:x": {}}})])
    world.apply("a", {**it, **data(y="1")})
    assert world.value == {**it, **data(y="1")}
    assert world.owned() == {"a": {"f:y": {}}}


def test_conflicts_are_told_for_each_manager() -> None:
    world = World().apply("b", data(x="1", y="1")).apply("a", data(x="1"))
    with pytest.raises(Conflicts) as caught:
        world.apply("c", data(x="2", y="2"))
    assert str(caught.value) == (
        'Apply failed with 3 conflicts: conflicts with "a":\n- .data.x\nconflicts with "b":\n- .data.x\n- .data.y'
    )


def test_a_reset_is_an_empty_list_or_an_empty_entry() -> None:
    sent: list[object] = [[], [{}], None, [{"manager": "a"}]]
    assert [is_reset(one) for one in sent] == [True, True, False, False]


def test_the_oldest_updates_are_merged() -> None:
    world = World()
    for number in range(MOST_UPDATERS + 5):
        world.update(f"program-{number}", {"data": {f"key-{one}": "1" for one in range(number + 1)}})
    owned = world.owned()
    assert len(owned) == MOST_UPDATERS
    assert owned["ancient-changes"].keys() == {".", *(f"f:key-{number}" for number in range(6))}
    assert f"program-{MOST_UPDATERS + 4}" in owned


def test_a_write_of_items_that_nothing_identifies_changes_no_owner() -> None:
    node = of_kind(KINDS["v1", "ServiceAccount"])
    world = World(node).update("a", {"secrets": [{"name": "x"}]})
    before = world.managers
    assert world.update("b", {"secrets": [{"kind": "Secret"}]}).managers == before
    assert World(node).update("b", {"secrets": [{"kind": "Secret"}]}).managers == {}


def test_recorded_entries_that_cannot_be_read_belong_to_nobody() -> None:
    entries = [entry(manager="a"), entry(manager="b", time="yesterday"), entry(fieldsV1={"x": {}})]
    assert [manager.name for manager in recorded_managers(entries)] == ["a"]
