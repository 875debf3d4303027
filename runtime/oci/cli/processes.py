"""The commands exec and ps."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import Any, Final

from runtime import syscalls as sc
from runtime.cgroups import Place, layout
from runtime.errors import RuntimeFault, SpecError, StateError
from runtime.oci.cli import context, create, foreground, store
from runtime.oci.cli.context import Context
from runtime.oci.cli.options import UsageError
from runtime.oci.cli.store import PAUSED, STOPPED
from runtime.oci.config import shape
from runtime.oci.init_protocol import Command

Flags = dict[str, Any]
_EXEC_SECONDS: Final = 60.0
EXEC_FAILED: Final = 255  # our own failure, as opposed to the program's exit codes (as in runc)


def run(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`exec ID PROGRAM`: returns the program's exit code, or 255 if it could not be run (as in runc)."""
    try:
        return _exec(at, flags, arguments)
    except UsageError:
        raise
    except (RuntimeFault, OSError) as error:
        at.log.error(f"exec failed: {error}")
        return EXEC_FAILED


def _exec(at: Context, flags: Flags, arguments: list[str]) -> int:
    # First, before we open descriptors that could be mistaken for the caller's.
    activation: dict[str, Any] = {"process": {}}
    preserve = create.preserved(flags, activation)
    entry = store.load(at.root, arguments[0])
    status = entry.status()
    if status in (STOPPED, store.CREATING):
        raise StateError("cannot exec in a stopped container")
    if status == PAUSED and not flags.get("ignore-paused"):
        raise StateError("cannot exec in a paused container (use --ignore-paused to override)")
    with ExitStack() as always:
        made = entry.container()
        always.callback(os.close, made.pidfd)
        process = _process(made.spec["process"], flags, arguments[1:])
        process["env"] = [*process.get("env", []), *activation["process"].get("env", [])]
        terminal, detach = bool(process.get("terminal")), bool(flags.get("detach"))
        create.check_console(flags, terminal=terminal, foreground=not detach)
        master, slave = made.open_terminal() if terminal else (-1, -1)
        if terminal:
            always.callback(os.close, slave)
            if not flags.get("console-socket"):
                foreground.disable_onlcr(master)
        if not detach and not flags.get("no-subreaper"):
            sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1)
        if not detach:
            foreground.hold_signals()
        context.hide_arguments()
        command = Command(dies_with_us=not detach, preserve=preserve, ignore_paused=True)
        try:
            pending = made.begin_exec(
                process, stdio=None, console_slave=slave if terminal else None, command=command,
                place=_place(entry, flags),
            )  # fmt: skip
            handle = pending.wait(_EXEC_SECONDS)
        except BaseException:
            if terminal:
                os.close(master)
            raise
        for warning in handle.warnings:
            at.log.warning(warning)
        create.give_pidfd(flags, handle.pidfd)
        create.write_pid_file(flags.get("pid-file"), handle.pid)
        if terminal and (path := flags.get("console-socket")):
            from runtime.oci.cli import console

            console.send(path, master)
            master = -1
        if detach:
            os.close(handle.pidfd)
            return 0
    return foreground.attend(handle.pid, handle.pidfd, master)


def _place(entry: store.Entry, flags: Flags) -> Place | None:
    """--cgroup PATH, or on v1 CONTROLLER[,CONTROLLER]:PATH: existing cgroups below the container's."""
    if not (asked := flags.get("cgroup")):
        return None
    below = sub_cgroups(asked)
    if not entry.cgroup_path:
        raise StateError(f"--cgroup {asked[0]}: the container has no cgroup")
    from runtime.cgroups.sub import SubCgroup

    return SubCgroup(entry.cgroup.path, below, layout())


def sub_cgroups(asked: list[str]) -> dict[str, str]:
    """Parse --cgroup: controller ("" for all) → path. UsageError with runc's message."""
    found: dict[str, str] = {}
    for text in asked:
        controllers, colon, path = text.partition(":")
        if not colon and len(asked) > 1:
            raise UsageError(f"invalid --cgroup argument: {text} (missing <controller>: prefix)")
        for controller in controllers.split(",") if colon else ("",):
            if colon and not controller:
                raise UsageError(f"invalid --cgroup argument: {text} (empty <controller> prefix)")
            if controller in found:
                raise UsageError(
                    f"invalid --cgroup argument(s): controller {controller} specified multiple times"
                )
            found[controller] = path if colon else text
    return found


def _process(init: Any, flags: Flags, args: list[str]) -> dict[str, Any]:
    """The process object: --process FILE unchanged, or the container's own with changes from the flags (as in runc)."""
    if path := flags.get("process"):
        try:
            with open(path, "rb") as file:
                wanted: dict[str, Any] = shape.parse(file.read(), path)
        except OSError as error:
            raise SpecError(f"{path} cannot be read: {error.strerror}") from error
        if not isinstance(wanted, dict):
            raise SpecError(f"{path}: must be an object")
        return wanted
    if not args:
        raise UsageError("exec: process args cannot be empty")
    process = {**init, "args": args, "terminal": bool(flags.get("tty"))}
    process.pop("consoleSize", None)
    if cwd := flags.get("cwd"):
        process["cwd"] = cwd
    process["env"] = [*(init.get("env") or []), *flags.get("env", [])]
    if flags.get("no-new-privs"):
        process["noNewPrivileges"] = True
    for flag, key in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if flags.get(flag):
            process[key] = flags[flag]
    if caps := flags.get("cap"):
        process["capabilities"] = _with_caps(init.get("capabilities") or {}, caps)
    process["user"] = _user(init.get("user") or {}, flags)
    return process


def _with_caps(have: dict[str, list[str]], more: list[str]) -> dict[str, list[str]]:
    """As in runc, --cap adds to all sets; to the ambient set only what is already inheritable."""
    sets = {kind: list(dict.fromkeys([*(have.get(kind) or []), *more])) for kind in _SETS}
    sets["inheritable"] = list(have.get("inheritable") or [])
    sets["ambient"] = list(
        dict.fromkeys([*(have.get("ambient") or []), *set(more) & set(sets["inheritable"])])
    )
    return sets


_SETS: Final = ("bounding", "effective", "permitted")


def _user(init: dict[str, Any], flags: Flags) -> dict[str, Any]:
    user = dict(init)
    if text := flags.get("user"):
        uid, _, gid = text.partition(":")
        if not uid.isdecimal() or (gid and not gid.isdecimal()):
            raise UsageError(f"exec: --user {text!r}: must be numeric, UID[:GID]")
        user["uid"] = int(uid)
        user["gid"] = int(gid) if gid else user.get("gid", 0)
    groups = flags.get("additional-gids", [])
    if any(not group.isdecimal() for group in groups):
        raise UsageError("exec: --additional-gids: must be numeric")
    if groups:
        user["additionalGids"] = [*user.get("additionalGids", []), *map(int, groups)]
    return user


# --- ps ---


def ps(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`ps ID`: print the container's host pids as JSON, or the lines for them from the host's `ps`."""
    entry = store.load(at.root, arguments[0])
    pids = entry.cgroup.pids()
    style = flags.get("format", "table")
    if style == "json":
        print(json.dumps(pids))
        return 0
    if style != "table":
        raise UsageError(f"ps: invalid format option {style!r}: table or json")
    lines = _output_of(["ps", *(arguments[1:] or ["-ef"])])
    header = lines[0].split() if lines else []
    if "PID" not in header:
        raise RuntimeFault("couldn't find PID field in ps output")
    column, wanted = header.index("PID"), {str(pid) for pid in pids}
    rows = [
        line
        for line in lines[1:]
        if (fields := line.split()) and fields[column : column + 1] and fields[column] in wanted
    ]
    print("\n".join([lines[0], *rows]))
    return 0


def _output_of(command: list[str]) -> list[str]:
    """Run a program and return its output lines; its stderr is ours. Raises RuntimeFault if it fails.

    subprocess would import half of the standard library, including modules that stdlib_stubs cannot replace.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with open(reading, encoding="utf-8", errors="surrogateescape") as answer:
        try:
            actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
            pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
        except OSError as error:
            raise RuntimeFault(f"{command[0]}: {os.strerror(error.errno or 0).lower()}") from error
        finally:
            os.close(writing)
        lines = answer.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise RuntimeFault(f"{command[0]} failed with exit code {code}")
    return lines
