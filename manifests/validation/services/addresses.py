"""Rules of addresses and networks that Services and endpoints share."""

import ipaddress
import re
from collections.abc import Iterator

from manifests.names import dns_label
from manifests.problems import Path, Problem, duplicate, invalid, not_supported, required
from manifests.validation.rules import formatted

PROTOCOLS = ("SCTP", "TCP", "UDP")
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_MULTICAST_V6 = ipaddress.ip_network("ff02::/16")
_MULTICAST_V4 = ipaddress.ip_network("224.0.0.0/24")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def dns_1035_label(value: str) -> list[str]:
    """Check the name of a Service (apimachinery: IsDNS1035Label)."""
    problems = ["must be no more than 63 bytes"] if len(value.encode()) > 63 else []
    if not re.fullmatch(_LABEL_1035, value, re.ASCII):
        problems.append(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            f"validation is '{_LABEL_1035}')"
        )
    return problems


def address_of(value: str) -> Address | None:
    """Return an IP address without a zone; None if the text is none."""
    try:
        return ipaddress.ip_address(value) if "%" not in value else None
    except ValueError:
        return None


def reachable(path: Path, value: str) -> Iterator[Problem]:
    """Check an address that is no special one (Kubernetes: ValidateEndpointIP)."""
    address = address_of(value)
    if address is None:
        yield invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        return
    if address.is_unspecified:
        yield invalid(path, value, f"may not be unspecified ({value})")
    if address.is_loopback:
        yield invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        yield invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if address in (_MULTICAST_V4 if address.version == 4 else _MULTICAST_V6):
        yield invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def network(path: Path, value: str) -> Iterator[Problem]:
    """Check a network as Kubernetes does for a field that may have spaces around it (IsValidCIDRForLegacyField)."""
    try:
        ipaddress.ip_network(value.strip(), strict=False)
        found = "/" in value
    except ValueError:
        found = False
    if not found:
        yield invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")


def protocol(path: Path, value: str | None) -> Iterator[Problem]:
    if not value:
        yield required(path)
    elif value not in PROTOCOLS:
        yield not_supported(path, value, PROTOCOLS)


def port_names(path: Path, names: list[str | None], *, needed: bool) -> Iterator[Problem]:
    """Check the names of the ports of a list. `needed`: a port without a name is a mistake."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        here = (*path, index, "name")
        if not name:
            if needed:
                yield required(here)
            continue
        yield from formatted(here, name, dns_label)
        if name in seen:
            yield duplicate(here, name)
        seen.add(name)
