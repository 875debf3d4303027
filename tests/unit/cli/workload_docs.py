"""Documents of workloads for tests of commands: as the node has them, without status unless given."""

from __future__ import annotations

from kubelite.kube.json import Json
from tests.unit.api.fake_node import NOW, pod_doc

API = {"ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}


def template(image: str = "nginx:1", **spec: object) -> Json:
    container = {
        "name": "app",
        "image": image,
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "env": [{"name": "A", "value": "1"}],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    return {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "restartPolicy": "Always", **spec},
    }


def workload(
    kind: str,
    name: str = "web",
    status: Json | None = None,
    annotations: dict[str, str] | None = None,
    **spec: object,
) -> Json:
    whole: Json = {"selector": {"matchLabels": {"app": "web"}}, "template": template(), **spec}
    if kind == "ReplicationController":
        whole["selector"] = {"app": "web"}
    if kind == "CronJob":
        whole = spec
    return {
        "apiVersion": API.get(kind, "apps/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{kind}-{name}",
            "creationTimestamp": NOW,
            "generation": 1,
            "labels": {"app": "web"},
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": whole,
        "status": status or {},
    }


def owned(doc: Json, owner: Json) -> Json:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {**doc, "metadata": {**doc["metadata"], "ownerReferences": [reference]}}


def pod(name: str, owner: Json, *, ready: bool = True, phase: str = "Running") -> Json:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    made = pod_doc(name, status={"phase": phase, "conditions": conditions})
    return owned({**made, "metadata": {**made["metadata"], "labels": {"app": "web"}}}, owner)
