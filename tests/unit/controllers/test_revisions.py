"""pkg/controller/history/controller_history_test.go, and the back-off of failed pods."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubelite.controllers.decide import revisions
from kubelite.controllers.model import Create, Delete, Event, Rewrite, View
from kubelite.controllers.references import controls
from kubelite.kube.json import Json
from manifests.types.defaults import default_template
from manifests.types.pod import PodTemplateSpec
from tests.unit.controllers.sets import owner, template

SET = owner("StatefulSet", "web", {}, uid="u1", annotations={"a": "b"})


def revision(name: str, number: int = 1, *, image: str = "web:1", created: str = "") -> Json:
    metadata: Json = {"name": name, "uid": name, "labels": {}}
    if created:
        metadata["creationTimestamp"] = created
    data = revisions.data_of(template(image))
    return {"kind": revisions.KIND, "metadata": metadata, "data": data, "revision": number}


def view(*found: Json, of: Json = SET) -> View:
    return View(of, 0.0, {revisions.KIND: found})


def test_a_name_that_another_owner_has_counts_as_a_collision() -> None:
    first = revisions.create(view(), "hash", 1).revision
    other = replace(
        view(), taken=lambda kind, name: (kind, name) == (revisions.KIND, revisions.name_of(first))
    )
    assert revisions.create(other, "hash", 1).collisions == 1


def test_a_new_revision_has_the_template_and_the_owner() -> None:
    """TestRealHistory_CreateControllerRevision: "creates new"; stateful_set_utils.go newRevision."""
    placed = revisions.create(view(), "hash", 3)
    (effect,) = placed.effects
    assert isinstance(effect, Create) and effect.doc == placed.revision
    metadata = placed.revision["metadata"]
    assert metadata["name"] == f"web-{metadata['labels']['hash']}" and metadata["labels"]["app"] == "web"
    assert metadata["annotations"] == {"a": "b"} and controls(SET, placed.revision)
    assert placed.revision["revision"] == 3
    assert revisions.template_of(placed.revision) == SET["spec"]["template"]


def test_a_revision_that_exists_is_used() -> None:
    """ "returns existing if equal": an orphan that the selector does not match."""
    existing = revisions.create(view(), "hash", 1).revision
    placed = revisions.create(view(existing), "hash", 1)
    assert placed == (existing, [], 0)


def test_a_taken_name_counts_as_a_collision() -> None:
    """ "reproduces hash collision correctly"."""
    first = revisions.create(view(), "hash", 1).revision
    other = {**revision(first["metadata"]["name"], image="other")}
    placed = revisions.create(view(other), "hash", 1)
    assert placed.collisions == 1
    assert placed.revision["metadata"]["name"] != first["metadata"]["name"]
    again = revisions.create(view(other, of={**SET, "status": {"collisionCount": 1}}), "hash", 1)
    assert again.revision == placed.revision, "the same name after the status has been written"


def test_owners_of_two_kinds_do_not_collide() -> None:
    other = {**SET, "kind": "DaemonSet"}
    names = {revisions.name_of(revisions.create(view(of=one), "hash", 1).revision) for one in (SET, other)}
    assert len(names) == 2


def test_a_long_name_is_cut() -> None:
    """ControllerRevisionName."""
    long = {**SET, "metadata": {**SET["metadata"], "name": "n" * 253}}
    assert len(revisions.name_of(revisions.create(view(of=long), "hash", 1).revision)) <= 253


def test_sorting() -> None:
    """TestSortControllerRevisions: by number, then the creation, then the name."""
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    given = [
        revision("d", 3),
        revision("c", 2, created=late),
        revision("b", 2, created=early),
        revision("a", 2, created=late),
    ]
    assert [revisions.name_of(one) for one in revisions.sort_revisions(given)] == ["b", "a", "c", "d"]
    assert revisions.next_number(given) == 4 and revisions.next_number([]) == 1


def test_equality_is_the_template_alone() -> None:
    """Two revisions of the same template are equal, whatever their numbers (TestFindEqualRevisions)."""
    assert revisions.is_same(revision("a", 7), template())
    assert not revisions.is_same(revision("a"), template("web:2"))


def test_a_default_that_is_new_makes_no_other_template() -> None:
    """stateful_set_compatibility_test.go TestStatefulSetCompatibility: a new version fills in more defaults."""
    old = revision("a")
    given = PodTemplateSpec.parse(template())
    default_template(given.spec)
    assert given.to_json() != template() and not revisions.is_same(old, given.to_json())
    assert revisions.is_equivalent(old, given.to_json())
    given.spec.containers[0].image = "web:2"
    assert not revisions.is_equivalent(old, given.to_json())
    old["data"]["spec"]["template"]["spec"]["unknown"] = 1
    assert not revisions.is_equivalent(old, given.to_json()), "what cannot be read is another template"


def test_renumbering_writes_only_a_change() -> None:
    """A revision that has the number already is not written (TestRealHistory_UpdateControllerRevision)."""
    given = revision("a", 2)
    assert revisions.renumber(given, 2) == (given, [])
    changed, effects = revisions.renumber(given, 5)
    assert changed["revision"] == 5 and effects == [Rewrite(changed)] and given["revision"] == 2


@pytest.mark.parametrize(
    ("live", "surplus", "deleted"),
    [((), 0, ""), ((), -3, ""), ((), 2, "ab"), (("a",), 2, "bc"), (("a", "b", "c"), 2, "")],
)
def test_truncation_spares_live_revisions(live: tuple[str, ...], surplus: int, deleted: str) -> None:
    found = [revision(name, number) for number, name in enumerate("abc", 1)]
    assert revisions.truncate(found, live, surplus) == [Delete(name) for name in deleted]


def test_the_back_off_of_failed_pods_doubles_and_ends() -> None:
    """client-go util/flowcontrol/backoff_test.go: the delay doubles up to the limit, and is forgotten after twice the
    limit."""
    one, now, delays = revision("a"), 1_000_000.0, []
    assert revisions.back_off(one, now) == 0.0, "the first one is deleted at once"
    for _ in range(12):
        one = revisions.backed_off(one, now)
        delays.append(revisions.back_off(one, now))
        now += delays[-1]
        assert revisions.back_off(one, now) == 0.0
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    now += 2 * revisions.BACK_OFF_MAX
    assert revisions.back_off(revisions.backed_off(one, now), now) == 1.0


def test_a_back_off_that_cannot_be_read_is_none() -> None:
    one = revision("a")
    one["metadata"]["annotations"] = {revisions.BACK_OFF: "soon"}
    assert revisions.back_off(one, 5.0) == 0.0


def test_rewrites_of_one_object_become_one() -> None:
    first, second, event = revision("a", 1), revision("a", 2), Event(SET, "Normal", "R", "m")
    found = revisions.merged([Rewrite(first), event, Rewrite(second), Rewrite(revision("b"))])
    assert found == [Rewrite(second), event, Rewrite(revision("b"))]
