"""Build the frozen NodeConfig from the machine's resources and the settings."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import socket

from kubelite.kube.objects import Automount
from kubelite.node.model.capacity import (
    cores,
    disk_bytes,
    huge_pages,
    machine_memory,
    memory_limit,
    parse_extended,
    parse_thresholds,
    reserved,
    reserved_cpus,
    swap_bytes,
)
from kubelite.node.model.node_config import BackOff, NodeConfig
from kubelite.node.spec.image_verification import allowlist
from kubelite.settings import Settings
from runtime.images.requests import MemoryCap


def node_config(settings: Settings) -> NodeConfig:
    """Return the node's configuration from this machine and the settings."""
    memory = machine_memory()
    disk = disk_bytes(settings.root)
    apart = reserved(
        settings.kube_reserved,
        settings.system_reserved,
        parse_thresholds(settings.eviction_hard),
        {"memory": memory, "ephemeral-storage": disk},
    )
    found = cores() if settings.cpu_manager_policy == "static" else {}
    return NodeConfig(
        node_name=settings.node_name,
        host_ip=host_address(),
        host_ip6=host_address6() if settings.pod_networks[1] else "",
        root=settings.root,
        log_dir=f"{settings.log_dir}/pods",
        cgroup_parent=f"/{settings.cgroup_parent}",
        cpu_milli=1000 * (os.cpu_count() or 1),
        memory_bytes=memory,
        ephemeral_bytes=disk,
        max_pods=settings.max_pods,
        huge_pages=huge_pages(),
        extended=parse_extended(settings.extended_resources),
        reserved=apart,
        swap_bytes=swap_bytes(),
        swap_behavior=settings.memory_swap_behavior,
        single_process_oom_kill=settings.single_process_oom_kill,
        memory_qos=settings.memory_qos,
        memory_throttling_factor=settings.memory_throttling_factor,
        memory_reservation=settings.memory_reservation_policy,
        priority_classes=settings.priority_classes,
        cpu_policy=settings.cpu_manager_policy,
        cores=found,
        reserved_cpus=reserved_cpus(found, settings.reserved_cpus, apart.get("cpu", 0)),
        automount=automount(settings),
        pod_security=settings.pod_security,
        image_verification=settings.image_pull_credentials_verification_policy,
        images_not_verified=allowlist(settings.preloaded_images_verification_allowlist),
        socketcall=settings.socketcall,
        no_new_privileges=settings.no_new_privileges,
        pod_pids_limit=_pids_limit(settings),
        cgroup_v2=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        crash_back_off=BackOff(settings.crash_backoff_initial, settings.crash_backoff_max),
        pull_back_off=BackOff(settings.pull_backoff_initial, settings.pull_backoff_max),
        unsafe_sysctls=tuple(filter(None, (s.strip() for s in settings.allowed_unsafe_sysctls.split(",")))),
        cluster_domain=settings.cluster_domain,
        resolv_conf=settings.resolv_conf,
        rlimits=default_rlimits(),
        cdi_dirs=tuple(filter(None, settings.cdi_spec_dirs.split(","))),
    )


def worker_memory(settings: Settings) -> MemoryCap | None:
    """Return the limit of the image workers; None if the settings have none."""
    limit = memory_limit(settings.image_worker_memory, machine_memory())
    return MemoryCap(f"/{settings.cgroup_parent}/images", limit) if limit is not None else None


def automount(settings: Settings) -> Automount:
    """Return which pods get a token: none if the API has no port, or if the node cannot sign tokens."""
    can = settings.api_address and importlib.util.find_spec("cryptography") is not None
    return settings.automount_service_account_tokens if can else Automount.NONE


def _pids_limit(settings: Settings) -> int:
    """Return the limit of a pod's processes; 0: none. The default does not apply on a kernel without the pids
    controller. There, only an explicit limit leads to an error."""
    if "pod_pids_limit" in settings.model_fields_set or _has_pids_controller():
        return max(0, settings.pod_pids_limit)
    return 0


def _has_pids_controller() -> bool:
    try:
        with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as file:
            return "pids" in file.read().split()
    except OSError:
        return os.path.isdir("/sys/fs/cgroup/pids")


def host_address() -> str:
    """Return the machine's source address on the default route, or the loopback address if there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # TEST-NET-2: looks up a route and sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def host_address6() -> str:
    """Return the machine's IPv6 source address on the default route, "" if there is no such route."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect(("2001:db8::1", 9))  # documentation prefix: looks up a route and sends nothing
        return str(probe.getsockname()[0])
    return ""


def default_rlimits() -> tuple[tuple[str, int, int], ...]:
    """Return docker's limits: 1024 open files (soft) and 524288 (hard), or this process's hard limit if it is lower."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 524288 if hard == resource.RLIM_INFINITY else min(hard, 524288)
    return (("RLIMIT_NOFILE", min(1024, most), most),)
