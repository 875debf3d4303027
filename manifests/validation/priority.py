"""Rules of a PriorityClass (Kubernetes pkg/apis/scheduling/validation/validation.go)."""

from collections.abc import Iterator

from manifests.problems import Problem, forbidden
from manifests.types.priority import SYSTEM_CLASSES, PriorityClass
from manifests.validation.rules import one_of

HIGHEST_OF_USERS = 1_000_000_000
POLICIES = ("Never", "PreemptLowerPriority")
_RESERVED = "priority class names with 'system-' prefix are reserved for system use only. error: "


def priority_class_problems(found: PriorityClass) -> Iterator[Problem]:
    name = found.metadata.name or ""
    if name.startswith("system-"):
        if why := _no_system_class(name, found):
            yield forbidden(("metadata", "name"), _RESERVED + why)
    elif found.value > HIGHEST_OF_USERS:
        words = f"maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}"
        yield forbidden(("value",), words)
    yield from one_of(("preemptionPolicy",), found.preemption_policy, POLICIES)


def _no_system_class(name: str, found: PriorityClass) -> str:
    if name not in SYSTEM_CLASSES:
        return f"{name} is not a known system priority class"
    if found.value != SYSTEM_CLASSES[name]:
        return f"value of {name} PriorityClass must be {SYSTEM_CLASSES[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if found.global_default else ""
