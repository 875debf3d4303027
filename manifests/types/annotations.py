"""Pod annotations with a meaning in the API: profiles that were annotations before they became fields.

They are checked as Kubernetes does (ValidatePodSpecificAnnotations in pkg/apis/core/validation/validation.go, 1.36).
AppArmor's annotations still work: the API server copies them into the fields (applyAppArmorVersionSkew in
pkg/registry/core/pod/strategy.go). seccomp's annotations have no effect since 1.27, but must be well-formed.
"""

import re
from collections.abc import Iterator

from manifests.names import relative_path
from manifests.problems import Path, Problem, invalid
from manifests.types.container import AppArmorProfile, SecurityContext
from manifests.types.core import Pod, PodTemplateSpec

APPARMOR = "container.apparmor.security.beta.kubernetes.io/"  # followed by the container's name
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP = "container.seccomp.security.alpha.kubernetes.io/"  # followed by the container's name
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_LOCALHOST = "localhost/"
_RUNTIME_DEFAULT, _UNCONFINED = "runtime/default", "unconfined"


def default_profiles(pod: Pod) -> None:
    """Copy AppArmor annotations into the containers that set no profile themselves. Alters the pod."""
    if pod.spec.os is not None and pod.spec.os.name == "windows":
        return
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        profile = _profile(pod.metadata.annotations.get(f"{APPARMOR}{container.name}", ""))
        given = container.security_context
        if profile is not None and (given is None or given.app_armor_profile is None):
            container.security_context = given or SecurityContext()
            container.security_context.app_armor_profile = profile


def _profile(text: str) -> AppArmorProfile | None:
    name = text.removeprefix(_LOCALHOST) if text.startswith(_LOCALHOST) else ""
    if name:
        return AppArmorProfile(type="Localhost", localhost_profile=name)
    kind = {_RUNTIME_DEFAULT: "RuntimeDefault", _UNCONFINED: "Unconfined"}.get(text)
    return AppArmorProfile(type=kind) if kind else None


def validate_annotations(pod: Pod | PodTemplateSpec, path: Path) -> Iterator[Problem]:
    names = {container.name for container in (*pod.spec.init_containers, *pod.spec.containers)}
    for key, value in pod.metadata.annotations.items():
        here = (*path, key)
        if key == DELETION_COST and not _is_int32(value):
            yield invalid(here, value, "must be a 32bit integer")
        elif key == SECCOMP_POD or key.startswith(SECCOMP):
            yield from _seccomp(here, value)
        elif key.startswith(APPARMOR):
            name = key.removeprefix(APPARMOR)
            if name not in names:
                yield invalid(here, name, "container not found")
            if value not in ("", _RUNTIME_DEFAULT, _UNCONFINED) and not value.startswith(_LOCALHOST):
                yield invalid(here, value, f'invalid AppArmor profile name: "{value}"')


def _seccomp(path: Path, value: str) -> Iterator[Problem]:
    if value.startswith(_LOCALHOST):
        name = value.removeprefix(_LOCALHOST)
        yield from (invalid(path, name, sentence) for sentence in relative_path(name))
    elif value not in (_RUNTIME_DEFAULT, "docker/default", _UNCONFINED):
        yield invalid(path, value, "must be a valid seccomp profile")


def _is_int32(text: str) -> bool:
    """Parse as GetDeletionCostFromPodAnnotations does: no +, and leading zeros only after a -."""
    return re.fullmatch("-[0-9]+|0|[1-9][0-9]*", text) is not None and -(2**31) <= int(text) < 2**31
