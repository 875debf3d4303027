"""What the checks share: the security contexts of a pod's containers, and the words for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kubelite.node.model.ephemeral import every_container
from manifests.types.container import AppArmorProfile, SeccompProfile, SecurityContext
from manifests.types.core import Pod
from manifests.types.pod import PodSecurityContext

Check = Callable[[Pod], tuple[str, str] | None]  # (reason, detail); None = allowed
Profile = AppArmorProfile | SeccompProfile | None

_PROFILES = ("RuntimeDefault", "Localhost")


def contexts(pod: Pod) -> Iterator[tuple[str, SecurityContext]]:
    """The containers' names and security contexts. A missing context is the same as an empty one."""
    for container in every_container(pod):
        yield container.name, container.security_context or SecurityContext()


def quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def listed(containers: list[str]) -> str:
    return f"{plural('container', len(containers))} {quoted(containers)}"


def set_by(pod: bool, containers: list[str]) -> str:
    return " and ".join([*["pod"] * pod, *([listed(containers)] if containers else [])])


def wrong_profiles(
    pod: Pod, profile_of: Callable[[SecurityContext | PodSecurityContext], Profile]
) -> tuple[bool, list[str], set[str]]:
    """Whether the pod itself has a profile of a forbidden type, the containers that have one, and these types."""

    def wrong(context: SecurityContext | PodSecurityContext | None) -> set[str]:
        profile = profile_of(context) if context is not None else None
        return {profile.type} if profile is not None and profile.type not in _PROFILES else set()

    of_pod = wrong(pod.spec.security_context)
    found = {name: types for name, context in contexts(pod) if (types := wrong(context))}
    return bool(of_pod), list(found), of_pod.union(*found.values())


def of_windows(pod: Pod) -> bool:
    return pod.spec.os is not None and pod.spec.os.name == "windows"


def in_user_namespace(pod: Pod) -> bool:
    return pod.spec.host_users is False
