"""The Python client `lightkube`. It has no attach and no port-forward."""

from __future__ import annotations

import threading

from harness import LABEL, NAME, NAMESPACE, config_map, run, same, until
from lightkube import ApiError, Client
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, ServiceAccountToken
from lightkube.types import PatchType

kube = Client(namespace=NAMESPACE)
KEY, _, VALUE = LABEL.partition("=")


def create() -> None:
    for name in ("one", "two", "three"):
        same(kube.create(ConfigMap.from_dict(config_map(name, a="1"))).data, {"a": "1"})


def list() -> None:
    names = {one.metadata.name for one in kube.list(ConfigMap)}
    same({f"{NAME}-one", f"{NAME}-two", f"{NAME}-three"} - names, set())


def selectors() -> None:
    same(len([*kube.list(ConfigMap, labels={KEY: VALUE})]), 3)
    found = kube.list(ConfigMap, fields={"metadata.name": f"{NAME}-two"})
    same([one.metadata.name for one in found], [f"{NAME}-two"])


def paging() -> None:
    same(len([*kube.list(ConfigMap, labels={KEY: VALUE}, chunk_size=2)]), 3)


def get() -> None:
    same(kube.get(ConfigMap, f"{NAME}-one").data, {"a": "1"})
    try:
        kube.get(ConfigMap, "none")
    except ApiError as error:
        same(error.status.code, 404)
    else:
        raise AssertionError("found what does not exist")


def watch() -> None:
    listed = kube.list(ConfigMap)
    same(len([*listed]) > 0, True)  # the version is known after the objects
    version = listed.resourceVersion
    late = threading.Timer(
        0.3, Client(namespace=NAMESPACE).create, (ConfigMap.from_dict(config_map("late")),)
    )
    late.start()
    for kind, found in kube.watch(ConfigMap, resource_version=version, server_timeout=10):
        same((kind, found.metadata.name), ("ADDED", f"{NAME}-late"))
        return
    raise AssertionError("no event")


def patch_merge() -> None:
    body = {"data": {"a": None, "b": "2"}}
    same(kube.patch(ConfigMap, f"{NAME}-one", body, patch_type=PatchType.MERGE).data, {"b": "2"})


def patch_json() -> None:
    body = [{"op": "add", "path": "/data/c", "value": "3"}]
    same(kube.patch(ConfigMap, f"{NAME}-one", body, patch_type=PatchType.JSON).data, {"b": "2", "c": "3"})


def patch_strategic() -> None:
    containers = [{"name": "main", "env": [{"name": "BY", "value": NAME}]}]
    done = kube.patch(Deployment, "idle", {"spec": {"template": {"spec": {"containers": containers}}}})
    same([one.value for one in done.spec.template.spec.containers[0].env], [NAME])


def apply() -> None:
    def applied(manager: str, force: bool = False, **data: str) -> object:
        wanted = ConfigMap.from_dict(config_map("applied", **data))
        return kube.apply(wanted, field_manager=manager, force=force).data

    same(applied("first", a="1", b="1"), {"a": "1", "b": "1"})
    same(applied("first", a="1"), {"a": "1"})
    try:
        applied("second", a="2")
    except ApiError as error:
        same((error.status.code, error.status.details.causes[0].field), (409, ".data.a"))
    else:
        raise AssertionError("no conflict")
    same(applied("second", force=True, a="2"), {"a": "2"})


def replace() -> None:
    found = kube.get(ConfigMap, f"{NAME}-two")
    found.data = {"z": "9"}
    same(kube.replace(found).data, {"z": "9"})
    try:
        found.data = {"z": "10"}
        kube.replace(found)
    except ApiError as error:
        same(error.status.code, 409)
    else:
        raise AssertionError("an old version was accepted")


def delete() -> None:
    kube.delete(ConfigMap, f"{NAME}-two")
    same([*kube.list(ConfigMap, fields={"metadata.name": f"{NAME}-two"})], [])


def deletecollection() -> None:
    kube.deletecollection(ConfigMap)  # of the whole namespace: it takes no selector
    same([*kube.list(ConfigMap, labels={KEY: VALUE})], [])


def scale() -> None:
    for count in (2, 1):
        done = kube.patch(Deployment.Scale, "idle", {"spec": {"replicas": count}})
        same(done.spec.replicas, count)
        until(lambda: kube.get(Deployment.Scale, "idle").status.replicas == count, "pods")  # noqa: B023


def logs() -> None:
    same([line.strip() for line in kube.log("web", tail_lines=1)], ["ready"])


def exec() -> None:
    command = ["sh", "-c", "read line; echo $line; echo bad >&2; exit 3"]
    done = kube.exec("web", command=command, stdin="hello\n", stdout=True, stderr=True, raise_on_error=False)
    same((done.stdout, done.stderr, done.exit_code), ("hello\n", "bad\n", 3))


def evict() -> None:
    pods = kube.list(Pod, labels={"app": "idle"})
    gone = next(one for one in pods if one.metadata.deletionTimestamp is None)
    name = gone.metadata.name
    kube.create(Pod.Eviction(metadata=ObjectMeta(name=name)), name)


def token() -> None:
    spec = TokenRequestSpec(audiences=[], expirationSeconds=600)
    done = kube.create(ServiceAccountToken(metadata=ObjectMeta(), spec=spec), "default")
    same(done.status.token.count("."), 2)


def can_i() -> None:
    attributes = ResourceAttributes(namespace=NAMESPACE, verb="delete", resource="pods")
    done = kube.create(
        SelfSubjectAccessReview(
            metadata=ObjectMeta(), spec=SelfSubjectAccessReviewSpec(resourceAttributes=attributes)
        )
    )
    same(done.status.allowed, True)


def cordon() -> None:
    (node,) = kube.list(Node)
    for wanted in (True, False):
        done = kube.patch(Node, node.metadata.name, {"spec": {"unschedulable": wanted}})
        same(bool(done.spec.unschedulable), wanted)


run(globals())
