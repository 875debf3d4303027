"""Pure: parse each instruction to a frozen value of its kind. Variables are not replaced yet.

Flags and forms follow docs.docker.com/reference/dockerfile. An unknown or unsupported flag is an error here, before
anything runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from runtime.builder.errors import BuildError, Place
from runtime.builder.language import lexer
from runtime.builder.language.lexer import Heredoc, Raw


@dataclass(frozen=True, slots=True)
class Command:
    """The argument of RUN, CMD, ENTRYPOINT and a health check: a list of words or, if `shell` is set, one text for the
    shell."""

    args: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True)
class From:
    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """RUN --mount. `values` are as written; variables are replaced when the step runs."""

    kind: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    command: Command
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY, or ADD if `add` is set. A here-document appears in `sources` as its word, `<<NAME`."""

    sources: tuple[str, ...]
    target: str
    add: bool = False
    origin: str = ""  # --from
    chown: str = ""
    chmod: str = ""
    parents: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    unpack: bool | None = None
    heredocs: tuple[Heredoc, ...] = ()
    keep_git: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """ENV or LABEL, with (name, value) pairs, or ARG, with (name, default or None) pairs."""

    kind: str
    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """WORKDIR, USER, STOPSIGNAL or MAINTAINER, with one word or line."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Listed:
    """EXPOSE or VOLUME, with a list of words."""

    kind: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """CMD, ENTRYPOINT or SHELL."""

    kind: str
    command: Command


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """HEALTHCHECK. `command` is None for HEALTHCHECK NONE. Times are in nanoseconds; 0 means the default."""

    command: Command | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class OnBuild:
    text: str  # with its here-documents, as stored in the image's config


Kind = From | Run | Copy | Pairs | Text | Listed | Program | HealthCheck | OnBuild


@dataclass(frozen=True, slots=True)
class Instruction:
    raw: Raw
    what: Kind

    @property
    def place(self) -> Place:
        return self.raw.place


def read(raw: Raw, escape: str) -> Instruction:
    """Parse an instruction. Raises BuildError with the place."""
    try:
        return Instruction(raw, _READERS[raw.name](raw, escape))
    except ValueError as error:
        raise BuildError(f"{raw.name}: {error}", raw.place) from error


def _command(rest: str) -> Command:
    words = _json(rest)
    if words is not None:
        return Command(tuple(words), shell=False)
    return Command((rest,), shell=True)


def _json(rest: str) -> list[str] | None:
    """A JSON list of strings, or None. Text that only looks like JSON is for the shell, as in docker."""
    if not rest.lstrip().startswith("["):
        return None
    try:
        found = json.loads(rest)
    except ValueError:
        return None
    return found if all(isinstance(word, str) for word in found) else None


def _take(raw: Raw, *known: str) -> dict[str, list[str]]:
    """The flags by name. Raises ValueError for an unknown one."""
    found: dict[str, list[str]] = {}
    for name, value in raw.flags:
        if name not in known:
            others = f"; the flags are --{', --'.join(known)}" if known else ""
            raise ValueError(f"unknown flag --{name}{others}")
        found.setdefault(name, []).append(value)
    return found


def _one(flags: dict[str, list[str]], name: str, default: str = "") -> str:
    values = flags.get(name, [default])
    if len(values) > 1:
        raise ValueError(f"--{name} is given {len(values)} times")
    return values[0]


def _switch(flags: dict[str, list[str]], name: str) -> bool:
    value = _one(flags, name, "false").lower()
    if value not in ("", "true", "false", "1", "0"):
        raise ValueError(f"--{name} must be true or false, not {value}")
    return value in ("", "true", "1")


def _from(raw: Raw, escape: str) -> From:
    flags = _take(raw, "platform")
    words = lexer.words(raw.rest, escape)
    if len(words) == 1:
        return From(words[0], "", _one(flags, "platform"))
    if len(words) != 3 or words[1].lower() != "as":
        raise ValueError("write FROM IMAGE or FROM IMAGE AS NAME")
    name = words[2].lower()
    if not re.fullmatch(r"[a-z][a-z0-9._-]*", name):
        raise ValueError(
            f'"{words[2]}" is not a stage name: use letters, digits, and -_. after the first letter'
        )
    return From(words[0], name, _one(flags, "platform"))


_MOUNT_KEYS = {
    "bind": {"type", "target", "dst", "destination", "source", "src", "from", "rw", "readwrite", "ro", "readonly"},
    "cache": {
        "type", "id", "target", "dst", "destination", "ro", "readonly", "rw", "readwrite", "sharing", "from", "source",
        "src", "mode", "uid", "gid",
    },
    "tmpfs": {"type", "target", "dst", "destination", "size"},
    "secret": {"type", "id", "target", "dst", "destination", "required", "mode", "uid", "gid", "env", "src", "source"},
    "ssh": {"type", "id", "target", "dst", "destination", "required", "mode", "uid", "gid"},
}  # fmt: skip
_ALIAS = {"dst": "target", "destination": "target", "src": "source", "readonly": "ro", "readwrite": "rw"}


def _mount(text: str) -> Mount:
    values: dict[str, str] = {}
    for part in _comma_separated(text):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        values[_ALIAS.get(key, key)] = value if equals else "true"
    kind = values.get("type", "bind")
    known = _MOUNT_KEYS.get(kind)
    if known is None:
        raise ValueError(f'--mount has no type "{kind}"; the types are {", ".join(_MOUNT_KEYS)}')
    _no_variable(values.get("from", ""), "--mount: from")
    for key in values:
        if key not in known:
            raise ValueError(f'--mount=type={kind} has no field "{key}"')
    if not values.get("target") and kind not in ("secret", "ssh"):
        raise ValueError(f"--mount=type={kind} needs a target")
    return Mount(kind, values)


def _no_variable(origin: str, what: str) -> None:
    """Refuse a variable: which stages are needed is decided before any stage runs."""
    if "$" in origin:
        raise ValueError(
            f"{what}={origin}: variables are not allowed; name the image in FROM … AS NAME, and use NAME here"
        )


def _comma_separated(text: str) -> list[str]:
    """Split CSV as docker does: a quoted field may contain commas."""
    import csv

    return next(csv.reader([text]), [])


def _run(raw: Raw, _escape: str) -> Run:
    flags = _take(raw, "mount", "network", "security")
    network = _one(flags, "network", "default")
    if network not in ("default", "none", "host"):
        raise ValueError(f"--network must be default, none or host, not {network}")
    if _one(flags, "security", "sandbox") != "sandbox":
        raise ValueError(
            f"--security={_one(flags, 'security')} is not supported: a build has no more rights than a pod"
        )
    if not raw.rest:
        raise ValueError("it needs a command")
    mounts = tuple(_mount(text) for text in flags.get("mount", []))
    return Run(_command(raw.rest), mounts, network, raw.heredocs)


def _copy(raw: Raw, escape: str) -> Copy:
    add = raw.name == "ADD"
    common = ("chown", "chmod", "link", "exclude")
    flags = _take(raw, *common, *(("checksum", "keep-git-dir", "unpack") if add else ("from", "parents")))
    words = _json(raw.rest) or lexer.words(raw.rest, escape)
    if len(words) < 2:
        raise ValueError("it needs at least one source and a destination")
    _no_variable(_one(flags, "from"), "--from")
    _switch(flags, "link")  # has no effect: our layers never depend on those below
    return Copy(
        tuple(words[:-1]),
        words[-1],
        add,
        _one(flags, "from"),
        _one(flags, "chown"),
        _one(flags, "chmod"),
        _switch(flags, "parents"),
        tuple(flags.get("exclude", ())),
        _one(flags, "checksum"),
        _switch(flags, "unpack") if "unpack" in flags else None,
        raw.heredocs,
        _switch(flags, "keep-git-dir"),
    )


def _pairs(raw: Raw, escape: str) -> Pairs:
    _take(raw)
    words = lexer.words(raw.rest, escape)
    if "=" not in words[0]:  # ENV NAME VALUE, where the value is the rest of the line
        name, value = lexer.next_word(raw.rest, escape)
        if not value:
            raise ValueError(f"{name} needs a value")
        return Pairs(raw.name, ((name, value),))
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f'"{word}" is not NAME=VALUE')
        if not name:
            raise ValueError(f'"{word}" has no name')
        pairs.append((name, value))
    return Pairs(raw.name, tuple(pairs))


def _arg(raw: Raw, escape: str) -> Pairs:
    _take(raw)
    pairs: list[tuple[str, str | None]] = []
    for word in lexer.words(raw.rest, escape):
        name, equals, value = word.partition("=")
        if not name:
            raise ValueError(f'"{word}" has no name')
        pairs.append((name, value if equals else None))
    return Pairs("ARG", tuple(pairs))


def _text(raw: Raw, _escape: str) -> Text:
    _take(raw)
    return Text(raw.name, raw.rest)


def _listed(raw: Raw, escape: str) -> Listed:
    _take(raw)
    words = _json(raw.rest) if raw.name == "VOLUME" else None
    items = tuple(words if words is not None else lexer.words(raw.rest, escape))
    if not items or not all(items):
        raise ValueError(
            "it needs at least one path" if raw.name == "VOLUME" else "it needs at least one port"
        )
    return Listed(raw.name, items)


def _program(raw: Raw, _escape: str) -> Program:
    _take(raw)
    command = _command(raw.rest)
    if raw.name == "SHELL" and (command.shell or not command.args):
        raise ValueError('it needs a JSON list, such as ["/bin/sh", "-c"]')
    return Program(raw.name, command)


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def _duration(text: str, flag: str) -> int:
    """Parse a duration as Go's time.ParseDuration, in nanoseconds. Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        if text == "0":
            return 0
        raise ValueError(f'--{flag}: "{text}" is not a duration such as 30s')
    total = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if 0 < total < 10**6:
        raise ValueError(f"--{flag} cannot be less than 1ms")
    return total


def _healthcheck(raw: Raw, _escape: str) -> HealthCheck:
    times = ("interval", "timeout", "start-period", "start-interval")
    flags = _take(raw, *times, "retries")
    kind, _, rest = raw.rest.partition(" ")
    if kind.upper() == "NONE":
        if rest.strip() or flags:
            raise ValueError("NONE takes no arguments or flags")
        return HealthCheck(None)
    if kind.upper() != "CMD" or not rest.strip():
        raise ValueError("write CMD and a command, or NONE")
    interval, timeout, period, first = (_duration(_one(flags, name, "0"), name) for name in times)
    retries = _one(flags, "retries", "0")
    if not retries.isdigit():
        raise ValueError(f"--retries must be a number, not {retries}")
    return HealthCheck(_command(rest.strip()), interval, timeout, period, first, int(retries))


def _onbuild(raw: Raw, escape: str) -> OnBuild:
    _take(raw)
    trigger = raw.rest.split(None, 1)[0].upper()
    if trigger in ("ONBUILD", "FROM", "MAINTAINER"):
        raise ValueError(f"{trigger} is not allowed as a trigger")
    documents = "".join(f"{doc.content}{doc.name}\n" for doc in raw.heredocs)
    text = raw.rest + (f"\n{documents}".rstrip("\n") if documents else "")
    read(lexer.instruction(text, raw.place, escape), escape)
    return OnBuild(text)


_READERS: dict[str, Callable[[Raw, str], Kind]] = {
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "ENV": _pairs,
    "LABEL": _pairs,
    "ARG": _arg,
    "WORKDIR": _text,
    "USER": _text,
    "STOPSIGNAL": _text,
    "MAINTAINER": _text,
    "EXPOSE": _listed,
    "VOLUME": _listed,
    "CMD": _program,
    "ENTRYPOINT": _program,
    "SHELL": _program,
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
}
