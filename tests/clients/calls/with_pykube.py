"""The Python client `pykube-ng`. It has no exec, attach, port-forward, TokenRequest and reviews of
its own, and its `patch` is a merge patch."""

from __future__ import annotations

import threading
from typing import Any

import pykube
from harness import LABEL, NAME, NAMESPACE, config_map, run, same, until

api = pykube.HTTPClient(pykube.KubeConfig.from_env())
maps = pykube.ConfigMap.objects(api, namespace=NAMESPACE)


def create() -> None:
    for name in ("one", "two", "three"):
        made = pykube.ConfigMap(api, config_map(name, a="1"))
        made.create()
        same(made.obj["data"], {"a": "1"})


def list() -> None:
    same({f"{NAME}-one", f"{NAME}-two", f"{NAME}-three"} - {one.name for one in maps}, set())


def selectors() -> None:
    key, _, value = LABEL.partition("=")
    same(len(maps.filter(selector={key: value})), 3)
    found = maps.filter(field_selector={"metadata.name": f"{NAME}-two"})
    same([one.name for one in found], [f"{NAME}-two"])


def get() -> None:
    same(maps.get_by_name(f"{NAME}-one").obj["data"], {"a": "1"})
    try:
        maps.get_by_name("none")
    except pykube.exceptions.ObjectDoesNotExist:
        return
    raise AssertionError("found what does not exist")


def watch() -> None:
    late = threading.Timer(0.3, pykube.ConfigMap(api, config_map("late")).create)
    stream = maps.filter(field_selector={"metadata.name": f"{NAME}-late"}).watch()
    late.start()
    for event in stream:
        same((event.type, event.object.name), ("ADDED", f"{NAME}-late"))
        return
    raise AssertionError("no event")


def patch_merge() -> None:
    found = maps.get_by_name(f"{NAME}-one")
    found.obj["data"] = {"b": "2"}
    found.update(is_strategic=False)  # the whole object, as a merge patch
    same(found.obj["data"]["b"], "2")


def delete() -> None:
    maps.get_by_name(f"{NAME}-two").delete()
    same(maps.get_or_none(name=f"{NAME}-two"), None)


def scale() -> None:
    idle = pykube.Deployment.objects(api, namespace=NAMESPACE).get_by_name("idle")
    for count in (2, 1):
        until(lambda: _scaled(idle, count), "an update of the newest version")  # noqa: B023
        same(idle.obj["spec"]["replicas"], count)


def _scaled(idle: Any, count: int) -> bool:
    """Scale as pykube does: it sends the whole object, so the controller's writes in between are a conflict."""
    idle.reload()
    try:
        idle.scale(replicas=count)  # waits until the Deployment says so
    except pykube.exceptions.HTTPError as error:
        same(error.code, 409)
        return False
    return True


def logs() -> None:
    pod = pykube.Pod.objects(api, namespace=NAMESPACE).get_by_name("web")
    same(pod.logs(tail_lines=1).strip(), "ready")


def cordon() -> None:
    (node,) = pykube.Node.objects(api)
    node.cordon()
    until(lambda: pykube.Node.objects(api).get_by_name(node.name).unschedulable, "the cordon")
    node.reload()
    node.uncordon()
    same(bool(pykube.Node.objects(api).get_by_name(node.name).unschedulable), False)


def _clean() -> None:
    for one in maps.filter(selector=LABEL):
        one.delete()


run(globals())
_clean()
