"""Rollouts from end to end: the sequence of sizes, the limits at each step, and that every world comes to rest."""

from __future__ import annotations

import pytest

from kubelite.controllers.decide import pods
from kubelite.controllers.model import Plan
from kubelite.controllers.references import controller_of
from kubelite.kube.json import Json
from tests.unit.controllers.deployment_worlds import (
    LABELS,
    active_pods,
    condition,
    deployment_doc,
    image_of,
    limit_checker,
    set_image,
    set_spec,
    sizes,
    world_of,
)
from tests.unit.controllers.world import WORLDS, World


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        # (old, new) after each change. rolling.go's rules, worked out by hand; the first is its comment's example.
        (10, 3, 2, [(10, 0), (8, 3), (8, 5), (3, 5), (3, 10), (0, 10)]),
        (10, "25%", "25%", [(10, 0), (8, 3), (8, 5), (3, 5), (3, 10), (0, 10)]),
        (3, "25%", "25%", [(3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3)]),
        (1, "25%", "25%", [(1, 0), (1, 1), (0, 1)]),
        (4, 0, 1, [(4, 0), (3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3), (0, 4)]),
        (4, "100%", 0, [(4, 0), (4, 4), (0, 4)]),
        (4, 0, "100%", [(4, 0), (0, 0), (0, 4)]),
        # the comment at ResolveFenceposts: 2 desired
        (2, 0, "1%", [(2, 0), (1, 0), (1, 1), (0, 1), (0, 2)]),
        (2, "1%", "25%", [(2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]),
    ],
)
def test_the_sequence_of_sizes(
    replicas: int, surge: int | str, unavailable: int | str, expected: list[tuple[int, int]]
) -> None:
    world, doc = world_of(deployment_doc(replicas, surge=surge, unavailable=unavailable))
    world.settle()
    set_image(world, doc, "v2")
    seen = [(replicas, 0)]
    for _ in range(100):
        plans = [world.sync(found) for found in (doc, *world.of("ReplicaSet"))]
        found = (sizes(world)["v1"], sizes(world).get("v2", 0))
        if found != seen[-1]:
            seen.append(found)
        if not any(plan.effects for plan in plans) and not world.start_and_vanish():
            break
    assert seen == expected


def start_some(world: World) -> bool:
    """Some pods become ready, some terminating ones are gone: a slow node."""
    changed = False
    for pod in world.of("Pod"):
        waits = pod["metadata"].get("deletionTimestamp") or not pods.is_ready(pod)
        if not waits or (not pods.is_active(pod) and not pods.still_terminates(pod)):
            continue
        changed = True
        if world.random.random() < 0.4:
            if pod["metadata"].get("deletionTimestamp"):
                world.vanish(pod["metadata"]["uid"])
            else:
                world.start(pod)
            world.check()
    return changed


def some_deployment(world: World) -> Json:
    draw = world.random
    surge = draw.choice((0, 1, 2, "10%", "25%", "50%", "100%"))
    unavailable = draw.choice((0, 1, 2, "10%", "25%", "50%"))
    if surge == 0 and unavailable == 0:
        surge = 1
    seconds = draw.choice((0, 0, 3, 20))
    return deployment_doc(draw.randrange(1, 9), surge=surge, unavailable=unavailable, minReadySeconds=seconds)


@pytest.mark.parametrize("batch", range(10))
def test_a_rolling_update_keeps_its_limits_at_each_step(batch: int) -> None:
    """Also if the template changes again in between, back to an earlier one too, and the daemon is killed between two
    effects."""
    for seed in range(batch, WORLDS, 10):
        draw = World(seed)
        world, doc = world_of(some_deployment(draw), seed)
        world.settle()
        world.check = limit_checker(world, doc, f"seed {seed}")
        for _ in range(world.random.randrange(1, 5)):
            set_image(world, doc, world.random.choice(("v1", "v2", "v3")))
            for _ in range(world.random.randrange(15)):
                owner = world.random.choice([*world.of("Deployment"), *world.of("ReplicaSet")])
                world.sync(owner, most=world.random.choice((0, 1, 2, 3, None)))
                if world.random.random() < 0.5:
                    start_some(world)
                    world.now += world.random.choice((1, 5))
        world.settle(start_some)
        image = image_of({"kind": "ReplicaSet", "spec": world.named("Deployment", "web")["spec"]})
        assert {image_of(pod) for pod in active_pods(world)} == {image}, f"seed {seed}"
        assert len(active_pods(world)) == doc["spec"]["replicas"], f"seed {seed}"


def disturb(world: World, doc: Json) -> None:
    """Let something happen to a Deployment, its ReplicaSets or pods, or kill a controller between two effects."""
    draw = world.random
    sets, found = world.of("ReplicaSet"), world.of("Pod")
    match draw.randrange(14):
        case 0:
            set_image(world, doc, draw.choice(("v1", "v2", "v3", "v4")))
        case 1:
            set_spec(world, doc, replicas=draw.randrange(7))
        case 2:
            set_spec(world, doc, paused=draw.random() < 0.5)
        case 3:
            strategy = draw.choice((some_deployment(world)["spec"]["strategy"], {"type": "Recreate"}))
            set_spec(world, doc, strategy=strategy)
        case 4 if sets:
            set_spec(world, draw.choice(sets), replicas=draw.randrange(5))
        case 5 if sets:
            world.delete(draw.choice(sets)["metadata"]["uid"], orphan=draw.random() < 0.5)
        case 6 if found:
            world.fail(draw.choice(found))
        case 7 if found:
            world.delete(draw.choice(found)["metadata"]["uid"])
        case 8 if sets:
            one = draw.choice(sets)
            labels = draw.choice(
                ({**one["metadata"]["labels"], "app": "x"}, {**one["metadata"]["labels"], **LABELS})
            )
            world.edit(one, lambda new: new["metadata"].update(labels=labels))
        case 9:
            start_some(world)
        case _:
            world.sync(draw.choice([*world.of("Deployment"), *sets]), most=draw.randrange(4))
    world.now += draw.choice((0, 0, 1, 30, 700))


@pytest.mark.parametrize("batch", range(10))
def test_any_world_converges(batch: int) -> None:
    for seed in range(batch, WORLDS, 10):
        world, doc = world_of(some_deployment(World(seed)), seed)
        limit = world.random.choice((0, 2, 10))
        set_spec(world, doc, revisionHistoryLimit=limit)
        for _ in range(world.random.randrange(25)):
            disturb(world, doc)
        world.settle(start_some)
        if world.named("Deployment", "web")["spec"].get("paused"):
            set_spec(world, doc, paused=False)
            world.settle(start_some)
        current = world.named("Deployment", "web")
        wanted = current["spec"]["replicas"]
        sets = world.owned(doc, "ReplicaSet")
        owned = {found["metadata"]["uid"] for found in sets}
        mine = [pod for pod in active_pods(world) if (ref := controller_of(pod)) and ref["uid"] in owned]
        assert len(mine) == wanted, f"seed {seed}"
        image = current["spec"]["template"]["spec"]["containers"][0]["image"]
        assert {image_of(pod) for pod in mine} <= {image}, f"seed {seed}"
        assert current["status"].get("availableReplicas", 0) == wanted, f"seed {seed}"
        assert current["status"]["observedGeneration"] == current["metadata"]["generation"], f"seed {seed}"
        assert condition(world, "Available")[0] == "True", f"seed {seed}"
        assert len(sets) <= limit + 1, f"seed {seed}"
        assert world.decide(doc) == Plan([]), f"seed {seed}"
