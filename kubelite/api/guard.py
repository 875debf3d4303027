"""Checks of every request, on every transport, that refuse requests of web pages.

The socket can be made reachable over TCP, by `kubelite proxy` or another forwarder. Then every page in a browser on the
machine can send requests to it. A browser sends some cross-origin requests without asking the server first: GET,
WebSocket handshakes, and POST with a form's content types (Fetch standard, "CORS-safelisted"). The headers `Origin` and
`Sec-Fetch-Site` identify the page. If a page's own DNS name was rebound to a loopback address, the request is
same-origin, but its `Host` is not a name of this node.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from kubelite.api.errors import refuse
from kubelite.api.secure.users import user_of
from kubelite.kube.errors import ApiError

JSON_TYPES = frozenset(
    {
        "application/apply-patch+yaml",
        "application/json",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/yaml",
    }
)
ARCHIVE = "application/x-tar"
PROTOBUF = "application/vnd.kubernetes.protobuf"  # of kubectl's own commands, for Kubernetes' own paths
LOAD = "/kubelite/v1/images/load"  # the only path whose body may be an archive
_WRITES = frozenset({"DELETE", "PATCH", "POST", "PUT"})


def own_name(host: str, names: Iterable[str]) -> bool:
    """Whether a Host header (a name or an address, with or without a port) is an IP address, localhost or one of
    `names` (in lower case). DNS rebinding needs a name, so every address is accepted."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refusal(scope: Scope, names: frozenset[str]) -> ApiError | None:
    """Return the error if a request is refused, else None."""
    headers: dict[str, list[str]] = {}
    for key, value in scope["headers"]:
        headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    hosts = headers.get("host", [])
    if foreign := [host for host in hosts if not own_name(host, names)]:
        words = f"the host {foreign[0]!r} is not this node: use an IP address, localhost or the node's name"
        return ApiError("Forbidden", words)
    for origin in headers.get("origin", []):
        if origin.partition("://")[2].lower() not in [host.lower() for host in hosts]:
            return ApiError("Forbidden", f"requests of web pages are refused (origin {origin!r})")
    # A GET has this header, too, but no Origin. "none": a person typed the address.
    if any(site not in ("none", "same-origin") for site in headers.get("sec-fetch-site", [])):
        return ApiError("Forbidden", "requests of web pages are refused (Sec-Fetch-Site)")
    return _untyped(scope, headers) if scope["type"] == "http" else None


def _untyped(scope: Scope, headers: dict[str, list[str]]) -> ApiError | None:
    """Refuse the body of a write unless it has a content type that a page can send across origins only with the
    server's permission (a CORS preflight)."""
    length = headers.get("content-length", ["0"])[0]
    if scope["method"] not in _WRITES or (length == "0" and "transfer-encoding" not in headers):
        return None
    if is_proxied(scope["path"]):  # the pod knows what it understands
        return None
    given = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
    if given in JSON_TYPES or (given == ARCHIVE and scope["path"] == LOAD):
        return None
    if not scope["path"].startswith("/kubelite/") and (
        given == PROTOBUF or (not given and _logged_in(scope))
    ):
        return None
    from kubelite.api.kube.resources import not_served

    if said := not_served(
        scope["path"]
    ):  # kubectl sends some kinds as protobuf: another format would not help
        return ApiError("NotFound", said)
    words = f"the body of the request was in an unknown format ({given or 'no Content-Type'}): use application/json"
    return ApiError("UnsupportedMediaType", f"{words}, or application/yaml for manifests")


def _logged_in(scope: Scope) -> bool:
    """Whether the request has a login. Then a body without a content type is JSON, as on a cluster (apiserver
    pkg/endpoints/handlers/negotiation/negotiate.go): `kubectl create --raw` and client libraries send such. A page can
    send one, too, but always with its Origin."""
    user = user_of(scope)
    return user is not None and not user.anonymous


def is_proxied(path: str) -> bool:
    """Whether a request is for a pod or a Service, to which the API sends it on. A page's request has an Origin."""
    parts = path.removesuffix("\n").split("/")  # Starlette's routes match a line feed at the end, too
    return (
        parts[1:4] == ["api", "v1", "namespaces"]
        and parts[5:6] in (["pods"], ["services"])
        and parts[7:8] == ["proxy"]
    )


class Guard:
    """ASGI middleware that refuses requests with a metav1.Status, WebSockets before they are accepted."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower().rstrip(".") for name in names if name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = refusal(scope, self._names)
        if error is None:
            await self._app(scope, receive, send)
        else:
            await refuse(error, scope, receive, send)
