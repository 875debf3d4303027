"""What follows the cluster's objects: how it goes on after a failure, how often it asks, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kubelite.cluster.client import ClusterClient, context
from kubelite.cluster.content import ClusterContent
from kubelite.cluster.events import EventSink
from kubelite.cluster.membership.discovery import Access
from kubelite.cluster.reflector import Reflector
from kubelite.cluster.tokens import ClusterTokens
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import reference
from kubelite.node.spec.cluster_objects import cluster_kind
from state.errors import StoreError
from state.store import Store
from tests.cluster.fake_api import FakeApi
from tests.waiting import until_async

CONF = "/api/v1/namespaces/shop/configmaps/conf"
POD: Json = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "one"},
    "spec": {"containers": [], "volumes": [{"name": "c", "configMap": {"name": "conf"}}]},
}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with FakeApi(tmp_path).serving() as found:
        yield found


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[ClusterClient]:
    made = ClusterClient(api.url, context(Access(api.url, api.authority.pem)))
    yield made
    await made.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store.open(str(tmp_path / "state.db"))
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _data(store: Store) -> object:
    record = store.get(cluster_kind("ConfigMap"), "shop", "conf")
    return record.doc["data"] if record is not None else None


async def test_content_that_begins_anew_follows_what_pods_use(
    api: FakeApi, client: ClusterClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(CONF, {"data": {"a": "1"}})
    content = ClusterContent(store, client, lambda uid: None)
    async with _running(content.run()) as first:
        content.use([POD])
        await until_async(lambda: _data(store) == {"a": "1"}, "the content arrives")
        with monkeypatch.context() as patched:
            patched.setattr(store, "update", _full)
            api.put(CONF, {"data": {"a": "2"}})
            with pytest.raises(StoreError):
                await asyncio.wait_for(first, 10.0)
    async with _running(content.run()):
        await until_async(lambda: _data(store) == {"a": "2"}, "the content that was not written arrives")
        api.put(CONF, {"data": {"a": "3"}})
        await until_async(lambda: _data(store) == {"a": "3"}, "the content is followed")
    assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("cluster-")]


async def _full(*_: object, **__: object) -> None:
    raise StoreError("the disk is full")


async def test_a_reflector_lists_again_after_a_malformed_event(
    api: FakeApi, client: ClusterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelite.cluster.reflector.FIRST", 0.05)
    seen: list[str] = []

    def note(*docs: Json) -> None:
        seen.extend(f"{one['metadata']['name']} {one['data']['a']}" for one in docs)

    reflector = Reflector(
        client, CONF.rpartition("/")[0], changed=lambda kind, doc: note(doc),
        listed=lambda docs: note(*docs),
    )  # fmt: skip
    async with _running(reflector.run()):
        api.put(CONF, {"data": {"a": "1"}})
        await until_async(lambda: seen == ["conf 1"], "the object")
        api.put(CONF, {"nothing": {}})
        await until_async(lambda: "malformed" in reflector.error, "the malformed event")
        api.put(CONF, {"data": {"a": "2"}})
        await until_async(lambda: seen == ["conf 1", "conf 2"], "the object as it is later")
        await until_async(lambda: not reflector.error, "nothing is wrong any more")


class _Short:
    """An API server behind a proxy that ends each watch at once."""

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, path: str, **params: str) -> Json:
        return {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []}

    async def watch(self, path: str, params: object) -> AsyncIterator[tuple[str, Json]]:
        self.asked += 1
        return
        yield


async def test_watches_that_end_at_once_are_not_asked_for_in_a_loop() -> None:
    server = _Short()
    client: Any = server
    reflector = Reflector(client, "/api/v1/pods", listed=lambda _: None, changed=lambda kind, doc: None)
    async with _running(reflector.run()):
        await asyncio.sleep(0.5)
    assert server.asked == 1  # the next one follows after 0.8 s


class _Issuer:
    """An API server whose clock is an hour behind: by the node's, each token has expired already."""

    def __init__(self) -> None:
        self.asked = 0

    async def post(self, path: str, body: Json) -> Json:
        self.asked += 1
        return {"status": {"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z"}}


async def test_tokens_that_are_due_at_once_are_not_asked_for_in_a_loop(store: Store) -> None:
    server = _Issuer()
    issuer: Any = server
    volumes = [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]
    pod: Json = {**POD, "spec": {"containers": [], "volumes": volumes}}
    tokens = ClusterTokens(store, issuer, lambda uid: pod, lambda uid: None)
    tokens.start()
    await tokens.use([pod])
    await asyncio.sleep(0.5)
    await tokens.queue.close()
    assert server.asked == 1  # the next one follows after 2 s


async def test_events_go_on_after_an_answer_that_is_no_json(store: Store) -> None:
    asked: list[str] = []

    class Proxy(ClusterClient):
        def __init__(self) -> None:
            pass

        async def post(self, path: str, body: Json) -> Json:
            asked.append(body["reason"])
            raise ValueError("not JSON")

    recorder = EventRecorder(store, "here")
    async with _running(EventSink(store, Proxy(), lambda _uid: POD, "here").run()) as task:
        for reason in ("Pulled", "Started"):
            recorder.event(reference({"kind": "Pod", "apiVersion": "v1", **POD}), "Normal", reason, "so")
        await until_async(lambda: len(asked) == 2, "both events are sent")
        assert not task.done()


async def test_a_new_certificate_is_no_failure(
    api: FakeApi, client: ClusterClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests under way are answered, and watches go on by the new certificate: nothing is told as a failure."""
    monkeypatch.setattr("kubelite.cluster.reflector.FIRST", 0.05)
    asked, answers = asyncio.Event(), asyncio.Event()
    answer = api._answer

    async def slowly(writer: Any, method: str, *rest: Any) -> None:
        if method == "PUT":
            asked.set()
            await answers.wait()
        await answer(writer, method, *rest)

    monkeypatch.setattr(api, "_answer", slowly)
    seen: list[str] = []
    reflector = Reflector(
        client, CONF.rpartition("/")[0], changed=lambda kind, doc: seen.append(doc["data"]["a"]),
        listed=lambda docs: seen.extend(doc["data"]["a"] for doc in docs),
    )  # fmt: skip
    made = api.put(CONF, {"data": {"a": "1"}})
    async with _running(reflector.run()):
        await until_async(lambda: seen == ["1"], "the object")
        written = asyncio.create_task(client.put(CONF, {**made, "data": {"a": "2"}}))
        await asyncio.wait_for(asked.wait(), 10.0)
        before = len(api.requests)
        renewed = asyncio.create_task(client.renew(context(Access(api.url, api.authority.pem))))
        await asyncio.sleep(0)
        assert (await client.get(CONF))["data"] == {"a": "1"}, "new requests do not wait"
        assert not renewed.done()
        answers.set()
        assert (await asyncio.wait_for(written, 10.0))["data"] == {"a": "2"}
        await asyncio.wait_for(renewed, 10.0)
        await until_async(lambda: len(api.requests) > before + 1, "the next watch")
        api.put(CONF, {"data": {"a": "3"}})
        await until_async(lambda: seen[-1] == "3", "the object to be followed")
    assert "cannot follow" not in caplog.text and not reflector.error
