"""Pods that are not admitted: their file is invalid, and what ran goes on as before."""

from __future__ import annotations

from pathlib import Path

from kubelite.kube.pod_security import Level, Levels, PodSecurity
from kubelite.node.decide.pod_security.admission import forbidden
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
SECURITY = PodSecurity(Levels.of(Level.BASELINE))


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


def namespace(level: str, name: str = "default") -> str:
    return (
        f"apiVersion: v1\nkind: Namespace\n"
        f"metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: {level}}}}}\n"
    )


def labelled(directory: Path, store: Store) -> Sources:
    security = PodSecurity()
    return Sources(
        str(directory), store, refusal=lambda one: forbidden(one, security), labels=security.declared
    )


async def test_a_label_counts_whatever_its_file_is_called(directory: Path, store: Store) -> None:
    sources = labelled(directory, store)
    (directory / "web.yaml").write_text(PRIVILEGED)
    (directory / "z.yaml").write_text(namespace("baseline"))
    await sources.scan(settle=0)
    assert store.list("Pod") == [] and store.get("Namespace", "", "default")
    assert {Path(state.file).name: state.status for state in sources.states()} == {
        "web.yaml": "Invalid",
        "z.yaml": "Loaded",
    }
    assert SAID in sources.states()[0].rejected

    (directory / "z.yaml").write_text(namespace("privileged"))
    await sources.scan(settle=0)
    assert [record.name for record in store.list("Pod")] == ["web"], "a laxer label admits what was refused"

    (directory / "z.yaml").write_text(namespace("restricted"))
    await sources.scan(settle=0)
    (pod_,) = store.list("Pod")
    assert not pod_.deleting, "a stricter label ends nothing"
    assert sources.states()[0].status == "Invalid"

    (directory / "z.yaml").unlink()
    await sources.scan(settle=0)
    assert [state.status for state in sources.states()] == ["Loaded"]


async def test_a_label_counts_in_a_file_that_it_makes_invalid(directory: Path, store: Store) -> None:
    """It also goes on counting while the file changes to something that cannot be read."""
    sources = labelled(directory, store)
    (directory / "web.yaml").write_text(f"{namespace('baseline')}---\n{PRIVILEGED}")
    for _ in range(2):
        await sources.scan(settle=0)
        (state,) = sources.states()
        assert state.status == "Invalid" and store.list("Pod") == []
    (directory / "web.yaml").write_text("kind: [")
    (directory / "other.yaml").write_text(PRIVILEGED.replace("name: web", "name: other", 1))
    await sources.scan(settle=0)
    assert store.list("Pod") == []


async def test_an_unknown_level_makes_a_namespace_invalid(directory: Path, store: Store) -> None:
    sources = labelled(directory, store)
    (directory / "n.yaml").write_text(namespace("strict"))
    await sources.scan(settle=0)
    ((problem,),) = [state.problems for state in sources.states()]
    assert (problem.field, problem.message, problem.line) == (
        "metadata.labels[pod-security.kubernetes.io/enforce]",
        'Invalid value: "strict": must be one of privileged, baseline, restricted',
        3,
    )
    assert store.get("Namespace", "", "default") is None
