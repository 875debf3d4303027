"""What `kubelite get manifests` shows of a file: the objects that come from it."""

from __future__ import annotations

from pathlib import Path

from kubelite.daemon.serving.manifest_files import manifest_file
from kubelite.kube.objects import SOURCE
from kubelite.sources.plan import ManifestState, Problem
from state.store import Store


async def test_a_file_gives_no_object_that_another_file_defines(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    first, second = "/m/a.yaml", "/m/b.yaml"
    metadata = {"name": "web", "namespace": "default", "uid": "u", "annotations": {SOURCE: first}}
    await store.create("Pod", {"kind": "Pod", "metadata": metadata})
    web, other = ("Pod", "default", "web"), ("ConfigMap", "default", "new")
    words = Problem(f"Pod default/web is already defined in {first}, which stays in force", kind="duplicate")
    owner = ManifestState(first, objects={web: {}}, status="Loaded")
    twice = ManifestState(second, objects={web: {}}, problems=(words,), status="Loaded")
    assert manifest_file(owner, store)["objects"] == ["pod/default/web"]
    shown = manifest_file(twice, store)
    assert (shown["status"], shown["objects"], len(shown["errors"])) == ("Ignored", [], 1)
    more = ManifestState(second, objects={web: {}, other: {}}, problems=(words,), status="Loaded")
    shown = manifest_file(more, store)
    assert (shown["status"], shown["objects"]) == ("Loaded", ["configmap/default/new"]), (
        "it is being recorded"
    )
    await store.close()
