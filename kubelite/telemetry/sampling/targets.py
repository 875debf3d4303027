"""The targets of measurements and their labels: containers, pods and the node's own cgroups, as the shims last reported
them.

Each series has the six labels of kubelet's containerPrometheusLabelsFunc (pkg/kubelet/server/server.go): container, id,
image, name, namespace and pod. For a pod's own cgroup, container, image and name are empty. The pod's network series
have container="POD", which most dashboards match.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubelite.telemetry.metrics.exposition import labels

if TYPE_CHECKING:
    from kubelite.telemetry.node_view import NodeView
    from runtime.shim.protocol import SandboxRecord

SANDBOX_IMAGE = (
    "kubelite/sandbox"  # there is no pause image, but dashboards expect image!="" on network series
)


@dataclass(frozen=True, slots=True)
class Target:
    """A cgroup to measure. Times are Unix seconds."""

    cgroup: str
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    container: str = ""
    container_id: str = ""
    image: str = ""
    name: str = ""
    pid: int = 0
    created_at: float = 0.0
    started_at: float = 0.0
    upper: str = ""  # the writable layer's directory
    resources_hash: str = ""  # hash of the resources; when it changes, the limits are read again
    head: str = field(default="", compare=False)  # text of the labels, without the closing brace

    def with_head(self) -> Target:
        pairs = {
            "container": self.container,
            "id": self.cgroup or "/",
            "image": self.image,
            "name": self.name,
            "namespace": self.namespace,
            "pod": self.pod,
        }
        object.__setattr__(self, "head", "{" + labels(pairs))
        return self


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's network namespace. `pid`: the shim, through which it is read; `target`: the labels of its series."""

    pid: int
    sandbox_id: str
    target: Target


@dataclass(frozen=True, slots=True)
class Targets:
    containers: tuple[Target, ...]
    pods: tuple[Target, ...]
    groups: tuple[Target, ...]  # the parent cgroups: /kubelite, /kubelite/burstable, /kubelite/besteffort
    sandboxes: tuple[Sandbox, ...]


class Finder:
    """Finds the node's targets. Each is created once and kept, because its labels are most of a scrape's text."""

    def __init__(self, agent: NodeView) -> None:
        self._agent = agent
        self._known: dict[str, Any] = {}
        parent = f"/{agent.settings.cgroup_parent}"
        places = (parent, f"{parent}/burstable", f"{parent}/besteffort")
        self._groups = tuple(Target(place).with_head() for place in places)

    def find(self) -> Targets:
        containers: list[Target] = []
        pods: list[Target] = []
        sandboxes: list[Sandbox] = []
        used: dict[str, Any] = {}
        for uid, record in self._agent.cri.running_sandboxes().items():
            pod = self._agent.store.get_uid(uid)
            if pod is None:
                continue
            place = (pod.namespace, pod.name, uid)
            key = record.sandbox_id
            mine: tuple[Target, Sandbox] = self._known.get(key) or _pod(record, *place)
            used[key] = mine
            pods.append(mine[0])
            if not record.host_network:
                sandboxes.append(mine[1])
            for c in record.containers:
                if c["status"] != "running":
                    continue
                key = f"{c['id']} {c['pid']} {c['labels'].get('resources_hash', '')}"
                used[key] = target = self._known.get(key) or _container(c, *place)
                containers.append(target)
        self._known = used
        return Targets(tuple(containers), tuple(pods), self._groups, tuple(sandboxes))


def _pod(record: SandboxRecord, namespace: str, pod: str, uid: str) -> tuple[Target, Sandbox]:
    own = Target(
        record.cgroup,
        namespace,
        pod,
        uid,
        created_at=record.created_at,
        started_at=record.created_at,
        resources_hash=record.annotations.get("resources_hash", ""),
    ).with_head()
    row = Target(
        f"{record.cgroup}/{record.sandbox_id}",
        namespace,
        pod,
        uid,
        container="POD",
        image=SANDBOX_IMAGE,
        name=f"k8s_POD_{pod}_{namespace}_{uid}_0",
    ).with_head()
    return own, Sandbox(record.pid, record.sandbox_id, row)


def _container(c: dict[str, Any], namespace: str, pod: str, uid: str) -> Target:
    return Target(
        c["cgroup"],
        namespace,
        pod,
        uid,
        container=c["name"],
        container_id=c["id"],
        image=c["labels"].get("image", ""),
        name=f"k8s_{c['name']}_{pod}_{namespace}_{uid}_{c['attempt']}",
        pid=int(c["pid"]),
        created_at=float(c["created_at"]),
        started_at=float(c["started_at"]),
        upper=f"{c['bundle']}/upper",
        resources_hash=c["labels"].get("resources_hash", ""),
    ).with_head()
