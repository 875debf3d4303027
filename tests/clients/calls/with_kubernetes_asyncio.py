"""The Python client `kubernetes_asyncio`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from harness import LABEL, NAME, NAMESPACE, config_map, run, same
from kubernetes_asyncio import client, config
from kubernetes_asyncio import watch as watching
from kubernetes_asyncio.stream import WsApiClient
from kubernetes_asyncio.stream.ws_client import STDERR_CHANNEL, STDIN_CHANNEL, STDOUT_CHANNEL


def _with_api(call: Callable[[Any, Any], Awaitable[None]]) -> Callable[[], None]:
    """A function without arguments that calls `call(core, apps)` in a loop of its own."""

    def called() -> None:
        async def main() -> None:
            await config.load_kube_config()
            async with client.ApiClient() as api, asyncio.timeout(30):
                await call(client.CoreV1Api(api), client.AppsV1Api(api))

        asyncio.run(main())

    called.__name__ = call.__name__
    return called


@_with_api
async def create(core: Any, apps: Any) -> None:
    for name in ("one", "two", "three"):
        made = await core.create_namespaced_config_map(NAMESPACE, config_map(name, a="1"))
        same(made.data, {"a": "1"})


@_with_api
async def list(core: Any, apps: Any) -> None:
    found = await core.list_namespaced_config_map(NAMESPACE)
    same({f"{NAME}-one", f"{NAME}-two", f"{NAME}-three"} - {one.metadata.name for one in found.items}, set())


@_with_api
async def selectors(core: Any, apps: Any) -> None:
    found = await core.list_namespaced_config_map(NAMESPACE, label_selector=LABEL)
    same(len(found.items), 3)
    found = await core.list_namespaced_config_map(NAMESPACE, field_selector=f"metadata.name={NAME}-two")
    same([one.metadata.name for one in found.items], [f"{NAME}-two"])


@_with_api
async def paging(core: Any, apps: Any) -> None:
    names: Any = []
    more: str | None = None
    while more != "":
        options: Any = {"_continue": more} if more else {}
        page = await core.list_namespaced_config_map(NAMESPACE, label_selector=LABEL, limit=2, **options)
        names += [one.metadata.name for one in page.items]
        more = page.metadata._continue or ""
    same(len(names), 3)


@_with_api
async def get(core: Any, apps: Any) -> None:
    same((await core.read_namespaced_config_map(f"{NAME}-one", NAMESPACE)).data, {"a": "1"})
    try:
        await core.read_namespaced_config_map("none", NAMESPACE)
    except client.exceptions.ApiException as error:
        same(error.status, 404)
    else:
        raise AssertionError("found what does not exist")


@_with_api
async def watch(core: Any, apps: Any) -> None:
    version = (await core.list_namespaced_config_map(NAMESPACE)).metadata.resource_version

    async def later() -> None:
        await asyncio.sleep(0.3)
        await core.create_namespaced_config_map(NAMESPACE, config_map("late"))

    task = asyncio.ensure_future(later())
    async with watching.Watch() as stream:
        async for event in stream.stream(
            core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=10
        ):
            same((event["type"], event["object"].metadata.name), ("ADDED", f"{NAME}-late"))
            break
        else:
            raise AssertionError("no event")
    await task


@_with_api
async def patch_merge(core: Any, apps: Any) -> None:
    body = {"data": {"a": None, "b": "2"}}
    done = await core.patch_namespaced_config_map(
        f"{NAME}-one", NAMESPACE, body, _content_type="application/merge-patch+json"
    )
    same(done.data, {"b": "2"})


@_with_api
async def patch_json(core: Any, apps: Any) -> None:
    body = [{"op": "add", "path": "/data/c", "value": "3"}]
    done = await core.patch_namespaced_config_map(
        f"{NAME}-one", NAMESPACE, body, _content_type="application/json-patch+json"
    )
    same(done.data, {"b": "2", "c": "3"})


@_with_api
async def patch_strategic(core: Any, apps: Any) -> None:
    containers = [{"name": "main", "env": [{"name": "BY", "value": NAME}]}]
    body = {"spec": {"template": {"spec": {"containers": containers}}}}
    done = await apps.patch_namespaced_deployment(
        "idle", NAMESPACE, body, _content_type="application/strategic-merge-patch+json"
    )
    same([one.value for one in done.spec.template.spec.containers[0].env], [NAME])


@_with_api
async def apply(core: Any, apps: Any) -> None:
    async def applied(manager: str, force: bool = False, **data: str) -> Any:
        done = await core.patch_namespaced_config_map(
            f"{NAME}-applied", NAMESPACE, config_map("applied", **data), field_manager=manager, force=force,
            _content_type="application/apply-patch+yaml",
        )  # fmt: skip
        return done.data

    same(await applied("first", a="1", b="1"), {"a": "1", "b": "1"})
    same(await applied("first", a="1"), {"a": "1"})
    try:
        await applied("second", a="2")
    except client.exceptions.ApiException as error:
        same(error.status, 409)
    else:
        raise AssertionError("no conflict")
    same(await applied("second", force=True, a="2"), {"a": "2"})


@_with_api
async def replace(core: Any, apps: Any) -> None:
    found = await core.read_namespaced_config_map(f"{NAME}-two", NAMESPACE)
    found.data = {"z": "9"}
    same((await core.replace_namespaced_config_map(f"{NAME}-two", NAMESPACE, found)).data, {"z": "9"})
    try:
        found.data = {"z": "10"}
        await core.replace_namespaced_config_map(f"{NAME}-two", NAMESPACE, found)
    except client.exceptions.ApiException as error:
        same(error.status, 409)
    else:
        raise AssertionError("an old version was accepted")


@_with_api
async def delete(core: Any, apps: Any) -> None:
    same((await core.delete_namespaced_config_map(f"{NAME}-two", NAMESPACE)).status, "Success")


@_with_api
async def deletecollection(core: Any, apps: Any) -> None:
    await core.delete_collection_namespaced_config_map(NAMESPACE, label_selector=LABEL)
    same((await core.list_namespaced_config_map(NAMESPACE, label_selector=LABEL)).items, [])


@_with_api
async def scale(core: Any, apps: Any) -> None:
    for count in (2, 1):
        done = await apps.patch_namespaced_deployment_scale("idle", NAMESPACE, {"spec": {"replicas": count}})
        same(done.spec.replicas, count)
        while (await apps.read_namespaced_deployment_scale("idle", NAMESPACE)).status.replicas != count:
            await asyncio.sleep(0.1)


@_with_api
async def logs(core: Any, apps: Any) -> None:
    same((await core.read_namespaced_pod_log("web", NAMESPACE, tail_lines=1)).strip(), "ready")


def exec() -> None:
    async def main() -> None:
        await config.load_kube_config()
        async with WsApiClient() as api, asyncio.timeout(30):
            command = ["sh", "-c", "read line; echo $line; echo bad >&2; exit 3"]
            opening = await client.CoreV1Api(api).connect_get_namespaced_pod_exec(
                "web", NAMESPACE, command=command,
                stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
            )  # fmt: skip
            said = {STDOUT_CHANNEL: b"", STDERR_CHANNEL: b"", 3: b""}
            async with opening as session:
                await session.send_bytes(bytes([STDIN_CHANNEL]) + b"hello\n")
                async for message in session:
                    said[message.data[0]] += message.data[1:]
            same((said[STDOUT_CHANNEL], said[STDERR_CHANNEL]), (b"hello\n", b"bad\n"))
            same(api.parse_error_data(said[3].decode()), 3)

    asyncio.run(main())


def attach() -> None:
    async def main() -> None:
        await config.load_kube_config()
        async with WsApiClient() as api, asyncio.timeout(30):
            opening = await client.CoreV1Api(api).connect_get_namespaced_pod_attach(
                "echo", NAMESPACE, stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False
            )
            async with opening as session:
                await session.send_bytes(bytes([STDIN_CHANNEL]) + f"{NAME}\n".encode())
                async for message in session:
                    if message.data[0] == STDOUT_CHANNEL and message.data[1:]:
                        same(message.data[1:], f"{NAME}\n".encode())
                        return
            raise AssertionError("nothing was said")

    asyncio.run(main())


@_with_api
async def evict(core: Any, apps: Any) -> None:
    pods = (await core.list_namespaced_pod(NAMESPACE, label_selector="app=idle")).items
    gone = next(one for one in pods if one.metadata.deletion_timestamp is None)
    body = {"metadata": {"name": gone.metadata.name, "namespace": NAMESPACE}}
    await core.create_namespaced_pod_eviction(gone.metadata.name, NAMESPACE, body)


@_with_api
async def token(core: Any, apps: Any) -> None:
    body = {"spec": {"expirationSeconds": 600, "audiences": []}}
    done = await core.create_namespaced_service_account_token("default", NAMESPACE, body)
    same(done.status.token.count("."), 2)


@_with_api
async def can_i(core: Any, apps: Any) -> None:
    attributes = {"namespace": NAMESPACE, "verb": "delete", "resource": "pods"}
    review = await client.AuthorizationV1Api(core.api_client).create_self_subject_access_review(
        {"spec": {"resourceAttributes": attributes}}
    )
    same(review.status.allowed, True)


@_with_api
async def cordon(core: Any, apps: Any) -> None:
    (node,) = (await core.list_node()).items
    for wanted in (True, False):
        done = await core.patch_node(node.metadata.name, {"spec": {"unschedulable": wanted}})
        same(bool(done.spec.unschedulable), wanted)


run(globals())
