"""Network configurations: their grammar, and the version that a network and its plugins agree on. Pure.

The rules are those of section 1 of the CNI specification and of libcni (pkg/libcni/conf.go, NetworkConfFromBytes and
ConfListFromBytes). A file that ends in .conflist holds a list of plugins; one in .conf or .json holds a single plugin,
which is read as a list of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import SpecError

ENDINGS = (".conf", ".conflist", ".json")
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")  # spoken here, the oldest first
CHECK_SINCE, GC_SINCE, STATUS_SINCE = "0.4.0", "1.1.0", "1.1.0"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # the specification, section 1: a network's name


@dataclass(frozen=True, slots=True)
class Network:
    """A list of plugins that give a pod its network, in order. `versions`: those that the list is written for, and
    that are spoken here, the newest first."""

    name: str
    versions: tuple[str, ...]
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False

    @property
    def capabilities(self) -> frozenset[str]:
        """The values of a pod that at least one of the plugins asks for."""
        return frozenset(name for plugin in self.plugins for name in asked(plugin))

    def to_json(self) -> dict[str, Any]:
        return {
            "cniVersion": self.versions[0],
            "cniVersions": list(self.versions),
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": [dict(plugin) for plugin in self.plugins],
        }


def asked(plugin: Mapping[str, Any]) -> list[str]:
    """The capabilities that a plugin's configuration switches on."""
    given = plugin.get("capabilities")
    return [name for name, wanted in given.items() if wanted is True] if isinstance(given, dict) else []


def at_least(version: str, since: str) -> bool:
    return VERSIONS.index(version) >= VERSIONS.index(since)


def parse(text: str, *, single: bool = False) -> Network:
    """Read a configuration; `single`: of one plugin. Raises SpecError, which does not name the file."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SpecError("not a JSON object")
    return from_json(_as_list(found) if single else found)


def _as_list(plugin: dict[str, Any]) -> dict[str, Any]:
    if "plugins" in plugin:
        raise SpecError("a list of plugins belongs in a file that ends in .conflist")
    return {"name": plugin.get("name"), "cniVersion": plugin.get("cniVersion"), "plugins": [plugin]}


def from_json(found: Mapping[str, Any]) -> Network:
    """The network of a parsed list. Raises SpecError."""
    name = found.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SpecError(f"name {name!r} is not that of a network: letters, digits, '_', '.' and '-'")
    plugins = found.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise SpecError(f"network {name} has no plugins in its list")
    for number, plugin in enumerate(plugins):
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise SpecError(f"plugins[{number}] of network {name} has no type that names a program: {kind!r}")
    return Network(
        name,
        _versions(found),
        tuple(plugins),
        _flag(found, "disableCheck"),
        _flag(found, "disableGC"),
    )


def _versions(found: Mapping[str, Any]) -> tuple[str, ...]:
    listed = found.get("cniVersions") or []
    single = found.get("cniVersion") or "0.1.0"  # what libcni takes a list without a version for
    if not isinstance(single, str) or not isinstance(listed, list):
        raise SpecError("cniVersion must be a text, and cniVersions a list of texts")
    spoken = tuple(version for version in reversed(VERSIONS) if version in listed or version == single)
    if not spoken:
        wanted = ", ".join(map(str, [single, *listed]))
        raise SpecError(f"CNI version {wanted} is not supported: only {', '.join(VERSIONS)}")
    return spoken


def _flag(found: Mapping[str, Any], key: str) -> bool:
    """A switch, which may be written as a text (libcni, NetworkConfFromBytes: disableCheck)."""
    value = found.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if not isinstance(value, bool):
        raise SpecError(f"{key} must be true or false, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Choice:
    """The network of a directory. `problems`: why files were passed over, as sentences."""

    network: Network | None
    file: str = ""
    problems: tuple[str, ...] = ()


def choose(files: Mapping[str, str]) -> Choice:
    """The first valid configuration, in the order of the files' names; `files`: name → text."""
    problems: list[str] = []
    for name in sorted(files):
        if not name.endswith(ENDINGS):
            continue
        try:
            return Choice(parse(files[name], single=not name.endswith(".conflist")), name, tuple(problems))
        except SpecError as error:
            problems.append(f"{name}: {error}")
    return Choice(None, problems=tuple(problems))


def agreed_version(network: Network, supported: Callable[[str], Collection[str]]) -> str:
    """Return the newest CNI version that the list and all its plugins support. `supported` returns the versions of a
    plugin by its type. Raises SpecError with libcni's message (pkg/libcni/api.go, validatePlugin)."""
    kinds: Sequence[str] = [plugin["type"] for plugin in network.plugins]
    for version in network.versions:
        if all(version in supported(kind) for kind in kinds):
            return version
    newest = network.versions[0]
    kind = next(kind for kind in kinds if newest not in supported(kind))
    raise SpecError(f'plugin {kind} does not support config version "{newest}"')
