"""Turn config.json into the Job fields of a child, and into the answers to its requests; used by create and exec."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from runtime import syscalls as sc
from runtime.cgroups import Cgroup, devices, layout
from runtime.errors import CapabilityError, SpecError, StateError
from runtime.oci import hooks, spawn
from runtime.oci.config import spec as oci
from runtime.oci.config import spec_linux
from runtime.oci.config.spec import Linux, Process, Spec
from runtime.oci.handshake import Answers, converse
from runtime.oci.init_protocol import UserNamespace
from runtime.oci.rootfs import binds, rootfs
from runtime.security import capabilities

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from runtime.security.capabilities import CapSets
    from runtime.shim.protocol import RootfsOverlay

_NEW_LISTENER = 8  # seccomp.NEW_LISTENER; that module is imported only if there is a filter


def hook_state(spec: Spec, container_id: str, bundle: str, status: str, pid: int = 0) -> dict[str, Any]:
    """The container state that hooks receive on stdin (runtime.md, "State")."""
    state: dict[str, Any] = {"ociVersion": spec["ociVersion"], "id": container_id, "status": status}
    if pid:
        state["pid"] = pid
    state["bundle"] = bundle
    if annotations := spec.get("annotations"):
        state["annotations"] = annotations
    return state


def from_spec(spec: Spec) -> dict[str, Any]:
    """The Job fields that are copied from config.json."""
    linux, kinds = spec.get("linux", {}), oci.namespaces(spec)
    return {
        "new_network_namespace": kinds.get("network") == "",
        "net_devices": bool(linux.get("netDevices")),
        "memory_policy": spec_linux.memory_policy(linux),
        "new_cgroup_namespace": kinds.get("cgroup") == "",
        "time_offsets": spawn.time_offsets(spec),
        "hostname": spec.get("hostname", ""),
        "domainname": spec.get("domainname", ""),
        "sysctls": linux.get("sysctl", {}),
        "personality": spec_linux.personality(linux),
    }


def open_sources(plan: rootfs.Plan, spec: Spec, stack: ExitStack) -> rootfs.Plan:
    """The plan, with mount sources opened by us if the child, in its own user namespace, could not open them."""
    if "user" not in oci.namespaces(spec) and not any(plan.maps_ids):
        return plan
    if os.geteuid() != 0:  # the child is the same user and has more privileges than we have
        return plan
    plan = plan.with_open_sources()
    for fd in plan.sources:
        stack.callback(os.close, fd)
    return plan


def answers(
    children: list[tuple[int, int]],
    spec: Spec,
    steps: Mapping[str, tuple[hooks.Hook, ...]],
    state: dict[str, Any],
    *,
    console: Callable[[int], None] | None,
    undo: ExitStack,
    always: ExitStack,
) -> Answers:
    """The answers to the requests of a container's init.

    `children`: the (pid, pidfd) of each process; the last one is answered. If it clones a process to take its place,
    that one is appended.
    """
    linux = spec.get("linux", {})

    def pid() -> int:
        return children[-1][0]

    def cloned(pid: int, pidfd: int) -> None:
        spawn.check_clone(pid if len(children) == 1 else None, pidfd, state["id"])
        undo.callback(spawn.kill_and_reap, pidfd)
        children.append((pid, pidfd))

    return Answers(
        mappings=lambda: _write_mappings(pid(), linux),
        hooks=lambda: _runtime_hooks(steps, {**state, "pid": pid()}),
        console=console,
        net_devices=lambda: _move_net_devices(linux, pid(), undo, always),
        listener=lambda number: send_to_agent(linux, {**state, "pid": pid()}, children[-1], number),
        map_ids=_map_ids,
        cloned=cloned,
    )


def _map_ids(wanted: Mapping[str, Any], tree: int) -> None:
    """Id-map a mount for an init that lacks the privilege in its user namespace."""
    try:
        maps = binds.IdMaps(*wanted["maps"])
        binds.map_ids(tree, maps, recursive=wanted["recursive"], about=wanted["about"])
    finally:
        os.close(tree)


def _move_net_devices(linux: Mapping[str, Any], pid: int, undo: ExitStack, always: ExitStack) -> None:
    from runtime.oci.optional import netdevices

    netdevices.move(linux["netDevices"], pid, undo=undo, always=always)


def send_to_agent(
    linux: Mapping[str, Any], state: Mapping[str, Any], child: tuple[int, int], listener: int
) -> None:
    """Pass the listener of the child's seccomp filter to the agent that the profile names."""
    from runtime.oci.optional import notify

    notify.tell(linux["seccomp"], state, pid=child[0], pidfd=child[1], listener=listener)


def until_ready(
    channel: socket.socket, who: str, answers: Answers, cgroup: Cgroup, times: list[str]
) -> list[str]:
    """Wait until the init is ready; returns its warnings. If it dies, the error says whether the OOM killer killed
    it."""
    try:
        return converse(channel, who, answers=answers, times=times)
    except StateError as error:
        if cgroup.oom_kills():
            raise StateError(f"{error} by the kernel's OOM killer: its memory limit is too low") from error
        raise


def _runtime_hooks(steps: Mapping[str, tuple[hooks.Hook, ...]], state: dict[str, Any]) -> None:
    """Run the hooks that run in the runtime's namespaces. Their cwd is the bundle, as in runc; the specification does
    not define it."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(state["bundle"])
        for kind in hooks.IN_RUNTIME:
            hooks.run_all(kind, steps.get(kind, ()), state)
    finally:
        os.fchdir(before)
        os.close(before)


def inherited(process: Process) -> dict[str, Any]:
    """The fields of the container's process that are the defaults for an exec (as in `runc exec`)."""
    keys = ("capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "oomScoreAdj")
    return {key: value for key, value in process.items() if key in keys}


def plan(
    spec: Spec, bundle: str, overlay: RootfsOverlay | None, cgroup_path: str, console: int | None
) -> rootfs.Plan:
    """The operations that create the root file system. Only cgroup mounts need the paths of the container's cgroups.
    Raises SpecError."""
    needs_cgroups = any(entry.get("type") in ("cgroup", "cgroup2") for entry in spec.get("mounts", []))
    if not needs_cgroups:
        return rootfs.plan(spec, bundle=bundle, overlay=overlay, console=console)
    if not cgroup_path and oci.namespaces(spec).get("cgroup") != "":  # otherwise it would get the host's
        raise SpecError("mounts: a cgroup mount in a container without a cgroup needs a new cgroup namespace")
    where = layout()
    points = [*where.hierarchies, *([where.unified] if where.unified else [])]
    host = rootfs.Host(where, {point: f"{point}{cgroup_path}" for point in points})
    return rootfs.plan(spec, bundle=bundle, overlay=overlay, host=host, console=console)


def _check_rootless(spec: Spec) -> None:
    """Only in a user namespace does an ordinary user have the necessary privileges."""
    if os.geteuid() != 0 and "user" not in oci.namespaces(spec):
        raise SpecError("linux.namespaces: rootless container requires user namespaces")


def join_resctrl(spec: Spec, container_id: str, pid: int) -> None:
    """Move an exec's process to the container's resctrl class (linux.intelRdt)."""
    wanted = spec.get("linux", {}).get("intelRdt")
    if wanted is not None:
        from runtime.oci.optional import intel_rdt

        intel_rdt.join(wanted, container_id, pid, intel_rdt.root())


def check(spec: Spec, *, pivot: bool) -> None:
    """Reject a valid spec that this machine or this user cannot run. Raises SpecError and CapabilityError."""
    _check_labels(spec)
    _check_rootless(spec)
    _check_pivot(spec, pivot=pivot)


def _check_pivot(spec: Spec, *, pivot: bool) -> None:
    """Without pivot_root the root must not be private: what is under the old root would stay reachable (runc's
    rule)."""
    if not pivot and spec.get("linux", {}).get("rootfsPropagation") in ("private", "rprivate"):
        raise SpecError("linux.rootfsPropagation: [r]private is not safe without pivot_root")


def root_change(spec: Spec, join: tuple[tuple[int, int], ...], *, pivot: bool) -> rootfs.RootChange:
    """How the container changes to its root directory.

    `join`: the namespaces that it joins, without those that we are already in. Raises SpecError if the operation is
    unsafe in the container's mount namespace.
    """
    usual = rootfs.RootChange.PIVOT if pivot else rootfs.RootChange.MOVE
    kinds = oci.namespaces(spec)
    if kinds.get("mount") == "":
        return usual
    from runtime.oci.rootfs import shared_root

    joined = next((fd for fd, kind in join if kind == sc.CLONE_NEWNS), -1)
    if joined >= 0:
        shared_root.check_not_the_hosts(joined)
        return usual
    if "user" in kinds:
        raise SpecError(
            "linux.namespaces: a user namespace needs a mount namespace too: it has no right to mount in the host's"
        )
    if not pivot:
        raise SpecError(
            "linux.namespaces: --no-pivot needs a mount namespace: otherwise the root would be moved over the host's"
        )
    return rootfs.RootChange.CHROOT


def enter_resctrl(spec: Spec, container_id: str, pid: int, undo: ExitStack) -> None:
    """Create the container's resctrl class or join it, and move the init there (linux.intelRdt)."""
    wanted = spec.get("linux", {}).get("intelRdt")
    if wanted is None:
        return
    from runtime.oci.optional import intel_rdt

    intel_rdt.enter(wanted, container_id, pid, intel_rdt.root(), undo)


def _check_labels(spec: Spec) -> None:
    """Reject a mount label that this kernel would not enforce. (init_steps.set_label checks
    process.apparmorProfile.)"""
    label = spec.get("linux", {}).get("mountLabel")
    if label and not os.path.isdir("/sys/fs/selinux"):
        raise CapabilityError(f"linux.mountLabel: cannot apply {label!r}: this kernel has no SELinux")


def apply_limits(cgroup: Cgroup, resources: dict[str, Any], *, strict: bool) -> list[str]:
    """Apply the resource limits; returns warnings.

    `strict` (commands): CapabilityError if device access cannot be restricted, as in runc. For a pod the same is only a
    warning, which becomes an event.
    """
    warnings = cgroup.apply(resources)
    if strict:
        for warning in warnings:
            if warning.startswith(devices.UNRESTRICTED):
                raise CapabilityError(f"linux.resources.devices: {warning}")
    return warnings


def delegate(spec: Spec, cgroup: Cgroup) -> None:
    """Make the program's user the owner of the cgroup, if the container has a writable cgroup mount and its own cgroup
    namespace (config-linux.md, "Cgroup ownership")."""
    writable = any(
        entry.get("source") == "cgroup"
        and os.path.normpath(entry["destination"]) == "/sys/fs/cgroup"
        and "ro" not in entry.get("options", [])
        for entry in spec.get("mounts", [])
    )
    if not writable or oci.namespaces(spec).get("cgroup") != "":
        return
    user = "user" in oci.namespaces(spec)
    with contextlib.suppress(SpecError):  # an unmapped id; setting the user reports that error
        cgroup.delegate(
            host_id(spec, spec["process"]) if user else spec["process"].get("user", {}).get("uid", 0)
        )


def user_namespace(spec: Spec, flags: int, join: tuple[tuple[int, int], ...]) -> UserNamespace | None:
    """The user namespace, if the init must be cloned from inside it; otherwise None.

    That is the case if the namespace exists already, or if it is new and others are joined: joining those needs our
    present privileges, which are lost in the new one.
    """
    fd = next((fd for fd, kind in join if kind == sc.CLONE_NEWUSER), -1)
    if fd < 0 and not (join and flags & sc.CLONE_NEWUSER):
        return None
    root: Any = {"user": {"uid": 0, "gid": 0}}
    ids = (host_id(spec, root), host_id(spec, root, group=True)) if fd >= 0 else (-1, -1)
    return UserNamespace(fd, flags, ids)


def with_mappings(spec: Spec, pid: int = 0) -> Spec:
    """The spec, completed with the id mappings of a user namespace to join.

    An existing namespace has mappings. If config.json does not repeat them (config-linux.md makes them optional), they
    are read from the kernel: of member process `pid` if given, else of the namespace's path. runc does the same.
    """
    path, linux = oci.namespaces(spec).get("user"), spec.get("linux", {})
    if not path or linux.get("uidMappings") or linux.get("gidMappings"):
        return spec
    from runtime.oci.rootfs import idmap

    uids, gids = idmap.of_process(pid) if pid else idmap.of_namespace(path)
    known: Any = {**spec, "linux": {**linux, "uidMappings": uids, "gidMappings": gids}}
    found: Spec = known
    return found


def unprivileged_join(spec: Spec) -> UserNamespace | None:
    """The user namespace for an exec by an ordinary user; None for root.

    An ordinary user may join the other namespaces only from inside the container's user namespace. The pid namespace
    affects only children, so it is joined there too, and a grandchild becomes the process.
    """
    if os.geteuid() == 0 or "user" not in oci.namespaces(spec):
        return None
    return UserNamespace(-1, 0, (-1, -1))


def stdio_owner(spec: Spec, joined: UserNamespace | None) -> int:
    return host_id(spec, spec["process"]) if joined is not None and joined.fd >= 0 else -1


def affinity(process: Process) -> tuple[frozenset[int], ...]:
    """The CPUs of an exec before and after it joins the cgroup (config.md, execCPUAffinity)."""
    given: Any = process.get("execCPUAffinity", {})
    return tuple(spec_linux.number_set(given.get(key, ""), key) for key in ("initial", "final"))


def host_id(spec: Spec, process: Process, *, group: bool = False) -> int:
    """The host id of the process's user (or group). SpecError if the container's user namespace does not map it."""
    user, linux = process.get("user", {}), spec.get("linux", {})
    wanted: int = user.get("gid", 0) if group else user.get("uid", 0)
    for entry in linux.get("gidMappings", []) if group else linux.get("uidMappings", []):
        if 0 <= wanted - entry["containerID"] < entry["size"]:
            return entry["hostID"] + wanted - entry["containerID"]
    raise SpecError(f"process.user: id {wanted} is not mapped in the container's user namespace")


def caps(process: Process, *, in_user_namespace: bool) -> tuple[CapSets, int, list[str]]:
    """(the capability sets, the available capabilities as a mask, warnings).

    A process that enters a user namespace gets all capabilities in it, even those missing from our bounding set
    (user_namespaces(7)). So all of them count as available, and the unwanted ones are dropped.
    """
    everything = (2 << capabilities.last_cap()) - 1  # fills the cache here, where /proc is the host's
    available = everything if in_user_namespace else capabilities.bounding()
    wanted: Any = process.get("capabilities")
    sets, warnings = capabilities.plan(wanted, available=available)
    return sets, available, warnings


def compile_filter(linux: Linux, cache_dir: str | None = None) -> tuple[bytes, int] | None:
    profile = linux.get("seccomp")
    if not profile:
        return None
    from runtime.security import seccomp  # loads libseccomp, so imported only if there is a filter

    return seccomp.compile(profile, cache_dir=cache_dir), seccomp.install_flags(profile)


def has_listener(filter_: tuple[bytes, int] | None) -> bool:
    """Whether the filter has a listener (seccomp.NEW_LISTENER)."""
    if filter_ is None or not filter_[1] & _NEW_LISTENER:
        return False
    from runtime.security import seccomp  # the child uses the module but cannot import it

    return bool(filter_[1] & seccomp.NEW_LISTENER)


def _write_mappings(pid: int, linux: Linux) -> None:
    from runtime.oci.rootfs import idmap

    idmap.write_maps(pid, linux.get("uidMappings", []), linux.get("gidMappings", []))
