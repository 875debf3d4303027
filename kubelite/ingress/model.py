"""Values of Ingresses: names that Kubernetes and this node give meaning to, and what a routing consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KIND, CLASS_KIND = "Ingress", "IngressClass"
CONTROLLER = "kubelite.io/ingress"  # spec.controller of the IngressClasses that this node serves
CLASS = "kubelite"  # the class that this node serves without an IngressClass
CLASS_ANNOTATION = "kubernetes.io/ingress.class"  # the predecessor of ingressClassName
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
NAMESPACE, POD = "kube-system", "kubelite-ingress"  # of the proxy's pod

Name = tuple[str, str]  # namespace and name


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address of a pod behind a Service."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Backend:
    """A port of a Service. `name`: unique, of letters, digits, "-" and "_". `affinity`: one client goes to one pod.
    `h2c`: the pods speak HTTP/2 without TLS."""

    name: str
    endpoints: tuple[Endpoint, ...] = ()
    affinity: bool = False
    h2c: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """Where requests for a host and a path go. `host`: "" for every host, or with `*.` at its beginning. `path`: of a
    prefix without a slash at its end. `backend`: a name, "" if there is no such Service or port."""

    host: str
    path: str
    exact: bool
    backend: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, in PEM, and the hosts for which it is used. `name`: of its file."""

    name: str
    pem: bytes
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Routing:
    """All that a proxy must know. `defaults`: host → backend for requests that no route matches, "" is every host.
    `problems`: what is wrong with an Ingress, as sentences for people, by its uid."""

    routes: tuple[Route, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[Backend, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
