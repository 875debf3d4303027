"""Decide what `create` has to do, from config.json and the state of the machine, before anything is created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from runtime import syscalls as sc
from runtime.errors import SpecError
from runtime.oci import hooks, prepare
from runtime.oci.config import spec as oci
from runtime.oci.rootfs.operations import FsMount
from runtime.oci.rootfs.rootfs import RootChange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from runtime.cgroups import Cgroup
    from runtime.oci.config.spec import Spec
    from runtime.oci.init_protocol import Command, UserNamespace
    from runtime.oci.rootfs.procfs import Procfs
    from runtime.oci.rootfs.rootfs import Plan
    from runtime.oci.spawn import Namespaces
    from runtime.security.capabilities import CapSets
    from runtime.shim.protocol import RootfsOverlay


class CreatePlan(NamedTuple):
    """Everything that is decided about a container before any of it exists."""

    id: str
    spec: Spec
    root_plan: Plan
    hooks: Mapping[str, tuple[hooks.Hook, ...]]
    state: dict[str, Any]  # the state that hooks receive
    caps: CapSets
    available_caps: int
    warnings: list[str]
    seccomp: tuple[bytes, int] | None
    own_terminal: bool  # the terminal is opened in the container's own devpts
    command: Command | None

    def apply_limits(self, cgroup: Cgroup) -> list[str]:
        """Apply the resource limits, and delegate the cgroup to the container's user if config.json requires it.
        Returns warnings."""
        resources = self.spec.get("linux", {}).get("resources", {})
        warnings = oci.without_effect(self.spec)
        warnings += prepare.apply_limits(cgroup, resources, strict=self.command is not None)
        prepare.delegate(self.spec, cgroup)
        return warnings

    def open_mounts(
        self, change: RootChange, users: UserNamespace | None, undo: ExitStack, always: ExitStack
    ) -> tuple[Plan, str]:
        """Open the mount sources and create the mounts that the child itself cannot.

        Returns the completed plan and the mount that outlives the container, "" for none (shared_root.mount).
        """
        plan, mounted = self.root_plan, ""
        if change == RootChange.CHROOT:
            from runtime.oci.rootfs import shared_root

            tell = self.command.mounted if self.command is not None else None
            root, mounted = shared_root.mount(plan.root, tell, undo, always)
            plan = plan.on(root)
        if users is None or users.fd < 0:
            plan = prepare.open_sources(plan, self.spec, always)
        return plan, mounted

    def enters_last(self, spaces: Namespaces, users: UserNamespace | None, procfs: Procfs | None) -> bool:
        """Whether the init enters the pid namespace last (pid_entry.py).

        That needs a procfs of the pid namespace. In a user namespace of its own it is not necessary: CAP_SYS_PTRACE
        in there gives no access to a process from outside (ptrace(2), "Ptrace access mode checking").
        """
        if spaces.pid is None or procfs is None or users is not None or spaces.flags & sc.CLONE_NEWUSER:
            return False
        mounts = self.root_plan.operations
        return not any(isinstance(op, FsMount) and op.fstype == "proc" and op.options.data for op in mounts)

    def job_fields(self, spaces: Namespaces, users: UserNamespace | None) -> dict[str, Any]:
        """The Job fields for the container's init."""
        return {
            "process": self.spec["process"],
            "caps": self.caps,
            "available_caps": self.available_caps,
            "join": spaces.join,
            "new_user_namespace": bool(spaces.flags & sc.CLONE_NEWUSER),
            "user_namespace": users,
            "stdio_owner": -1 if self.own_terminal else prepare.stdio_owner(self.spec, users),
            "seccomp": self.seccomp,
            "notify": prepare.has_listener(self.seccomp),
            "own_terminal": self.own_terminal,
            "hooks": self.hooks,
            "state": self.state,
            "keyring": f"_ses.{self.id}",
            **prepare.from_spec(self.spec),
        }


def decide(
    spec: Spec,
    *,
    container_id: str,
    bundle: str,
    overlay: RootfsOverlay | None,
    cgroup_path: str,
    console_slave: int | None,
    receives: bool,
    command: Command | None,
) -> CreatePlan:
    """Turn the arguments of container.create into a CreatePlan.

    `receives`: the caller takes the master of a new terminal. Raises SpecError and CapabilityError.
    """
    if command is None:
        spec = oci.validate(spec)
    spec = prepare.with_mappings(spec)
    prepare.check(spec, pivot=command is None or command.pivot)
    process = spec["process"]
    own_terminal = bool(process.get("terminal")) and console_slave is None
    if own_terminal and not receives:
        raise SpecError("process.terminal: the container needs a terminal, but the caller passes none")
    plan = prepare.plan(spec, bundle, overlay, cgroup_path, console_slave)
    steps = hooks.parse(spec.get("hooks") or {})
    state = prepare.hook_state(spec, container_id, bundle, "creating")
    caps, available, warnings = prepare.caps(process, in_user_namespace="user" in oci.namespaces(spec))
    cache = command.seccomp_cache if command is not None else None
    filter_ = prepare.compile_filter(spec.get("linux", {}), cache)
    decided = (caps, available, warnings, filter_, own_terminal)
    return CreatePlan(container_id, spec, plan, steps, state, *decided, command)
