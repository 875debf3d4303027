"""Which addresses ADD may fetch from. The builder is a process of the host, so the author of a Containerfile could
otherwise copy answers of services that listen on the host's loopback, or of a cloud's metadata server, into an image.
`kubelite build --network host` allows them."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import urllib.parse
import urllib.request
from typing import Any

from runtime.builder.copy.copying import CopyError

HINT = "the host's own addresses are refused; `kubelite build --network host` allows them"


def is_refused(address: str) -> bool:
    """Whether an address is loopback, link-local or unspecified (which reaches loopback), also as an IPv4 address in
    IPv6. Pure."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
        if int(ip) >> 32 == 0x64FF9B << 64:  # NAT64 (RFC 6052)
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified


def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return getaddrinfo's answer for TCP. Raises CopyError if one of the addresses is refused, OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, where in found:
        if is_refused(str(where[0])):
            named = host if host == where[0] else f"{host} is {where[0]}"
            raise CopyError(f"{named}: {HINT}")
    return list(found)


def _connected(address: tuple[str, int], timeout: float | None, _source: object = None) -> socket.socket:
    """Like socket.create_connection, but connect only to addresses that have been checked."""
    failed: OSError | None = None
    for family, kind, protocol, _, where in resolve(*address):
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as error:
            failed = error
            continue
        try:
            connection.settimeout(timeout)
            connection.connect(where)
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    raise failed or OSError(f"{address[0]} has no address")


class _Http(http.client.HTTPConnection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = _connected  # connect() calls this attribute, in both classes


class _Https(http.client.HTTPSConnection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = _connected


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPConnection if _by_proxy(req) else _Http, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPSConnection if _by_proxy(req) else _Https, req)


def _by_proxy(request: urllib.request.Request) -> bool:
    """Whether the operator's proxy makes the connection. The proxy itself may listen on loopback. It resolves names, so
    only addresses and `localhost` can be refused here. Raises CopyError."""
    if not request.has_proxy() and not getattr(request, "_tunnel_host", None):
        return False
    name = urllib.parse.urlsplit(request.full_url).hostname or ""
    refused = name.rstrip(".") == "localhost"
    with contextlib.suppress(ValueError):  # a name, not an address
        refused = refused or is_refused(name)
    if refused:
        raise CopyError(f"{name}: {HINT}")
    return True


def opener(*, host: bool) -> urllib.request.OpenerDirector:
    """Return urllib's opener, which follows redirects. `host`: the host's own addresses are allowed."""
    return urllib.request.build_opener() if host else urllib.request.build_opener(_HttpHandler, _HttpsHandler)
