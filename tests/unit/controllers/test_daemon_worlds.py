"""From any random world, with kills between any two effects, a DaemonSet comes to a legal end; at no step are there
more pods than the strategy allows."""

from __future__ import annotations

from random import Random

from kubelite.controllers.decide import pods, revisions
from kubelite.controllers.model import Create
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from tests.unit.controllers.daemon import (
    ON_DELETE,
    TAINT,
    current_hash,
    node,
    set_image,
    surge,
    unavailable,
    world_of,
)
from tests.unit.controllers.sets import pod, ready
from tests.unit.controllers.world import WORLDS


class Chaos:
    """A random world: pods in random states, edits, changes of the node, and kills between any two effects."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        chosen = self.random.choice([ON_DELETE, unavailable(), unavailable("100%"), surge(), surge("50%")])
        self.world, self.ds = world_of(chosen, minReadySeconds=self.random.choice([0, 0, 5]))
        self.most = 1 + int(chosen["type"] != "OnDelete" and chosen["rollingUpdate"]["maxSurge"] != 0)
        for number in range(self.random.randrange(4)):
            status = self.random.choice(
                [None, ready(0), ready(0, is_ready=False), {"phase": "Failed"}, {"phase": "Succeeded"}]
            )
            pod(self.world, self.ds, f"p{number}", status)
        self.before = len(self.active())
        self.world.check = self.check

    def active(self) -> list[Json]:
        return [one for one in self.world.owned(self.ds, "Pod") if pods.is_active(one)]

    def check(self) -> None:
        """A pod is never added to as many as there may be."""
        now = len(self.active())
        assert now <= max(self.before, self.most), "more pods than the strategy allows"
        self.before = now

    def step(self) -> None:
        world, choice = self.world, self.random.randrange(9)
        found = world.owned(self.ds, "Pod")
        if choice < 4:
            world.sync(self.ds, most=self.random.choice([None, 0, 1, 2, 3]))
        elif choice == 4:
            set_image(world, self.ds, f"web:{self.random.randrange(4)}")
        elif choice == 5:
            world.node = node(*self.random.choice([(), (TAINT,), ({**TAINT, "effect": "NoExecute"},)]))
        elif choice == 6 and found:
            self.harm(self.random.choice(found))
        elif choice == 7:
            world.now += self.random.choice([1.0, 10.0, 2000.0])
        else:
            world.start_and_vanish()
        self.before = len(self.active())

    def harm(self, one: Json) -> None:
        how = self.random.randrange(5)
        if how == 0 and not pods.has_ended(one):
            self.world.fail(one)
        elif how == 1 and not pods.has_ended(one):
            self.world.unready(one)
        elif how == 2:
            self.world.delete(one["metadata"]["uid"])
        elif how == 3:
            self.world.vanish(one["metadata"]["uid"])
        elif how == 4:
            self.world.edit(one, lambda new: new["metadata"].update(labels={"app": "other"}))

    def end(self) -> None:
        """What is true when nothing changes any more."""
        self.world.node = node()
        self.before = 99
        self.world.settle()
        (only,) = self.world.owned(self.ds, "Pod")
        assert pods.is_ready(only)
        if self.world.named("DaemonSet", "web")["spec"]["updateStrategy"] != ON_DELETE:
            assert labels_of(only)[revisions.POD_LABEL] == current_hash(self.world)
        status = self.world.named("DaemonSet", "web")["status"]
        assert status["numberAvailable"] == status["desiredNumberScheduled"] == 1
        assert not any(isinstance(one, Create) for one in self.world.decide(self.ds).effects)


def test_random_worlds_converge() -> None:
    for seed in range(WORLDS):
        chaos = Chaos(seed)
        try:
            for _ in range(30):
                chaos.step()
            chaos.end()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
