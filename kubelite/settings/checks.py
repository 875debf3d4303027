"""Checks of single settings. Each returns the value in its normal form or raises ValueError with a sentence.

`info.data` holds the settings that stand earlier in the model and are valid.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from pydantic import ValidationInfo

from kubelite.kube.pod_security import Levels, parse_levels

DEFAULT_ROOT = "/var/lib/kubelite"


def absolute_path(value: str) -> str:
    if not value:
        raise ValueError("must name a directory")
    return os.path.abspath(os.path.expanduser(value))


def absolute_paths(value: str) -> str:
    return ",".join(absolute_path(path.strip()) for path in value.split(","))


def optional_path(value: str) -> str:
    return absolute_path(value) if value else ""


def path_or_none(value: str) -> str:
    return value if value == "none" else optional_path(value)


def path_with_tls(value: str, info: ValidationInfo) -> str:
    if value and not info.data.get("tls_cert_file", "invalid"):
        raise ValueError("needs tls_cert_file")
    return optional_path(value)


def host_and_port(value: str) -> str:
    if value in ("", "none"):
        return ""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:10255")
    return f"{host or '127.0.0.1'}:{port}"


def runtime_classes(value: dict[str, str]) -> dict[str, str]:
    for name, path in value.items():
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
            raise ValueError(f"{name!r} is not a valid RuntimeClass name: use a DNS name in lower case")
        if not path.startswith("/"):
            raise ValueError(
                f"{name}: must be the absolute path of an OCI runtime, for example /usr/bin/runc"
            )
    return value


def priority_classes(value: dict[str, int]) -> dict[str, int]:
    """Check names and values as the API server does: it reserves the prefix system- and values above a billion."""
    for name, priority in value.items():
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
            raise ValueError(f"{name!r} is not a valid PriorityClass name: use a DNS name in lower case")
        if name.startswith("system-"):
            raise ValueError(f"{name}: the prefix system- is reserved for Kubernetes")
        if not -(1 << 31) <= priority <= 1_000_000_000:
            raise ValueError(f"{name}: must be at most 1000000000")
    return value


def host_names(value: str) -> str:
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(r"[a-z0-9_]([-a-z0-9_.]{0,251}[a-z0-9_])?", name):
            raise ValueError(
                f"{name!r} is not a DNS name; give it without a port, for example node-1.example.org"
            )
    return ",".join(names)


def otlp_endpoint(value: str) -> str:
    """Add the path that OTLP/HTTP uses for traces if the URL has none."""
    if not value:
        return ""
    try:
        found = urlsplit(value)
        port = found.port
    except ValueError as error:
        raise ValueError(f"must be a URL, for example http://127.0.0.1:4318: {error}") from None
    if found.scheme not in ("http", "https") or not found.hostname or port == 0:
        raise ValueError("must be an http or https URL with a host, for example http://127.0.0.1:4318")
    if found.username or found.query or found.fragment:
        raise ValueError("must not have a login, a query or a fragment")
    path = found.path if found.path.strip("/") else "/v1/traces"
    return f"{found.scheme}://{found.netloc}{path}"


def part_of_grace_period(value: float, info: ValidationInfo) -> float:
    if value > info.data.get("shutdown_grace_period", value):
        raise ValueError("must not exceed shutdown_grace_period, of which it is a part")
    return value


def one_kind_of_grace_period(value: dict[int, float], info: ValidationInfo) -> dict[int, float]:
    """Check as Kubernetes does (ValidateKubeletConfiguration in pkg/kubelet/apis/config/validation)."""
    for other in ("shutdown_grace_period", "shutdown_grace_period_critical_pods"):
        if value and info.data.get(other):
            raise ValueError(f"cannot be set together with {other}: both set the pods' grace periods")
    return value


def interface_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", value):
        raise ValueError("must be an interface name of at most 15 letters, digits, '-', '_' or '.'")
    return value


def name_servers(value: str) -> str:
    """`auto`, `none`, or up to three addresses (resolv.conf(5), MAXNS)."""
    if value in ("auto", "none"):
        return value
    servers = [server.strip() for server in value.split(",") if server.strip()]
    if not 1 <= len(servers) <= 3 or not all(map(_is_address, servers)):
        raise ValueError("must be auto, none, or one to three IP addresses, separated by commas")
    return ",".join(servers)


def stub_domains(value: dict[str, str]) -> dict[str, str]:
    for domain, servers in value.items():
        _dns_name(domain)
        for server in servers.split(";"):
            address, hash_, port = server.partition("#")
            if not _is_address(address) or (hash_ and not (port.isdigit() and 0 < int(port) < 65536)):
                raise ValueError(f"{domain}: {server!r} is not an IP address, with or without #PORT")
    return {domain.lower().rstrip("."): servers for domain, servers in value.items()}


def dns_records(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        _dns_name(name)
        values = text.split(";")
        if not all(map(_is_address, values)):
            if len(values) > 1:
                raise ValueError(f"{name}: {text!r} must be IP addresses, or one name")
            _dns_name(text)
    return value


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _dns_name(text: str) -> None:
    """Raise ValueError if it is no DNS name (RFC 1035, 2.3.4; an underscore may begin a label, as in RFC 8552)."""
    name = text.rstrip(".")
    label = r"[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9])?"
    if len(name) > 253 or not re.fullmatch(rf"{label}(\.{label})*", name):
        raise ValueError(f"{text!r} is not a DNS name")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: IPv6 networks whose addresses the kernel gives no pod, or does not route (RFC 4291, 2.4).
_SPECIAL = {"::/8": "loopback and IPv4", "fe80::/10": "link-local", "ff00::/8": "multicast"}


def pod_network(value: str) -> str:
    """An IPv4 network, or one and an IPv6 network behind a comma, as kube-controller-manager's --cluster-cidr."""
    networks = [ipaddress.ip_network(part.strip(), strict=False) for part in value.split(",")]
    match [network.version for network in networks]:
        case [4] | [4, 6]:
            pass
        case [6] | [6, 4]:
            raise ValueError(f"must begin with an IPv4 network, for example 10.88.0.0/16,{networks[0]}")
        case _:
            raise ValueError("must be one IPv4 network, or an IPv4 and an IPv6 network")
    if networks[0].prefixlen > 29:
        raise ValueError("must be an IPv4 network with at least 8 addresses, for example 10.88.0.0/16")
    if networks[1:] and not 8 <= networks[1].prefixlen <= 96:
        raise ValueError(
            "the IPv6 network must have a prefix between /8 and /96, for example 10.88.0.0/16,fd00:88::/64"
        )
    if networks[1:]:
        _refuse_special(networks[1])
    return ",".join(map(str, networks))


#: Ranges for Services, the preferred one first: kubeadm's, and OpenShift's.
_SERVICE_NETWORKS = ("10.96.0.0/16", "172.30.0.0/16")


def service_network(value: str, info: ValidationInfo) -> str:
    """An IPv4 network, or one and an IPv6 network behind a comma, as kube-apiserver's --service-cluster-ip-range."""
    pods = [ipaddress.ip_network(text) for text in info.data.get("pod_cidr", "10.88.0.0/16").split(",")]
    if not value:
        free = (text for text in _SERVICE_NETWORKS if not pods[0].overlaps(ipaddress.ip_network(text)))
        return next(free, _SERVICE_NETWORKS[0])
    networks = [ipaddress.ip_network(part.strip(), strict=False) for part in value.split(",")]
    match [network.version for network in networks]:
        case [4] | [4, 6]:
            pass
        case [6] | [6, 4]:
            raise ValueError(f"must begin with an IPv4 network, for example 10.96.0.0/16,{networks[0]}")
        case _:
            raise ValueError("must be one IPv4 network, or an IPv4 and an IPv6 network")
    if not 8 <= networks[0].prefixlen <= 28:
        raise ValueError("must be an IPv4 network with 16 to 16777216 addresses, for example 10.96.0.0/16")
    if networks[1:]:
        _check_service_network6(networks[1], pods)
    if pods[0].overlaps(networks[0]):
        raise ValueError(f"must not overlap pod_cidr, which is {pods[0]}")
    return ",".join(map(str, networks))


def _check_service_network6(network: Network, pods: Sequence[Network]) -> None:
    if not 64 <= network.prefixlen <= 124:
        raise ValueError(
            "the IPv6 network must have a prefix between /64 and /124, for example 10.96.0.0/16,fd00:96::/112"
        )
    _refuse_special(network)
    if not pods[1:]:
        raise ValueError(
            "Services can have IPv6 addresses only if pods have them: "
            f"set pod_cidr to {pods[0]} and an IPv6 network, for example {pods[0]},fd00:88::/64"
        )
    if pods[1].overlaps(network):
        raise ValueError(f"the IPv6 network must not overlap that of pod_cidr, which is {pods[1]}")


def _refuse_special(network: Network) -> None:
    for special, what in _SPECIAL.items():
        if network.overlaps(ipaddress.IPv6Network(special)):
            raise ValueError(f"the IPv6 network {network} overlaps {special} ({what}); use one from fd00::/8")


def plugin_directory(value: str, info: ValidationInfo) -> str:
    if not value:
        root = info.data.get("root", DEFAULT_ROOT)
        return "/var/lib/kubelet" if root == DEFAULT_ROOT else f"{root}/kubelet"
    return "" if value == "none" else absolute_path(value)


def port_range(value: str) -> str:
    first, dash, last = (part.strip() for part in value.partition("-"))
    if not (dash and first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65536):
        raise ValueError("must be FIRST-LAST, for example 30000-32767")
    return f"{int(first)}-{int(last)}"


def another_port(value: int, info: ValidationInfo) -> int:
    if value == info.data.get("ingress_http_port"):
        raise ValueError("must not be ingress_http_port")
    return value


def cgroup_name(value: str) -> str:
    name = value.strip("/")
    if not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("must be a cgroup's name below the root, for example kubelite")
    return name


def node_name(value: str) -> str:
    name = (value or socket.gethostname()).lower().replace("_", "-").strip("-.")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
        raise ValueError("must be a DNS name in lower case, for example node-1")
    return name


def below_high_threshold(value: int, info: ValidationInfo) -> int:
    high = info.data.get("image_gc_high_threshold_percent")
    if high is not None and value >= high:
        raise ValueError(f"must be below image-gc-high-threshold-percent, which is {high}")
    return value


def reservation(value: str) -> str:
    from kubelite.node.model.capacity import parse_reserved

    parse_reserved(value)
    return value


def extended_resources(value: str) -> str:
    from kubelite.node.model.capacity import parse_extended

    parse_extended(value)
    return value


def memory_limit(value: str) -> str:
    from kubelite.node.model.capacity import memory_limit

    memory_limit(value, 1 << 40)
    return value


def processors(value: str) -> str:
    from kubelite.node.model.capacity import parse_cpus

    parse_cpus(value)
    return value


def thresholds(value: str) -> str:
    from kubelite.node.model.capacity import parse_thresholds

    parse_thresholds(value)
    return value


def image_names(value: str) -> str:
    from kubelite.node.spec.image_verification import allowlist

    allowlist(value)
    return value


def pod_security_levels(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        try:
            parse_levels(text, Levels())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return value


def host_paths(value: str) -> str:
    for path in value.split(",") if value not in ("", "none") else ():
        if not path.strip().startswith("/") or ".." in path.removesuffix(":ro").split("/"):
            raise ValueError(f"{path!r} is not an absolute path without '..'")
    return value
