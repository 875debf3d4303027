"""The rows about workloads: a Deployment beside the same pods from files, a rollout, Jobs, and idle objects."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.bench.caged import Refused
from tests.bench.node_peer import Kubelite
from tests.bench.peers import GRACE
from tests.e2e.node import IMAGE

PATIENCE = 120.0  # seconds
CRON_JOBS, JOBS, IDLE_DEPLOYMENTS = 1000, 200, 200
LOOK = 0.05  # seconds between two looks at one object: an answer costs the daemon something, too
APPS, BATCH = "/apis/apps/v1/namespaces/default", "/apis/batch/v1/namespaces/default"

#: The container of a pod as the other rows have it, with the name of its pod as the name of its stamp.
_TEMPLATE = """{{labels: {{app: {app}}}}}
{at}spec:
{at}  terminationGracePeriodSeconds: {grace}
{at}  containers:
{at}  - name: main
{at}    image: {image}
{at}    imagePullPolicy: Never
{at}    command: [/stamp, $(POD)]
{at}    env:
{at}    - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
{at}    - {{name: EDITION, value: "{edition}"}}
{at}    volumeMounts: [{{name: data, mountPath: /data}}, {{name: bench, mountPath: /bench}}]
{at}  volumes:
{at}  - {{name: data, emptyDir: {{}}}}
{at}  - {{name: bench, hostPath: {{path: {stamps}, type: Directory}}}}
"""


def deployment(peer: Kubelite, name: str, replicas: int, edition: int = 1) -> str:
    at = " " * 4
    template = _TEMPLATE.format(
        at=at, app=name, grace=GRACE, image=IMAGE, edition=edition, stamps=peer.stamps
    )
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n"
        f"  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {template}"
    )


def job(name: str) -> str:
    return (
        f"apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  template:\n    spec:\n"
        f"      restartPolicy: Never\n      containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, "
        "command: [/stamp, --once]}]\n"
    )


def cron_job(name: str) -> str:
    """It is due on one minute of a year."""
    spec = job(name).partition("spec:\n")[2].replace("\n", "\n    ").rstrip()
    return (
        f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}}}\nspec:\n  schedule: 0 0 29 2 *\n"
        f"  jobTemplate:\n    spec:\n    {spec}\n"
    )


def deployed(peer: Kubelite, name: str, replicas: int) -> float:
    """Start a Deployment. Return seconds from its file to the first instruction of the last of its pods."""
    began = peer.put({name: deployment(peer, name, replicas)})
    return (max(_stamps(peer, f"{name}-", replicas)) - began) / 1e9


def rolled_out(peer: Kubelite, name: str, replicas: int) -> float:
    """Change the template of a Deployment. Return seconds until `kubectl rollout status` would say that it is done."""
    began = peer.put({name: deployment(peer, name, replicas, edition=2)})

    def done() -> bool:
        found = peer.api(f"{APPS}/deployments/{name}")
        status = found.get("status", {})
        seen = status.get("observedGeneration") == found["metadata"]["generation"] == 2
        counts = (status.get(f"{word}eplicas", 0) for word in ("updatedR", "r", "availableR"))
        return seen and all(count == replicas for count in counts)

    return (_when(done, "the rollout") - began) / 1e9


def completed(peer: Kubelite, prefix: str) -> float:
    """Start Jobs that end at once. Return seconds from their files to the last one's condition Complete."""
    began = peer.put({f"{prefix}-{number}": job(f"{prefix}-{number}") for number in range(JOBS)})

    def done() -> bool:
        items: list[dict[str, Any]] = peer.api(f"{BATCH}/jobs")["items"]
        return len(items) == JOBS and all("completionTime" in item.get("status", {}) for item in items)

    return (_when(done, "the Jobs", every=4 * LOOK) - began) / 1e9


def wait_seen(peer: Kubelite, count: int, key: str) -> None:
    """Wait until a controller has seen every Deployment, or every CronJob is there."""
    path = f"{BATCH}/cronjobs" if key == "cronjobs" else f"{APPS}/replicasets"
    _when(lambda: len(peer.api(path)["items"]) == count, f"{count} objects in {path}", every=10 * LOOK)


def _stamps(peer: Kubelite, prefix: str, count: int) -> list[int]:
    until = time.monotonic() + PATIENCE
    while len(found := [path.name for path in peer.stamps.glob(f"{prefix}*")]) < count:
        if time.monotonic() > until:
            raise Refused(f"{len(found)} of {count} pods of {prefix} started")
        time.sleep(0.02)
    return [peer.stamps_of(name)[0] for name in found]


def _when(done: Callable[[], bool], what: str, every: float = LOOK) -> int:
    """Wait for it. Return the time in Unix nanoseconds."""
    until = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > until:
            raise Refused(f"{what} did not end within {PATIENCE:.0f} s")
        time.sleep(every)
    return time.time_ns()
