"""Pure: what a proxy does with requests: Ingresses, Services, their endpoints and certificates in, a routing out.

A request goes to the most specific host that has a path for it (a name, a wildcard, every host), there to the longest
path, and to an exact one before a prefix. Of two Ingresses with the same host and path, the older one counts.

Source: Kubernetes' documentation of Ingress ("Path types", "Multiple matches", "Hostname wildcards") and the comments
of staging/src/k8s.io/api/networking/v1/types.go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kubelite.ingress.model import Backend, Certificate, Endpoint, Name, Route, Routing
from kubelite.kube.json import Json
from kubelite.services.ports import ready_endpoints

#: What an Ingress names in another controller's words. They have no effect here.
OTHERS = (
    "nginx.ingress.kubernetes.io/",
    "traefik.ingress.kubernetes.io/",
    "haproxy.org/",
    "haproxy-ingress.github.io/",
)
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*", re.ASCII)
_PATH = re.compile(r"/[!-\"$->@-~]*", re.ASCII)  # visible characters except "#" and "?"
#: haproxy reads a map in pieces of 16 KiB, and takes what is left of a longer line for another key.
_LONGEST_PATH = 8192
_LONGEST_NAME = 200  # of a certificate; a file name has 255 bytes at most


@dataclass(frozen=True, slots=True)
class View:
    """The objects that a routing is made of. `slices`: EndpointSlices by Service; `pems`: by the name of a Secret, the
    certificate and its key, or a sentence that says why there is none; `node`: the name of this node."""

    ingresses: Sequence[Json]
    services: Mapping[Name, Json] = field(default_factory=dict)
    slices: Mapping[Name, Sequence[Json]] = field(default_factory=dict)
    pems: Mapping[Name, bytes | str] = field(default_factory=dict)
    node: str = ""


def routing_of(view: View) -> Routing:
    return _Routing(view).made()


def secrets_of(ingress: Json) -> set[Name]:
    """Return the names of the Secrets that an Ingress needs."""
    namespace = ingress["metadata"]["namespace"]
    return {
        (namespace, tls["secretName"]) for tls in ingress["spec"].get("tls") or () if tls.get("secretName")
    }


def services_of(ingress: Json) -> set[Name]:
    """Return the names of the Services to which an Ingress leads."""
    namespace = ingress["metadata"]["namespace"]
    return {
        (namespace, found["service"]["name"]) for found in _backends(ingress["spec"]) if found.get("service")
    }


def _backends(spec: Json) -> Iterator[Json]:
    if found := spec.get("defaultBackend"):
        yield found
    for rule in spec.get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            yield path["backend"]


class _Routing:
    """Collects a routing, one Ingress after the other."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._routes: dict[tuple[str, str, bool], tuple[Route, str]] = {}  # with the title of the Ingress
        self._defaults: dict[str, tuple[str, str]] = {}
        self._backends: dict[str, Backend] = {}
        self._hosts: dict[Name, set[str]] = {}  # of certificates
        self._problems: dict[str, dict[str, None]] = {}  # in order, each once
        self._said: dict[str, None] = {}  # the problems of the Ingress that is looked at

    def made(self) -> Routing:
        for ingress in sorted(self._view.ingresses, key=_age):
            self._said = self._problems.setdefault(ingress["metadata"].get("uid", ""), {})
            self._add(ingress)
        return Routing(
            tuple(sorted(route for route, _ in self._routes.values())),
            {host: backend for host, (backend, _) in sorted(self._defaults.items())},
            tuple(self._backends[name] for name in sorted(self._backends)),
            tuple(self._certificates()),
            {uid: tuple(said) for uid, said in self._problems.items() if said},
        )

    def _say(self, sentence: str) -> None:
        self._said[sentence] = None

    def _add(self, ingress: Json) -> None:
        metadata, spec = ingress["metadata"], ingress["spec"]
        namespace, title = metadata["namespace"], f"{metadata['namespace']}/{metadata['name']}"
        given = metadata.get("annotations") or {}
        if ignored := sorted(key for key in given if key.startswith(OTHERS)):
            self._say(f"annotations of other controllers have no effect here: {', '.join(ignored)}")
        hosts = [""]
        for rule in spec.get("rules") or ():
            host = rule.get("host") or ""
            if host and not _HOST.fullmatch(host):
                self._say(f"no request has the host {host!r}")
                continue
            hosts.append(host)
            for path in (rule.get("http") or {}).get("paths") or ():
                self._add_path(namespace, title, host, path)
        if (default := spec.get("defaultBackend")) is not None:
            backend = self._backend(namespace, default)
            for host in hosts:
                self._defaults.setdefault(host, (backend, title))
        for tls in spec.get("tls") or ():
            self._add_tls(namespace, tls)

    def _add_path(self, namespace: str, title: str, host: str, found: Json) -> None:
        path, exact = found.get("path") or "/", found.get("pathType") == "Exact"
        if not _PATH.fullmatch(path):
            self._say(
                f"no request has the path {path!r}: a path has visible ASCII characters, without '#' and '?'"
            )
            return
        if len(path) > _LONGEST_PATH:
            self._say(f"path {path[:32]}… is longer than {_LONGEST_PATH} characters, which is not supported")
            return
        path = path if exact else path.rstrip("/")
        route = Route(host, path, exact, self._backend(namespace, found["backend"]))
        _, holder = self._routes.setdefault((host, path, exact), (route, title))
        if holder != title:
            self._say(
                f"path {path or '/'} of {host or 'every host'}: the rule of the older ingress {holder} applies"
            )

    def _backend(self, namespace: str, found: Json) -> str:
        """Return the name of a backend, "" if requests cannot go there."""
        wanted = found.get("service")
        if wanted is None:
            self._say("a backend that is no Service is not supported")
            return ""
        service = self._view.services.get((namespace, wanted["name"]))
        if service is None:
            self._say(f'no service "{wanted["name"]}" exists in namespace {namespace}')
            return ""
        if service["spec"].get("type") == "ExternalName":
            self._say(f'service "{wanted["name"]}" is of type ExternalName, which has no endpoints')
            return ""
        port = port_of(service, wanted.get("port") or {})
        if port is None:
            asked = wanted.get("port") or {}
            self._say(f'service "{wanted["name"]}" has no port {asked.get("name") or asked.get("number")}')
            return ""
        name = f"{namespace}_{wanted['name']}_{port['port']}"
        if name not in self._backends:
            slices = self._view.slices.get((namespace, wanted["name"]), ())
            ready = ready_endpoints(service, port, slices, self._view.node)
            self._backends[name] = Backend(
                name,
                tuple(Endpoint(one.ip, one.port) for one in ready),
                service["spec"].get("sessionAffinity") == "ClientIP",
                port.get("appProtocol") == "kubernetes.io/h2c",
            )
        return name

    def _add_tls(self, namespace: str, tls: Json) -> None:
        secret = tls.get("secretName")
        if not secret:
            return
        pem = self._view.pems.get(
            (namespace, secret), f'no secret "{secret}" exists in namespace {namespace}'
        )
        if isinstance(pem, str):
            self._say(f"{pem}: hosts get the default certificate")
            return
        hosts = (host for host in tls.get("hosts") or () if _HOST.fullmatch(host))
        self._hosts.setdefault((namespace, secret), set()).update(hosts)

    def _certificates(self) -> Iterator[Certificate]:
        """Yield the certificates. Of a host with several, the first one counts."""
        for name, hosts in sorted(self._hosts.items()):
            pem = self._view.pems[name]
            if isinstance(pem, bytes):
                yield Certificate(_certificate_name(name), pem, tuple(sorted(hosts)))


def _certificate_name(secret: Name) -> str:
    """Return a name of which a file can be made. A namespace has no underscore, so no two Secrets share one."""
    name = "_".join(secret)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 65]}_{hashlib.sha256(name.encode()).hexdigest()}"


def _age(ingress: Json) -> tuple[str, str, str]:
    metadata = ingress["metadata"]
    return metadata.get("creationTimestamp") or "", metadata["namespace"], metadata["name"]


def port_of(service: Json, wanted: Json) -> Json | None:
    """Return the port of a Service that a backend names by name or number."""
    ports: Iterable[Json] = service["spec"].get("ports") or ()
    for port in ports:
        if port.get("protocol", "TCP") != "TCP":
            continue
        if wanted.get("name") and port.get("name") == wanted["name"]:
            return port
        if wanted.get("number") and port["port"] == wanted["number"]:
            return port
    return None
