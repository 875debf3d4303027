"""From any random world, with kills between any two effects, a StatefulSet comes to a legal end, and keeps its promises
at each step: one pod an ordinal, made in order, with its claim."""

from __future__ import annotations

from random import Random
from typing import Any

from kubelite.controllers.decide import pods, revisions
from kubelite.controllers.decide.stateful_set import POD_INDEX, POD_NAME, ordinal_of
from kubelite.controllers.references import controls, is_terminating, owner_reference
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from tests.unit.controllers.sets import LABELS
from tests.unit.controllers.stateful import CLAIM, TEMPLATE, edit, retention, rolling, world_of
from tests.unit.controllers.world import WORLDS, World

ON_DELETE: Json = {"updateStrategy": {"type": "OnDelete"}}


class Chaos:
    """A random world: pods in random states, edits of the set, and kills between any two effects."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        choose = self.random.choice
        self.ordered = choose([True, False])
        self.world, self.web = world_of(
            self.random.randrange(5),
            podManagementPolicy="OrderedReady" if self.ordered else "Parallel",
            minReadySeconds=choose([0, 0, 3]),
            volumeClaimTemplates=choose([[], [TEMPLATE]]),
            **self.strategy(),
            **retention(choose(["Retain", "Delete"]), choose(["Retain", "Delete"])),
        )
        self.before: dict[str, Json] = {}
        self.plant()
        self.world.check = self.check

    def strategy(self) -> Json:
        strategies = [rolling(), rolling(partition=1), rolling(maxUnavailable="50%"), ON_DELETE]
        return self.random.choice(strategies)

    def plant(self) -> None:
        """Some pods exist already: orphans, or from before a crash."""
        with_claims = bool(self.spec["volumeClaimTemplates"])
        for ordinal in range(self.random.randrange(4)):
            name = f"web-{self.random.choice([ordinal, ordinal + 3])}"
            if any(one["metadata"]["name"] == name for one in self.world.of("Pod")):
                continue
            metadata: Json = {"name": name, "labels": dict(LABELS)}
            if self.random.random() < 0.7:
                metadata["ownerReferences"] = [owner_reference(self.web)]
            claim = {"name": "data", "persistentVolumeClaim": {"claimName": f"data-{name}"}}
            spec = {"containers": [], "volumes": [claim] if with_claims else []}
            if with_claims:
                claim_metadata = {"name": f"data-{name}", "labels": dict(LABELS)}
                self.world.add({"apiVersion": "v1", "kind": CLAIM, "metadata": claim_metadata, "spec": {}})
            made = self.world.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
            self.harm(made, self.random.randrange(4))
        self.remember()

    @property
    def spec(self) -> Json:
        found: Json = self.world.named("StatefulSet", "web")["spec"]
        return found

    def remember(self) -> None:
        self.before = {one["metadata"]["name"]: one for one in self.world.of("Pod")}

    def check(self) -> None:
        """After each effect."""
        found = self.world.of("Pod")
        ordinals = [ordinal_of(one, self.web) for one in found]
        assert len(ordinals) == len(set(ordinals)), "two pods of one ordinal"
        new = [one for one in found if one["metadata"]["name"] not in self.before]
        for one in new:
            self.check_new(one)
        gone = [
            one
            for one in found
            if is_terminating(one)
            and (old := self.before.get(one["metadata"]["name"])) is not None
            and not is_terminating(old)
        ]
        for one in gone:
            self.check_deleted(one)
        self.remember()

    def check_new(self, one: Json) -> None:
        name = one["metadata"]["name"]
        ordinal = ordinal_of(one, self.web)
        assert ordinal is not None and ordinal in self.ordinals, f"{name} is not wanted"
        assert labels_of(one)[POD_NAME] == name and labels_of(one)[POD_INDEX] == str(ordinal)
        for volume in one["spec"].get("volumes") or ():
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert claim == f"data-{name}"
            assert not is_terminating(self.world.named(CLAIM, claim)), (
                "a pod of a claim that is being deleted"
            )
        if self.ordered:
            by_ordinal = {ordinal_of(other, self.web): other for other in self.world.owned(self.web, "Pod")}
            for before in range(self.ordinals.start, ordinal):
                assert before in by_ordinal and self.is_available(by_ordinal[before]), (
                    f"{name} before web-{before}"
                )

    def check_deleted(self, one: Json) -> None:
        """An ordered set deletes one running pod at a time, and of those that are too many the highest."""
        ordinal = ordinal_of(one, self.web)
        assert ordinal is not None
        if not self.ordered or ordinal in self.ordinals:
            return
        higher = [
            other
            for other in self.world.owned(self.web, "Pod")
            if (number := ordinal_of(other, self.web)) is not None
            and number > ordinal
            and number not in self.ordinals
        ]
        assert not higher, "a pod is deleted before a higher one"

    @property
    def ordinals(self) -> range:
        start = (self.spec.get("ordinals") or {}).get("start", 0)
        return range(start, start + self.spec["replicas"])

    def is_available(self, one: Json) -> bool:
        running = pods.is_available(one, self.spec["minReadySeconds"], self.world.now)
        return running and not is_terminating(one)

    def step(self) -> None:
        world, choice = self.world, self.random.randrange(12)
        if choice < 5:
            world.sync(self.web, most=self.random.choice([None, None, 0, 1, 2, 3, 5]))
        elif choice < 7:
            self.change()
        elif choice == 7 and (found := world.of("Pod")):
            self.harm(self.random.choice(found), self.random.randrange(7))
        elif choice == 8:
            world.now += self.random.choice([1.0, 10.0, 2000.0])
        else:
            world.start_and_vanish()
        self.remember()

    def change(self) -> None:
        more: dict[str, Any] = self.random.choice(
            [
                {"replicas": self.random.randrange(5)},
                {"image": f"web:{self.random.randrange(4)}"},
                {"ordinals": {"start": self.random.randrange(3)}},
                self.strategy(),
                retention(*self.random.choices(["Retain", "Delete"], k=2)),
            ]
        )
        edit(self.world, self.web, **more)

    def harm(self, one: Json, how: int) -> None:
        world, ended = self.world, pods.has_ended(one)
        if how == 0 and not ended:
            world.fail(one)
        elif how == 1 and not ended:
            world.start(one)
        elif how == 2 and not ended:
            world.unready(one)
        elif how == 3:
            world.delete(one["metadata"]["uid"])
        elif how == 4:
            world.vanish(one["metadata"]["uid"])
        elif how == 5:
            world.edit(one, lambda new: new["metadata"].update(labels={"app": "other"}))
        elif how == 6 and (found := world.of(CLAIM)):
            world.delete(self.random.choice(found)["metadata"]["uid"])

    def end(self) -> None:
        """What is true when nothing changes any more."""
        for one in self.world.of("Pod"):
            # One that the set does not select is released, and holds its name for ever.
            if not controls(self.web, one) or labels_of(one).get("app") != "web":
                self.world.vanish(one["metadata"]["uid"])
        self.remember()
        self.world.settle(self.live)
        found = self.world.owned(self.web, "Pod")
        assert sorted(ordinal_of(one, self.web) or 0 for one in found) == [*self.ordinals]
        assert all(self.is_available(one) for one in found)
        status = self.world.named("StatefulSet", "web")["status"]
        assert status["replicas"] == status["availableReplicas"] == len(found)
        self.end_of_update(found, status)
        self.end_of_claims(found)

    def live(self, world: World) -> bool:
        changed = world.start_and_vanish()
        self.remember()
        return changed

    def end_of_update(self, found: list[Json], status: Json) -> None:
        newest = max(self.world.of(revisions.KIND), key=lambda one: one["revision"])
        assert status["updateRevision"] == revisions.name_of(newest)
        if self.spec["updateStrategy"]["type"] == "OnDelete":
            return
        partition = self.spec["updateStrategy"]["rollingUpdate"]["partition"]
        for one in found:
            if (ordinal_of(one, self.web) or 0) >= self.ordinals.start + partition:
                assert labels_of(one)[revisions.POD_LABEL] == status["updateRevision"]
        if not partition:
            assert status["currentRevision"] == status["updateRevision"]

    def end_of_claims(self, found: list[Json]) -> None:
        if not self.spec["volumeClaimTemplates"]:
            return
        policy = self.spec["persistentVolumeClaimRetentionPolicy"]
        wanted = {f"data-{one['metadata']['name']}" for one in found}
        for claim in self.world.of(CLAIM):
            # One that somebody deleted stays as long as its pod.
            assert not is_terminating(claim) or claim["metadata"]["name"] in wanted
            if claim["metadata"]["name"] in wanted:
                wanted.remove(claim["metadata"]["name"])
                assert controls(self.web, claim) == (policy["whenDeleted"] == "Delete")
        assert not wanted, "a pod has no claim"


def test_random_worlds_converge() -> None:
    for seed in range(WORLDS):
        chaos = Chaos(seed)
        try:
            for _ in range(40):
                chaos.step()
            chaos.end()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
