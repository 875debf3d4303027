"""The property of the decision: from any random world, carrying out the actions converges to a legal end state."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kubelite.node.decide.pod_rules import restart_policy
from kubelite.node.model.actions import Hook, HookPhase
from kubelite.node.model.cri import ContainerState
from kubelite.node.model.probe_results import Kind, Tally
from tests.unit.node.decide.pod_worlds import UID, World, container, deleted, edited, make_pod
from tests.unit.node.fake_cri import FakeCri

WORLDS = 300  # a seed each; 5000 were run when this was written


class Story:
    """One pod to which random things happen; every step checks the invariants."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.policy = self.rng.choice(["Always", "OnFailure", "Never"])
        inits = [f"i{n}" for n in range(self.rng.randrange(3))]
        mains = [f"c{n}" for n in range(self.rng.randrange(1, 4))]
        self.spec: dict[str, Any] = {"restartPolicy": self.policy}
        self.spec["containers"] = [self.random_container(name) for name in mains]
        self.spec["initContainers"] = [self.random_container(name, init=True) for name in inits]
        self.world = World(make_pod(**self.spec), FakeCri())
        self.world.fake.stop_exit_code = self.rng.choice([0, 143])
        self.edits = 0
        self.sandboxes_lost = 0

    def random_container(self, name: str, *, init: bool = False) -> dict[str, Any]:
        more: dict[str, Any] = {"args": [str(self.rng.randrange(3))]}
        if init and self.rng.random() < 0.3:
            more["restartPolicy"] = "Always"
        if self.rng.random() < 0.3:
            more["resources"] = {"limits": {"cpu": self.rng.choice(["100m", "1"])}}
        if self.rng.random() < 0.3:
            more["imagePullPolicy"] = "Always"
        if not init or "restartPolicy" in more:
            hooks = [hook for hook in Hook if self.rng.random() < 0.2]
            more["lifecycle"] = {hook: {"exec": {"command": ["x"]}} for hook in hooks}
            for kind in Kind:
                if self.rng.random() < 0.2:
                    more[f"{kind}Probe"] = {"tcpSocket": {"port": 80}}
        return container(name, **more)

    def live(self, events: int) -> None:
        for _ in range(events):
            self.happen()
            for _ in range(self.rng.randrange(4)):
                if self.world.exists:
                    self.world.step()
                    self.check()

    def happen(self) -> None:
        fake, rng = self.world.fake, self.rng
        alive = fake.alive(UID)
        running = [key for key, phase in self.world.hooks.items() if phase is HookPhase.RUNNING]
        running = [key for key in running if key[0] in {c.id for c in alive}]
        match rng.randrange(12):
            case 0 | 1 | 2 if alive:
                fake.exit(UID, rng.choice(alive).name, rng.choice([0, 0, 1, 137]))
            case 3:
                fake.advance(rng.choice([0.5, 12, 700]))
            case 4 if rng.random() < 0.5:
                fake.lose_sandbox(UID)
                self.sandboxes_lost += 1
            case 5 if rng.random() < 0.3:
                fake.reboot()
                self.sandboxes_lost += 1
            case 6:
                self.edit()
            case 7 if alive:
                name = rng.choice(alive).name
                fake.stubborn ^= {name}
            case 10 if running:
                self.world.end_hook(*rng.choice(running), good=rng.random() < 0.6)
            case 11:
                self.world.restart_daemon()
            case 9 if alive:
                answer = Tally(good=rng.random() < 0.6)
                self.world.tallies[rng.choice(alive).id, rng.choice(list(Kind))] = answer
            case 8 if alive and rng.random() < 0.3:
                self.half_start(rng.choice(alive).name)
            case _:
                pass

    def half_start(self, name: str) -> None:
        """The daemon is killed between the creation of a container and its start."""
        for c in self.world.fake.alive(UID):
            if c.name == name and c.state is ContainerState.RUNNING and c.attempt == 0:
                from dataclasses import replace

                self.world.fake._put(UID, replace(c, state=ContainerState.CREATED, started_at=0.0))
                self.world.started.remove((name, 0))

    def edit(self) -> None:
        rng = self.rng
        self.edits += 1
        kind = rng.randrange(4)
        if kind == 0:
            self.spec["hostname"] = rng.choice(["a", "b"])
        elif kind == 1 and len(self.spec["containers"]) > 1:
            self.spec["containers"] = self.spec["containers"][:-1]
        else:
            chosen = rng.choice(["containers", "initContainers"])
            self.spec[chosen] = [
                self.random_container(c["name"]) if "restartPolicy" not in c and rng.random() < 0.5 else c
                for c in self.spec[chosen]
            ]
        self.world.pod = edited(self.world.pod, self.spec)

    def check(self) -> None:
        """No main container runs before the init containers, and no attempt runs twice. The fake checks the names."""
        world = self.world
        assert len(world.started) == len(set(world.started)) or self.sandboxes_lost, world.started
        alive = {c.name for c in world.fake.alive(UID)}
        if alive & {f"c{n}" for n in range(4)}:
            for c in world.pod.spec.init_containers:
                if restart_policy(world.pod, c) != "Always":
                    assert c.name not in alive, f"{c.name} runs beside the others"
        for one in world.fake.alive(UID):
            assert one.stop_deadline or not one.killed_for, "what was given up is on its way out"

    def quiet_end(self) -> None:
        """Nothing more happens to the pod; containers that should end do so. The pod reaches a legal end state."""
        world, fake = self.world, self.world.fake
        world.converge()  # with probes that never respond
        world.well = True
        world.tallies = {key: Tally(good=True) for key in world.tallies}
        for _ in range(60):
            world.converge()
            living = {c.id for c in fake.alive(UID)}
            hooks = [k for k, phase in world.hooks.items() if phase is HookPhase.RUNNING and k[0] in living]
            for key in hooks:
                world.end_hook(*key)
            running_inits = [
                c for c in fake.alive(UID) if c.name.startswith("i") and not self.is_sidecar(c.name)
            ]
            if not running_inits and not hooks:
                break
            for c in running_inits:
                fake.exit(UID, c.name, 0)
        self.assert_legal()

    def is_sidecar(self, name: str) -> bool:
        found = next((c for c in self.world.pod.spec.init_containers if c.name == name), None)
        return found is not None and restart_policy(self.world.pod, found) == "Always"

    def assert_legal(self) -> None:
        world, fake = self.world, self.world.fake
        status = world.pod.status
        assert not world.decide().effects
        alive = {c.name for c in fake.alive(UID)}
        if status.phase in ("Succeeded", "Failed"):
            assert not alive
            assert UID not in fake.sandboxes
            assert self.policy != "Always" or any(
                c.name.startswith("i") for c in world.pod.spec.init_containers
            )
            return
        assert status.phase == "Running", status.to_json()
        finished = {c.name for c in world.pod.spec.containers} - alive
        if self.policy == "Always":
            assert not finished
        for one in status.container_statuses:
            assert one.ready == (one.name in alive)


@pytest.mark.parametrize("seed", range(WORLDS))
def test_every_world_reaches_a_legal_end_state(seed: int) -> None:
    story = Story(seed)
    story.live(events=story.rng.randrange(1, 25))
    story.quiet_end()


@pytest.mark.parametrize("seed", range(WORLDS))
def test_deletion_in_any_world_leaves_nothing(seed: int) -> None:
    story = Story(seed)
    story.live(events=story.rng.randrange(1, 15))
    story.world.pod = deleted(story.world.pod, grace=story.rng.choice([0, 1, 30]))
    story.world.converge()
    assert not story.world.exists
    assert UID not in story.world.fake.sandboxes
    assert not story.world.fake.containers.get(UID)


@pytest.mark.parametrize("seed", range(WORLDS))
def test_restart_policy_never_runs_nothing_twice_without_an_edit(seed: int) -> None:
    story = Story(seed)
    story.policy = story.spec["restartPolicy"] = "Never"
    story.spec["initContainers"] = [c for c in story.spec["initContainers"] if "restartPolicy" not in c]
    # until its hook has succeeded, a container counts as not having run
    for one in story.spec["containers"]:
        one.get("lifecycle", {}).pop(Hook.POST_START, None)
    story.world = World(make_pod(**story.spec), FakeCri())
    story.edit = lambda: None  # type: ignore[method-assign]
    story.live(events=story.rng.randrange(1, 25))
    names = [name for name, _ in story.world.started]
    assert len(names) == len(set(names)), story.world.started
