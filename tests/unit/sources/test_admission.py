"""Pods that are not admitted: their file is invalid, and what ran goes on as before."""

from __future__ import annotations

from pathlib import Path

from kubelite.kube.pod_security import Level, Levels, PodSecurity
from kubelite.node.decide.pod_security import forbidden
from kubelite.sources.directory import Sources
from state.store import Store
from tests.unit.sources.kit import directory, pod

__all__ = ["directory"]

PRIVILEGED = pod().replace(
    "    image: busybox", "    image: busybox\n    securityContext: {privileged: true}"
)
SAID = (
    'pods "web" is forbidden: violates PodSecurity "baseline:latest": privileged (container "main" must not set '
    "securityContext.privileged=true)"
)
SECURITY = PodSecurity(Levels(Level.BASELINE))


def strict(directory: Path, store: Store) -> Sources:
    return Sources(str(directory), store, refusal=lambda one: forbidden(one, SECURITY))


async def test_a_new_pod_and_an_edit_are_refused(directory: Path, store: Store) -> None:
    sources = strict(directory, store)
    file = directory / "web.yaml"
    file.write_text(PRIVILEGED)
    await sources.scan(settle=0)
    assert store.list("Pod") == []
    (state,) = sources.states()
    assert state.status == "Invalid"
    assert [(p.message, p.line, p.kind) for p in state.problems] == [(SAID, 2, "forbidden")]
    assert SAID in state.rejected

    file.write_text(pod())
    await sources.scan(settle=0)
    (first,) = store.list("Pod")
    file.write_text(PRIVILEGED)  # an edit cannot do what a new pod may not
    await sources.scan(settle=0)
    assert [(r.uid, r.doc["spec"]) for r in store.list("Pod")] == [(first.uid, first.doc["spec"])]


async def test_a_stricter_level_ends_nothing(directory: Path, store: Store) -> None:
    (directory / "web.yaml").write_text(PRIVILEGED)
    await Sources(str(directory), store).scan(settle=0)
    (first,) = store.list("Pod")
    after = strict(directory, store)  # a restart with other settings
    await after.scan(settle=0)
    assert [(r.uid, r.doc["metadata"].get("deletionTimestamp")) for r in store.list("Pod")] == [
        (first.uid, None)
    ]
    assert after.states()[0].status == "Invalid"
