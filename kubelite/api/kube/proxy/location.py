"""Where a request to a pod or a Service goes through the API. Pure.

Sources: Kubernetes pkg/registry/core/pod/strategy.go, pkg/registry/core/service/storage/storage.go (ResourceLocation);
apimachinery pkg/util/net/port_split.go (SplitSchemeNamePort).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES

_PORTS = {"http": 80, "https": 443}


class Given(NamedTuple):
    """What a path names: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`."""

    scheme: str
    name: str
    port: str


class Location(NamedTuple):
    scheme: str  # http or https
    address: str
    port: int


def given(text: str, kind: str) -> Given:
    """Parse the name in a path. `kind`: for the message. Raises BadRequest."""
    parts = text.split(":")
    if len(parts) == 1:
        found = Given("http", parts[0], "")
    elif len(parts) == 2:
        found = Given("http", *parts)
    elif len(parts) == 3:
        found = Given(parts[0] or "http", *parts[1:])
    else:
        found = Given("", "", "")
    if not found.name or found.scheme not in _PORTS:
        raise bad_request(f'invalid {kind} request "{text}"')
    return found


def of_pod(pod: Json, wanted: Given) -> Location:
    """Return where requests to a pod go: without a port, to the first one that its containers name. Raises
    BadRequest."""
    address = (pod.get("status") or {}).get("podIP") or ""
    if not addresses_of(pod) or not _allowed(address):
        raise bad_request("address not allowed: the pod has no address of the pod network")
    if wanted.port:
        return Location(wanted.scheme, address, _number(wanted.port))
    named = [one["containerPort"] for c in pod["spec"]["containers"] for one in c.get("ports") or ()]
    return Location(wanted.scheme, address, named[0] if named else _PORTS[wanted.scheme])


def of_service(
    service: Json, slices: Iterable[Json], pods: Mapping[str, Collection[str]], wanted: Given
) -> Sequence[Location]:
    """Return where requests to a Service may go: to its ready pods. The port is a name or a number of the Service's.
    `pods`: the addresses of the pods of its namespace, by name. Raises ServiceUnavailable if there is none."""
    port = wanted.port
    if port.isascii() and port.isdigit():
        ports = service["spec"].get("ports") or ()
        names = [one.get("name") or "" for one in ports if one["port"] == int(port)]
        if not names:
            words = f'no service port {port} found for service "{wanted.name}"'
            raise ApiError("ServiceUnavailable", words)
        port = names[0]
    found = [
        Location(wanted.scheme, address, int(one["port"]))
        for piece in slices
        for one in piece.get("ports") or ()
        if (one.get("name") or "") == port and one.get("port")
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"][:1]
        if _is_of_pod(address, endpoint, service["metadata"]["namespace"], pods) and _allowed(address)
    ]
    if not found:
        raise ApiError("ServiceUnavailable", f'no endpoints available for service "{wanted.name}"')
    return found


def addresses_of(pod: Json) -> frozenset[str]:
    """Return the addresses that a pod has. The one that a pod had before it ended may be that of another now."""
    status = pod.get("status") or {}
    if status.get("phase") in TERMINAL_PHASES:
        return frozenset()
    found = (status.get("podIP"), *(one.get("ip") for one in status.get("podIPs") or ()))
    return frozenset(address for address in found if address)


def _is_of_pod(address: str, endpoint: Json, namespace: str, pods: Mapping[str, Collection[str]]) -> bool:
    """Whether the address of an endpoint is that of the pod which it names. Users write EndpointSlices, too, and what
    they say about an address is no proof (storage.go, isValidAddress)."""
    target = endpoint.get("targetRef") or {}
    is_own = target.get("kind") == "Pod" and target.get("namespace") == namespace
    return is_own and address in pods.get(target.get("name") or "", ())


def _number(port: str) -> int:
    if port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return int(port)
    raise bad_request(f'the port "{port}" is no number between 1 and 65535')


def _allowed(address: str) -> bool:
    """Whether an address may be one of a pod's: not the node's loopback, nor a cloud's metadata server."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified)
