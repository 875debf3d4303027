"""A member of a cluster against a small API server, over TLS: joining, following, telling, ending, leaving."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubelite.cluster import heartbeat, leaving
from kubelite.cluster.client import ClusterClient, Refusal, context
from kubelite.cluster.leaving import Leaving
from kubelite.cluster.member import Member
from kubelite.cluster.membership import files, joining
from kubelite.cluster.membership.discovery import Access, JoinError, parse_line
from kubelite.cluster.membership.files import Membership
from kubelite.cluster.reflector import Reflector, pause
from kubelite.cluster.tokens import renewal
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import CLUSTER
from kubelite.node.spec.cluster_objects import TOKEN, cluster_kind
from kubelite.settings import Settings
from kubelite.telemetry.web.scrape import Measured
from state.store import Record, Store
from tests.cluster.fake_api import FakeApi
from tests.unit.api.fake_node import FakeNode
from tests.waiting import until_async

PODS = "/api/v1/namespaces/shop/pods"
WEB = f"{PODS}/web"
NODE, LEASE = "/api/v1/nodes/here", f"{heartbeat.LEASES}/here"


def _pod(**spec: object) -> Json:
    return {"spec": {"nodeName": "here", "containers": [{"name": "a", "image": "i"}], **spec},
            "status": {"phase": "Pending", "qosClass": "BestEffort"}}  # fmt: skip


def _no_pages() -> Measured:
    raise AssertionError("nobody scrapes this node")


@dataclass
class Site:
    api: FakeApi
    root: Path
    store: Store
    node: FakeNode
    changed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def join(self) -> Membership:
        access = await joining.discover(parse_line(self.api.line), self.said.append)
        return await joining.join(str(self.root), "here", access, self.said.append)

    @contextlib.asynccontextmanager
    async def member(self) -> AsyncIterator[Member]:
        membership = files.load(str(self.root)) or await self.join()
        member = Member(
            self.node, self.store, EventRecorder(self.store, "here"),
            root=str(self.root), membership=membership, content_changed=self.changed.append, port=0,
            settings=Settings(node_name="here"), pages=_no_pages,
        )  # fmt: skip
        running = asyncio.create_task(member.run())
        try:
            yield member
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def pod(self, name: str = "web") -> Record | None:
        return self.store.get("Pod", "shop", name)

    async def pod_is_here(self, name: str = "web") -> Record:
        found = await until_async(lambda: self.pod(name), "the pod is on the node")
        assert found is not None
        return found

    def of(self, path: str) -> Json:
        return self.api.objects[path]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "root").mkdir()
    (tmp_path / "api").mkdir()
    store = Store.open(str(tmp_path / "state.db"))
    async with FakeApi(tmp_path / "api").serving() as api:
        yield Site(api, tmp_path / "root", store, FakeNode(tmp_path))
    await store.close()


async def test_a_node_joins_by_its_token(site: Site) -> None:
    membership = await site.join()
    assert (membership.server, membership.node) == (site.api.url, "here")
    where = site.root / "cluster"
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in where.iterdir()}
    assert modes == {"ca.crt": 0o600, "client.pem": 0o600, "membership.json": 0o600}
    assert site.said[0].startswith("asking https://127.0.0.1:")
    request = next(path for path in site.api.objects if "certificatesigningrequests" in path)
    assert site.of(request)["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"


async def test_a_node_that_nobody_approves_has_not_joined(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.api.signs = False
    monkeypatch.setattr(joining, "PATIENCE", 0.3)
    monkeypatch.setattr(joining, "POLL", 0.05)
    with pytest.raises(JoinError, match="kubectl certificate approve csr-"):
        await site.join()
    assert not files.is_member(str(site.root))


async def test_a_server_of_another_ca_is_refused(site: Site) -> None:
    line = parse_line(site.api.line.replace(site.api.authority.hash, f"sha256:{'0' * 64}"))
    with pytest.raises(JoinError, match="CA of the cluster is not the one"):
        await joining.discover(line, site.said.append)


async def test_a_pod_of_the_cluster_comes_is_told_of_and_ends(site: Site) -> None:
    async with site.member() as member:
        await until_async(lambda: "/api/v1/nodes/here" in site.api.objects, "the node is registered")
        site.api.put(WEB, _pod())
        record = await site.pod_is_here()
        assert record.uid == site.of(WEB)["metadata"]["uid"]
        assert record.metadata["annotations"][CLUSTER] == site.api.url
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        await site.store.update_status(
            record.uid, {"phase": "Running", "podIP": "10.0.0.2", "conditions": [ready]}
        )
        await until_async(lambda: site.of(WEB)["status"].get("podIP") == "10.0.0.2", "the status is told")
        site.api.terminate(WEB)
        await until_async(lambda: (one := site.pod()) is not None and one.deleting, "the pod is told to end")
        await site.store.delete(record.uid)  # as the worker does when nothing is left of the pod
        await until_async(lambda: WEB not in site.api.objects, "the cluster knows of the end")
        last = next(
            doc for _, kind, path, doc in reversed(site.api.history) if path == WEB and kind == "DELETED"
        )
        assert last["status"]["phase"] == "Failed"
        assert member.heartbeat.error == ""


async def test_a_finished_status_is_sent_once(site: Site) -> None:
    async with site.member():
        site.api.put(WEB, _pod())
        record = await site.pod_is_here()
        for number in range(20):
            await site.store.update_status(record.uid, {"phase": "Running", "message": str(number)})
        await until_async(lambda: site.of(WEB)["status"].get("message") == "19", "the newest status is told")
        await asyncio.sleep(0.2)
        patches = [one for one in site.api.requests if one == ("PATCH", f"{WEB}/status")]
        await asyncio.sleep(0.3)
        assert (
            len([one for one in site.api.requests if one == ("PATCH", f"{WEB}/status")]) == len(patches) <= 21
        )


async def test_pods_go_on_while_the_api_server_is_away(site: Site) -> None:
    async with site.member():
        site.api.put(WEB, _pod())
        record = await site.pod_is_here()
        site.api.down = True
        site.api.drop()
        await site.store.update_status(record.uid, {"phase": "Running", "message": "meanwhile"})
        await asyncio.sleep(0.5)
        assert site.pod() is not None
        assert not (site.pod() or record).deleting
        site.api.down = False
        await until_async(lambda: site.of(WEB)["status"].get("message") == "meanwhile", "the status follows")


async def test_a_node_that_somebody_deleted_registers_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster deletes the Lease with the Node that owns it."""
    monkeypatch.setattr(heartbeat, "PERIOD", 0.1)
    async with site.member():
        await until_async(lambda: NODE in site.api.objects and LEASE in site.api.objects, "it registers")
        site.api.remove(NODE)
        site.api.remove(LEASE)
        await until_async(lambda: NODE in site.api.objects and LEASE in site.api.objects, "it comes back")


async def test_what_happened_while_the_daemon_was_down_is_found(site: Site) -> None:
    async with site.member():
        for name in ("web", "gone", "ended"):
            site.api.put(f"{PODS}/{name}", _pod())
            await site.pod_is_here(name)
    ended = site.pod("ended")
    assert ended is not None
    site.api.remove(f"{PODS}/gone")  # deleted by force
    site.api.terminate(f"{PODS}/ended")
    await site.store.delete(ended.uid)  # ended by a daemon that was killed before it could say so
    async with site.member():
        await until_async(
            lambda: (one := site.pod("gone")) is not None and one.deleting, "the deleted pod ends"
        )
        await until_async(lambda: f"{PODS}/ended" not in site.api.objects, "the ended pod is deleted")
        web = site.pod()
        assert web is not None
        assert not web.deleting


async def test_an_old_resource_version_is_listed_again(site: Site) -> None:
    async with site.member():
        site.api.put(WEB, _pod())
        await site.pod_is_here()
        site.api.down = True
        site.api.drop()
        site.api.put(f"{PODS}/second", _pod())
        site.api.oldest = site.api.version
        site.api.down = False
        await site.pod_is_here("second")


async def test_a_pod_whose_name_the_directory_has_is_refused(site: Site) -> None:
    own = {"kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "uid": "own",
                                       "annotations": {"kubelite.io/source": "/etc/kubelite/manifests/web.yaml"}},
           "spec": {"containers": []}}  # fmt: skip
    await site.store.create("Pod", own)
    async with site.member():
        site.api.put(WEB, _pod())
        await until_async(lambda: site.of(WEB)["status"]["phase"] == "Failed", "the pod is refused")
        assert site.of(WEB)["status"]["reason"] == "NameConflict"
        assert "/etc/kubelite/manifests/web.yaml" in site.of(WEB)["status"]["message"]
    assert (site.pod() or own) != own
    assert site.store.get_uid("own") is not None


async def test_a_pod_for_another_operating_system_is_refused(site: Site) -> None:
    pod = _pod()
    pod["spec"]["os"] = {"name": "windows"}
    async with site.member():
        site.api.put(WEB, pod)
        await until_async(lambda: site.of(WEB)["status"]["phase"] == "Failed", "the pod is refused")
        assert site.of(WEB)["status"]["reason"] == "PodOSNotSupported"
    assert site.pod() is None


async def test_a_pod_with_the_uid_of_the_nodes_own_changes_nothing(site: Site) -> None:
    own: Json = {"kind": "Pod", "metadata": {"name": "mine", "namespace": "default", "uid": "", "annotations": {}},
           "spec": {"containers": []}}  # fmt: skip
    site.api.put(WEB, _pod())
    own["metadata"]["uid"] = site.of(WEB)["metadata"]["uid"]
    await site.store.create("Pod", own)
    before = site.store.get_uid(own["metadata"]["uid"])
    assert before is not None
    async with site.member():
        await until_async(lambda: site.of(WEB)["status"]["phase"] == "Failed", "the pod is refused")
        assert site.of(WEB)["status"]["reason"] == "NameConflict"
    after = site.store.get_uid(before.uid)
    assert after is not None and after.doc == before.doc


async def test_a_new_pod_waits_for_the_end_of_an_old_one_with_its_name(site: Site) -> None:
    async with site.member():
        site.api.put(WEB, _pod())
        old = await site.pod_is_here()
        site.api.remove(WEB)
        site.api.put(WEB, {**_pod(), "metadata": {"uid": "second"}})
        await until_async(lambda: (one := site.pod()) is not None and one.deleting, "the old pod ends")
        await site.store.delete(old.uid)
        await until_async(lambda: site.store.get_uid("second"), "the new pod comes")


async def test_what_pods_refer_to_is_followed_and_forgotten(site: Site) -> None:
    site.api.put("/api/v1/namespaces/shop/configmaps/conf", {"data": {"a": "1"}})
    site.api.put("/api/v1/namespaces/shop/configmaps/other", {"data": {"a": "1"}})
    site.api.put("/api/v1/namespaces/default/services/kubernetes", {"spec": {"clusterIP": "10.96.0.1"}})
    token = {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}
    volumes = [{"name": "c", "configMap": {"name": "conf"}}, {"name": "t", "projected": token}]

    def found() -> Json | None:
        record = site.store.get(cluster_kind("ConfigMap"), "shop", "conf")
        return record.doc if record is not None else None

    async with site.member():
        site.api.put(WEB, _pod(volumes=volumes))
        record = await site.pod_is_here()
        assert found() is not None
        assert [one.name for one in site.store.list(cluster_kind(TOKEN))] == [f"{record.uid}.api.3607"]
        assert [one.name for one in site.store.list(cluster_kind("Service"))] == ["kubernetes"]
        assert site.store.get("ConfigMap", "shop", "conf") is None  # apart from those of the directory
        site.changed.clear()
        site.api.put("/api/v1/namespaces/shop/configmaps/conf", {"data": {"a": "2"}})
        await until_async(lambda: (found() or {}).get("data") == {"a": "2"}, "the new content arrives")
        await until_async(lambda: record.uid in site.changed, "the worker hears of it")
        site.api.remove(WEB)
        await until_async(lambda: found() is None, "the content is forgotten")
        await until_async(lambda: not site.store.list(cluster_kind(TOKEN)), "the token is forgotten")
    assert ("GET", "/api/v1/namespaces/shop/configmaps/other") not in site.api.requests


async def test_what_pods_referred_to_that_went_while_the_daemon_was_down_is_forgotten(site: Site) -> None:
    site.api.put("/api/v1/namespaces/shop/configmaps/conf", {"data": {"a": "1"}})
    site.api.put("/api/v1/namespaces/shop/secrets/key", {"data": {"a": "MQ=="}})
    sources = [{"secret": {"name": "key"}}, {"serviceAccountToken": {"path": "token"}}]
    volumes = [{"name": "c", "configMap": {"name": "conf"}}, {"name": "p", "projected": {"sources": sources}}]
    kinds = ("ConfigMap", "Secret", TOKEN)

    def known() -> list[int]:
        return [len(site.store.list(cluster_kind(kind))) for kind in kinds]

    async with site.member():
        site.api.put(WEB, _pod(volumes=volumes))
        site.api.put(f"{PODS}/other", _pod(volumes=[volumes[0]]))
        await site.pod_is_here()
        assert known() == [1, 1, 1]
    site.api.remove(WEB)
    async with site.member():
        await until_async(lambda: known() == [1, 0, 0], "what no pod refers to is deleted, and nothing else")


async def test_a_claim_is_the_volume_that_it_is_bound_to(site: Site) -> None:
    claim = "/api/v1/namespaces/shop/persistentvolumeclaims/data"
    site.api.put(claim, {"spec": {}, "status": {"phase": "Pending"}})
    site.api.put("/api/v1/persistentvolumes/pv", {"spec": {"local": {"path": "/d"}}})
    async with site.member():
        site.api.put(WEB, _pod(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]))
        await asyncio.sleep(0.3)
        assert site.pod() is None
        site.api.put(claim, {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}})
        record = await site.pod_is_here()
        assert record.doc["spec"]["volumes"] == [
            {"name": "d", "hostPath": {"path": "/d", "type": "Directory"}}
        ]
        site.api.put(WEB, {**site.of(WEB), "metadata": {"labels": {"new": "label"}}})
        await until_async(
            lambda: (one := site.pod()) is not None and "labels" in one.metadata, "the label arrives"
        )
        assert (site.pod() or record).doc["spec"]["volumes"] == record.doc["spec"]["volumes"]


async def test_a_node_leaves_in_good_order(site: Site) -> None:
    async with site.member() as member:
        site.api.put(WEB, _pod())
        record = await site.pod_is_here()
        node = Leaving(member, site.said.append)
        drained = asyncio.create_task(node.drain(10.0))
        await until_async(lambda: (one := site.pod()) is not None and one.deleting, "the pod is evicted")
        await site.store.delete(record.uid)
        await drained
        assert site.of("/api/v1/nodes/here")["spec"]["unschedulable"] is True
        await node.unregister()
        assert site.said[-1] == "the Node remains, cordoned: run `kubectl delete node here` on the cluster"
        assert "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/here" not in site.api.objects


async def test_an_eviction_that_fails_is_tried_again_and_leaves_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "RETRY", 0.05)
    answers = {"web": 500}
    answer = site.api.request

    def request(method: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Json]:
        name = path.split("/")[-2] if path.endswith("/eviction") else ""
        return (
            (answers[name], {"message": "two budgets"})
            if name in answers
            else answer(method, path, query, body)
        )

    monkeypatch.setattr(site.api, "request", request)
    evictions = [("POST", f"{WEB}/eviction")]
    async with site.member() as member:
        for name in ("web", "other"):
            site.api.put(f"{PODS}/{name}", _pod())
            await site.pod_is_here(name)
        with pytest.raises(TimeoutError, match=r"shop/web.*\(two budgets\)"):
            await Leaving(member, site.said.append).drain(0.3)
        answers["other"] = 403
        with pytest.raises(Refusal, match="two budgets"):
            await Leaving(member, site.said.append).drain(5.0)
        before = [one for one in site.api.requests if one in evictions]
        await asyncio.sleep(0.3)
        assert [one for one in site.api.requests if one in evictions] == before


async def test_a_pod_that_stays_is_named(site: Site) -> None:
    async with site.member() as member:
        site.api.put(WEB, _pod())
        await site.pod_is_here()
        with pytest.raises(TimeoutError, match="pods still run: shop/web"):
            await Leaving(member, site.said.append).drain(0.3)


async def test_a_reflector_survives_nonsense(site: Site) -> None:
    client = ClusterClient(site.api.url, context(Access(site.api.url, site.api.authority.pem)))
    seen: list[str] = []
    site.api.put(WEB, _pod())
    reflector = Reflector(
        client, "/api/v1/pods", listed=lambda docs: seen.extend(one["metadata"]["name"] for one in docs),
        changed=lambda kind, doc: seen.append(f"{kind} {doc['metadata']['name']}"), fields="spec.nodeName=here",
    )  # fmt: skip
    task = asyncio.create_task(reflector.run())
    await until_async(lambda: seen == ["web"], "the list")
    site.api.put(f"{PODS}/elsewhere", {"spec": {"nodeName": "other"}})
    site.api.remove(WEB)
    await until_async(lambda: seen == ["web", "DELETED web"], "the event")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(Refusal, match="NotFound"):
        await client.get(f"{PODS}/nothing")
    await client.close()


def test_pauses_grow_to_half_a_minute() -> None:
    assert pause(0, 0.0) == 0.8
    assert pause(50, 0.0) == 30.0
    assert pause(50, 1.0) == 60.0


def test_a_token_is_renewed_at_four_fifths_of_its_life_or_after_a_day() -> None:
    assert renewal(0.0, 3600.0) == 2880.0
    assert renewal(0.0, 30 * 86400.0) == 86400.0


def test_a_certificate_is_renewed_in_the_last_third_of_its_life(tmp_path: Path) -> None:
    api = FakeApi(tmp_path)
    files.write(str(tmp_path), "client.pem", api.authority.login("one.pem", "system:node:here").read_text())
    life = files.dates(str(tmp_path))
    assert life.begin < time.time() < life.end
    first, last = files.renewal(life, 0.0), files.renewal(life, 1.0)
    assert (first - life.begin) / (life.end - life.begin) == pytest.approx(0.7)
    assert (last - life.begin) / (life.end - life.begin) == pytest.approx(0.9)


def test_a_single_node_imports_nothing_of_the_cluster() -> None:
    code = "import sys, kubelite.daemon.assembly; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not [name for name in loaded.split() if name.startswith("kubelite.cluster")]


async def test_the_nodes_own_pods_have_mirrors(site: Site) -> None:
    own = {"metadata": {"name": "own", "namespace": "shop", "uid": "own"}, **_pod()}
    mirror = f"{PODS}/own-here"
    await site.store.create("Pod", own)
    async with site.member() as member:
        await until_async(lambda: mirror in site.api.objects, "the mirror is there")
        first = site.of(mirror)["metadata"]["uid"]
        await site.store.update_status("own", {"phase": "Running"})
        await until_async(lambda: site.of(mirror).get("status") == {"phase": "Running"}, "its status is told")
        site.api.terminate(mirror)
        await until_async(
            lambda: mirror in site.api.objects and site.of(mirror)["metadata"]["uid"] != first,
            "it comes back",
        )
        assert (one := site.pod("own")) is not None and not one.deleting
        assert site.pod("own-here") is None
        await until_async(lambda: member.pods.get(site.of(mirror)["metadata"]["uid"]), "the node knows it")
        member.keep_client = True
    await Leaving(member, site.said.append).unregister()
    await member.client.close()
    assert mirror not in site.api.objects
