"""Parse the command line as runc does: global flags, a command, its flags, its arguments.

argparse is not used, because its import takes longer than all of the parsing.

The rules are those of Go's flag package: `--name=value`, `--name value`, one or two dashes, `--switch` and
`--switch=false`. Flags end at `--`. For exec and ps they also end at the first argument; other commands accept them
after arguments too, as in runc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from runtime.errors import RuntimeFault

SWITCH: Final = bool
TEXT: Final = str
LIST: Final = list
NUMBER: Final = int

Flags = Mapping[str, type]
_TRUE: Final = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class UsageError(RuntimeFault):
    """The command line is invalid."""

    reason = "Usage"


class Command(NamedTuple):
    """A command: its flags, how many arguments it takes (least, most; -1: unlimited), its help."""

    flags: Flags
    least: int
    most: int
    usage: str
    help: str


GLOBAL: Final[Flags] = {
    "root": TEXT,
    "log": TEXT,
    "log-format": TEXT,
    "cgroup-manager": TEXT,
    "rootless": TEXT,
    "criu": TEXT,
    "debug": SWITCH,
    "systemd-cgroup": SWITCH,
    "help": SWITCH,
    "version": SWITCH,
}
_CREATE: Final[Flags] = {
    "bundle": TEXT,
    "config": TEXT,
    "console-socket": TEXT,
    "pid-file": TEXT,
    "pidfd-socket": TEXT,
    "preserve-fds": NUMBER,
    "no-pivot": SWITCH,
    "no-new-keyring": SWITCH,
    "no-subreaper": SWITCH,
}
_EXEC: Final[Flags] = {
    "process": TEXT,
    "detach": SWITCH,
    "tty": SWITCH,
    "console-socket": TEXT,
    "pid-file": TEXT,
    "pidfd-socket": TEXT,
    "cwd": TEXT,
    "env": LIST,
    "user": TEXT,
    "additional-gids": LIST,
    "cap": LIST,
    "process-label": TEXT,
    "apparmor": TEXT,
    "no-new-privs": SWITCH,
    "preserve-fds": NUMBER,
    "ignore-paused": SWITCH,
    "cgroup": LIST,
    "no-subreaper": SWITCH,
}
_UPDATE: Final[Flags] = {
    "resources": TEXT,
    "blkio-weight": NUMBER,
    "cpu-period": NUMBER,
    "cpu-quota": NUMBER,
    "cpu-burst": NUMBER,
    "cpu-share": NUMBER,
    "cpu-shares": NUMBER,
    "cpu-rt-period": NUMBER,
    "cpu-rt-runtime": NUMBER,
    "cpu-idle": NUMBER,
    "cpuset-cpus": TEXT,
    "cpuset-mems": TEXT,
    "memory": TEXT,
    "memory-reservation": TEXT,
    "memory-swap": TEXT,
    "kernel-memory": TEXT,
    "kernel-memory-tcp": TEXT,
    "pids-limit": NUMBER,
    "l3-cache-schema": TEXT,
    "mem-bw-schema": TEXT,
}
_ONE = "<container-id>"
COMMANDS: Final[Mapping[str, Command]] = {
    "create": Command(_CREATE, 1, 1, _ONE, "create a container without starting its program"),
    "start": Command({}, 1, 1, _ONE, "start the program of a created container"),
    "run": Command(
        {**_CREATE, "detach": SWITCH, "keep": SWITCH},
        1,
        1,
        _ONE,
        "create, start, wait for and delete a container",
    ),
    "state": Command({}, 1, 1, _ONE, "print the state of a container as JSON"),
    "list": Command({"format": TEXT, "quiet": SWITCH}, 0, 0, "", "list the containers in --root"),
    "kill": Command(
        {"all": SWITCH}, 1, 2, f"{_ONE} [signal]", "send a signal (SIGTERM) to its init, or to all processes"
    ),
    "delete": Command(
        {"force": SWITCH}, 1, 1, _ONE, "delete a stopped container; --force: also a running one"
    ),
    "exec": Command(_EXEC, 1, -1, f"{_ONE} [command …]", "run an additional process in a container"),
    "pause": Command({}, 1, 1, _ONE, "suspend all processes of a container"),
    "resume": Command({}, 1, 1, _ONE, "resume all processes of a container"),
    "ps": Command({"format": TEXT}, 1, -1, f"{_ONE} [ps options]", "list the processes of a container"),
    "events": Command(
        {"stats": SWITCH, "interval": TEXT}, 1, 1, _ONE, "print statistics and OOM kills as JSON lines"
    ),
    "update": Command(_UPDATE, 1, 1, _ONE, "change the resource limits of a container"),
    "features": Command({}, 0, 0, "", "print the supported features as JSON"),
    "spec": Command({"bundle": TEXT, "rootless": SWITCH}, 0, 0, "", "write an example config.json"),
}
SHORT: Final = {
    "b": "bundle", "d": "detach", "f": "format", "q": "quiet", "a": "all", "p": "process", "t": "tty", "e": "env",
    "u": "user", "g": "additional-gids", "c": "cap", "r": "resources", "h": "help", "v": "version",
}  # fmt: skip
_PROGRAMS_OWN: Final = ("exec", "ps")  # the words after the ID are another program's command line
SHORT_OF: Final = {"delete": {"f": "force"}}
HELP: Final = "help"


class Line(NamedTuple):
    """The parsed command line."""

    options: dict[str, Any]  # global ones
    command: str  # "" when none was named
    flags: dict[str, Any]
    arguments: list[str]


def parse(argv: list[str]) -> Line:
    """Parse the command line. Raises UsageError."""
    options, rest = _flags(GLOBAL, SHORT, argv, "")
    if not rest or options.get("help") or options.get("version"):
        return Line(options, "", {}, rest)
    name, *rest = rest
    if name == HELP:
        return Line({**options, "help": True}, "", {}, rest)
    command = COMMANDS.get(name)
    if name in ("checkpoint", "restore"):
        raise UsageError(f"{name} is not supported: it needs CRIU")
    if command is None:
        raise UsageError(f"unknown command {name!r}: see kubelite-oci --help")
    short = {**SHORT, **SHORT_OF.get(name, {})}
    flags, arguments = _flags(
        {**command.flags, "help": SWITCH}, short, rest, f"{name}: ", anywhere=name not in _PROGRAMS_OWN
    )
    if flags.get("help"):
        return Line({**options, "help": True}, "", {}, [name])
    count = len(arguments)
    if count < command.least or -1 < command.most < count:
        wanted = command.least if command.least == command.most or count < command.least else command.most
        which = (
            "exactly" if command.least == command.most else "at least" if count < command.least else "at most"
        )
        raise UsageError(
            f"{name}: {name!r} requires {which} {wanted} argument(s): kubelite-oci {name} {command.usage}"
        )
    return Line(options, name, flags, arguments)


def _flags(
    known: Flags, short: Mapping[str, str], argv: list[str], where: str, *, anywhere: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Split words into (flags, arguments). `anywhere`: known flags are accepted after arguments too."""
    found: dict[str, Any] = {}
    passed: list[str] = []
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            return found, passed + argv[at + 1 :]
        if len(word) < 2 or word[0] != "-":
            if not anywhere:
                break
            passed.append(word)
            at += 1
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name if name in known else short.get(name, name)
        kind = known.get(name)
        if kind is None and passed:  # `kill ID -9`: an argument, not a flag
            passed.append(word)
            at += 1
            continue
        if kind is None:
            raise UsageError(f"{where}flag provided but not defined: {word.partition('=')[0]}")
        at += 1
        if kind is not SWITCH and not equals:
            if at == len(argv):
                raise UsageError(f"{where}flag needs an argument: {word}")
            value = argv[at]
            at += 1
        _set(found, name, kind, value if equals or kind is not SWITCH else "true", where)
    return found, passed + argv[at:]


def _set(found: dict[str, Any], name: str, kind: type, value: str, where: str) -> None:
    if kind is LIST:
        found.setdefault(name, []).append(value)
    elif kind is SWITCH:
        if value not in _TRUE:
            raise UsageError(f"{where}invalid boolean value {value!r} for --{name}")
        found[name] = _TRUE[value]
    elif kind is NUMBER:
        try:
            found[name] = int(value, 0)
        except ValueError:
            raise UsageError(f"{where}invalid value {value!r} for --{name}: not a number") from None
    else:
        found[name] = value
