"""Rules of Ingress and IngressClass (Kubernetes pkg/apis/networking/validation/validation.go: ValidateIngressCreate,
ValidateIngressClass, ValidateIngressClassUpdate)."""

import re
from collections.abc import Iterator

from manifests.names import dns_label, dns_subdomain, path_segment, port_name
from manifests.problems import Path, Problem, forbidden, invalid, not_supported, required
from manifests.types.services.ingress import (
    HTTPIngressPath,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassParametersReference,
    IngressRule,
    IngressServiceBackend,
    IngressTLS,
)
from manifests.validation.meta import validate_meta
from manifests.validation.rules import formatted, port_in_range, required_name
from manifests.validation.services.addresses import address_of, dns_1035_label

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
SCOPES = ("Cluster", "Namespace")
LONGEST_CONTROLLER = 250
_NOT_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_NOT_AT_END = ("/..", "/.")
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_WILDCARD = rf"\*\.{_LABEL}(\.{_LABEL})*"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_SPEC: Path = ("spec",)


def ingress_problems(found: Ingress) -> Iterator[Problem]:
    yield from validate_meta(found.metadata)
    spec = found.spec
    if not spec.rules and spec.default_backend is None:
        yield invalid(_SPEC, [], "either `defaultBackend` or `rules` must be specified")
    if spec.default_backend is not None:
        yield from _backend(spec.default_backend, (*_SPEC, "defaultBackend"))
    for index, rule in enumerate(spec.rules):
        yield from _rule(rule, (*_SPEC, "rules", index))
    for index, tls in enumerate(spec.tls):
        yield from _tls(tls, (*_SPEC, "tls", index))
    if spec.ingress_class_name is not None:
        yield from formatted((*_SPEC, "ingressClassName"), spec.ingress_class_name, dns_subdomain)
    named = found.metadata.annotations.get(CLASS_ANNOTATION)
    if named is not None and spec.ingress_class_name not in (None, named):
        sentence = "must match `ingressClassName` when both are specified"
        yield invalid(("metadata", "annotations", CLASS_ANNOTATION), named, sentence)


def _rule(rule: IngressRule, path: Path) -> Iterator[Problem]:
    if rule.host:
        if address_of(rule.host) is not None:
            yield invalid((*path, "host"), rule.host, "must be a DNS name, not an IP address")
        yield from _host((*path, "host"), rule.host)
    if rule.http is None:
        return
    here = (*path, "http", "paths")
    if not rule.http.paths:
        yield required(here)
    for index, one in enumerate(rule.http.paths):
        yield from _path(one, (*here, index))


def _host(path: Path, value: str) -> Iterator[Problem]:
    yield from formatted(path, value, wildcard_subdomain if "*" in value else dns_subdomain)


def wildcard_subdomain(value: str) -> list[str]:
    """Check a host such as *.example.com (apimachinery: IsWildcardDNS1123Subdomain)."""
    problems = ["must be no more than 253 bytes"] if len(value.encode()) > 253 else []
    if not re.fullmatch(_WILDCARD, value, re.ASCII):
        problems.append(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist "
            "of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. "
            f"'*.example.com', regex used for validation is '{_WILDCARD}')"
        )
    return problems


def _path(found: HTTPIngressPath, path: Path) -> Iterator[Problem]:
    kind, here = found.path_type, (*path, "path")
    if kind is None:
        yield required((*path, "pathType"), "pathType must be specified")
        return
    if kind not in PATH_TYPES:
        yield not_supported((*path, "pathType"), kind, PATH_TYPES)
    elif not (found.path or "").startswith("/") and (found.path or kind != "ImplementationSpecific"):
        yield invalid(here, found.path or "", "must be an absolute path")
    if kind in ("Exact", "Prefix"):
        for part in _NOT_IN_PATHS:
            if part in (found.path or ""):
                yield invalid(here, found.path, f"must not contain '{part}'")
        for end in _NOT_AT_END:
            if (found.path or "").endswith(end):
                yield invalid(here, found.path, f"cannot end with '{end}'")
    yield from _backend(found.backend, (*path, "backend"))


def _backend(backend: IngressBackend, path: Path) -> Iterator[Problem]:
    resource, service = backend.resource, backend.service
    if resource is not None and service is not None:
        yield invalid(path, "", "cannot set both resource and service backends")
    elif resource is not None:
        here = (*path, "resource")
        if resource.api_group is not None:
            yield from formatted((*here, "apiGroup"), resource.api_group, dns_subdomain)
        yield from required_name((*here, "kind"), resource.kind, path_segment)
        yield from required_name((*here, "name"), resource.name, path_segment)
        sentence = "kubelite serves no backends other than Services: use `service`"
        yield forbidden(here, sentence)
    elif service is not None:
        yield from _service(service, path)
    else:
        yield invalid(path, "", "resource or service backend is required")


def _service(service: IngressServiceBackend, path: Path) -> Iterator[Problem]:
    yield from required_name((*path, "service", "name"), service.name, dns_1035_label)
    name, number = service.port.name, service.port.number
    if name and number:
        yield invalid(path, "", "cannot set both port name & port number")
    elif name:
        yield from formatted((*path, "service", "port", "name"), name, port_name)
    elif number:
        yield from port_in_range((*path, "service", "port", "number"), number)
    else:
        yield required(path, "port name or number is required")


def _tls(tls: IngressTLS, path: Path) -> Iterator[Problem]:
    for index, host in enumerate(tls.hosts):
        yield from _host((*path, "hosts", index), host)
    if tls.secret_name:
        yield from formatted((*path, "secretName"), tls.secret_name, dns_subdomain)


def ingress_class_problems(found: IngressClass) -> Iterator[Problem]:
    yield from validate_meta(found.metadata, namespaced=False)
    path, controller = (*_SPEC, "controller"), found.spec.controller
    if not controller:
        yield required(path)
    else:
        if len(controller.encode()) > LONGEST_CONTROLLER:
            yield Problem(path, f"Too long: may not be more than {LONGEST_CONTROLLER} bytes")
        yield from _domain_prefixed(path, controller)
    if found.spec.parameters is not None:
        yield from _parameters(found.spec.parameters, (*_SPEC, "parameters"))


def ingress_class_update_problems(old: IngressClass, new: IngressClass) -> Iterator[Problem]:
    if old.spec.controller != new.spec.controller:
        yield invalid((*_SPEC, "controller"), new.spec.controller, "field is immutable")


def _domain_prefixed(path: Path, value: str) -> Iterator[Problem]:
    """Check a name such as example.com/ingress (apimachinery: IsDomainPrefixedPath)."""
    domain, slash, rest = value.partition("/")
    if not slash or not domain or not rest:
        yield invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')
        return
    yield from formatted(path, domain, dns_subdomain)
    if not re.fullmatch(_HTTP_PATH, rest, re.ASCII):
        yield invalid(
            path, rest, f"Invalid path (e.g. '/path', or '/path/foo', regex used is '{_HTTP_PATH}')"
        )


def _parameters(found: IngressClassParametersReference, path: Path) -> Iterator[Problem]:
    if found.api_group is not None:
        yield from formatted((*path, "apiGroup"), found.api_group, dns_subdomain)
    yield from required_name((*path, "kind"), found.kind, path_segment)
    yield from required_name((*path, "name"), found.name, path_segment)
    here = (*path, "namespace")
    if found.scope not in SCOPES:
        yield not_supported((*path, "scope"), found.scope or "", SCOPES)
    elif found.scope == "Namespace" and found.namespace is None:
        yield required(here, "`parameters.scope` is set to 'Namespace'")
    elif found.scope == "Namespace" and found.namespace is not None:
        yield from formatted(here, found.namespace, dns_label)
    elif found.namespace is not None:
        yield forbidden(here, "`parameters.scope` is set to 'Cluster'")
