"""A node for tests of the API and the CLI: the real store, files in a temporary directory, local processes as
containers."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kubelite.accounts.tokens import Tokens
from kubelite.api.node import ManifestFile, Progress, Propagation, Why
from kubelite.controllers.eviction import EvictionOptions, evict
from kubelite.diagnosis.advice import advice
from kubelite.history.entries import entry_of
from kubelite.history.service import NodeHistory, record_version
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from kubelite.kube.pod_security import PodSecurity
from kubelite.node.model.node_facts import changes, patched
from kubelite.settings import Settings
from kubelite.sources.diff import DiffEntry
from kubelite.sources.ownership import NONE_GIVEN, Owners, Ownership, with_managers
from kubelite.telemetry.sampling.processes import process
from manifests.yaml.loader import Loaded, load_file
from runtime.errors import ImageError
from state.batch import same
from state.store import Record, Store
from tests.unit.api.fake_session import FakeSession

NOW = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status_of(loaded: Loaded) -> str:
    if any(error.kind != "unsupported" for error in loaded.errors):
        return "Invalid"
    return "Loaded" if loaded.documents else "Ignored" if loaded.errors else "Empty"


def pod_doc(name: str, *, namespace: str = "default", status: Json | None = None, **spec: Any) -> Json:
    """A running pod with one container called app."""
    containers = spec.pop("containers", [{"name": "app", "image": "busybox"}])
    running = {"startedAt": NOW}
    if status is None:
        statuses = [
            {
                "name": c["name"],
                "ready": True,
                "started": True,
                "restartCount": 0,
                "image": c["image"],
                "imageID": "sha256:" + "1" * 64,
                "containerID": "kubelite://" + "a" * 64,
                "state": {"running": running},
                "lastState": {},
            }
            for c in containers
        ]
        status = {
            "phase": "Running",
            "podIP": "10.88.0.7",
            "podIPs": [{"ip": "10.88.0.7"}],
            "startTime": NOW,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
            "containerStatuses": statuses,
        }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "creationTimestamp": NOW,
            "labels": {"app": name},
        },
        "spec": {"containers": containers, "restartPolicy": "Always", "nodeName": "here", **spec},
        "status": status,
    }


def event_doc(name: str, pod: str, reason: str, message: str, *, kind: str = "Normal") -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "creationTimestamp": NOW},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": pod, "uid": f"uid-default-{pod}"},
        "type": kind,
        "reason": reason,
        "message": message,
        "firstTimestamp": NOW,
        "lastTimestamp": NOW,
        "count": 1,
        "source": {"component": "kubelite", "host": "here"},
    }


class FakePages:
    names = ("", "agent", "cadvisor")

    async def render(self, name: str, *, openmetrics: bool, compressed: bool) -> bytes:
        text = f"page {name}\n".encode()
        return gzip.compress(text) if compressed else text

    async def summary(self) -> Json:
        return {"node": {"nodeName": "here"}, "pods": []}


class FakeNode:
    """Implements NodeApi."""

    images_api: Any = SimpleNamespace(spool=tempfile.TemporaryFile)  # the rest: whole nodes only
    builds_api: Any = None
    cluster: Any = None  # whole nodes only

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = Settings.load({}, {})
        self.store = Store.open(str(root / "state.db"), historian=entry_of)
        self.node_name = "here"
        self.pod_security = PodSecurity()
        self.manifests_dir = str(root / "manifests")
        Path(self.manifests_dir).mkdir(exist_ok=True)
        self.history = NodeHistory(self.store, self.manifests_dir, self.rescan)
        key, issuer = str(root / "pki/sa.key"), "https://kubernetes.default.svc.cluster.local"
        self.tokens = Tokens(self.store, key, issuer=issuer, node=self.node_name)
        self.deleted: list[tuple[str, str, int | None]] = []
        self.findings: list[Json] = []
        self.events_to_come: list[Json] = []  # recorded, not yet written
        self.packed: list[Json] = []
        self.sessions: list[FakeSession] = []
        self.said: Json = {}  # of the node, set by patches
        self.ownership = Ownership(time.time)

    async def kubeconfig(self, user: str, groups: list[str], seconds: float) -> Json:
        raise ApiError("NotFound", f"no port for {user}")

    async def kube_authority(self) -> Json:
        raise ApiError("NotFound", "no port")

    def authority(self) -> str | None:
        return None

    async def patch_node(self, patch: Json) -> Json:
        self.said = patched(self.said, changes(patch, self.node()))
        return self.node()

    def node(self) -> Json:
        labels = self.said.get("metadata", {}).get("labels", {})
        return {
            "metadata": {"name": "here", "uid": "node-uid", "creationTimestamp": NOW, "labels": labels},
            "spec": self.said.get("spec", {}),
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "Hostname", "address": "here"},
                ],
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {
                    "kubeletVersion": "v0.2.0",
                    "osImage": "Debian GNU/Linux 13",
                    "kernelVersion": "6.18.0",
                    "containerRuntimeVersion": "kubelite://0.2.0",
                },
            },
        }

    def ready(self) -> tuple[bool, str]:
        return True, ""

    def manifests(self) -> list[ManifestFile]:
        found: list[ManifestFile] = []
        for path in sorted(Path(self.manifests_dir).rglob("*")):
            if path.name.startswith(".") or path.suffix not in (".yaml", ".yml", ".json"):
                continue
            loaded = load_file(path)
            found.append(
                {
                    "file": str(path),
                    "status": _status_of(loaded),
                    "objects": [f"{d.kind.lower()}/{d.namespace}/{d.name}" for d in loaded.documents],
                    "errors": [
                        {
                            "line": e.line,
                            "field": e.field,
                            "message": e.message,
                            "kind": e.kind,
                            "object": e.object,
                        }
                        for e in loaded.errors
                    ],
                    "loadedAt": NOW,
                }
            )
        return found

    async def events_settled(self) -> None:
        for doc in self.events_to_come:
            await self.store.create("Event", doc)
        self.events_to_come.clear()

    async def rescan(self, owners: Owners = NONE_GIVEN) -> None:
        """Like the daemon's source: put the objects of the files into the store."""
        with self.ownership.given(owners):
            await self._rescan()

    async def _rescan(self) -> None:
        wanted: dict[tuple[str, str, str], Json] = {}
        for path in sorted(Path(self.manifests_dir).rglob("*.yaml")):
            if path.name.startswith("."):
                continue
            loaded = load_file(path)
            if loaded.documents and not loaded.errors:
                record_version(self.store, str(path), path.read_text())
            for document in loaded.documents:
                doc = document.obj.to_json()
                doc["metadata"] = {
                    **doc["metadata"],
                    "uid": f"uid-{document.namespace}-{document.name}",
                    "annotations": {
                        **(doc["metadata"].get("annotations") or {}),
                        "kubelite.io/source": str(path),
                    },
                }
                wanted[document.key] = doc
        for key, doc in wanted.items():
            old = self.store.get(*key)
            if old is None:
                await self.store.create(key[0], self.ownership.of_new(key, doc))
            elif not same(old.doc, known := with_managers(doc, old.metadata.get("managedFields") or [])):
                await self.store.update(key[0], self.ownership.of_edited(key, old.doc, known))
        for kind in ("Pod", "ConfigMap", "Secret"):
            for record in self.store.list(kind):
                source = (record.doc["metadata"].get("annotations") or {}).get("kubelite.io/source")
                if source and (kind, record.namespace, record.name) not in wanted:
                    await self.store.delete(record.uid)

    async def diff(self, text: str, *, file: str) -> list[DiffEntry]:
        if "changed" not in text:
            return [{"object": "pod/default/web", "change": "unchanged", "words": []}]
        words = ["container app is restarted: its image changes"]
        return [{"object": "pod/default/web", "change": "update", "words": words}]

    async def why(self, namespace: str, name: str) -> Why | None:
        record = self.store.get("Pod", namespace, name)
        if record is None:
            return None
        events = [event.doc for event in self.store.list("Event", namespace)]
        return {
            "advice": advice(record.doc, events),
            "pod": f"{namespace}/{name}",
            "observedAt": NOW,
            "observed": ["container app runs since 5s"],
            "decided": ["nothing to do"],
            "reasons": ["everything is as wanted"],
            "next": "",
        }

    async def delete_pod(self, namespace: str, name: str, *, grace: int | None) -> Record | None:
        record = self.store.get("Pod", namespace, name)
        if record is None:
            return None
        self.deleted.append((namespace, name, grace))
        await self.store.delete(record.uid)
        return record

    async def evict_pod(self, namespace: str, name: str, options: EvictionOptions) -> None:
        await evict(self.store, namespace, name, options, time.time())

    async def delete_workload(self, uid: str, policy: Propagation) -> Record | None:
        from kubelite.controllers.deletion import delete

        orphan, foreground = policy == "Orphan", policy == "Foreground"
        return await delete(self.store, uid, now=0.0, orphan=orphan, foreground=foreground)

    async def end_namespace(self, name: str) -> None:
        from kubelite.namespaces.lifecycle import end

        await end(self.store, name, 0.0)

    def container_log_dir(self, pod: Json, container: str) -> str:
        return str(self.root / "logs" / pod["metadata"]["name"] / container)

    async def exec(
        self,
        pod: Json,
        container: str,
        command: list[str],
        *,
        stdin: bool,
        tty: bool,
        width: int,
        height: int,
    ) -> FakeSession:
        session = FakeSession(command, tty=tty, width=width, height=height)
        if not stdin:
            session.close_stdin()
        self.sessions.append(session)
        return session

    async def attach(self, pod: Json, container: str, *, stdin: bool) -> FakeSession:
        session = FakeSession([container], tty=False, width=0, height=0)
        if not stdin:
            session.close_stdin()
        self.sessions.append(session)
        return session

    async def dial(self, pod: Json, port: int) -> socket.socket:
        """Connect to a port of the loopback interface."""
        found = socket.socket()
        found.setblocking(False)
        await asyncio.get_running_loop().sock_connect(found, ("127.0.0.1", port))
        return found

    async def set_ephemeral(self, uid: str, wanted: list[Json]) -> Any:
        found = next((r for r in self.store.list("Pod") if r.uid == uid), None)
        if found is not None:
            found.doc["spec"]["ephemeralContainers"] = wanted
        return found

    async def change_object(self, uid: str, change: Callable[[Json], Json]) -> Any:
        return await self.store.modify(uid, change)

    async def trace(self, namespace: str, name: str) -> Json | None:
        if self.store.get("Pod", namespace, name) is None:
            return None
        steps = [
            {"at": 100.0, "step": "manifest read", "detail": "web.yaml"},
            {"at": 100.004, "step": "execve", "container": "app", "took": 0.001},
        ]
        return {"pod": f"{namespace}/{name}", "uid": f"uid-{namespace}-{name}", "steps": steps}

    async def inspect(self, ref: str) -> Json | None:
        return {"id": ref, "state": "running"} if ref.startswith("abc") else None

    async def processes(self, namespace: str, name: str, container: str) -> list[Json] | None:
        """This process, in place of a container's."""
        if self.store.get("Pod", namespace, name) is None:
            return None
        return [process(os.getpid())]

    def stats(self) -> Json:
        return {"pods": []}

    def pages(self) -> FakePages:
        return FakePages()

    async def usage(self) -> Json:
        """A container whose counters grow with each call, by 250 ms of CPU time among others."""
        self.looks = getattr(self, "looks", 0) + 1
        one = {
            "namespace": "default",
            "pod": "web",
            "uid": "uid-default-web",
            "cpu": self.looks * 250_000_000,
            "cpuLimit": 500,
            "memory": 64 << 20,
            "memoryLimit": 128 << 20,
            "periods": self.looks * 10,
            "throttled": self.looks * 5,
            "stalled": {"cpu": self.looks * 100_000_000, "memory": 0, "io": 0},
            "read": 0,
            "written": self.looks * 4096,
            "threads": 3,
            "processes": 1,
            "oomKills": 0,
        }
        node = {
            "name": "here",
            "cpu": self.looks * 500_000_000,
            "cpuLimit": 2000,
            "memory": 1 << 30,
            "memoryLimit": 4 << 30,
        }
        return {
            "now": 100.0 + self.looks,
            "node": {**node, "threads": 99, "stalled": {}, "received": 0, "sent": 0, "read": 0, "written": 0},
            "pods": [{**one, "id": "uid-default-web", "received": self.looks * 2048, "sent": 0}],
            "containers": [{**one, "id": "c" * 64, "container": "app"}],
        }

    def images(self) -> list[Json]:
        return [
            {
                "id": "sha256:" + "1" * 64,
                "reference": "docker.io/library/busybox:latest",
                "shortName": "busybox:latest",
                "repoDigests": [],
                "size": 4_500_000,
                "created": NOW,
                "architecture": "amd64",
            }
        ]

    async def pull(self, reference: str, progress: Progress) -> Json:
        if reference == "missing":
            raise ImageError(
                "docker.io/library/missing:latest: the registry has no such image", reason="ErrImagePull"
            )
        layers = [{"digest": "sha256:" + "2" * 64, "size": 100, "present": False}]
        progress(
            {"event": "resolved", "reference": reference, "digest": "sha256:2", "layers": layers, "size": 100}
        )
        progress(
            {"event": "layer", "digest": "sha256:" + "2" * 64, "state": "done", "current": 100, "total": 100}
        )
        return {"id": "sha256:" + "1" * 64, "reference": f"docker.io/library/{reference}:latest", "size": 100}

    async def load(self, path: str, progress: Progress, *, shown: str = "") -> list[Json]:
        return [
            {
                "id": "sha256:" + "3" * 64,
                "reference": "docker.io/library/loaded:1",
                "size": Path(path).stat().st_size,
            }
        ]

    async def pack(self, request: Json) -> Json:
        self.packed.append(request)
        return {"id": "sha256:" + "4" * 64, "reference": request["reference"], "size": 1}

    async def login(self, registry: str, username: str, password: str) -> Json:
        if password != "right":
            raise ImageError(f"https://{registry} does not accept the login of {username}")
        return {"file": "/root/auth.json"}

    async def logout(self, registry: str) -> bool:
        return registry in ("", "known.test")

    async def remove_image(self, reference: str, *, force: bool = False) -> Json | None:
        if reference == "missing":
            return None
        return {"untagged": [reference], "deleted": [], "freed": 0}

    async def repair(self) -> list[str]:
        return ["network: pod u: no default route"]

    async def doctor(self, *, deep: bool = False) -> list[Json]:
        return self.findings
