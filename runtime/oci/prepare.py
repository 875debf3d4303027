"""What create and exec are made of: config.json turned into what a child is told and answered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from runtime import syscalls as sc
from runtime.cgroups import Cgroup, devices, layout
from runtime.errors import CapabilityError, SpecError, StateError
from runtime.oci import birth, hooks
from runtime.oci.config import spec as oci
from runtime.oci.config import spec_linux
from runtime.oci.config.spec import Linux, Process, Spec
from runtime.oci.handshake import Answers, converse
from runtime.oci.job import UserNamespace
from runtime.oci.rootfs import binds, rootfs
from runtime.security import capabilities

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from runtime.security.capabilities import CapSets
    from runtime.shim.protocol import RootfsOverlay

_NEW_LISTENER = 8  # seccomp.NEW_LISTENER, whose module is for those who need it


def hook_state(spec: Spec, container_id: str, bundle: str, status: str, pid: int = 0) -> dict[str, Any]:
    """The state that hooks get on stdin (runtime.md, "State")."""
    state: dict[str, Any] = {"ociVersion": spec["ociVersion"], "id": container_id, "status": status}
    if pid:
        state["pid"] = pid
    state["bundle"] = bundle
    if annotations := spec.get("annotations"):
        state["annotations"] = annotations
    return state


def from_spec(spec: Spec) -> dict[str, Any]:
    """What an init needs of config.json as it stands."""
    linux, kinds = spec.get("linux", {}), oci.namespaces(spec)
    return {
        "new_network_namespace": kinds.get("network") == "",
        "net_devices": bool(linux.get("netDevices")),
        "memory_policy": spec_linux.memory_policy(linux),
        "new_cgroup_namespace": kinds.get("cgroup") == "",
        "time_offsets": birth.time_offsets(spec),
        "hostname": spec.get("hostname", ""),
        "domainname": spec.get("domainname", ""),
        "sysctls": linux.get("sysctl", {}),
        "personality": spec_linux.personality(linux),
    }


def reachable(plan: rootfs.Plan, spec: Spec, stack: ExitStack) -> rootfs.Plan:
    """With mounts' sources opened by us where the child, in a user namespace of its own, could not open them."""
    if "user" not in oci.namespaces(spec) and not any(plan.maps_ids):
        return plan
    if os.geteuid() != 0:  # the child is the same user, and may do more than we
        return plan
    plan = plan.with_open_sources()
    for fd in plan.sources:
        stack.callback(os.close, fd)
    return plan


def answers(
    child: tuple[int, int],
    spec: Spec,
    steps: Mapping[str, tuple[hooks.Hook, ...]],
    state: dict[str, Any],
    *,
    console: Callable[[int], None] | None,
    undo: ExitStack,
    always: ExitStack,
) -> Answers:
    """`child`: its pid and pidfd."""
    pid, linux = child[0], spec.get("linux", {})
    return Answers(
        mappings=lambda: _write_mappings(pid, linux),
        hooks=lambda: _runtime_hooks(steps, {**state, "pid": pid}),
        console=console,
        net_devices=lambda: _move_net_devices(linux, pid, undo, always),
        listener=lambda listener: tell_agent(linux, {**state, "pid": pid}, child, listener),
        map_ids=_map_ids,
    )


def _map_ids(wanted: Mapping[str, Any], tree: int) -> None:
    """For an init that has no right to, in its user namespace."""
    try:
        maps = binds.IdMaps(*wanted["maps"])
        binds.map_ids(tree, maps, recursive=wanted["recursive"], about=wanted["about"])
    finally:
        os.close(tree)


def _move_net_devices(linux: Mapping[str, Any], pid: int, undo: ExitStack, always: ExitStack) -> None:
    from runtime.oci.optional import netdevices

    netdevices.move(linux["netDevices"], pid, undo=undo, always=always)


def tell_agent(
    linux: Mapping[str, Any], state: Mapping[str, Any], child: tuple[int, int], listener: int
) -> None:
    """Give the listener of the child's filter to the agent that the profile names."""
    from runtime.oci.optional import notify

    notify.tell(linux["seccomp"], state, pid=child[0], pidfd=child[1], listener=listener)


def until_ready(
    channel: socket.socket, who: str, answers: Answers, cgroup: Cgroup, times: list[str]
) -> list[str]:
    """The warnings of an init that has come to its gate; an end by the kernel's OOM killer is named."""
    try:
        return converse(channel, who, answers=answers, times=times)
    except StateError as error:
        if cgroup.oom_kills():
            raise StateError(f"{error} by the kernel's OOM killer: its memory limit is too low") from error
        raise


def _runtime_hooks(steps: Mapping[str, tuple[hooks.Hook, ...]], state: dict[str, Any]) -> None:
    """In the bundle, as runc: the specification does not say where."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(state["bundle"])
        for kind in hooks.IN_RUNTIME:
            hooks.run_all(kind, steps.get(kind, ()), state)
    finally:
        os.fchdir(before)
        os.close(before)


def inherited(process: Process) -> dict[str, Any]:
    """What a process in a running container gets when its request does not say (as runc exec)."""
    keys = ("capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "oomScoreAdj")
    return {key: value for key, value in process.items() if key in keys}


def plan(
    spec: Spec, bundle: str, overlay: RootfsOverlay | None, cgroup_path: str, console: int | None
) -> rootfs.Plan:
    """The operations that make the root file system. Cgroup mounts need to know where the container's cgroups are.
    Raises SpecError."""
    needs_cgroups = any(entry.get("type") in ("cgroup", "cgroup2") for entry in spec.get("mounts", []))
    if not needs_cgroups:
        return rootfs.plan(spec, bundle=bundle, overlay=overlay, console=console)
    if not cgroup_path and oci.namespaces(spec).get("cgroup") != "":  # it would be bound the whole machine's
        raise SpecError("mounts: the cgroups of a container that has none need a cgroup namespace of its own")
    where = layout()
    points = [*where.hierarchies, *([where.unified] if where.unified else [])]
    host = rootfs.Host(where, {point: f"{point}{cgroup_path}" for point in points})
    return rootfs.plan(spec, bundle=bundle, overlay=overlay, host=host, console=console)


def _check_rootless(spec: Spec) -> None:
    """Only a user namespace gives an ordinary user what all the rest needs."""
    if os.geteuid() != 0 and "user" not in oci.namespaces(spec):
        raise SpecError("linux.namespaces: rootless container requires user namespaces")


def join_class(spec: Spec, container_id: str, pid: int) -> None:
    """linux.intelRdt, for exec."""
    wanted = spec.get("linux", {}).get("intelRdt")
    if wanted is not None:
        from runtime.oci.optional import intel_rdt

        intel_rdt.join(wanted, container_id, pid, intel_rdt.root())


def check(spec: Spec, *, pivot: bool) -> None:
    """What is not wrong in itself, and cannot be had here or by this user."""
    _check_labels(spec)
    _check_rootless(spec)
    _check_pivot(spec, pivot=pivot)


def _check_pivot(spec: Spec, *, pivot: bool) -> None:
    """runc: a root that is only moved to is not to be private, or what is below the old one stays in reach."""
    if not pivot and spec.get("linux", {}).get("rootfsPropagation") in ("private", "rprivate"):
        raise SpecError("linux.rootfsPropagation: [r]private is not safe without pivot_root")


def turn(spec: Spec, join: tuple[tuple[int, int], ...], *, pivot: bool) -> rootfs.Turn:
    """How the container gets into its root. `join`: the namespaces that it joins, without those that are ours anyhow.
    Raises SpecError for what must not be done in the mount namespace that it is to be in."""
    usual = rootfs.Turn.PIVOT if pivot else rootfs.Turn.MOVE
    kinds = oci.namespaces(spec)
    if kinds.get("mount") == "":
        return usual
    from runtime.oci.rootfs import shared_root

    joined = next((fd for fd, kind in join if kind == sc.CLONE_NEWNS), -1)
    if joined >= 0:
        shared_root.check_not_the_machines(joined)
        return usual
    if "user" in kinds:
        raise SpecError(
            "linux.namespaces: a user namespace needs another mount namespace: nobody in it may mount in ours"
        )
    if not pivot:
        raise SpecError(
            "linux.namespaces: --no-pivot needs a mount namespace: the root would be moved over the machine's"
        )
    return rootfs.Turn.CHROOT


def enter_class(spec: Spec, container_id: str, pid: int, undo: ExitStack) -> None:
    """linux.intelRdt."""
    wanted = spec.get("linux", {}).get("intelRdt")
    if wanted is None:
        return
    from runtime.oci.optional import intel_rdt

    intel_rdt.enter(wanted, container_id, pid, intel_rdt.root(), undo)


def _check_labels(spec: Spec) -> None:
    """A label that no kernel here knows would be no protection. (process.apparmorProfile: at its own step.)"""
    label = spec.get("linux", {}).get("mountLabel")
    if label and not os.path.isdir("/sys/fs/selinux"):
        raise CapabilityError(f"linux.mountLabel: {label!r} asked for, this kernel has no SELinux")


def limited(cgroup: Cgroup, resources: dict[str, Any], *, strict: bool) -> list[str]:
    """The limits' warnings. A command that is told to keep a container from devices does not make it where nothing
    would keep it (as runc); a pod's engine says it, in an event, and goes on."""
    warnings = cgroup.apply(resources)
    if strict:
        for warning in warnings:
            if warning.startswith(devices.UNRESTRICTED):
                raise CapabilityError(f"linux.resources.devices: {warning}")
    return warnings


def delegate(spec: Spec, cgroup: Cgroup) -> None:
    """The container's own cgroup to the user its program runs as, where it sees it writable and as a root of its own
    (config-linux.md, "Cgroup ownership")."""
    writable = any(
        entry.get("source") == "cgroup"
        and os.path.normpath(entry["destination"]) == "/sys/fs/cgroup"
        and "ro" not in entry.get("options", [])
        for entry in spec.get("mounts", [])
    )
    if not writable or oci.namespaces(spec).get("cgroup") != "":
        return
    user = "user" in oci.namespaces(spec)
    with contextlib.suppress(SpecError):  # not mapped: its own error comes when it is set
        cgroup.delegate(
            host_id(spec, spec["process"]) if user else spec["process"].get("user", {}).get("uid", 0)
        )


def user_namespace(spec: Spec, flags: int, join: tuple[tuple[int, int], ...]) -> UserNamespace | None:
    """One that needs a child of the child: it is there already, or is new beside others that are joined (those need our
    privileges, which nobody has in it)."""
    fd = next((fd for fd, kind in join if kind == sc.CLONE_NEWUSER), -1)
    if fd < 0 and not (join and flags & sc.CLONE_NEWUSER):
        return None
    root: Any = {"user": {"uid": 0, "gid": 0}}
    ids = (host_id(spec, root), host_id(spec, root, group=True)) if fd >= 0 else (-1, -1)
    return UserNamespace(fd, flags, ids)


def with_mappings(spec: Spec, pid: int = 0) -> Spec:
    """A user namespace that is joined has mappings already: where config.json does not repeat them they are asked of
    the kernel, of its member `pid` or by its path (runc; config-linux.md has them as optional)."""
    path, linux = oci.namespaces(spec).get("user"), spec.get("linux", {})
    if not path or linux.get("uidMappings") or linux.get("gidMappings"):
        return spec
    from runtime.oci.rootfs import idmap

    uids, gids = idmap.of_process(pid) if pid else idmap.of_namespace(path)
    known: Any = {**spec, "linux": {**linux, "uidMappings": uids, "gidMappings": gids}}
    found: Spec = known
    return found


def joined_by_an_ordinary_user(spec: Spec) -> UserNamespace | None:
    """Who is no root has the right to join a container only in its user namespace: the pid namespace, which counts for
    children alone, is then joined there, and a child of the child is the process."""
    if os.geteuid() == 0 or "user" not in oci.namespaces(spec):
        return None
    return UserNamespace(-1, 0, (-1, -1))


def stdio_owner(spec: Spec, joined: UserNamespace | None) -> int:
    return host_id(spec, spec["process"]) if joined is not None and joined.fd >= 0 else -1


def affinity(process: Process) -> tuple[frozenset[int], ...]:
    """Processors of an exec before and after it joins the cgroup (config.md, execCPUAffinity)."""
    given: Any = process.get("execCPUAffinity", {})
    return tuple(spec_linux.number_set(given.get(key, ""), key) for key in ("initial", "final"))


def host_id(spec: Spec, process: Process, *, group: bool = False) -> int:
    """The process's user as it is outside of the container's user namespace. SpecError for one that is not mapped."""
    user, linux = process.get("user", {}), spec.get("linux", {})
    wanted: int = user.get("gid", 0) if group else user.get("uid", 0)
    for entry in linux.get("gidMappings", []) if group else linux.get("uidMappings", []):
        if 0 <= wanted - entry["containerID"] < entry["size"]:
            return entry["hostID"] + wanted - entry["containerID"]
    raise SpecError(f"process.user: id {wanted} is not mapped in the container's user namespace")


def caps(process: Process, *, in_user_namespace: bool) -> tuple[CapSets, int, list[str]]:
    """(the sets, what can be had at all, warnings). Whoever enters a user namespace has them all there, whatever our
    own bounding set lacks (user_namespaces(7)): all that is not wanted is to be dropped, then."""
    everything = (2 << capabilities.last_cap()) - 1  # cached here, where /proc is the machine's
    available = everything if in_user_namespace else capabilities.bounding()
    wanted: Any = process.get("capabilities")
    sets, warnings = capabilities.plan(wanted, available=available)
    return sets, available, warnings


def filter_of(linux: Linux, cache_dir: str | None = None) -> tuple[bytes, int] | None:
    profile = linux.get("seccomp")
    if not profile:
        return None
    from runtime.security import seccomp  # loads libseccomp: only for those who filter

    return seccomp.compile(profile, cache_dir=cache_dir), seccomp.install_flags(profile)


def notifies(filter_: tuple[bytes, int] | None) -> bool:
    """Whether it has a listener: see seccomp.NEW_LISTENER."""
    if filter_ is None or not filter_[1] & _NEW_LISTENER:
        return False
    from runtime.security import seccomp  # now: where the child uses it, nothing can be imported

    return bool(filter_[1] & seccomp.NEW_LISTENER)


def _write_mappings(pid: int, linux: Linux) -> None:
    from runtime.oci.rootfs import idmap

    idmap.write_maps(pid, linux.get("uidMappings", []), linux.get("gidMappings", []))
