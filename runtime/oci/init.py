"""The container's init process, from clone3 to execve, in one straight line. It never returns to the parent's code.

    parent                                   child (here)
    create and limit cgroup
    clone3 ───────────────────────────────►  steps: cgroup, session, namespaces, root, credentials, …
    recv  ◄── {"ready", "warnings"} ───────  everything is done except seccomp and execve
    Container.start: send "start" ─────────► execve
    recv  ◄── end of file ─────────────────  success: the socket is close-on-exec
    recv  ◄── {"error": …} ────────────────  failure: step, class, errno and message

A parent that exits after create (`Job.detached`) sends "detach" after it has received "ready". From then on, a
connection to the listening socket starts the container, and a failure is reported on it. For a container that a command
starts, a stub does the last steps (execve_stub.py), so no interpreter waits for the start, and the start does not wait
for one to exit.

The child is a copy of an interpreter that does not know it was cloned. It flushes nothing and runs no exit handlers.
Any exception becomes one packet, followed by os._exit.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from runtime import syscalls as sc
from runtime.errors import StartError
from runtime.oci import execve_arguments, execve_stub, hooks, pid_entry
from runtime.oci import init_steps as steps
from runtime.oci.config.spec_linux import sysctl_path
from runtime.oci.init_protocol import Job, Reporter
from runtime.oci.rootfs import rootfs
from runtime.security import capabilities, capability_names, rlimits

if TYPE_CHECKING:
    from runtime.oci.rootfs.root import Root
    from runtime.oci.rootfs.rootfs import Plan

_SYS_ADMIN: Final = 1 << capability_names.NUMBERS["CAP_SYS_ADMIN"]


def run(job: Job) -> NoReturn:
    """Become the container's process, or report the error and exit."""
    gc.disable()  # a collection would write to, and so copy, every page shared with the parent
    # No imports from here on: in the container's mount namespace the import path would lead to the container's files.
    sys.meta_path.clear()
    report = Reporter(job.channel, timed=job.note_calls is not None and job.gate and not job.notify)
    if job.note_calls is not None:
        job.note_calls()
    try:
        _init(job, report)
    except BaseException as error:  # noqa: BLE001 - no exception may escape into the parent's code
        try:
            report.failed(error)
        finally:
            os._exit(1)
    os._exit(1)


def _init(job: Job, report: Reporter) -> None:
    """The order of the stages, and of the steps within each, is essential."""
    kept = _detach_from_parent(job, report)
    # Keep the host's /proc by descriptor: once the namespaces change, no other /proc can be trusted.
    proc = steps.open_proc()
    plan = _enter(job, report, proc)
    if plan is not None:
        _build_root(job, report, proc, plan)
    report.step = "stdio"
    steps.reopen_null(proc)
    os.close(proc)
    _limit(job, report)

    # From here on no descriptor leads out of the root, so a cwd or program of /proc/self/fd/N finds nothing
    # (CVE-2024-21626). Only the channel and the parent's pidfd remain, both close-on-exec.
    report.step = "descriptors"
    sc.close_all_except({0, 1, 2, *kept})
    last = _become_user(job, report)
    _wait_for_start(job, report, last)
    _execute(job, report, last)


class _LastSteps(NamedTuple):
    """What remains to be done once the process has only the user's privileges."""

    program: execve_stub.Exec
    borrowed: int  # capabilities beyond the final sets, held until the filter is installed
    inheritable: int
    with_stub: bool


def _detach_from_parent(job: Job, report: Reporter) -> set[int]:
    """Drop what was inherited from the parent: signal handling, stdio, descriptors. Returns the descriptors still
    needed."""
    # First of all: do not outlive the shim, not even half created. It may have died before prctl(2). In a new pid
    # namespace getppid() is always 0, so the parent's pidfd is used to find out.
    report.step = "parent"
    steps.die_with_parent(job)
    # No process in the namespaces we are about to enter may ptrace us or read /proc/<us>/fd (CVE-2016-9962). An
    # ordinary user's child stays dumpable until its ids are mapped; otherwise root would own all of /proc/<us>.
    sc.prctl(sc.PR_SET_DUMPABLE, int(os.geteuid() != 0))
    # Python ignores SIGPIPE and SIGXFSZ, and execve preserves ignored and blocked signals. (CLONE_CLEAR_SIGHAND has
    # reset the handlers, so none of the parent's can run here or write to its wakeup descriptor.)
    steps.default_signals()

    # Otherwise we would hold the parent's descriptors open, such as other containers' pipes and logs.
    report.step = "stdio"
    steps.place_stdio(job)
    console = () if job.console is None else (job.console,)
    kept = steps.kept_descriptors(job)
    trees = (job.root,) if job.plan is None else job.plan.descriptors
    procfs = job.procfs or ()
    sc.close_all_except({0, 1, 2, *kept, *(fd for fd, _ in job.join), *console, *trees, *procfs})
    return kept


def _enter(job: Job, report: Reporter, proc: int) -> Plan | None:
    """Enter the cgroup and namespaces; create the session and keyring. Returns the plan of the root file system as seen
    from inside."""
    process = job.process
    # Limits apply from here on. This precedes the cgroup namespace, whose root is our cgroup at the time it is created.
    report.step = "cgroup"
    steps.set_affinity(job.affinity[0])
    job.cgroup.attach(0)  # the hierarchies that clone3 has not already placed us in
    steps.final_affinity(job)

    # Join the namespaces that config.json names by path (the pod's net, ipc, uts); for exec, all of the container's.
    # The user namespace comes first: joining the others may need its privileges. A pid namespace only affects children:
    # the parent has set it, or we set it here and clone the program's process at the end (pid_entry.py).
    report.step = "namespaces"
    # Set oom_score_adj before a user namespace removes the privilege, and the label before the mount namespace hides
    # /proc.
    steps.set_oom_score(proc, process, report)
    steps.set_label(proc, process)
    if not job.new_user_namespace:
        sc.prctl(sc.PR_SET_DUMPABLE, 0)
    if job.stdio_owner >= 0:
        steps.own_stdio(job.stdio_owner)  # the host's ids are not mapped inside
    plan = job.plan
    if job.user_namespace is not None and job.user_namespace.fd >= 0:
        plan = steps.mapped_plan(job, report)
    steps.join(job)
    if job.user_namespace is not None:
        steps.clone_init_in_user_namespace(job, report)

    # Start a session in the process that stays: it then gets no signals from the caller's terminal, and it can have a
    # controlling terminal, for as long as the session's first process lives.
    report.step = "session"
    if not job.enters_pid_namespace:
        pid_entry.new_session(job.console)
    if job.console is not None and (size := process.get("consoleSize")):
        steps.set_window(job.console, size)

    report.step = "namespaces"
    offsets = steps.open_offsets(proc, job)
    if job.new_user_namespace:
        report.send({"mappings": True})
        steps.expect(job, b"mapped")
        sc.prctl(sc.PR_SET_DUMPABLE, 0)
    if job.new_user_namespace or job.user_namespace is not None:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    if job.new_network_namespace:
        steps.loopback_up()
    if job.net_devices:
        report.send({"net_devices": True})
        steps.expect(job, b"moved")
    if job.new_cgroup_namespace:
        sc.unshare(sc.CLONE_NEWCGROUP)
    steps.new_time(job, offsets)

    # Join a new session keyring; otherwise the container shares the caller's keys.
    report.step = "keyring"
    steps.join_keyring(job.keyring, report)
    return plan


def _build_root(job: Job, report: Reporter, proc: int, plan: Plan) -> None:
    """Mount the container's file systems and make them the root."""
    # After the ipc (mqueue), net (sysfs), pid (proc) and cgroup namespaces: each of these file systems shows the
    # namespace it is mounted in.
    report.step = "rootfs"
    root = plan.root.execute()
    try:
        root.map_ids = lambda tree, wanted: steps.ask_for_maps(job, report, tree, wanted)
        root.procfs = job.procfs
        old_umask = os.umask(0)  # so that modes are exactly as specified
        for operation in plan.operations:
            report.step = f"rootfs: {operation.describe()}"
            operation.execute(root)
        os.umask(old_umask)
        if job.own_terminal:
            report.step = "terminal"
            steps.open_terminal(job, root)
        _before_new_root(job, report, proc, root)
        report.step = job.root_change
        rootfs.change_root(job.root_change, root, propagation=plan.propagation)
    except BaseException:
        steps.undo_mounts(job, root)
        raise


def _before_new_root(job: Job, report: Reporter, proc: int, root: Root) -> None:
    """The last steps before the root changes: hooks that see both roots, the host name, and sysctls."""
    report.step = "hooks"
    if any(job.hooks.get(kind) for kind in hooks.IN_RUNTIME):
        report.send({"hooks": True})
        steps.expect(job, b"hooked")
    if wanted := job.hooks.get("createContainer", ()):
        os.fchdir(root.fd)  # where runc runs them too; the change of root changes the cwd anyway
        hooks.run_all("createContainer", wanted, {**job.state, "pid": os.getpid()})

    report.step = "hostname"
    if job.hostname:
        sc.sethostname(job.hostname)
    if job.domainname:
        sc.setdomainname(job.domainname)

    # Through the host's procfs: the container's /proc/sys could be anything (CVE-2025-52881).
    report.step = "sysctl"
    for name, value in job.sysctls.items():
        steps.write_proc(proc, f"sys/{sysctl_path(name)}", value)


def _limit(job: Job, report: Reporter) -> None:
    """Set resource limits and scheduling while we still have the privileges."""
    process = job.process
    report.step = "rlimits"
    report.warnings += rlimits.apply(process.get("rlimits", []))
    if job.personality >= 0:
        report.step = "personality"
        sc.personality(job.personality)
    if job.memory_policy is not None:
        report.step = "memory policy"
        sc.set_mempolicy(*job.memory_policy)
    report.step = "scheduler"
    steps.set_scheduling(process)


def _become_user(job: Job, report: Reporter) -> _LastSteps:
    """Change from root of the namespace to the program's user and working directory."""
    process = job.process
    # Try as root first, because the directory may be closed to the user. If it is closed to root (root-squashed NFS),
    # try again below as the user.
    report.step = "cwd"
    there = steps.chdir(process["cwd"], final=False)

    report.step = "user"
    final = job.caps
    no_new_privs = bool(process.get("noNewPrivileges"))
    # Without no_new_privs, installing a filter needs CAP_SYS_ADMIN. Of all capabilities beyond the final sets, only
    # this one is kept, and only until the start. The filter comes last, because it may forbid any system call needed
    # after it.
    borrowed = _SYS_ADMIN if job.seccomp is not None and not no_new_privs else 0
    wants_stub = job.use_stub and execve_stub.available() and not job.hooks.get("startContainer")
    with_stub = wants_stub or pid_entry.by_stub(job)
    inheritable = final.inheritable
    if with_stub:  # the stub gets its capabilities across execve as ambient, so they must be inheritable
        inheritable |= final.permitted | borrowed
        effective, permitted, inherited = sc.capget()
        sc.capset(effective, permitted, inherited | inheritable & permitted)
    _change_ids(job)

    report.step = "capabilities"
    sc.capset(final.effective | borrowed, final.permitted | borrowed, inheritable)
    if not there:
        report.step = "cwd"
        steps.chdir(process["cwd"], final=True)
    report.step = "no_new_privs"
    if no_new_privs:
        sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    report.step = "environment"
    environment = execve_arguments.environment(process, process.get("user", {}).get("uid", 0))

    # A change of credentials clears the parent-death signal: set it again, and check the parent again.
    report.step = "parent"
    steps.die_with_parent(job)
    argv = [os.fsencode(arg) for arg in process["args"]]
    filter_ = None if job.notify else job.seccomp
    last = execve_stub.Exec(b"", argv, environment, final, filter_, filter_last=not borrowed)
    if job.enters_pid_namespace:
        _enter_pid_namespace(job, report, last)

    # Look the program up as the user, in the container's search path. A command reports at create that a program cannot
    # be executed (as runc does); a pod's container is created with any program and then fails to start.
    report.step = "exec"
    if job.use_stub:
        last = last._replace(program=execve_arguments.find(process["args"][0], environment))
    if job.notify:  # here, not at the end: the parent sends the listener to the agent
        report.step = "seccomp"
        steps.install_with_listener(job)
    return _LastSteps(last, borrowed, inheritable, wants_stub)


def _enter_pid_namespace(job: Job, report: Reporter, last: execve_stub.Exec) -> None:
    """Clone the process that becomes the program into the pid namespace: by the stub, or as an interpreter that goes on
    after this call."""
    report.step = "pid namespace"
    if pid_entry.by_stub(job):
        # A program that is not found from here may exist for a process of the namespace, such as /proc/self/exe.
        with contextlib.suppress(StartError):
            program = execve_arguments.find(job.process["args"][0], last.environment)
            if report.warnings:
                report.send({"warnings": report.warnings})
                report.warnings = []
            pid_entry.become_stub(job, last._replace(program=program))
    pid_entry.enter(job, report)


def _change_ids(job: Job) -> None:
    """Change to the program's user and groups, with the permitted capabilities of before."""
    user = job.process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    # Drop the bounding set while we have CAP_SETPCAP. Set groups and gid before the uid change removes the right to.
    # KEEPCAPS preserves the permitted set across setuid for the steps that follow.
    capabilities.drop_bounding(job.caps.bounding, available=job.available_caps)
    steps.own_stdio(uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 1)
    mapped = job.new_user_namespace or job.user_namespace is not None
    steps.set_groups(user.get("additionalGids", []), in_user_namespace=mapped)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 0)
    os.umask(user.get("umask", 0o022))


def _wait_for_start(job: Job, report: Reporter, last: _LastSteps) -> None:
    """Wait for the start, then run the startContainer hooks. If there is a stub, the stub waits instead."""
    report.step = "gate"
    if job.gate:
        report.send(
            {"ready": True, "warnings": report.warnings, "steps": report.taken("sendmsg", "recvfrom")}
        )
        if last.with_stub and job.detached is None:  # while the parent records our pid
            steps.become_stub(job, last.program)
        steps.expect(job, b"start" if job.detached is None else b"detach")
    elif report.warnings:
        report.send({"warnings": report.warnings})
    if last.with_stub and (job.detached is not None or not job.gate):
        steps.become_stub(job, last.program)
    if job.detached is not None:
        steps.await_start(job, report)
    report.step = "hooks"
    state = {**job.state, "status": "created", "pid": os.getpid()}
    hooks.run_all(
        "startContainer",
        job.hooks.get("startContainer", ()),
        state,
        last.program.environment,
        steps.confined(job, last.program.seccomp),
    )


def _execute(job: Job, report: Reporter, last: _LastSteps) -> None:
    """Install the filter, drop the borrowed capabilities and execute the program."""
    report.step = "exec"
    path, argv, environment, final, filter_ = last.program[:5]
    path = path or execve_arguments.find(job.process["args"][0], environment)
    report.step = "seccomp" if filter_ is not None else "capabilities"
    restores = last.borrowed or final.ambient or last.inheritable != final.inheritable
    ahead = [
        *(("seccomp",) if filter_ is not None else ()),
        *(capabilities.calls(final) if restores else ()),
        "execve",
    ]
    if taken := report.taken("sendmsg", *ahead):  # the last message: the filter may forbid sending
        report.send({"steps": taken})
    if filter_ is not None:
        from runtime.security import seccomp  # already imported by the process that made job.seccomp

        seccomp.install(*filter_)
    # Drop the last of our privileges. Ambient capabilities depend on the other sets, which are final only now.
    report.step = "capabilities"
    if restores:
        capabilities.set_process(final)

    report.step = "exec"
    try:
        os.execve(path, argv, environment)
    except OSError as error:
        raise StartError(f"exec {os.fsdecode(path)}: {execve_arguments.lower(error)}") from error
