"""The simulator is itself tested: a world that forgives would let wrong controllers pass."""

from __future__ import annotations

import pytest

from kubelite.controllers.decide import pods
from kubelite.controllers.model import Create, Delete, Plan, Rewrite, SetStatus, View
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from tests.unit.controllers.world import NotSettled, World

OWNER: Json = {"apiVersion": "v1", "kind": "Owner", "metadata": {"name": "o"}, "spec": {"n": 1}}


def owned(owner: Json, name: str = "p") -> Json:
    metadata = {"name": name, "ownerReferences": [owner_reference(owner)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}}


def test_a_stale_rewrite_ends_the_plan() -> None:
    world = World()
    old = world.add(OWNER)
    world.edit(old, lambda new: new["spec"].update(n=2))
    plan = Plan((Rewrite({**old, "spec": {"n": 3}}), Create(owned(old))))
    assert world.apply(plan) == 0
    assert world.named("Owner", "o")["spec"] == {"n": 2} and not world.of("Pod")


def test_a_taken_name_ends_the_plan() -> None:
    world = World()
    owner = world.add(OWNER)
    world.add(owned(owner))
    assert world.apply(Plan((Create(owned(owner)), SetStatus(owner["metadata"]["uid"], {"x": 1})))) == 0


def test_only_a_changed_spec_increments_the_generation() -> None:
    world = World()
    owner = world.add(OWNER)
    uid = owner["metadata"]["uid"]
    world.apply(Plan((SetStatus(uid, {"x": 1}),)))
    assert world.named("Owner", "o")["metadata"]["generation"] == 1
    world.edit(owner, lambda new: new["spec"].update(n=2))
    assert world.named("Owner", "o")["metadata"]["generation"] == 2
    assert world.named("Owner", "o")["status"] == {"x": 1}


def test_deletion_cascades_and_terminates_pods() -> None:
    world = World()
    owner = world.add(OWNER)
    pod = world.add(owned(owner))
    world.start(pod)
    world.apply(Plan((Delete(owner["metadata"]["uid"]),)))
    assert not world.of("Owner")
    (left,) = world.of("Pod")
    assert pods.still_terminates(left)
    assert world.start_and_vanish() and not world.of("Pod")


def test_deletion_with_orphans_leaves_pods_alone() -> None:
    world = World()
    owner = world.add(OWNER)
    world.add(owned(owner))
    world.apply(Plan((Delete(owner["metadata"]["uid"], orphan=True),)))
    (left,) = world.of("Pod")
    assert pods.is_active(left) and left["metadata"]["ownerReferences"] == []


def test_a_plan_is_cut_after_some_effects() -> None:
    world = World()
    owner = world.add(OWNER)
    assert world.apply(Plan(tuple(Create(owned(owner, f"p{i}")) for i in range(5))), most=2) == 2
    assert len(world.of("Pod")) == 2


def test_a_controller_that_never_rests_is_an_error() -> None:
    def restless(view: View) -> Plan:
        return Plan((SetStatus(view.owner["metadata"]["uid"], {"n": view.owner["status"].get("n", 0) + 1}),))

    world = World()
    world.use("Owner", restless)
    world.add(OWNER)
    with pytest.raises(NotSettled):
        world.settle()


def test_settling_waits_for_what_a_controller_waits_for() -> None:
    def patient(view: View) -> Plan:
        done = view.now >= until
        return Plan(
            (SetStatus(view.owner["metadata"]["uid"], {"done": done}),),
            again=None if done else until - view.now,
        )

    world = World()
    until = world.now + 1000
    world.use("Owner", patient)
    world.add(OWNER)
    world.settle()
    assert world.now == until and world.named("Owner", "o")["status"] == {"done": True}
