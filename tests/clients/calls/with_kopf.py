"""An operator of kopf on ConfigMaps and pods. It prints the kinds of handlers that were called.

Handlers of `on.delete` are not called: the node deletes an object at once, also if it has a finalizer."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import kopf
import kubernetes_asyncio
from harness import NAME, NAMESPACE, config_map

SEEN: set[str] = set()


@kopf.on.create("configmaps", labels={"client": NAME})
def _created(patch: Any, **_: Any) -> None:
    patch.metadata.annotations["seen"] = "created"
    SEEN.add("on.create")


@kopf.on.update("configmaps", labels={"client": NAME}, field="data")
def _updated(new: Any, **_: Any) -> None:
    SEEN.add("on.update")


@kopf.on.event("configmaps", labels={"client": NAME})
def _event(type: str | None, **_: Any) -> None:
    if type == "DELETED":
        SEEN.add("on.event")


@kopf.on.event("pods", field="metadata.name", value="web")
def _pod(name: str, **_: Any) -> None:
    SEEN.add("on.event of a pod")


@kopf.timer("configmaps", labels={"client": NAME}, interval=0.5)
def _timer(**_: Any) -> None:
    SEEN.add("timer")


async def _until(what: str) -> None:
    async with asyncio.timeout(30):
        while what not in SEEN:
            await asyncio.sleep(0.1)


async def _use() -> None:
    await kubernetes_asyncio.config.load_kube_config()
    async with kubernetes_asyncio.client.ApiClient() as api:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        await _until("on.event of a pod")
        await core.create_namespaced_config_map(NAMESPACE, config_map("watched", a="1"))
        await _until("on.create")
        await _until("timer")
        async with asyncio.timeout(30):
            while True:
                found = await core.read_namespaced_config_map(f"{NAME}-watched", NAMESPACE)
                if (found.metadata.annotations or {}).get("seen") == "created":
                    break
                await asyncio.sleep(0.1)
        await core.patch_namespaced_config_map(f"{NAME}-watched", NAMESPACE, {"data": {"a": "2"}})
        await _until("on.update")
        await core.delete_namespaced_config_map(f"{NAME}-watched", NAMESPACE)
        await _until("on.event")


def main() -> None:
    stop, ready = threading.Event(), threading.Event()
    operator = kopf.operator(namespaces=[NAMESPACE], standalone=True, stop_flag=stop, ready_flag=ready)
    thread = threading.Thread(target=lambda: asyncio.run(operator), daemon=True)
    thread.start()
    try:
        if not ready.wait(30):
            raise TimeoutError("the operator did not start")
        asyncio.run(_use())
    finally:
        print(json.dumps(sorted(SEEN)), flush=True)
        stop.set()
        thread.join(20)


main()
