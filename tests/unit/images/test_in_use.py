"""Which images are in use although no container runs from them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kubelite.images.service import NodeImages
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from state.store import Store


def template(image: str) -> Json:
    return {"metadata": {}, "spec": {"containers": [{"name": "c", "image": image}]}}


async def test_the_workloads_of_manifests_keep_their_images(tmp_path: Path) -> None:
    """A CronJob has no pods between two runs, and a Deployment may be scaled to 0."""
    store = Store.open(str(tmp_path / "state.db"))
    specs: list[tuple[str, str, str, Json]] = [
        ("Pod", "web", "", template("of-pod")["spec"]),
        ("CronJob", "nightly", "/m/a.yaml", {"jobTemplate": {"spec": {"template": template("of-cron-job")}}}),
        ("Deployment", "idle", "/m/b.yaml", {"replicas": 0, "template": template("of-deployment")}),
        ("ReplicaSet", "idle-1", "", {"replicas": 0, "template": template("of-earlier-revision")}),
    ]
    for kind, name, source, spec in specs:
        annotations = {SOURCE: source} if source else {}
        metadata = {"name": name, "namespace": "default", "uid": name, "annotations": annotations}
        await store.create(kind, {"metadata": metadata, "spec": spec})
    cri = SimpleNamespace(image=lambda name: SimpleNamespace(id=f"id-{name}"))
    images = NodeImages(str(tmp_path), store, cast(Any, cri), cast(Any, None))
    assert images._named() == {"id-of-pod", "id-of-cron-job", "id-of-deployment"}
    await store.close()
