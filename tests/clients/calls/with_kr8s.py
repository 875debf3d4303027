"""The Python client `kr8s`. Its exec takes no input: it offers only the protocol v4, and refuses input with that."""

from __future__ import annotations

import threading
import urllib.request

import kr8s
from harness import LABEL, NAME, NAMESPACE, config_map, run, same
from kr8s.objects import ConfigMap, Deployment, Pod

KEY, _, VALUE = LABEL.partition("=")


def create() -> None:
    for name in ("one", "two", "three"):
        made = ConfigMap(config_map(name, a="1"))
        made.create()
        same(dict(made.data), {"a": "1"})


def list() -> None:
    names = {one.name for one in kr8s.get("configmaps", namespace=NAMESPACE)}
    same({f"{NAME}-one", f"{NAME}-two", f"{NAME}-three"} - names, set())


def selectors() -> None:
    same(len([*kr8s.get("configmaps", namespace=NAMESPACE, label_selector={KEY: VALUE})]), 3)
    found = kr8s.get("configmaps", namespace=NAMESPACE, field_selector=f"metadata.name={NAME}-two")
    same([one.name for one in found], [f"{NAME}-two"])


def get() -> None:
    same(dict(ConfigMap.get(f"{NAME}-one", namespace=NAMESPACE).data), {"a": "1"})
    try:
        ConfigMap.get("none", namespace=NAMESPACE)
    except kr8s.NotFoundError:
        return
    raise AssertionError("found what does not exist")


def watch() -> None:
    late = threading.Timer(0.3, ConfigMap(config_map("late")).create)
    late.start()
    for kind, found in kr8s.watch(
        "configmaps", namespace=NAMESPACE, field_selector=f"metadata.name={NAME}-late"
    ):
        same((kind, found.name), ("ADDED", f"{NAME}-late"))
        return
    raise AssertionError("no event")


def patch_merge() -> None:
    one = ConfigMap.get(f"{NAME}-one", namespace=NAMESPACE)
    one.patch({"data": {"a": None, "b": "2"}})
    same(dict(one.data), {"b": "2"})


def patch_json() -> None:
    one = ConfigMap.get(f"{NAME}-one", namespace=NAMESPACE)
    one.patch([{"op": "add", "path": "/data/c", "value": "3"}], type="json")
    same(dict(one.data), {"b": "2", "c": "3"})


def delete() -> None:
    for one in kr8s.get("configmaps", namespace=NAMESPACE, label_selector={KEY: VALUE}):
        one.delete()
        same(one.exists(), False)


def scale() -> None:
    idle = Deployment.get("idle", namespace=NAMESPACE)
    for count in (2, 1):
        idle.scale(count)  # waits until the Deployment says so
        same(idle.replicas, count)


def logs() -> None:
    same([*Pod.get("web", namespace=NAMESPACE).logs(tail_lines=1)], ["ready"])


def exec() -> None:
    pod = Pod.get("web", namespace=NAMESPACE)
    done = pod.exec(["sh", "-c", "echo hello; echo bad >&2; exit 3"], check=False)
    same((done.stdout, done.stderr, done.returncode), (b"hello\n", b"bad\n", 3))


def port_forward() -> None:
    forward = Pod.get("web", namespace=NAMESPACE).portforward(8080, local_port="auto")
    with forward as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=20) as answer:
        same(answer.read(), b"hello from web\n")


def cordon() -> None:
    (node,) = kr8s.get("nodes")
    for change, wanted in ((node.cordon, True), (node.uncordon, False)):
        change()
        node.refresh()
        same(bool(node.unschedulable), wanted)


run(globals())
