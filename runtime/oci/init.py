"""The child: from clone3 to execve, in one straight line. Runs in the new process only and never returns.

    parent                                   child (here)
    cgroup made and limited
    clone3 ───────────────────────────────►  steps: cgroup, session, namespaces, root, credentials, …
    recv  ◄── {"ready", "warnings"} ───────  everything is done but seccomp's last word and execve
    Container.start: send "start" ─────────► execve
    recv  ◄── end of file ─────────────────  it worked: the socket is close-on-exec
    recv  ◄── {"error": …} ────────────────  it did not: step, class, errno and sentence

A parent that ends after create (`Job.detached`) says "detach" when it has heard "ready"; from there whoever connects to
the listening socket is the one who starts, and who hears of a failure. The last steps of what a command starts are done
by a stub (stub.py): the interpreter is gone while the gate is closed, and its going is not waited for.

The child is a copy of an interpreter that knows nothing of having been cloned: it flushes nothing, runs no exit
handlers, and whatever is raised becomes one packet and os._exit.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from runtime import syscalls as sc
from runtime.errors import StartError
from runtime.oci import hooks, program, stub
from runtime.oci import init_steps as steps
from runtime.oci.config.spec_linux import sysctl_path
from runtime.oci.job import Job, Reporter
from runtime.oci.rootfs import rootfs
from runtime.security import capabilities, capability_names, rlimits

if TYPE_CHECKING:
    from runtime.oci.rootfs.root import Root
    from runtime.oci.rootfs.rootfs import Plan

_SYS_ADMIN: Final = 1 << capability_names.NUMBERS["CAP_SYS_ADMIN"]


def run(job: Job) -> NoReturn:
    """Become the container's process, or die having said why."""
    gc.disable()  # a collection would touch, and so copy, every page that is shared with the parent
    # What is not imported by now never is: from the next mount namespace on, the import path is the container's files.
    sys.meta_path.clear()
    report = Reporter(job.channel, timed=job.gate and job.detached is None and not job.notify)
    try:
        _init(job, report)
    except BaseException as error:  # noqa: BLE001 - whatever it is must not escape into the parent's code
        try:
            report.failed(error)
        finally:
            os._exit(1)
    os._exit(1)


def _init(job: Job, report: Reporter) -> None:
    """The order is the point: of the stages, and within each."""
    kept = _come_loose(job, report)
    # The host's /proc, kept by descriptor: after the namespaces change there is no other we can trust.
    proc = steps.open_proc()
    plan = _enter(job, report, proc)
    if plan is not None:
        _build_root(job, report, proc, plan)
    report.step = "stdio"
    steps.reopen_null(proc)
    os.close(proc)
    _limit(job, report)

    # From here no descriptor is left that leads out of the root: a cwd or program of /proc/self/fd/N finds nothing
    # (CVE-2024-21626). Only the channel and the parent's pidfd remain, both close-on-exec.
    report.step = "descriptors"
    sc.close_all_except({0, 1, 2, *kept})
    last = _become_user(job, report)
    _pass_gate(job, report, last)
    _execute(job, report, last)


class _Last(NamedTuple):
    """What is left to do when the user's rights are all there is, and what stays of ours until then."""

    program: stub.Exec
    borrowed: int  # capabilities beyond the final sets, for as long as a filter is to be installed
    inheritable: int
    with_stub: bool


def _come_loose(job: Job, report: Reporter) -> set[int]:
    """Of the parent, whose copy we are. The descriptors that we go on needing."""
    # First of all: do not outlive the shim, not even while half made. The death may have come before prctl(2);
    # getppid() says nothing from inside a new pid namespace (it is 0), the parent's pidfd does.
    report.step = "parent"
    steps.die_with_parent(job)
    # Nobody in a namespace we are about to enter may ptrace us or look into /proc/<us>/fd (CVE-2016-9962).
    # An ordinary user's child is still dumpable until its ids are mapped: all in /proc/<us> would be root's else.
    sc.prctl(sc.PR_SET_DUMPABLE, int(os.geteuid() != 0))
    # Python ignores SIGPIPE and SIGXFSZ; ignored and blocked signals are inherited over execve. (Handlers were
    # reset by CLONE_CLEAR_SIGHAND: no handler of the parent's ran, or wrote to its wakeup descriptor, from here.)
    steps.default_signals()

    # Descriptors of the parent's (other containers' pipes and logs) would be kept open by us.
    report.step = "stdio"
    steps.place_stdio(job)
    console = () if job.console is None else (job.console,)
    kept = steps.kept(job)
    trees = (job.root,) if job.plan is None else job.plan.descriptors
    sc.close_all_except({0, 1, 2, *kept, *(fd for fd, _ in job.join), *console, *trees})

    return kept


def _enter(job: Job, report: Reporter, proc: int) -> Plan | None:
    """Cgroup and namespaces, session and keyring; the plan of the root as it is seen from inside."""
    process = job.process
    # Limits apply from here. Before the cgroup namespace, whose root is where we are when it is made.
    report.step = "cgroup"
    steps.set_affinity(job.affinity[0])
    job.cgroup.attach(0)  # where clone3 has not put us already
    steps.final_affinity(job)

    # What config.json names by path (the pod's net, ipc, uts), or for exec all of the container's. User first: the
    # others may need its privileges. pid was done by the parent, it only counts for children.
    report.step = "namespaces"
    # oom_score_adj before a user namespace takes the privilege; label before the mount namespace takes /proc away.
    steps.set_oom_score(proc, process, report)
    steps.set_label(proc, process)
    if not job.new_user_namespace:
        sc.prctl(sc.PR_SET_DUMPABLE, 0)
    if job.stdio_owner >= 0:
        steps.own_stdio(job.stdio_owner)  # nobody's, seen from inside
    plan = job.plan
    if job.user_namespace is not None and job.user_namespace.fd >= 0:
        plan = steps.mapped_plan(job, report)
    steps.join(job)
    if job.user_namespace is not None:
        steps.be_born_again(job, report)

    # A session of our own, of the process that stays: no signal from the caller's terminal, and a terminal can become
    # the controlling one, which it is for as long as the session's first process lives.
    report.step = "session"
    os.setsid()
    if job.console is not None:
        fcntl.ioctl(job.console, steps.TIOCSCTTY, 0)
        if size := process.get("consoleSize"):
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

    # A session keyring of its own: else the container shares the caller's keys.
    report.step = "keyring"
    steps.join_keyring(job.keyring, report)

    return plan


def _build_root(job: Job, report: Reporter, proc: int, plan: Plan) -> None:
    """The container's file systems, and into them."""
    # After ipc (mqueue), net (sysfs), pid (proc) and cgroup namespaces: these file systems show whose they are.
    report.step = "rootfs"
    root = plan.root.execute()
    try:
        root.map_ids = lambda tree, wanted: steps.ask_for_maps(job, report, tree, wanted)
        old_umask = os.umask(0)  # modes are exactly those asked for
        for operation in plan.operations:
            report.step = f"rootfs: {operation.describe()}"
            operation.execute(root)
        os.umask(old_umask)
        if job.own_terminal:
            report.step = "terminal"
            steps.open_terminal(job, root)
        _last_from_outside(job, report, proc, root)
        report.step = job.turn
        rootfs.turn(job.turn, root, propagation=plan.propagation)
    except BaseException:
        steps.take_back(job, root)
        raise


def _last_from_outside(job: Job, report: Reporter, proc: int, root: Root) -> None:
    """Hooks that see both roots, names, and what only the host's /proc can be trusted with."""
    report.step = "hooks"
    if any(job.hooks.get(kind) for kind in hooks.IN_RUNTIME):
        report.send({"hooks": True})
        steps.expect(job, b"hooked")
    os.fchdir(root.fd)  # where runc runs them, too; pivot_root changes it anyhow
    hooks.run_all("createContainer", job.hooks.get("createContainer", ()), {**job.state, "pid": os.getpid()})

    report.step = "hostname"
    if job.hostname:
        sc.sethostname(job.hostname)
    if job.domainname:
        sc.setdomainname(job.domainname)

    # By the host's procfs: what the container calls /proc/sys could be anything (CVE-2025-52881).
    report.step = "sysctl"
    for name, value in job.sysctls.items():
        steps.write_proc(proc, f"sys/{sysctl_path(name)}", value)


def _limit(job: Job, report: Reporter) -> None:
    """Limits and scheduling while we still may."""
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


def _become_user(job: Job, report: Reporter) -> _Last:
    """From root of the namespace to who the program is to be, in its directory."""
    process = job.process
    user = process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    # As root first: the directory may be closed to the user, or (root-squashed NFS) to root. Then once more below.
    report.step = "cwd"
    there = steps.chdir(process["cwd"], final=False)

    # Bounding set while CAP_SETPCAP is here; groups and gid before uid takes the right to change them away.
    # KEEPCAPS carries the permitted set over setuid, for what follows.
    report.step = "user"
    final = job.caps
    no_new_privs = bool(process.get("noNewPrivileges"))
    # Without no_new_privs, installing a filter needs CAP_SYS_ADMIN: it is kept, and it alone beyond the final sets,
    # for as long as the gate is closed. What a filter forbids must not be needed after it, so it comes last.
    borrowed = _SYS_ADMIN if job.seccomp is not None and not no_new_privs else 0
    with_stub = job.use_stub and stub.available() and not job.hooks.get("startContainer")
    inheritable = final.inheritable
    if (
        with_stub
    ):  # what the stub is to have goes over its execve as ambient, and so must be inheritable before
        inheritable |= final.permitted | borrowed
        effective, permitted, inherited = sc.capget()
        sc.capset(effective, permitted, inherited | inheritable & permitted)
    capabilities.drop_bounding(job.caps.bounding, available=job.available_caps)
    steps.own_stdio(uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 1)
    mapped = job.new_user_namespace or job.user_namespace is not None
    steps.set_groups(user.get("additionalGids", []), in_user_namespace=mapped)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 0)
    os.umask(user.get("umask", 0o022))

    report.step = "capabilities"
    sc.capset(final.effective | borrowed, final.permitted | borrowed, inheritable)
    if not there:
        report.step = "cwd"
        steps.chdir(process["cwd"], final=True)
    report.step = "no_new_privs"
    if no_new_privs:
        sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    environment = program.environment(process, uid)

    # A change of credentials clears the parent-death signal: again, and look again.
    report.step = "parent"
    steps.die_with_parent(job)

    # The user's own eyes decide what is executable; the search path is the container's. A command says at create what
    # cannot be executed (as runc); a pod's container is created with any program, and fails to start.
    report.step = "exec"
    path = program.find(process["args"][0], environment) if job.use_stub else b""
    if job.notify:  # here, not at the end: it is the parent that tells the agent
        report.step = "seccomp"
        steps.install_with_listener(job)
    filter_ = None if job.notify else job.seccomp
    argv = [os.fsencode(arg) for arg in process["args"]]
    last = stub.Exec(path, argv, environment, final, filter_, filter_last=not borrowed)
    return _Last(last, borrowed, inheritable, with_stub)


def _pass_gate(job: Job, report: Reporter, last: _Last) -> None:
    """Wait for who starts the container; it is the stub that waits wherever there is one. Then its own hooks."""
    report.step = "gate"
    if job.gate:
        report.send({"ready": True, "warnings": report.warnings, "steps": report.taken()})
        if last.with_stub and job.detached is None:  # while the parent writes down who we are
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


def _execute(job: Job, report: Reporter, last: _Last) -> None:
    """The program, under its filter, with nothing left of what was borrowed."""
    report.step = "exec"
    path, argv, environment, final, filter_ = last.program[:5]
    path = path or program.find(job.process["args"][0], environment)
    report.step = "seccomp" if filter_ is not None else "capabilities"
    if taken := report.taken():  # the last word: what a filter allows of it is not known
        report.send({"steps": taken})
    if filter_ is not None:
        from runtime.security import seccomp  # warm already in the process that made job.seccomp

        seccomp.install(*filter_)
    # The last of our privileges goes; ambient capabilities rest on the sets that are final only now.
    report.step = "capabilities"
    if last.borrowed or final.ambient or last.inheritable != final.inheritable:
        capabilities.set_process(final)

    report.step = "exec"
    try:
        os.execve(path, argv, environment)
    except OSError as error:
        raise StartError(f"exec {os.fsdecode(path)}: {program.lower(error)}") from error
