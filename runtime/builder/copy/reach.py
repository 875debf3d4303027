"""Which addresses ADD may fetch from. The builder is a process of the host, so the author of a Containerfile could
otherwise copy answers of services that listen on the host's loopback, or of a cloud's metadata server, into an image.
`kubelite build --network host` allows them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from runtime.builder.copy.copying import CopyError

_GIT_SECONDS: Final = 30.0
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


class _NoFtp(urllib.request.FTPHandler):
    """urllib follows a redirect to FTP, and its FTP connects to any address."""

    def ftp_open(self, req: urllib.request.Request) -> NoReturn:
        raise CopyError(f"{req.full_url}: only http and https can be fetched")


def opener(*, host: bool, proxies: dict[str, str] | None = None) -> urllib.request.OpenerDirector:
    """Return urllib's opener, which follows redirects. `host`: the host's own addresses are allowed. `proxies`: scheme
    → URL; None: those of the environment."""
    if host:
        return urllib.request.build_opener()
    return urllib.request.build_opener(
        _HttpHandler, _HttpsHandler, _NoFtp, urllib.request.ProxyHandler(proxies)
    )


_DISCOVERY: Final = "/info/refs?service=git-upload-pack"  # git's first request (gitprotocol-http(5))


def git_url(url: str, variables: Mapping[str, str]) -> str:
    """Follow the redirects of a git repository's http or https URL, and return the URL that they lead to: git itself
    would follow them to any address. `variables`: HTTP_PROXY and the like, which git gets.

    Raises CopyError for one of the host's own addresses, and if the repository's path is lost on the way. A server that
    does not answer is left to git, which describes that.
    """
    parts = urllib.parse.urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    bare = urllib.parse.urlunsplit(parts._replace(netloc=place)).rstrip("/")
    request = urllib.request.Request(bare + _DISCOVERY, headers={"User-Agent": "git/2"})
    if at:
        login = urllib.parse.unquote(user).encode()
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(login).decode())
    try:
        with opener(host=False, proxies=_proxies(place, variables)).open(
            request, timeout=_GIT_SECONDS
        ) as answer:
            final = str(answer.geturl())
    except urllib.error.HTTPError as error:
        with error:
            final = str(error.url or bare + _DISCOVERY)
    except (OSError, http.client.HTTPException, ValueError):
        return url
    if final == bare + _DISCOVERY:
        return url
    if not final.endswith(_DISCOVERY):
        raise CopyError(f"{bare} redirects to {final}, which is not a git repository")
    return final.removesuffix(_DISCOVERY)


def _proxies(place: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The proxies for urllib that git takes from these variables (curl(1), "ENVIRONMENT")."""
    given = {name.lower(): value for name, value in variables.items() if value}
    bypassed = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if bypassed(place, {"no": given.get("no_proxy", "")}):
        return {}
    found = {scheme: given.get(f"{scheme}_proxy", given.get("all_proxy", "")) for scheme in ("http", "https")}
    return {scheme: value for scheme, value in found.items() if value}


def pinned(url: str) -> str:
    """The addresses of an http or https URL's host in the form of curl's --resolve, HOST:PORT:ADDRESS[,ADDRESS]. Raises
    CopyError if one is refused; OSError if the host has none."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = dict.fromkeys(str(where[0]) for *_, where in resolve(parts.hostname or "", port))
    addresses = ",".join(f"[{one}]" if ":" in one else one for one in found)
    return f"{parts.hostname}:{port}:{addresses}"
