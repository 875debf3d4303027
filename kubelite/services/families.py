"""Pure: the IP families of a Service: those that it names, those that its policy adds, and what is refused.

Source: Kubernetes pkg/registry/core/service/storage/alloc.go (initIPFamilyFields) and pkg/apis/core/validation
(ValidateServiceClusterIPsRelatedFields).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kubelite.kube.json import Json

IPV4, IPV6 = "IPv4", "IPv6"
SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
NO_ADDRESS = "None"
EXTERNAL_NAME = "ExternalName"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a Service cannot have what it asks for. `field`: as in `spec.ports[0].nodePort`."""

    field: str
    message: str


def family_of(address: str) -> str:
    return IPV6 if ":" in address else IPV4


def canonical(address: str) -> str:
    """Return an address in the one form that is compared: IPv6 has several for the same address."""
    return _shortest(address) if ":" in address else address


@lru_cache(4096)  # each change looks at the addresses of all Services
def _shortest(address: str) -> str:
    return str(ipaddress.IPv6Address(address))


def with_port(address: str, port: object) -> str:
    """Return an address and a port as they are written together: an IPv6 address is in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def families_of(spec: Json) -> tuple[str, ...]:
    """Return the families of a recorded Service, the first one first."""
    return tuple(spec.get("ipFamilies") or (IPV4,))


def cluster_ips(spec: Json) -> list[str]:
    """Return the clusterIPs of a spec, which may name only the first one; `None` among them."""
    return list(spec.get("clusterIPs") or filter(None, [spec.get("clusterIP")]))


def with_families(old: Json | None, spec: Json, configured: Sequence[str]) -> Json | Refusal:
    """Return a spec with `ipFamilyPolicy`, `ipFamilies` and `clusterIPs` as far as they are known, or why it is
    refused. `old`: the recorded spec, None for a new Service; `spec` has what is kept of it (see
    `allocation.with_allocated`). `configured`: the families of the node's Services, the default first.

    A manifest is read again and again, and means the same each time: where a cluster refuses a second request, such as
    one that names the first family alone, the Service keeps what it has. A missing second family is added to
    PreferDualStack only when something of it changes, so that a new setting of the node changes no Service by
    itself."""
    if spec.get("type") == EXTERNAL_NAME:
        return spec
    if old is not None and old.get("type") == EXTERNAL_NAME:
        old = None  # it has no families
    if old is not None and _is_settled(old, spec):
        return spec
    headless = spec.get("clusterIP") == NO_ADDRESS
    anything = headless and not spec.get("selector")  # its endpoints are none of the node's pods
    policy = spec.get("ipFamilyPolicy") or (REQUIRE if anything else SINGLE)
    addresses, families = cluster_ips(spec), list(spec.get("ipFamilies") or ())
    refused = next(_problems(policy, addresses, families, headless=headless), None)
    if refused is not None:
        return refused
    if not headless:
        for index in range(len(families), len(addresses)):
            if (family := family_of(addresses[index])) not in configured:
                message = f"Invalid value: {_list(addresses)}: {family} is not configured on this cluster"
                return Refusal(f"spec.clusterIPs[{index}]", message)
            families.append(family)
    if not anything and (refused := _unconfigured(policy, families, configured)) is not None:
        return refused
    families = families or list(configured[:1])
    if policy != SINGLE and len(families) == 1 and (anything or len(configured) == 2):
        families.append(IPV6 if families == [IPV4] else IPV4)
    found = {**spec, "ipFamilyPolicy": policy, "ipFamilies": families}
    return {**found, "clusterIPs": addresses} if addresses else found


def _is_settled(old: Json, spec: Json) -> bool:
    """Whether a Service had PreferDualStack and has it still, and none of its addresses and families is to change."""
    return (
        old.get("ipFamilyPolicy") == spec.get("ipFamilyPolicy") == PREFER
        and old.get("type") == spec.get("type")
        and bool(spec.get("ipFamilies"))
        and old.get("ipFamilies") == spec.get("ipFamilies")
        and bool(spec.get("clusterIPs"))
        and old.get("clusterIPs") == spec.get("clusterIPs")
    )


def _problems(
    policy: str, addresses: Sequence[str], families: Sequence[str], *, headless: bool
) -> Iterator[Refusal]:
    """Yield what does not fit together, whatever the node's families are."""
    for index, (address, family) in enumerate(zip(addresses, families, strict=False)):
        if not headless and family_of(address) != family:
            message = f'Invalid value: "{address}": expected an {family} value as indicated by `ipFamilies[{index}]`'
            yield Refusal(f"spec.clusterIPs[{index}]", message)
    for plural, given in (("cluster IPs", addresses), ("IP families", families)):
        if policy == SINGLE and len(given) == 2:
            words = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {plural} are specified"
            yield _of_policy(policy, words)


def _unconfigured(policy: str, families: Sequence[str], configured: Sequence[str]) -> Refusal | None:
    if policy == REQUIRE and len(configured) < 2:
        return _of_policy(policy, "this cluster is not configured for dual-stack services")
    for index, family in enumerate(families):
        if family not in configured:
            return Refusal(
                f"spec.ipFamilies[{index}]", f'Invalid value: "{family}": not configured on this cluster'
            )
    return None


def _of_policy(policy: str, words: str) -> Refusal:
    return Refusal("spec.ipFamilyPolicy", f'Invalid value: "{policy}": {words}')


def _list(values: Sequence[str]) -> str:
    return json.dumps(values, separators=(",", ":"))
