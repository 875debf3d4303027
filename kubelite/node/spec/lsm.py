"""The Linux security modules that a manifest can use: AppArmor and SELinux. Which of them is active is fixed at boot,
so it is read only once."""

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
    """The fields of config.json's `process`: apparmorProfile and selinuxLabel, each only if the module is active."""
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
    """user:role:type:level; omitted parts have the defaults for containers."""
    parts = (options.user or "system_u", options.role or "system_r", options.type or "container_t")
    return ":".join((*parts, options.level or "s0"))


def _wanted(pod: Pod, container: Container, field: str) -> object:
    own = getattr(container.security_context, field) if container.security_context is not None else None
    shared = getattr(pod.spec.security_context, field) if pod.spec.security_context is not None else None
    return own or shared
