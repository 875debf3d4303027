"""The kernel's security modules that a manifest can ask for: AppArmor, SELinux. Which of them is there is settled when
the machine boots."""

from __future__ import annotations

from functools import cache

from manifests.types.core import AppArmorProfile, Container, Pod, SELinuxOptions


@cache
def apparmor() -> bool:
    return _read("/sys/module/apparmor/parameters/enabled").startswith("Y")


@cache
def selinux() -> bool:
    return bool(_read("/sys/fs/selinux/enforce"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_labels(pod: Pod, container: Container) -> dict[str, str]:
    """What of config.json's `process` says it: apparmorProfile, selinuxLabel; nothing where the kernel has no such."""
    found = {}
    profile = _wanted(pod, container, "app_armor_profile")
    if isinstance(profile, AppArmorProfile) and apparmor():
        if profile.type == "Localhost" and profile.localhost_profile:
            found["apparmorProfile"] = profile.localhost_profile
        elif profile.type == "Unconfined":
            found["apparmorProfile"] = "unconfined"
    options = _wanted(pod, container, "se_linux_options")
    if isinstance(options, SELinuxOptions) and selinux():
        found["selinuxLabel"] = label(options)
    return found


def label(options: SELinuxOptions) -> str:
    """user:role:type:level, with containers' own where nothing is said."""
    parts = (options.user or "system_u", options.role or "system_r", options.type or "container_t")
    return ":".join((*parts, options.level or "s0"))


def _wanted(pod: Pod, container: Container, field: str) -> object:
    own = getattr(container.security_context, field) if container.security_context is not None else None
    shared = getattr(pod.spec.security_context, field) if pod.spec.security_context is not None else None
    return own or shared
