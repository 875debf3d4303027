"""The node's network by CNI plugins (the setting `network` is cni), and what such a node does without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from kubelite.kube.objects import reference
from runtime.cni.calls import Step, no_step
from runtime.cni.network import CniConfig, CniNetwork
from runtime.cni.requests import PodFacts

if TYPE_CHECKING:
    from kubelite.kube.events import EventRecorder
    from kubelite.node.cri.pod_network import PodNetwork
    from kubelite.settings import Settings
    from kubelite.telemetry.tracing.trace import Tracer
    from state.store import Store

log = logging.getLogger(__name__)

IPS, MAC = "kubelite.io/cni-ips", "kubelite.io/cni-mac"  # annotations of pods
FIRST_LOOK = 5.0  # seconds that the start of the daemon waits for plugins
LATER = 2.0  # seconds from the start of the daemon until GC: pods that wait start first
#: Kinds that need the node's own network, and what happens to them without it.
UNSERVED = {
    "Service": "has no cluster IP, DNS name and node port: a proxy such as kube-proxy has to serve it",
    "NetworkPolicy": "is not in force unless the CNI plugins enforce it",
    "Ingress": "is not served",
}


def cni_network(
    settings: Settings,
    store: Store | None,
    *,
    step: Step = no_step,
    changed: Callable[[], None] = lambda: None,
) -> CniNetwork:
    """Return the network of the settings. `look()` has to be called before pods can be attached. `store`: of the pods;
    None if pods are detached only."""
    config = CniConfig(
        settings.cni_conf_dir,
        settings.cni_directories,
        f"{settings.root}/cni",
        settings.cni_plugin_timeout,
    )

    def facts(uid: str) -> PodFacts:
        record = store.get_uid(uid) if store is not None else None
        if record is None:  # a build, or a pod that is about to end
            return PodFacts()
        given = record.metadata.get("annotations") or {}
        ips = tuple(filter(None, map(str.strip, str(given.get(IPS, "")).split(","))))
        return PodFacts(record.namespace, record.name, ips=ips, mac=str(given.get(MAC, "")))

    return CniNetwork(config, facts, step=step, changed=changed)


async def start_cni(
    settings: Settings, store: Store, tracer: Tracer, wake: Callable[[str], None]
) -> CniNetwork:
    """Return the network of the settings, which has been looked at once. `wake` is called with each pod's uid when the
    network becomes ready, or is no longer."""

    def step(uid: str, call: str) -> AbstractContextManager[None]:
        return tracer.step(uid, "cni", detail=call)

    def changed() -> None:
        for record in store.list("Pod"):
            wake(record.uid)

    network = cni_network(settings, store, step=step, changed=changed)
    with contextlib.suppress(TimeoutError):  # a plugin hangs: follow_cni looks again
        await asyncio.wait_for(network.look(), FIRST_LOOK)
    if network.not_ready:
        log.warning("%s", network.not_ready)
    log.warning(
        "the setting network is cni: Services, NetworkPolicies, Ingresses and the API for pods are not served"
    )
    return network


async def follow_cni(network: PodNetwork) -> None:
    """Follow the configuration, and have the plugins collect what an earlier run left, until this is cancelled."""
    assert isinstance(network, CniNetwork)

    async def collect() -> None:
        await asyncio.sleep(LATER)
        try:
            await network.collect()
        except OSError as error:
            log.error("the CNI plugins cannot collect what is left: %s", error)

    await asyncio.gather(network.run(), collect())


async def say_unserved(store: Store, events: EventRecorder) -> None:
    """Record an event about every object that needs the node's own network, until this is cancelled."""
    async with store.watch(frozenset(UNSERVED)) as watch:
        for kind in UNSERVED:
            for record in store.list(kind):
                _say(events, record.doc)
        async for change in watch:
            if change.type == "ADDED":
                _say(events, change.record.doc)


def _say(events: EventRecorder, doc: dict[str, object]) -> None:
    words = UNSERVED[str(doc["kind"])]
    events.event(
        reference(doc), "Warning", "NetworkByCni", f"The setting network is cni: this {doc['kind']} {words}"
    )


def unserved(store: Store) -> Sequence[str]:
    """What the node's objects go without, as sentences."""
    return [
        f"{len(found)} objects of kind {kind}, each of which {words} (the setting network is cni)"
        for kind, words in UNSERVED.items()
        if (found := store.list(kind))
    ]
