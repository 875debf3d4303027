"""A container's OCI config.json, from its manifest, its image and the values prepared for it. The rules are in
docs/explanation/pod-semantics.md (resources, environment, security).

The defaults are those of docker and containerd: mounts, capabilities, devices, masked and read-only paths. A privileged
container has access to all of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kubelite.kube.expansion import expand
from kubelite.node.devices.model import DeviceMount
from kubelite.node.model import resources
from kubelite.node.model.cri import ObservedImage, ObservedSandbox
from kubelite.node.model.errors import ConfigError, CreateError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import lsm
from kubelite.node.spec.env import process_env
from kubelite.node.spec.netfiles import pod_hostname
from kubelite.node.spec.oom_score import oom_score_adj
from kubelite.node.spec.users import ResolvedUser
from manifests.types.core import Container, Pod, SeccompProfile, VolumeMount
from runtime.errors import SpecError
from runtime.security.capability_names import ALL_CAPS, adjust
from runtime.security.paths import READONLY_PATHS
from runtime.shim.protocol import ID_RANGE

OCI_VERSION = "1.2.0"
TERMINATION_PATH = "/dev/termination-log"
_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}
# Device access of every container (containerd pkg/oci DefaultUnixDevices): create any node, use the harmless devices.
_ALLOWED_DEVICES: tuple[tuple[str, int | None, int | None, str], ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 1, "rwm"),  # console
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 136, None, "rwm"),  # pts/*
)


@dataclass(frozen=True, slots=True)
class Source:
    """What is mounted from the host: a volume's path, or a sub-path of it."""

    volume: str
    sub_path: str = ""
    mapped: bool = False  # its files already belong to the pod's users


@dataclass(frozen=True, slots=True)
class Device:
    """A block device that a claim gives to a container."""

    path: str  # in the container
    major: int
    minor: int
    read_only: bool = False


class HostNode(NamedTuple):
    """A device of the host that a device plugin passes to a container."""

    node: Mapping[str, Any]  # as in OCI's linux.devices
    access: str  # of r, w and m
    host_path: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """The values that were looked up or created for this container before its config.json is written."""

    image: ObservedImage
    sandbox: ObservedSandbox
    container_id: str
    user: ResolvedUser
    env: Mapping[str, str] = field(default_factory=dict)  # container_env()
    volumes: Mapping[str, Source] = field(default_factory=dict)  # by mount path
    hosts: str = ""  # path of the pod's hosts file; "" = not mounted
    hostname: str = ""
    resolv_conf: str = ""
    shm: str = ""  # the pod's shared /dev/shm; "" = a separate one
    termination_log: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)  # container_limits()
    target: int = 0  # > 0: pid of the init of the container whose processes it shares
    id_base: int = 0  # > 0: host id of the root of the pod's user namespace
    masked_paths: Sequence[str] = ()
    devices: Sequence[Mapping[str, Any]] = ()  # the host's, for a privileged container
    block_devices: Sequence[Device] = ()
    plugin_mounts: Sequence[DeviceMount] = ()
    plugin_devices: Sequence[HostNode] = ()
    plugin_annotations: Mapping[str, str] = field(default_factory=dict)
    seccomp: Mapping[str, Any] | None = None  # the default profile for its capabilities


def capabilities(container: Container) -> list[str]:
    """The default set, changed by securityContext; all capabilities for a privileged container."""
    security = container.security_context
    if security is not None and security.privileged:
        return sorted(ALL_CAPS)
    wanted = security.capabilities if security is not None else None
    try:
        return adjust(wanted.add, wanted.drop) if wanted is not None else adjust((), ())
    except SpecError as error:
        raise CreateError(f"securityContext.capabilities: {error}") from error


def no_new_privileges(container: Container, *, default: bool) -> bool:
    """Whether execve(2) gives the container's processes no new privileges. The node's default does not apply to a
    container that is privileged or has CAP_SYS_ADMIN: its allowPrivilegeEscalation is always true (Kubernetes' API,
    SecurityContext)."""
    security = container.security_context
    allowed = security.allow_privilege_escalation if security is not None else None
    if allowed is not None:
        return not allowed
    return default and not is_privileged(container) and "CAP_SYS_ADMIN" not in capabilities(container)


def is_privileged(container: Container) -> bool:
    return bool(container.security_context and container.security_context.privileged)


def seccomp_wanted(pod: Pod, container: Container) -> SeccompProfile | None:
    """The profile that applies: the container's, else the pod's, else RuntimeDefault. None if the container is
    privileged or the profile is Unconfined."""
    if is_privileged(container):
        return None
    own = container.security_context.seccomp_profile if container.security_context else None
    shared = pod.spec.security_context.seccomp_profile if pod.spec.security_context else None
    profile = own or shared or SeccompProfile(type="RuntimeDefault")
    return None if profile.type == "Unconfined" else profile


def process_args(container: Container, image: ObservedImage, env: Mapping[str, str]) -> list[str]:
    """The command line: `command` replaces the image's Entrypoint and Cmd, `args` replaces only Cmd. In both, $(VAR) of
    the container's environment is expanded."""
    command = [expand(part, env) for part in container.command]
    args = [expand(part, env) for part in container.args]
    if not command:
        command = list(image.config.get("Entrypoint") or [])
        args = args or list(image.config.get("Cmd") or [])
    if not command + args:
        raise CreateError("no command specified: neither the manifest nor the image names a program")
    return command + args


def container_spec(pod: Pod, container: Container, prepared: Prepared, config: NodeConfig) -> dict[str, Any]:
    """The complete config.json. Raises ConfigError or CreateError."""
    security = container.security_context
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(pod, container, prepared, config),
        "root": {"path": "merged", "readonly": bool(security and security.read_only_root_filesystem)},
        "mounts": mounts(pod, container, prepared, config),
        "linux": _linux(pod, container, prepared),
        "annotations": {
            **prepared.plugin_annotations,
            "io.kubernetes.pod.name": pod.metadata.name or "",
            "io.kubernetes.pod.namespace": pod.metadata.namespace or "default",
            "io.kubernetes.pod.uid": pod.metadata.uid or "",
            "io.kubernetes.container.name": container.name,
        },
    }


def _process(pod: Pod, container: Container, prepared: Prepared, config: NodeConfig) -> dict[str, Any]:
    image, caps = prepared.image, capabilities(container)
    tty = bool(container.tty)
    uid, gid = prepared.user.uid, prepared.user.gid
    # The supplementary groups include the primary group. Otherwise a set-group-ID program would remove the process from
    # the group, and files might grant others what they deny to the group (CVE-2023-25173).
    groups = [gid, *(group for group in prepared.user.groups if group != gid)]
    user: dict[str, Any] = {"uid": uid, "gid": gid, "additionalGids": groups}
    process: dict[str, Any] = {
        "terminal": tty,
        "user": user,
        "args": process_args(container, image, prepared.env),
        "env": process_env(
            list(image.config.get("Env") or []), prepared.env, hostname=_hostname(pod, config), tty=tty
        ),
        "cwd": container.working_dir or image.config.get("WorkingDir") or "/",
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "rlimits": [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in config.rlimits],
        "oomScoreAdj": oom_score_adj(pod, container, config.memory_bytes),
    }
    process |= lsm.process_labels(pod, container, privileged=is_privileged(container))
    process["noNewPrivileges"] = no_new_privileges(container, default=config.no_new_privileges)
    return process


def _hostname(pod: Pod, config: NodeConfig) -> str:
    return config.node_name if pod.spec.host_network else pod_hostname(pod)


def _linux(pod: Pod, container: Container, prepared: Prepared) -> dict[str, Any]:
    privileged = is_privileged(container)
    unmasked = privileged or _proc_mount(container) == "Unmasked"
    linux: dict[str, Any] = {
        "namespaces": namespaces(pod, prepared.sandbox, prepared.target),
        "cgroupsPath": f"{prepared.sandbox.cgroup}/{prepared.container_id}",
        "resources": {
            **(prepared.limits or resources.container_resources(container)),
            "devices": device_rules(
                privileged=privileged, block=prepared.block_devices, passed=prepared.plugin_devices
            ),
        },
        "maskedPaths": [] if unmasked else list(prepared.masked_paths),
        "readonlyPaths": [] if unmasked else list(READONLY_PATHS),
    }
    if prepared.id_base:
        maps = [{"containerID": 0, "hostID": prepared.id_base, "size": ID_RANGE}]
        linux |= {"uidMappings": maps, "gidMappings": maps}
    devices = [dict(device) for device in prepared.devices] if privileged else []
    own = [_block_device(device, prepared.user) for device in prepared.block_devices]
    own += [dict(passed.node) for passed in prepared.plugin_devices if not _is_bound(passed, prepared)]
    paths = {device["path"] for device in own}
    if devices := [device for device in devices if device["path"] not in paths] + own:
        linux["devices"] = devices
    wanted = {_PROPAGATION.get(m.mount_propagation or "", "") for m in container.volume_mounts}
    if propagation := next((p for p in ("rshared", "rslave") if p in wanted), ""):
        linux["rootfsPropagation"] = propagation
    if prepared.seccomp is not None:
        linux["seccomp"] = dict(prepared.seccomp)
    return linux


def _proc_mount(container: Container) -> str:
    return (container.security_context.proc_mount if container.security_context else None) or "Default"


def namespaces(pod: Pod, sandbox: ObservedSandbox, target: int = 0) -> list[dict[str, str]]:
    """The container's namespaces: its own mount, cgroup and pid namespaces, and those of the pod. The pause process
    holds the pod's pid and user namespaces, the shim the others. Namespaces shared with the host are left out."""
    shim = sandbox.pid
    found: list[dict[str, str]] = [{"type": "mount"}, {"type": "cgroup"}]
    if pod.spec.host_users is False:
        found.append({"type": "user", "path": f"/proc/{sandbox.pause}/ns/user"})
    if target and not pod.spec.host_pid:
        found.append({"type": "pid", "path": f"/proc/{target}/ns/pid"})
    elif pod.spec.share_process_namespace:
        found.append({"type": "pid", "path": f"/proc/{sandbox.pause}/ns/pid"})
    elif not pod.spec.host_pid:
        found.append({"type": "pid"})
    if not pod.spec.host_network:
        found.append({"type": "network", "path": f"/proc/{shim}/ns/net"})
        found.append({"type": "uts", "path": f"/proc/{shim}/ns/uts"})
    if not pod.spec.host_ipc:
        found.append({"type": "ipc", "path": f"/proc/{shim}/ns/ipc"})
    return found


def _block_device(device: Device, user: ResolvedUser) -> dict[str, Any]:
    """The device node. Its owner is the container's user (containerd: device_ownership_from_security_context), who
    could not open a node owned by root."""
    numbers = {"path": device.path, "type": "b", "major": device.major, "minor": device.minor}
    return {**numbers, "fileMode": 0o660, "uid": user.uid, "gid": user.gid}


def device_rules(
    *, privileged: bool, block: Sequence[Device] = (), passed: Sequence[HostNode] = ()
) -> list[dict[str, Any]]:
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in _ALLOWED_DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        rule.update({"major": major} if major is not None else {})
        rule.update({"minor": minor} if minor is not None else {})
        rules.append(rule)
    for device in block:
        access = "mr" if device.read_only else "mrw"  # as kubelet requests them
        numbers = {"major": device.major, "minor": device.minor}
        rules.append({"allow": True, "type": "b", **numbers, "access": access})
    for one in passed:
        rule = {name: one.node[name] for name in ("type", "major", "minor")}
        rules.append({"allow": True, **rule, "access": one.access})
    return rules


def mounts(pod: Pod, container: Container, prepared: Prepared, config: NodeConfig) -> list[dict[str, Any]]:
    """The container's mounts: docker's defaults, the pod's files and the volumes, parents before children. A volume
    replaces a default or a file of the pod with the same path. Raises CreateError for a volume on /."""
    taken = {_clean(mount.mount_path): mount.name for mount in container.volume_mounts}
    if "/" in taken:
        raise CreateError(f'volumeMount "{taken["/"]}": mountPath / is the container\'s root')
    made = [m for m in _defaults(pod, container, prepared, config) if m["destination"] not in taken]
    made += [m for m in _pod_files(container, prepared) if m["destination"] not in taken]
    plugins = {_clean(one.path): one for one in prepared.plugin_mounts}
    made = [m for m in made if m["destination"] not in plugins]
    made += [_plugin_mount(path, one) for path, one in plugins.items() if path not in taken]
    fixed = fixed_volumes(pod)
    made += [_volume(mount, prepared, fixed=mount.name in fixed) for mount in container.volume_mounts]
    if prepared.id_base:  # files from the host keep their owners
        mapped = {_clean(path) for path, source in prepared.volumes.items() if source.mapped}
        for mount in made:
            mount["options"] += ["idmap"] * (mount["type"] == "bind" and mount["destination"] not in mapped)
    made += [
        _mount(_clean(one.node["path"]), "bind", one.host_path, ["bind", "rprivate"])
        for one in prepared.plugin_devices
        if _is_bound(one, prepared)
    ]
    return sorted(made, key=lambda mount: len([part for part in mount["destination"].split("/") if part]))


def _is_bound(passed: HostNode, prepared: Prepared) -> bool:
    """Whether a device is a mount in the container. In a user namespace, no device can be created: the engine binds the
    host's device of the same path, so one with another path is mounted here."""
    return bool(prepared.id_base) and passed.node["path"] != passed.host_path


def _plugin_mount(path: str, one: DeviceMount) -> dict[str, Any]:
    return _mount(path, "bind", one.host_path, _bind_options("rprivate", read_only=one.read_only))


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _defaults(pod: Pod, container: Container, prepared: Prepared, config: NodeConfig) -> list[dict[str, Any]]:
    access = "rw" if is_privileged(container) else "ro"
    quiet = ["nosuid", "noexec", "nodev"]
    return [
        _mount("/proc", "proc", "proc", quiet),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _shm(pod, prepared, quiet),
        _mount("/dev/mqueue", "mqueue", "mqueue", quiet),
        _mount("/sys", "sysfs", "sysfs", [*quiet, access]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", access]),
    ]


def _shm(pod: Pod, prepared: Prepared, quiet: list[str]) -> dict[str, Any]:
    if pod.spec.host_ipc:
        return _mount("/dev/shm", "bind", "/dev/shm", ["rbind", "rw", *quiet])
    if prepared.shm:
        return _mount("/dev/shm", "bind", prepared.shm, ["rbind", "rw", *quiet])
    return _mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", "size=65536k"])


def _pod_files(container: Container, prepared: Prepared) -> list[dict[str, Any]]:
    """The pod's files. They are writable, as with docker, unless the root file system is read-only."""
    security = container.security_context
    fixed = security is not None and security.read_only_root_filesystem is True
    log_path = container.termination_message_path or TERMINATION_PATH
    return [
        _mount(path, "bind", source, _bind_options("rprivate", read_only=read_only))
        for path, source, read_only in (
            ("/etc/hosts", prepared.hosts, fixed),
            ("/etc/hostname", prepared.hostname, fixed),
            ("/etc/resolv.conf", prepared.resolv_conf, fixed),
            (_clean(log_path), prepared.termination_log, False),
        )
        if source
    ]


def _bind_options(propagation: str, *, read_only: bool) -> list[str]:
    """The options of a bind that keeps what its source is mounted with: the `noexec` of an image, the mountOptions of a
    PersistentVolume, the `nosuid` of a host's partition. "rw", or "ro" without "remount", would clear it."""
    return ["rbind", propagation, "remount", "ro"] if read_only else ["rbind", propagation]


def fixed_volumes(pod: Pod) -> frozenset[str]:
    """Volumes that are always mounted read-only: those whose files the node writes (as with kubelet since 1.9.6),
    images, and NFS exports and claims with `readOnly`."""
    return frozenset(
        v.name
        for v in pod.spec.volumes
        if v.config_map
        or v.secret
        or v.downward_api
        or v.projected
        or v.image
        or (v.nfs is not None and v.nfs.read_only)
        or (v.persistent_volume_claim is not None and v.persistent_volume_claim.read_only)
    )


def _volume(mount: VolumeMount, prepared: Prepared, *, fixed: bool) -> dict[str, Any]:
    source = prepared.volumes.get(mount.mount_path)
    if source is None:
        raise ConfigError(f'volumeMount {mount.mount_path}: volume "{mount.name}" does not exist')
    propagation = _PROPAGATION.get(mount.mount_propagation or "", "rprivate")
    options = _bind_options(propagation, read_only=mount.read_only is True or fixed)
    if mount.recursive_read_only in ("Enabled", "IfPossible") and mount.read_only:
        options.append("rro")  # needs Linux 5.12, which every supported kernel has
    if not source.sub_path:
        return _mount(_clean(mount.mount_path), "bind", source.volume, options)
    # the engine resolves the sub-path below the volume, so that no link created by a container leads out of it
    options.append(f"x-beneath={source.volume}")
    return _mount(_clean(mount.mount_path), "bind", f"{source.volume}/{source.sub_path}", options)


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}
