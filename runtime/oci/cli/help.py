"""The text of --help: what each command and flag does, and examples. Imported only when needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from runtime.oci.cli.options import COMMANDS, GLOBAL, SHORT, SHORT_OF, SWITCH, Flags


class About(NamedTuple):
    """What a flag does, and the name of its value."""

    text: str
    value: str = "VALUE"


GLOBAL_FLAGS: Final[Mapping[str, About]] = {
    "root": About(
        "directory of container states [default: /run/kubelite-oci; without root, in $XDG_RUNTIME_DIR]",
        "DIR",
    ),
    "log": About("file for log messages [default: standard error]", "FILE"),
    "log-format": About("format of log messages: text or json [default: text]", "FORMAT"),
    "cgroup-manager": About(
        "how cgroups are made: cgroupfs, systemd or disabled [default: cgroupfs]", "NAME"
    ),
    "systemd-cgroup": About("the same as --cgroup-manager systemd"),
    "rootless": About(
        "run without a cgroup if none can be created: true, false or auto [default: auto]", "WHEN"
    ),
    "criu": About("no effect: checkpoints are not supported", "PATH"),
    "debug": About("log debug messages"),
    "help": About("show help and exit"),
    "version": About("print the version and exit"),
}
FLAGS: Final[Mapping[str, About]] = {
    "additional-gids": About("additional group IDs; may be repeated", "GID"),
    "all": About("send the signal to all processes"),
    "apparmor": About("AppArmor profile of the process", "PROFILE"),
    "blkio-weight": About("block I/O weight, 10 to 1000", "N"),
    "bundle": About("directory of the bundle [default: the current one]", "DIR"),
    "cap": About("capability to add; may be repeated", "NAME"),
    "cgroup": About(
        "cgroup below that of the container; on cgroup v1 also CONTROLLER[,CONTROLLER]:PATH",
        "PATH",
    ),
    "config": About("path of config.json [default: config.json in the bundle]", "FILE"),
    "console-socket": About("socket that receives the terminal's file descriptor", "SOCKET"),
    "cpu-burst": About("CPU time in microseconds that may be saved for bursts", "N"),
    "cpu-idle": About("run only when the CPU is idle, if 1", "N"),
    "cpu-period": About("CPU period in microseconds", "N"),
    "cpu-quota": About("CPU time in microseconds in a period", "N"),
    "cpu-rt-period": About("realtime CPU period in microseconds", "N"),
    "cpu-rt-runtime": About("realtime CPU time in microseconds in a period", "N"),
    "cpu-share": About("CPU weight, as in cgroup v1", "N"),
    "cpu-shares": About("the same as --cpu-share", "N"),
    "cpuset-cpus": About("CPUs, for example 0-2,4", "LIST"),
    "cpuset-mems": About("memory nodes, for example 0,1", "LIST"),
    "cwd": About("working directory", "DIR"),
    "detach": About("return as soon as the program has started"),
    "env": About("environment variable; may be repeated", "NAME=VALUE"),
    "force": About("kill the container first, if it is running"),
    "format": About("output format: table or json [default: table]", "FORMAT"),
    "ignore-paused": About("accept a paused container"),
    "interval": About("time between statistics [default: 5s]", "DURATION"),
    "keep": About("do not delete the container when it has ended"),
    "kernel-memory": About("limit of kernel memory (cgroup v1)", "BYTES"),
    "kernel-memory-tcp": About("limit of memory of TCP buffers (cgroup v1)", "BYTES"),
    "l3-cache-schema": About("L3 cache schema of resctrl", "SCHEMA"),
    "mem-bw-schema": About("memory bandwidth schema of resctrl", "SCHEMA"),
    "memory": About("memory limit, for example 512m; -1: none", "BYTES"),
    "memory-reservation": About("memory reservation; -1: none", "BYTES"),
    "memory-swap": About("limit of memory and swap together; -1: none", "BYTES"),
    "no-new-keyring": About("do not create a session keyring"),
    "no-new-privs": About("set no_new_privs"),
    "no-pivot": About("use chroot(2) instead of pivot_root(2)"),
    "no-subreaper": About("do not become the reaper of orphaned processes"),
    "pid-file": About("file to which the process ID is written", "FILE"),
    "pidfd-socket": About("socket that receives a pidfd of the process", "SOCKET"),
    "pids-limit": About("limit of processes; -1: none", "N"),
    "preserve-fds": About("number of file descriptors, from 3 on, that the program gets", "N"),
    "process": About("file with the process object; no other option of the process applies", "FILE"),
    "process-label": About("SELinux label of the process", "LABEL"),
    "quiet": About("print only the IDs"),
    "resources": About("file with linux.resources; - is standard input", "FILE"),
    "rootless": About("config.json for an ordinary user"),
    "stats": About("print the statistics once"),
    "tty": About("give the process a terminal"),
    "user": About("user ID and group ID", "UID[:GID]"),
}
#: A comment and a command line each.
EXAMPLES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "": (
        ("Run the container of the bundle in the current directory", "kubelite-oci run web"),
        ("Run a container as an ordinary user", "kubelite-oci spec --rootless && kubelite-oci run web"),
    ),
    "create": (("Create a container from a bundle", "kubelite-oci create --bundle /srv/web web"),),
    "start": (("Start the program of a created container", "kubelite-oci start web"),),
    "run": (
        ("Run a container, and wait for its end", "kubelite-oci run --bundle /srv/web web"),
        ("Run a container in the background", "kubelite-oci run --detach --pid-file web.pid web"),
    ),
    "state": (("Print the state of a container", "kubelite-oci state web"),),
    "list": (
        ("List the containers", "kubelite-oci list"),
        ("Print the IDs of containers in another directory", "kubelite-oci --root /run/other list -q"),
    ),
    "kill": (
        ("Send SIGTERM to the init process", "kubelite-oci kill web"),
        ("Kill all processes of a container", "kubelite-oci kill --all web KILL"),
    ),
    "delete": (
        ("Delete a stopped container", "kubelite-oci delete web"),
        ("Kill and delete a running container", "kubelite-oci delete --force web"),
    ),
    "exec": (
        ("Open a shell in a container", "kubelite-oci exec -t web sh"),
        ("Run a program as another user", "kubelite-oci exec -u 1000:1000 -e LANG=C web id"),
    ),
    "pause": (("Suspend a container", "kubelite-oci pause web"),),
    "resume": (("Resume a container", "kubelite-oci resume web"),),
    "ps": (
        ("List the processes of a container", "kubelite-oci ps web"),
        ("Choose the columns of ps(1)", "kubelite-oci ps web -o pid,rss,args"),
    ),
    "events": (
        ("Print statistics every second, and OOM kills", "kubelite-oci events --interval 1s web"),
        ("Print statistics once", "kubelite-oci events --stats web"),
    ),
    "update": (
        ("Change the limits of memory and CPU", "kubelite-oci update --memory 512m --cpu-quota 50000 web"),
        ("Read limits from standard input", "kubelite-oci update -r - web <resources.json"),
    ),
    "features": (("Print the supported features", "kubelite-oci features"),),
    "spec": (
        ("Write config.json to the current directory", "kubelite-oci spec"),
        ("Write one for an ordinary user", "kubelite-oci spec --rootless --bundle /srv/web"),
    ),
}


def usage(command: str = "") -> str:
    """The text of `kubelite-oci --help`, or of a command's --help."""
    if command in COMMANDS:
        about = COMMANDS[command]
        lines = [f"usage: kubelite-oci {command} [flags] {about.usage}".rstrip(), "", f"  {about.help}"]
        return "\n".join([*lines, *_examples(command), *_flags("flags", about.flags, FLAGS, command)])
    lines = ["usage: kubelite-oci [global flags] COMMAND [flags] …", "", "commands:"]
    lines += [f"  {name:9} {about.help}" for name, about in COMMANDS.items()]
    return "\n".join([*lines, *_examples(""), *_flags("global flags", GLOBAL, GLOBAL_FLAGS, "")])


def short_of(command: str, name: str) -> str:
    """The one-letter form of a flag, "" if it has none."""
    letters = {**SHORT, **SHORT_OF.get(command, {})}
    return next((letter for letter, long in letters.items() if long == name), "")


def _examples(command: str) -> Iterable[str]:
    lines = ["", "examples:"]
    for comment, line in EXAMPLES[command]:
        lines += [f"  # {comment}", f"  {line}", ""]
    return lines[:-1]


def _flags(title: str, known: Flags, about: Mapping[str, About], command: str) -> Iterable[str]:
    if not known:
        return []
    rows = []
    for name in sorted(known):
        letter = short_of(command, name)
        value = "" if known[name] is SWITCH else f" {about[name].value}"
        rows.append((f"{f'-{letter}, ' if letter else '    '}--{name}{value}", about[name].text))
    width = max(len(row) for row, _ in rows)
    return ["", f"{title}:", *(f"  {row:{width}}  {text}" for row, text in rows)]
