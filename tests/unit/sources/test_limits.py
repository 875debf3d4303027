"""LimitRanges and the pods and claims of manifests: defaults at creation, refusals with their line, edits."""

from __future__ import annotations

from pathlib import Path

from kubelite.policies.limit_range import ANNOTATION
from kubelite.sources.admission import Admission, refusal
from kubelite.sources.directory import Sources
from manifests.yaml.loader import load_text
from state.store import Store
from tests.unit.sources.kit import CLAIM, directory, image, pod, sources, web

__all__ = ["directory", "sources"]

NOW = 1_800_000_000.0
LIMITS = """
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec:
  limits:
  - type: Container
    default: {memory: MEMORY}
    max: {memory: 1Gi}
  - type: PersistentVolumeClaim
    max: {storage: 500Mi}
"""
LARGE = "    resources: {limits: {memory: 2Gi}}\n"
SAID = 'pods "web" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi'


def limits(memory: str = "64Mi") -> str:
    return LIMITS.replace("MEMORY", memory)


def resources(store: Store) -> object:
    return web(store).doc["spec"]["containers"][0].get("resources")


async def test_a_new_pod_gets_the_defaults_of_a_file_read_with_it(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "a-pod.yaml").write_text(pod())
    (directory / "z-limits.yaml").write_text(limits())
    await sources.scan(settle=0)
    wanted = {"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}
    assert resources(store) == wanted
    said = "LimitRanger plugin set: memory request for container main; memory limit for container main"
    assert web(store).doc["metadata"]["annotations"][ANNOTATION] == said
    first = web(store)

    # Neither another default, nor the end of the LimitRange, nor a restart changes the pod.
    (directory / "z-limits.yaml").write_text(limits("128Mi"))
    await sources.scan(settle=0)
    assert web(store) == first
    (directory / "z-limits.yaml").unlink()
    await Sources(str(directory), store).scan(settle=0)
    assert web(store) == first

    # An edit of something else keeps the amounts, one of the amounts replaces them.
    (directory / "a-pod.yaml").write_text(pod(image="busybox:2"))
    await sources.scan(settle=0)
    assert (image(store), resources(store), web(store).uid) == ("busybox:2", wanted, first.uid)
    (directory / "a-pod.yaml").write_text(f"{pod()}    resources: {{limits: {{memory: 32Mi}}}}\n")
    await sources.scan(settle=0)
    assert resources(store) == {"requests": {"memory": "32Mi"}, "limits": {"memory": "32Mi"}}
    assert ANNOTATION not in web(store).doc["metadata"]["annotations"]


async def test_a_later_range_does_not_change_a_running_pod(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "web.yaml").write_text(pod())
    await sources.scan(settle=0)
    first = web(store)
    (directory / "limits.yaml").write_text(limits())
    await sources.scan(settle=0)
    await Sources(str(directory), store).scan(settle=0)
    assert web(store) == first


async def test_a_refusal_has_file_line_and_field_and_ends_with_its_cause(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "limits.yaml").write_text(limits())
    (directory / "web.yaml").write_text(pod() + LARGE)
    await sources.scan(settle=0)
    assert store.list("Pod") == []
    (problem,) = next(state for state in sources.states() if state.file.endswith("web.yaml")).problems
    assert (problem.message, problem.field, problem.kind) == (
        SAID,
        "spec.containers[0].resources",
        "forbidden",
    )
    assert problem.line == 10
    (directory / "limits.yaml").unlink()
    await sources.scan(settle=0)
    assert image(store) == "busybox"
    assert all(not state.problems for state in sources.states())


async def test_an_edit_that_is_refused_leaves_the_pod_and_says_so(directory: Path, store: Store) -> None:
    told: list[str] = []
    sources = Sources(str(directory), store, refused=lambda _doc, words: told.append(words))
    (directory / "limits.yaml").write_text(limits())
    (directory / "web.yaml").write_text(pod())
    await sources.scan(settle=0)
    first = web(store)
    (directory / "web.yaml").write_text(pod() + LARGE)
    for _ in range(2):
        await sources.scan(settle=0)
    assert web(store) == first
    place = f"{directory}/web.yaml:10: spec.containers[0].resources: {SAID}"
    assert told == [f"{place}; an earlier version of the manifest applies"]


async def test_claims(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "all.yaml").write_text(f"{limits()}---{CLAIM}")
    await sources.scan(settle=0)
    assert store.list("PersistentVolumeClaim") == []
    (state,) = sources.states()
    said = "maximum storage usage per PersistentVolumeClaim is 500Mi, but request is 1Gi"
    assert state.problems[0].message == f'persistentvolumeclaims "data" is forbidden: {said}'


async def test_diff_says_that_a_pod_would_berefused(directory: Path, store: Store, sources: Sources) -> None:
    loaded = load_text(f"{limits()}---{pod()}{LARGE}", file="-")
    doc = loaded.documents[1].obj.to_json()
    assert Admission(loaded.documents, store, NOW).refused(None, doc) == SAID
    (directory / "web.yaml").write_text(pod())
    await sources.scan(settle=0)
    assert Admission(loaded.documents, store, NOW).refused(web(store), doc) == SAID
    assert (refusal(loaded.documents, store, NOW), refusal(loaded.documents[1:], store, NOW)) == (SAID, "")
