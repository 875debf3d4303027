"""Pure: a routing as the files of haproxy, and changes of endpoints as commands for a haproxy that runs.

Nothing that a manifest says stands in `haproxy.cfg` but names of backends and addresses, and those are checked here.
Hosts and paths are keys in map files, where a line is a key, a space and a backend; a routing has no keys with spaces.

Source: haproxy's configuration manual and management guide, version 3.0.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kubelite.ingress.model import Backend, Certificate, Endpoint, Route, Routing

HTTP_PORT, HTTPS_PORT = 8080, 8443  # inside the pod; ports below 1024 would need a capability
CONFIG, EXACT, PREFIX, DEFAULTS, CERTIFICATES = (
    "haproxy.cfg", "exact.map", "prefix.map", "defaults.map", "certificates.txt",
)  # fmt: skip
DEFAULT_CERTIFICATE = "default"
_SPARE = 4  # servers of a backend come in this number: so many pods can come and go without a reload
_EVERY_HOST = "-"  # key of DEFAULTS
_UNAVAILABLE = "unavailable"  # the backend of routes without a Service
_LONGEST_KEY = 12_000  # a line that does not fit into 16 KiB would be read as several
_HOSTS_OF_A_LINE = 64  # of a list of certificates; a line has 64 KiB at most
_NAME = re.compile("[a-z0-9][-a-z0-9_.]*", re.ASCII)
_KEY = re.compile(r"[!-~]+", re.ASCII)

Servers = Mapping[str, tuple[Endpoint | None, ...]]  # backend → its servers; None: one that is not used

_HEAD = """\
global
  default-path config
  log stdout format raw local0
  maxconn 8192
  hard-stop-after 1h
  mworker-max-reloads 20
  ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
  mode http
  log global
  option httplog
  option dontlog-normal
  option idle-close-on-response
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  timeout http-request 15s
  timeout http-keep-alive 60s
  timeout client-fin 30s
  timeout queue 10s

frontend ingress
{http}{https}  # who the client is, and what it asked for: what it says itself does not count
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port,map_int(ports.map)]
  http-request del-header Forwarded
  http-request disable-l7-retry if !METH_GET
  # the host without its port; "" unless it can be a name
  http-request set-var(txn.host) req.hdr(host),host_only,lower,rtrim(.)
  http-request set-var(txn.host) str() unless {{ var(txn.host) -m reg ^[a-z0-9._-]+$ }}
  http-request set-var(txn.wild) var(txn.host),regsub(^[^.]*,*)
  # a prefix has a slash at its end in the map: so does the path that is looked up
  http-request set-var(txn.path) path
  http-request set-var(txn.elements) path,concat(/)
{lookups}\
  use_backend %[var(txn.backend)] if {{ var(txn.backend) -m found }}
  default_backend not-found

backend not-found
  http-request return status 404 content-type text/plain string "404: no Ingress has a rule for this request\\n"

backend {unavailable}
  http-request return status 503 content-type text/plain string "503: the Service of this Ingress does not exist\\n"
"""


@dataclass(frozen=True, slots=True)
class Rendered:
    """`files`: content by path. `servers`: what the backends consist of. `structure`: it changes when something other
    than the address of a server does, which takes a reload."""

    files: Mapping[str, bytes]
    servers: Servers
    structure: str


def rendered(
    routing: Routing,
    before: Servers,
    default: bytes | None,
    *,
    http_port: int,
    https_port: int,
    ipv6: bool = False,
) -> Rendered:
    """Return the files for a routing. `before`: servers that a haproxy has already, which keep their places;
    `default`: the certificate for hosts that have none, None if there is no such certificate; the ports are those that
    clients use. `ipv6`: the pod has an IPv6 address."""
    servers = {one.name: placed(one.endpoints, before.get(one.name, ())) for one in routing.backends}
    certificates = list(routing.certificates)
    if default is not None:
        certificates.insert(0, Certificate(DEFAULT_CERTIFICATE, default))
    files = {
        EXACT: _map((_key(route), route.backend) for route in routing.routes if route.exact),
        PREFIX: _map((f"{_key(route)}/", route.backend) for route in routing.routes if not route.exact),
        DEFAULTS: _map((host or _EVERY_HOST, name) for host, name in routing.defaults.items()),
        "ports.map": f"{HTTP_PORT} {http_port}\n{HTTPS_PORT} {https_port}\n".encode(),
    }
    https = ""
    if certificates:
        files[CERTIFICATES] = "".join(map(_listed, certificates)).encode()
        files |= {f"{_checked(one.name)}.pem": one.pem for one in certificates}
        strict = " strict-sni" if default is None else ""
        tls = f" ssl crt-list {CERTIFICATES} alpn h2,http/1.1{strict}"
        https = _listeners(HTTPS_PORT, tls, ipv6=ipv6)
    http = _listeners(HTTP_PORT, "", ipv6=ipv6)
    head = _HEAD.format(http=http, https=https, lookups=_lookups(), unavailable=_UNAVAILABLE)
    blank = head + "".join(_backend(one, (None,) * len(servers[one.name])) for one in routing.backends)
    digest = hashlib.sha256(blank.encode())
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    config = head + "".join(_backend(one, servers[one.name]) for one in routing.backends)
    return Rendered({CONFIG: config.encode(), **files}, servers, digest.hexdigest())


def _listeners(port: int, options: str, *, ipv6: bool) -> str:
    """Return a listener of each family: one for both would name clients of IPv4 as `::ffff:192.0.2.1`."""
    ipv4 = f"  bind :{port}{options}\n"
    return f"{ipv4}  bind [::]:{port} v6only{options}\n" if ipv6 else ipv4


def placed(endpoints: Iterable[Endpoint], before: tuple[Endpoint | None, ...]) -> tuple[Endpoint | None, ...]:
    """Give each endpoint a server. An endpoint keeps the one that it has. There are never fewer servers than before."""
    wanted = list(dict.fromkeys(endpoints))
    found: list[Endpoint | None] = [one if one in wanted else None for one in before]
    new = [one for one in wanted if one not in found]
    if len(wanted) > len(before) or not before:
        found += [None] * (_SPARE * (len(wanted) // _SPARE + 1) - len(before))
    for place, one in enumerate(found):
        if one is None and new:
            found[place] = new.pop(0)
    return tuple(found)


def commands(before: Servers, after: Servers) -> tuple[str, ...]:
    """Return the commands that change the servers of a running haproxy of the same structure. Servers that get traffic
    come first, so that a backend is at no time without one."""
    ready, gone = [], []
    for backend, servers in after.items():
        for place, (old, new) in enumerate(zip(before[backend], servers, strict=True)):
            name = f"{_checked(backend)}/s{place}"
            if new is None and old is not None:
                gone.append(f"set server {name} state maint")
            elif new is not None and new != old:
                ready.append(f"set server {name} addr {_address(new.ip)} port {int(new.port)}")
                ready.append(f"set server {name} state ready")
    return (*ready, *gone)


def _lookups() -> str:
    """The lines that find the backend, the most specific host first."""
    found = []
    for host in ("var(txn.host),concat(,txn.path)", "var(txn.wild),concat(,txn.path)", "var(txn.path)"):
        found.append(f"{host},map_str({EXACT})")
        found.append(f"{host.replace('txn.path', 'txn.elements')},map_beg({PREFIX})")
    found += [f"var({name}),map_str({DEFAULTS})" for name in ("txn.host", "txn.wild")]
    found.append(f"str({_EVERY_HOST}),map_str({DEFAULTS})")
    unless = " unless { var(txn.backend) -m found }"
    return "".join(f"  http-request set-var(txn.backend) {one}{unless}\n" for one in found)


def _key(route: Route) -> str:
    return f"{route.host}{route.path}"


def _map(entries: Iterable[tuple[str, str]]) -> bytes:
    lines = []
    for key, backend in entries:
        if not _KEY.fullmatch(key) or key.startswith("#") or len(key) > _LONGEST_KEY:
            raise ValueError(f"no key of a map: {key[:100]!r}")
        lines.append(f"{key} {_checked(backend or _UNAVAILABLE)}\n")
    return "".join(lines).encode()


def _backend(backend: Backend, servers: Iterable[Endpoint | None]) -> str:
    return "".join(_backend_lines(backend, servers))


def _backend_lines(backend: Backend, servers: Iterable[Endpoint | None]) -> Iterator[str]:
    yield f"\nbackend {_checked(backend.name)}\n"
    yield "  balance source\n  hash-type consistent\n" if backend.affinity else "  balance roundrobin\n"
    protocol = " proto h2" if backend.h2c else ""
    for place, one in enumerate(servers):
        where = f"{_address(one.ip)}:{int(one.port)}" if one is not None else "127.0.0.1:1 disabled"
        yield f"  server s{place} {where}{protocol}\n"


def _listed(certificate: Certificate) -> str:
    """Lines of a crt-list: a file, and the names for which it is used."""
    hosts = certificate.hosts
    for host in hosts:
        _checked(host.removeprefix("*."))
    file = f"{_checked(certificate.name)}.pem"
    parts = (hosts[n : n + _HOSTS_OF_A_LINE] for n in range(0, max(len(hosts), 1), _HOSTS_OF_A_LINE))
    return "".join(" ".join((file, *part)) + "\n" for part in parts)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"no name for haproxy: {name!r}")
    return name


def _address(ip: str) -> str:
    return str(ipaddress.IPv4Address(ip))
