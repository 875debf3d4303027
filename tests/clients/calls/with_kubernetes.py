"""The Python client `kubernetes`."""

from __future__ import annotations

import threading
import time
from typing import Any

from harness import LABEL, NAME, NAMESPACE, config_map, run, same, until
from kubernetes import client, config
from kubernetes import watch as watching
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError
from kubernetes.stream import portforward, stream

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def create() -> None:
    for number in ("one", "two", "three"):
        made = core.create_namespaced_config_map(NAMESPACE, config_map(number, a="1"))
        same(made.data, {"a": "1"})


def list() -> None:
    names = [one.metadata.name for one in core.list_namespaced_config_map(NAMESPACE).items]
    same({f"{NAME}-one", f"{NAME}-two", f"{NAME}-three"} - {*names}, set())


def selectors() -> None:
    found = core.list_namespaced_config_map(NAMESPACE, label_selector=LABEL)
    same(len(found.items), 3)
    found = core.list_namespaced_config_map(NAMESPACE, field_selector=f"metadata.name={NAME}-two")
    same([one.metadata.name for one in found.items], [f"{NAME}-two"])


def paging() -> None:
    names: Any = []
    more: str | None = None
    while more != "":
        page = core.list_namespaced_config_map(NAMESPACE, label_selector=LABEL, limit=2, _continue=more)
        names += [one.metadata.name for one in page.items]
        more = page.metadata._continue or ""
    same(len(names), 3)


def get() -> None:
    same(core.read_namespaced_config_map(f"{NAME}-one", NAMESPACE).data, {"a": "1"})
    try:
        core.read_namespaced_config_map("none", NAMESPACE)
    except client.exceptions.ApiException as error:
        same(error.status, 404)
    else:
        raise AssertionError("found what does not exist")


def watch() -> None:
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    late = threading.Timer(0.3, core.create_namespaced_config_map, (NAMESPACE, config_map("late")))
    late.start()
    for event in watching.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=10
    ):
        same((event["type"], event["object"].metadata.name), ("ADDED", f"{NAME}-late"))
        break
    else:
        raise AssertionError("no event")


def patch_merge() -> None:
    body = {"data": {"a": None, "b": "2"}}
    done = core.patch_namespaced_config_map(
        f"{NAME}-one", NAMESPACE, body, _content_type="application/merge-patch+json"
    )
    same(done.data, {"b": "2"})


def patch_json() -> None:
    body = [{"op": "add", "path": "/data/c", "value": "3"}]
    done = core.patch_namespaced_config_map(
        f"{NAME}-one", NAMESPACE, body, _content_type="application/json-patch+json"
    )
    same(done.data, {"b": "2", "c": "3"})


def patch_strategic() -> None:
    containers = [{"name": "main", "env": [{"name": "BY", "value": NAME}]}]
    body = {"spec": {"template": {"spec": {"containers": containers}}}}
    done = apps.patch_namespaced_deployment(
        "idle", NAMESPACE, body, _content_type="application/strategic-merge-patch+json"
    )
    same([one.value for one in done.spec.template.spec.containers[0].env], [NAME])


def apply() -> None:
    maps = DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")

    def applied(manager: str, force: bool = False, **data: str) -> Any:
        done = maps.server_side_apply(
            config_map("applied", **data), namespace=NAMESPACE, field_manager=manager, force_conflicts=force
        )
        return done.data.to_dict()

    same(applied("first", a="1", b="1"), {"a": "1", "b": "1"})
    same(applied("first", a="1"), {"a": "1"})
    try:
        applied("second", a="2")
    except ConflictError as error:
        same("FieldManagerConflict" in str(error.body), True)
    else:
        raise AssertionError("no conflict")
    same(applied("second", force=True, a="2"), {"a": "2"})
    named = {"field_manager": "second", "_content_type": "application/apply-patch+yaml"}
    done = core.patch_namespaced_config_map(
        f"{NAME}-applied", NAMESPACE, config_map("applied", a="3"), **named
    )
    same([one.manager for one in done.metadata.managed_fields], ["first", "second"])


def replace() -> None:
    found = core.read_namespaced_config_map(f"{NAME}-two", NAMESPACE)
    found.data = {"z": "9"}
    same(core.replace_namespaced_config_map(f"{NAME}-two", NAMESPACE, found).data, {"z": "9"})
    try:
        found.data = {"z": "10"}
        core.replace_namespaced_config_map(f"{NAME}-two", NAMESPACE, found)
    except client.exceptions.ApiException as error:
        same(error.status, 409)
    else:
        raise AssertionError("an old version was accepted")


def delete() -> None:
    same(core.delete_namespaced_config_map(f"{NAME}-two", NAMESPACE)["status"], "Success")
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": NAME}})
    same(core.delete_namespaced_service_account(NAME, NAMESPACE).metadata.name, NAME)


def deletecollection() -> None:
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector=LABEL)
    same(core.list_namespaced_config_map(NAMESPACE, label_selector=LABEL).items, [])


def scale() -> None:
    for count in (2, 1):
        done = apps.patch_namespaced_deployment_scale("idle", NAMESPACE, {"spec": {"replicas": count}})
        same(done.spec.replicas, count)
        until(lambda: _replicas() == count, "pods")  # noqa: B023


def _replicas() -> int:
    return int(apps.read_namespaced_deployment_scale("idle", NAMESPACE).status.replicas)


def logs() -> None:
    same(core.read_namespaced_pod_log("web", NAMESPACE, tail_lines=1).strip(), "ready")


def exec() -> None:
    command = ["sh", "-c", "read line; echo $line; echo bad >&2; exit 3"]
    session = stream(
        core.connect_get_namespaced_pod_exec, "web", NAMESPACE, command=command,
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )  # fmt: skip
    session.write_stdin("hello\n")
    session.run_forever(timeout=20)
    same((session.read_stdout(), session.read_stderr(), session.returncode), ("hello\n", "bad\n", 3))


def attach() -> None:
    session = stream(
        core.connect_get_namespaced_pod_attach, "echo", NAMESPACE,
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )  # fmt: skip
    session.write_stdin(f"{NAME}\n")
    said = ""
    end = time.monotonic() + 20
    while NAME not in said and time.monotonic() < end:
        session.update(timeout=1)
        said += session.read_stdout(timeout=1) or ""
    session.close()
    same(said.strip(), NAME)


def port_forward() -> None:
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", NAMESPACE, ports="8080")
    pod = forward.socket(8080)
    pod.setblocking(True)
    pod.settimeout(20)
    pod.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
    answer = b"".join(iter(lambda: pod.recv(4096), b""))
    same(answer.endswith(b"hello from web\n"), True)
    same(forward.error(8080), None)


def evict() -> None:
    pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=idle").items
    gone = next(one for one in pods if one.metadata.deletion_timestamp is None)
    body = {"metadata": {"name": gone.metadata.name, "namespace": NAMESPACE}}
    core.create_namespaced_pod_eviction(gone.metadata.name, NAMESPACE, body)
    until(lambda: _ended(gone.metadata.name, gone.metadata.uid), "the pod to go")


def _ended(name: str, uid: str) -> bool:
    try:
        pod = core.read_namespaced_pod(name, NAMESPACE)
    except client.exceptions.ApiException as error:
        return bool(error.status == 404)
    return bool(pod.metadata.uid != uid or pod.metadata.deletion_timestamp is not None)


def token() -> None:
    done = core.create_namespaced_service_account_token(
        "default", NAMESPACE, {"spec": {"expirationSeconds": 600}}
    )
    same(done.status.token.count("."), 2)


def can_i() -> None:
    attributes = {"namespace": NAMESPACE, "verb": "delete", "resource": "pods"}
    review = client.AuthorizationV1Api().create_self_subject_access_review(
        {"spec": {"resourceAttributes": attributes}}
    )
    same(review.status.allowed, True)


def cordon() -> None:
    (node,) = core.list_node().items
    for wanted in (True, False):
        done = core.patch_node(node.metadata.name, {"spec": {"unschedulable": wanted}})
        same(bool(done.spec.unschedulable), wanted)


run(globals())
