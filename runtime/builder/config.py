"""Pure: an image's config during a build, and how each instruction without files changes it.

Field names follow the OCI image configuration. Fields that only docker has (Healthcheck, OnBuild, Shell) follow moby's
image/spec/v1.2.md.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.builder.language.instructions import (
    Command,
    HealthCheck,
    Instruction,
    Listed,
    OnBuild,
    Pairs,
    Program,
    Text,
)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """The state of a stage, except its files. `args` holds the build arguments declared so far, with their values."""

    config: Json = field(default_factory=dict)
    history: tuple[Json, ...] = ()  # "created" is absent if the step made no layer; `output.commit` adds it
    args: Mapping[str, str] = field(default_factory=dict)
    author: str = ""
    cmd_set: bool = False  # this stage has set CMD, so ENTRYPOINT does not reset it

    @property
    def env(self) -> dict[str, str]:
        return env_dict(self.config.get("Env") or ())

    @property
    def variables(self) -> dict[str, str]:
        """The variables that words may use: build arguments, overridden by the environment."""
        return {**self.args, **self.env}

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    @property
    def workdir(self) -> str:
        return str(self.config.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        return str(self.config.get("User") or "")

    def with_config(self, **changes: Any) -> State:
        """The state with these config fields changed. None removes a field."""
        merged = {**self.config, **changes}
        return replace(self, config={k: v for k, v in merged.items() if v is not None})

    def with_history(self, words: str, *, created: str = "", empty: bool = True) -> State:
        entry: Json = {"created_by": words, "comment": "kubelite"}
        if created:
            entry = {"created": created, **entry}
        if empty:
            entry["empty_layer"] = True
        if self.author:
            entry["author"] = self.author
        return replace(self, history=(*self.history, entry))


def env_dict(entries: Any) -> dict[str, str]:
    pairs = (str(entry).partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def from_image(document: Mapping[str, Any]) -> tuple[State, tuple[str, ...]]:
    """The state that a base image starts a stage with, and its ONBUILD triggers."""
    config = dict(document.get("config") or {})
    triggers = tuple(config.pop("OnBuild", None) or ())
    if "PATH" not in env_dict(config.get("Env") or ()):
        config["Env"] = [f"PATH={PATH}", *(config.get("Env") or ())]
    history = tuple(dict(entry) for entry in document.get("history") or ())
    return State(config, history, author=str(document.get("author") or "")), triggers


def scratch() -> State:
    return State({"Env": [f"PATH={PATH}"], "WorkingDir": "/"})


def prepend_shell(command: Command, state: State) -> list[str]:
    return [*state.shell, *command.args] if command.shell else list(command.args)


def workdir_after(state: State, text: str) -> str:
    return posixpath.normpath(posixpath.join(state.workdir, text)).replace("//", "/")


def change(state: State, step: Instruction, expand: Callable[[str], str]) -> State:
    """The state after an instruction that creates no files. Raises ValueError with the reason."""
    what = step.what
    if isinstance(what, Pairs):
        return _env(state, what, expand) if what.kind == "ENV" else _labels(state, what, expand)
    if isinstance(what, Program):
        return _program(state, what)
    if isinstance(what, Listed):
        return _listed(state, what, expand)
    if isinstance(what, HealthCheck):
        return _healthcheck(state, what)
    if isinstance(what, OnBuild):
        before = state.config.get("OnBuild") or []
        return state.with_config(OnBuild=[*before, what.text]).with_history(f"ONBUILD {what.text}")
    if isinstance(what, Text):
        return _text(state, what, expand)
    raise TypeError(f"{step.raw.name} creates files")


def _env(state: State, what: Pairs, expand: Callable[[str], str]) -> State:
    env = state.env
    shown = []
    for name, value in what.pairs:
        key, text = expand(name), expand(value or "")
        env[key] = text
        shown.append(f"{key}={text}")
    changed = state.with_config(Env=[f"{name}={value}" for name, value in env.items()])
    return changed.with_history(f"ENV {' '.join(shown)}")


def _labels(state: State, what: Pairs, expand: Callable[[str], str]) -> State:
    labels = dict(state.config.get("Labels") or {})
    shown = []
    for name, value in what.pairs:
        key, text = expand(name), expand(value or "")
        labels[key] = text
        shown.append(f"{key}={text}")
    return state.with_config(Labels=labels).with_history(f"LABEL {' '.join(shown)}")


def _program(state: State, what: Program) -> State:
    if what.kind == "SHELL":
        words = list(what.command.args)
        return state.with_config(Shell=words).with_history(f"SHELL {_listed_words(words)}")
    args = prepend_shell(what.command, state)
    if what.kind == "CMD":
        return replace(state.with_config(Cmd=args or None), cmd_set=True).with_history(
            f"CMD {_listed_words(args)}"
        )
    changes: Json = {"Entrypoint": args or None}
    if not state.cmd_set:  # the base's Cmd belongs to the base's Entrypoint
        changes["Cmd"] = None
    return state.with_config(**changes).with_history(f"ENTRYPOINT {_listed_words(args)}")


def _listed_words(words: list[str]) -> str:
    return "[" + " ".join(f'"{word}"' for word in words) + "]"


def _listed(state: State, what: Listed, expand: Callable[[str], str]) -> State:
    if what.kind == "VOLUME":
        paths = [expand(item) for item in what.items]
        volumes = {**(state.config.get("Volumes") or {}), **{path: {} for path in paths}}
        return state.with_config(Volumes=volumes).with_history(f"VOLUME {_listed_words(paths)}")
    ports = [port for item in what.items for word in expand(item).split() for port in expose(word)]
    merged = {**(state.config.get("ExposedPorts") or {}), **{port: {} for port in ports}}
    return state.with_config(ExposedPorts=dict(sorted(merged.items()))).with_history(
        f"EXPOSE {_listed_words(ports)}"
    )


def expose(word: str) -> list[str]:
    """Convert `80`, `80/udp` or `8000-8002/tcp` to docker's port keys. Raises ValueError."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", word, re.IGNORECASE)
    if match is None:
        raise ValueError(f'"{word}" is not a port; write 80, 53/udp or 8000-8010')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last <= 65535:
        raise ValueError(f'"{word}" is not a range of ports')
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _healthcheck(state: State, what: HealthCheck) -> State:
    if what.command is None:
        return state.with_config(Healthcheck={"Test": ["NONE"]}).with_history("HEALTHCHECK NONE")
    kind = "CMD-SHELL" if what.command.shell else "CMD"
    check: Json = {"Test": [kind, *what.command.args]}
    for name, value in (
        ("Interval", what.interval),
        ("Timeout", what.timeout),
        ("StartPeriod", what.start_period),
        ("StartInterval", what.start_interval),
        ("Retries", what.retries),
    ):
        if value:
            check[name] = value
    return state.with_config(Healthcheck=check).with_history(f"HEALTHCHECK {_listed_words(check['Test'])}")


def _text(state: State, what: Text, expand: Callable[[str], str]) -> State:
    if what.kind == "MAINTAINER":
        return replace(state, author=what.text).with_history(f"MAINTAINER {what.text}")
    text = expand(what.text)
    if what.kind == "USER":
        if not text:
            raise ValueError("the user's name is empty")
        return state.with_config(User=text).with_history(f"USER {text}")
    if what.kind == "STOPSIGNAL":
        check_signal(text)
        return state.with_config(StopSignal=text).with_history(f"STOPSIGNAL {text}")
    return state.with_config(WorkingDir=workdir_after(state, text))  # its layer adds the history


def check_signal(text: str) -> None:
    """Check a signal of Linux: 1 to 64, a name with or without SIG, SIGRTMIN+n or SIGRTMAX-n. Raises ValueError."""
    if text.isdigit():
        if not 0 < int(text) <= 64:
            raise ValueError(f"{text} is not a signal")
        return
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    realtime = re.fullmatch(r"SIGRT(MIN(\+\d+)?|MAX(-\d+)?)", name)
    if name not in signal.Signals.__members__ and not realtime:
        raise ValueError(f"{text} is not a signal")
