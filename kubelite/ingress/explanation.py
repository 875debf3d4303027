"""Pure: why requests do not arrive where an Ingress leads, as sentences for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from kubelite.ingress.classes import not_served
from kubelite.ingress.model import NAMESPACE, POD
from kubelite.ingress.proxy_pod import container_id
from kubelite.ingress.routing import View, routing_of
from kubelite.kube.json import Json


def explain(ingress: Json, view: View, classes: Iterable[Json], proxy: Json | None) -> list[str]:
    """Say what keeps an Ingress from working. `view`: all Ingresses, and what this one needs; `proxy`: the proxy's
    pod."""
    known = list(classes)
    if said := not_served(ingress, known):
        return [said]
    served = [one for one in view.ingresses if not not_served(one, known)]
    problems = routing_of(replace(view, ingresses=served)).problems.get(ingress["metadata"]["uid"], ())
    return [*problems, *_endpoints(ingress, view), *_proxy(proxy)]


def _endpoints(ingress: Json, view: View) -> Iterator[str]:
    for backend in routing_of(replace(view, ingresses=[ingress])).backends:
        namespace, service, port = backend.name.split("_")
        if backend.endpoints:
            listed = ", ".join(f"{one.ip}:{one.port}" for one in backend.endpoints)
            yield f'service "{service}", port {port}: requests go to {listed}'
        else:
            yield (
                f'service "{service}", port {port} has no ready endpoints: requests get the status 503. See '
                f"`kubelite why -n {namespace} service/{service}`"
            )


def _proxy(proxy: Json | None) -> Iterator[str]:
    if proxy is None:
        yield f"the proxy's pod {NAMESPACE}/{POD} does not exist yet"
    elif not container_id(proxy):
        yield f"the proxy's pod does not run: see `kubelite why -n {NAMESPACE} {POD}`"
