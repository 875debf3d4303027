"""Mirror pods: which the node's pods have, what is in them, and what is done about those that are there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from kubelite.cluster import mirrors
from kubelite.cluster.client import ClusterClient, Refusal
from kubelite.cluster.decide.mirrors import MIRROR, has_mirror, mirror, plan
from kubelite.cluster.source import ApiPods
from kubelite.kube.json import Json
from kubelite.kube.objects import CLUSTER, SOURCE
from state.store import Store
from tests.waiting import until_async

DOCUMENT = {SOURCE: "/etc/kubelite/manifests/web.yaml"}


def pod(name: str = "web", phase: str = "Running", annotations: Json | None = None, **spec: Any) -> Json:
    return {
        "metadata": {
            "name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": {"app": name},
            "annotations": DOCUMENT if annotations is None else annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"containers": [{"name": "a", "image": "i"}], **spec},
        "status": {"phase": phase},
    }  # fmt: skip


def on_server(own: Json, **metadata: Any) -> Json:
    made = mirror(own, "here", "n1")
    return {**made, "metadata": {**made["metadata"], "uid": "m1", **metadata}, "status": own["status"]}


@pytest.mark.parametrize(
    ("given", "has"),
    [
        (pod(), True),
        (pod(phase="Succeeded"), True),
        (pod(annotations={}), True),
        (pod(annotations={}, phase="Failed"), False),
        (pod(annotations={CLUSTER: "https://a:1"}), False),
    ],
    ids=["document", "ended", "workload", "ended workload", "cluster"],
)
def test_which_pods_have_a_mirror(given: Json, has: bool) -> None:
    assert has_mirror(given) is has
    assert bool(plan([given], [], "here", "n1").create) is has


def test_what_a_mirror_says() -> None:
    """What admitPodCreate of NodeRestriction asks for, without what admission fills in."""
    own = pod(annotations={**DOCUMENT, "mine": "1"}, priority=7, preemptionPolicy="Never", nodeName="x")
    made = mirror(own, "here", "n1")
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("web-here", "shop")
    (owner,) = made["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Node", "name": "here", "uid": "n1", "controller": True}
    annotations = made["metadata"]["annotations"]
    assert annotations["mine"] == "1" and SOURCE not in annotations
    assert annotations["kubernetes.io/config.source"] == "file"
    assert annotations[MIRROR] == annotations["kubernetes.io/config.hash"]
    assert made["spec"] == {
        "containers": own["spec"]["containers"], "nodeName": "here",
        "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
    }  # fmt: skip
    assert mirror({**own, "status": {}}, "here", "n2")["metadata"]["annotations"] == annotations


def test_a_mirror_that_is_right_stays() -> None:
    own = pod()
    found = plan([own], [on_server(own)], "here", "n1")
    assert (found.create, found.delete, found.tell) == ({}, (), ())


@pytest.mark.parametrize(
    "there",
    [
        on_server(pod(hostname="old")),
        on_server(pod(), deletionTimestamp="2026-01-01T00:00:00Z"),
        on_server(pod("gone")),
    ],
    ids=["edited", "deleted", "without a pod"],
)
def test_a_mirror_that_is_wrong_is_deleted_first(there: Json) -> None:
    own = [pod()] if there["metadata"]["name"] == "web-here" else []
    found = plan(own, [there], "here", "n1")
    assert (found.create, found.delete) == ({}, (there,))
    assert list(plan(own, [], "here", "n1").create) == [one["metadata"]["uid"] for one in own]


def test_a_mirror_gets_the_status_of_its_pod() -> None:
    own, there = pod(), on_server(pod(phase="Pending"))
    ((told, patch),) = plan([own], [there], "here", "n1").tell
    assert told is there
    assert patch == {"metadata": {"uid": "m1"}, "status": {"phase": "Running"}}


@dataclass
class Server:
    """An API server that answers requests for mirrors with these errors, one after the other, and then the last."""

    answers: list[Refusal]
    posts: list[Json] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # numbers of mirrors that were seen

    async def post(self, _path: str, made: Json) -> Json:
        self.posts.append(made)
        raise self.answers[min(len(self.posts), len(self.answers)) - 1]


@contextlib.asynccontextmanager
async def keeping(store: Store, server: Server, pods: ApiPods) -> AsyncIterator[list[str]]:
    said: list[str] = []
    kept = mirrors.Mirrors(
        store, cast(ClusterClient, server), pods, "here",
        node_uid=lambda: "n1", warn=lambda _pod, reason, _message: said.append(reason), counted=server.counts.append,
    )  # fmt: skip
    task = asyncio.create_task(kept.run())
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_name_that_is_taken_is_said_and_asked_for_rarely(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "FIRST", 0.05)
    monkeypatch.setattr(mirrors, "COALESCE", 0.01)
    await store.create("Pod", pod())
    server = Server(
        [Refusal(404, "NotFound", "no namespace"), Refusal(409, "AlreadyExists", "web-here exists")]
    )
    pods = ApiPods(lambda _uid: None)
    pods.listed([])
    async with keeping(store, server, pods) as said:
        await until_async(lambda: len(server.posts) >= 2)
        await asyncio.sleep(0.3)
        assert said == ["MirrorPodRefused"] and len(server.posts) == 2


async def test_mirrors_do_not_wait_for_a_pod_of_the_cluster(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "UNREGISTERED", 0.05)
    await store.create("Pod", pod())
    server, pods = Server([Refusal(403, "Forbidden", "no")]), ApiPods(lambda _uid: None)
    async with keeping(store, server, pods):
        await asyncio.sleep(0.05)
        pods.listed([])
        await until_async(lambda: server.posts)


async def test_mirrors_of_the_api_server_are_counted(store: Store) -> None:
    """kubelet_mirror_pods: those that are there, not the cluster's other pods."""
    await store.create("Pod", pod())
    server, pods = Server([Refusal(403, "Forbidden", "no")]), ApiPods(lambda _uid: None)
    pods.listed([on_server(pod()), {"metadata": {"name": "other", "namespace": "shop", "uid": "o"}}])
    async with keeping(store, server, pods):
        await until_async(lambda: server.counts)
    assert server.counts[0] == 1
