"""The Linux security modules that a manifest can use: AppArmor and SELinux. Which of them is active is fixed at boot,
so it is read only once."""

from __future__ import annotations

from functools import cache

from manifests.types.core import AppArmorProfile, Container, Pod, SELinuxOptions

DEFAULT_PROFILE = "kubelite-default"


@cache
def apparmor() -> bool:
    """Whether the kernel enforces AppArmor profiles."""
    return _read("/sys/module/apparmor/parameters/enabled").startswith("Y")


@cache
def default_profile() -> str:
    """The name of the profile of `RuntimeDefault`; "" if the kernel does not have it. The daemon loads it at its start,
    before anything asks."""
    lines = _read("/sys/kernel/security/apparmor/profiles").splitlines() if apparmor() else []
    return DEFAULT_PROFILE if any(line.rpartition(" (")[0] == DEFAULT_PROFILE for line in lines) else ""


@cache
def selinux() -> bool:
    return bool(_read("/sys/fs/selinux/enforce"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_labels(pod: Pod, container: Container, *, privileged: bool) -> dict[str, str]:
    """The fields of config.json's `process`: apparmorProfile and selinuxLabel, each only if the module is active."""
    found = {}
    if apparmor() and (name := _profile_name(pod, container, privileged)):
        found["apparmorProfile"] = name
    options = _wanted(pod, container, "se_linux_options")
    if isinstance(options, SELinuxOptions) and selinux():
        found["selinuxLabel"] = label(options)
    return found


def _profile_name(pod: Pod, container: Container, privileged: bool) -> str:
    """The AppArmor profile of a container, "" if it has none. A container that names no profile has the default one. A
    privileged container never has the default one, not even if it names it (containerd, generateApparmorSpecOpts)."""
    profile = _wanted(pod, container, "app_armor_profile")
    kind = profile.type if isinstance(profile, AppArmorProfile) else "RuntimeDefault"
    if kind == "Localhost":
        return getattr(profile, "localhost_profile", None) or ""
    if kind == "Unconfined":
        return "unconfined"
    return "" if privileged else default_profile()


def label(options: SELinuxOptions) -> str:
    """user:role:type:level; omitted parts have the defaults for containers."""
    parts = (options.user or "system_u", options.role or "system_r", options.type or "container_t")
    return ":".join((*parts, options.level or "s0"))


def _wanted(pod: Pod, container: Container, field: str) -> object:
    own = getattr(container.security_context, field) if container.security_context is not None else None
    shared = getattr(pod.spec.security_context, field) if pod.spec.security_context is not None else None
    return own or shared
