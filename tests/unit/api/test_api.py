"""Responses of the API: Kubernetes' formats, status codes and messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubelite.api.app import create_app
from kubelite.api.kube.routes import table_version
from kubelite.api.server import listen_unix, serving
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from kubelite.kube.selectors import matches_fields, parse_fields
from runtime.errors import StateError
from tests.unit.api.fake_node import FakeNode, event_doc, pod_doc
from tests.waiting import SECONDS
from tests.waiting import until_async as until

ARCHIVE = {"Content-Type": "application/x-tar"}
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


class Http:
    """The application called in-process, one event loop for all of a test."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.runner = asyncio.Runner()
        transport = httpx.ASGITransport(create_app(node), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://here")

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.runner.run(self.client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        if "content" in options:
            options.setdefault("headers", {"Content-Type": "application/yaml"})
        return self.request("POST", path, **options)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Http]:
    fake = FakeNode(tmp_path)
    client = Http(fake)

    async def fill() -> None:
        await fake.store.create("Pod", pod_doc("web"))
        await fake.store.create("Pod", pod_doc("db"))
        await fake.store.create("Pod", pod_doc("api", namespace="prod"))
        await fake.store.create("Event", event_doc("e1", "web", "Started", "Started container app"))

    client.runner.run(fill())
    yield client
    client.runner.run(fake.store.close())
    client.runner.close()


@pytest.fixture
def node(http: Http) -> FakeNode:
    return http.node


def names(answer: Json) -> list[str]:
    return [doc["metadata"]["name"] for doc in answer["items"]]


def test_events_are_those_recorded_so_far(http: Http, node: FakeNode) -> None:
    node.events_to_come.append(event_doc("e2", "web", "Killing", "Stopping container app"))
    assert names(http.get("/api/v1/events").json()) == ["e1", "e2"]
    node.events_to_come.append(event_doc("e3", "web", "BackOff", "Back-off"))
    assert http.get("/api/v1/namespaces/default/events/e3").json()["reason"] == "BackOff"


def test_discovery(http: Http) -> None:
    assert http.get("/api").json()["versions"] == ["v1"]
    groups = {group["name"]: group for group in http.get("/apis").json()["groups"]}
    for name, group in groups.items():
        assert http.get(f"/apis/{name}").json() == {"kind": "APIGroup", "apiVersion": "v1", **group}
        version = group["preferredVersion"]["groupVersion"]
        served = http.get(f"/apis/{version}").json()
        assert served["groupVersion"] == version and served["resources"]
    kinds = [r["kind"] for r in http.get("/apis/scheduling.k8s.io/v1").json()["resources"]]
    assert kinds == ["PriorityClass"]
    kinds = [r["kind"] for r in http.get("/apis/storage.k8s.io/v1").json()["resources"]]
    assert kinds == ["StorageClass"]
    assert http.get("/apis/example.com").status_code == 404
    assert http.get("/apis/scheduling.k8s.io/v2").status_code == 404
    resources = {r["name"]: r for r in http.get("/api/v1").json()["resources"]}
    assert resources["pods"]["shortNames"] == ["po"] and "delete" in resources["pods"]["verbs"]
    assert {
        "pods/log",
        "pods/exec",
        "events",
        "configmaps",
        "secrets",
        "nodes",
        "namespaces",
    } <= resources.keys()
    assert http.get("/version").json()["gitVersion"].startswith("v1.")


def test_lists(http: Http) -> None:
    everywhere = http.get("/api/v1/pods").json()
    assert everywhere["kind"] == "PodList" and names(everywhere) == ["db", "web", "api"]
    assert everywhere["items"][0]["kind"] == "Pod" and int(everywhere["metadata"]["resourceVersion"]) > 0
    assert names(http.get("/api/v1/namespaces/default/pods").json()) == ["db", "web"]
    assert names(http.get("/api/v1/namespaces/nix/pods").json()) == []
    assert names(http.get("/api/v1/namespaces").json()) == ["default", "prod"]
    assert names(http.get("/api/v1/nodes").json()) == ["here"]


def test_cluster_scoped_kinds_are_served_in_their_groups(http: Http, node: FakeNode) -> None:
    doc = {"metadata": {"name": "high", "uid": "pc-1"}, "value": 1000, "globalDefault": True}
    http.runner.run(node.store.create("PriorityClass", doc))
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    listed = http.get(path).json()
    assert (listed["kind"], listed["apiVersion"]) == ("PriorityClassList", "scheduling.k8s.io/v1")
    assert names(listed) == ["high"] and listed["items"][0]["kind"] == "PriorityClass"
    assert http.get(f"{path}/high").json()["apiVersion"] == "scheduling.k8s.io/v1"
    assert http.get("/api/v1/priorityclasses").status_code == 404
    assert http.get("/apis/scheduling.k8s.io/v1/pods").status_code == 404
    assert http.get(path, headers=TABLE).json()["rows"][0]["cells"][:3] == ["high", 1000, "true"]
    assert names(http.get("/api/v1/namespaces").json()) == ["default", "prod"]
    assert http.request("DELETE", f"{path}/high").status_code == 405


def test_selectors(http: Http) -> None:
    path = "/api/v1/namespaces/default/pods"
    assert names(http.get(path, params={"labelSelector": "app in (web,x)"}).json()) == ["web"]
    assert names(http.get(path, params={"labelSelector": "app!=web"}).json()) == ["db"]
    assert names(
        http.get(path, params={"fieldSelector": "metadata.name=web,status.phase=Running"}).json()
    ) == ["web"]
    assert names(http.get(path, params={"fieldSelector": "status.phase!=Running"}).json()) == []
    events = "/api/v1/namespaces/default/events"
    assert names(http.get(events, params={"fieldSelector": "involvedObject.name=web"}).json()) == ["e1"]
    assert names(http.get(events, params={"fieldSelector": "involvedObject.name=db"}).json()) == []
    for bad in ({"fieldSelector": "spec.nix=1"}, {"fieldSelector": "nonsense"}, {"labelSelector": "a in ("}):
        answer = http.get(path, params=bad)
        assert answer.status_code == 400 and answer.json()["reason"] == "BadRequest"


def test_field_selector_on_flags_and_sources() -> None:
    terms = parse_fields("spec.hostNetwork=true", "Pod")
    assert matches_fields(terms, {"spec": {"hostNetwork": True}}) and not matches_fields(terms, {"spec": {}})
    assert matches_fields(parse_fields("source=kubelite", "Event"), {"source": {"component": "kubelite"}})
    with pytest.raises(ApiError):
        parse_fields("status.phase=x", "Secret")


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        (TABLE["Accept"], "meta.k8s.io/v1"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json", "meta.k8s.io/v1beta1"),
        ("application/json, application/json;as=Table;v=v1;g=meta.k8s.io", None),
        ("application/json;as=PartialObjectMetadata;v=v1,application/json;as=Table;v=v1", "meta.k8s.io/v1"),
        ("", None),
        ("*/*", None),
    ],
)
def test_accept(accept: str, version: str | None) -> None:
    assert table_version(accept) == version


def test_tables(http: Http) -> None:
    answer = http.get("/api/v1/namespaces/default/pods", headers=TABLE).json()
    assert answer["kind"] == "Table"
    assert [row["cells"][:4] for row in answer["rows"]] == [
        ["db", "1/1", "Running", "0"], ["web", "1/1", "Running", "0"],
    ]  # fmt: skip
    one = http.get("/api/v1/namespaces/default/pods/web", headers=TABLE).json()
    assert one["kind"] == "Table" and len(one["rows"]) == 1


def test_get_and_status_of_errors(http: Http) -> None:
    assert http.get("/api/v1/namespaces/default/pods/web").json()["kind"] == "Pod"
    missing = http.get("/api/v1/namespaces/default/pods/nix")
    assert missing.status_code == 404
    assert missing.json() == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": 'pods "nix" not found', "reason": "NotFound",
        "details": {"name": "nix", "kind": "pods"}, "code": 404,
    }  # fmt: skip
    assert http.get("/api/v1/namespaces/default/nix").json()["reason"] == "NotFound"
    assert http.get("/nowhere").json()["kind"] == "Status"


def test_refusals_say_what_to_do_here(http: Http) -> None:
    answer = http.request("DELETE", "/version")
    assert answer.status_code == 405 and "`kubelite apply`, `edit`, `delete`" in answer.json()["message"]
    answer = http.request(
        "PATCH",
        "/api/v1/namespaces/default/pods/web/status",
        json={"status": {"phase": "Failed"}},
        headers={"content-type": "application/merge-patch+json"},
    )
    assert answer.status_code == 422 and "clients may set conditions of their own" in answer.json()["message"]


def test_delete_names_the_file_that_recreates_the_pod(http: Http, node: FakeNode) -> None:
    doc = pod_doc("held")
    doc["metadata"]["annotations"] = {"kubelite.io/source": "/m/held.yaml"}
    http.runner.run(node.store.create("Pod", doc))
    conflict = http.request(
        "DELETE", "/api/v1/namespaces/default/pods/held", json={"preconditions": {"uid": "other"}}
    )
    assert conflict.status_code == 409
    keep = "/api/v1/namespaces/default/pods/held?manifest=keep"
    answer = http.request("DELETE", keep, json={"gracePeriodSeconds": 3})
    assert answer.status_code == 200 and answer.json()["metadata"]["name"] == "held"
    assert "/m/held.yaml still defines pod held, so it is recreated" in answer.headers["warning"]
    assert node.deleted == [("default", "held", 3)]
    assert http.request("DELETE", "/api/v1/namespaces/default/pods/held").status_code == 404
    assert (
        http.request(
            "DELETE", "/api/v1/namespaces/default/pods/web", json={"gracePeriodSeconds": -1}
        ).status_code
        == 400
    )


def test_logs(http: Http, node: FakeNode) -> None:
    directory = Path(node.container_log_dir(pod_doc("web"), "app"))
    path = "/api/v1/namespaces/default/pods/web/log"
    assert http.get(path).json()["message"].startswith('the log of container "app" in pod "web" was removed')
    directory.mkdir(parents=True)
    (directory / "0.log").write_text("2026-11-24T14:33:01.1Z stdout F a\n2026-11-24T14:33:02.1Z stderr F b\n")
    assert http.get(path).text == "a\nb\n"
    assert http.get(path, params={"tailLines": 1, "timestamps": "true"}).text == "2026-11-24T14:33:02.1Z b\n"
    assert http.get(path, params={"sinceTime": "2026-11-24T14:33:02Z"}).text == "b\n"
    assert http.get(path, params={"sinceTime": "yesterday"}).status_code == 400
    assert http.get(path, params={"tailLines": "many"}).status_code == 400


def test_own_routes(http: Http, node: FakeNode, tmp_path: Path) -> None:
    assert http.get("/kubelite/v1/why/default/web").json()["pod"] == "default/web"
    assert http.get("/kubelite/v1/why/default/nix").status_code == 404
    assert http.get("/kubelite/v1/trace/default/web").json()["steps"]
    assert http.get("/kubelite/v1/inspect/abc").json()["state"] == "running"
    assert http.get("/kubelite/v1/inspect/docker.io/x/y:1").status_code == 404
    assert http.get("/kubelite/v1/doctor").json() == {"findings": []}
    assert http.get("/kubelite/v1/images").json()["images"]
    assert http.get("/readyz").text == "ok"
    archive = tmp_path / "x.tar"
    archive.write_bytes(b"12345")
    loaded = http.post("/kubelite/v1/images/load", json={"path": str(archive)}).text.splitlines()
    assert json.loads(loaded[-1])["images"][0]["size"] == 5
    streamed = http.post("/kubelite/v1/images/load", content=b"1234567", headers=ARCHIVE).text.splitlines()
    assert json.loads(streamed[-1])["images"][0]["size"] == 7


def test_pull_streams_progress_and_failure(http: Http) -> None:
    events = [
        json.loads(x)
        for x in http.post("/kubelite/v1/images/pull", json={"reference": "busybox"}).text.splitlines()
    ]
    assert [e["event"] for e in events] == ["resolved", "layer", "done"]
    events = [
        json.loads(x)
        for x in http.post("/kubelite/v1/images/pull", json={"reference": "missing"}).text.splitlines()
    ]
    assert events[-1]["event"] == "error" and events[-1]["status"]["reason"] == "ErrImagePull"
    assert http.post("/kubelite/v1/images/pull", json={}).status_code == 400


# -- watches, on a real server -------------------------------------------------------------------------------


class Stream:
    """A watch read line by line from the unix socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0

    async def event(self) -> Json:
        async with asyncio.timeout(SECONDS):
            while True:
                line = await self.reader.readline()
                if line.startswith(b"{"):
                    found: Json = json.loads(line)
                    return found
                assert line, "the watch ended"


@contextlib.asynccontextmanager
async def watching(socket: str, query: str, *, accept: str = "application/json") -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_unix_connection(socket, limit=2**20)
    writer.write(f"GET {query} HTTP/1.1\r\nHost: here\r\nAccept: {accept}\r\n\r\n".encode())
    stream = Stream(reader, writer)
    stream.status = int((await reader.readline()).split()[1])
    try:
        yield stream
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[FakeNode, str]]:
    node = FakeNode(tmp_path)
    path = str(tmp_path / "k.sock")
    async with serving(create_app(node), [listen_unix(path)]):
        yield node, path
    await node.store.close()


def test_watch_moves_in_and_out_of_a_selector(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (node, socket):
            await node.store.create("Pod", pod_doc("web"))
            base = "/api/v1/namespaces/default/pods?watch=1"
            async with watching(socket, f"{base}&labelSelector=app%3Dweb") as stream:
                first = await stream.event()
                assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "web")
                await node.store.create("Pod", pod_doc("db"))
                doc = pod_doc("web")
                doc["status"]["phase"] = "Failed"
                await node.store.update("Pod", doc)
                assert (await stream.event())["type"] == "MODIFIED"
                doc["metadata"]["labels"] = {"app": "other"}
                await node.store.update("Pod", doc)
                assert (await stream.event())["type"] == "DELETED"
                doc["metadata"]["labels"] = {"app": "web"}
                await node.store.update("Pod", doc)
                assert (await stream.event())["type"] == "ADDED"
                await node.store.delete("uid-default-web")
                assert (await stream.event())["type"] == "DELETED"
            await until(lambda: not node.store._watches)  # the client left: nothing stays subscribed

    asyncio.run(scenario())


def test_watch_from_a_version_as_table(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (node, socket):
            record = await node.store.create("Pod", pod_doc("web"))
            await node.store.create("Pod", pod_doc("db"))
            query = f"/api/v1/pods?watch=true&resourceVersion={record.resource_version}"
            async with watching(socket, query, accept=TABLE["Accept"]) as stream:
                event = await stream.event()
                assert event["type"] == "ADDED" and event["object"]["kind"] == "Table"
                assert event["object"]["rows"][0]["cells"][0] == "db"

    asyncio.run(scenario())


def test_watch_of_a_forgotten_version_is_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (node, socket):
            for _ in range(3):
                await node.store.create("Pod", pod_doc("web"))
                await node.store.delete("uid-default-web")
            node.store._history.clear()
            async with watching(socket, "/api/v1/pods?watch=1&resourceVersion=1") as stream:
                event = await stream.event()
                assert (stream.status, event["type"], event["object"]["code"]) == (200, "ERROR", 410)
                assert event["object"]["reason"] == "Expired"
                assert event["object"]["message"].startswith("too old resource version: 1 (")

    asyncio.run(scenario())


def test_a_client_that_does_not_read_its_watch_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelite.api.kube.watch.LIMIT", 50)

    async def scenario() -> None:
        async with served(tmp_path) as (node, socket), watching(socket, "/api/v1/pods?watch=1") as stream:
            await until(lambda: bool(node.store._watches))
            doc = pod_doc("web")
            doc["metadata"]["annotations"] = {"padding": "x" * 100_000}
            await node.store.create("Pod", doc)
            for number in range(200):  # 20 MB: more than all buffers in between can hold
                doc["status"] = {"message": str(number)}
                await node.store.update("Pod", doc)
            await until(lambda: not node.store._watches)
            kinds = [(event := await stream.event())["type"]]
            while event["type"] != "ERROR":
                kinds.append((event := await stream.event())["type"])
            assert event["object"]["code"] == 410 and event["object"]["reason"] == "Expired"
            assert 1 < len(kinds) < 150

    asyncio.run(scenario())


def test_a_watch_ends_after_its_timeout_and_bookmarks_the_initial_list(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (node, socket):
            await node.store.create("Pod", pod_doc("web"))
            query = (
                "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
            )
            async with watching(socket, f"/api/v1/pods?{query}&timeoutSeconds=1") as stream:
                assert (await stream.event())["type"] == "ADDED"
                bookmark = await stream.event()
                assert bookmark["type"] == "BOOKMARK"
                assert "k8s.io/initial-events-end" in bookmark["object"]["metadata"]["annotations"]
                last = await stream.event()  # at the timeout
                version = str(node.store.resource_version)
                said = {"resourceVersion": version, "creationTimestamp": None}
                assert (last["type"], last["object"]["metadata"]) == ("BOOKMARK", said)
                async with asyncio.timeout(SECONDS):
                    while await stream.reader.readline() != b"0\r\n":  # the last chunk
                        assert not stream.reader.at_eof()

    asyncio.run(scenario())


def test_the_socket_of_a_running_daemon_is_not_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "k.sock")
    with listen_unix(path), pytest.raises(StateError, match="already listens"):
        listen_unix(path)
    listen_unix(path).close()  # nobody listens any more: the socket is replaced
    assert Path(path).stat().st_mode & 0o777 == 0o600
