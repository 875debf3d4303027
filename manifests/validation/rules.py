"""The checks of which the rules consist. Each takes a path and a value, and yields problems."""

from collections.abc import Iterable, Iterator

from manifests.names import Format, dns_label, port_name, port_number, relative_path, user_id
from manifests.problems import Path, Problem, invalid, not_supported, required
from manifests.types.core import PodSecurityContext, ResourceFieldSelector, SecurityContext

_SCALES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_HUGE = "hugepages-"
#: Resources of the downward API: their name in messages, and their allowed divisors.
_AMOUNTS = {
    "cpu": ("the cpu resource", ("1m", "1")),
    "memory": ("the memory resource", _SCALES),
    "ephemeral-storage": ("the local ephemeral storage resource", _SCALES),
    _HUGE: ("the hugepages resource", _SCALES),
}


def formatted(path: Path, value: str, check: Format) -> Iterator[Problem]:
    for sentence in check(value):
        yield invalid(path, value, sentence)


def required_name(path: Path, value: str | None, check: Format = dns_label) -> Iterator[Problem]:
    """Check a name that is required and has a format."""
    if value:
        yield from formatted(path, value, check)
    else:
        yield required(path)


def one_of(path: Path, value: str | None, allowed: Iterable[str]) -> Iterator[Problem]:
    if value and value not in (choices := tuple(allowed)):
        yield not_supported(path, value, choices)


def not_negative(path: Path, value: int | None) -> Iterator[Problem]:
    if value is not None and value < 0:
        yield invalid(path, value, "must be greater than or equal to 0")


def port_in_range(path: Path, value: int) -> Iterator[Problem]:
    for sentence in port_number(value):
        yield invalid(path, value, sentence)


def port_or_name(path: Path, value: int | str) -> Iterator[Problem]:
    """Check a port number, or a name that a container gave to a port."""
    if isinstance(value, int):
        yield from port_in_range(path, value)
    else:
        yield from formatted(path, value, port_name)


def valid_id(path: Path, value: int | None) -> Iterator[Problem]:
    for sentence in user_id(value) if value is not None else ():
        yield invalid(path, value, sentence)


def profiles(context: SecurityContext | PodSecurityContext, path: Path) -> Iterator[Problem]:
    """Check seccompProfile and appArmorProfile of a container or a pod."""
    given = {"seccompProfile": context.seccomp_profile, "appArmorProfile": context.app_armor_profile}
    for alias, profile in given.items():
        if profile is None:
            continue
        here = (*path, alias)
        if not profile.type:
            yield required((*here, "type"))
        yield from one_of((*here, "type"), profile.type, ("Localhost", "RuntimeDefault", "Unconfined"))
        name = profile.localhost_profile
        if profile.type == "Localhost" and not name:
            yield required((*here, "localhostProfile"), f"must be set when {alias} type is Localhost")
        elif profile.type != "Localhost" and name:
            yield invalid(
                (*here, "localhostProfile"), name, f"can only be set when {alias} type is Localhost"
            )
        elif name and alias == "seccompProfile":
            yield from formatted((*here, "localhostProfile"), name, relative_path)


def resource_field(path: Path, found: ResourceFieldSelector) -> Iterator[Problem]:
    """Check limits.cpu and the like, in an environment or a volume (validateContainerResourceFieldSelector)."""
    kind, _, name = found.resource.partition(".")
    known = _HUGE if name.startswith(_HUGE) else name
    if not found.resource:
        yield required((*path, "resource"))
    elif kind not in ("limits", "requests") or known not in _AMOUNTS or name == _HUGE:
        allowed = [f"{kind}.{name}" for kind in ("limits", "requests") for name in sorted(_AMOUNTS)]
        yield not_supported((*path, "resource"), found.resource, [a for a in allowed if _HUGE not in a])
    elif found.divisor is not None and found.divisor.nanos:
        words, scales = _AMOUNTS[known]
        if str(found.divisor) not in scales:
            said = f"only divisor's values {_enumerated(scales)} are supported with {words}"
            yield invalid((*path, "divisor"), found.resource, said)


def _enumerated(values: tuple[str, ...]) -> str:
    return " and ".join(values) if len(values) == 2 else ", ".join(values)
