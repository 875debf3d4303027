"""registries.conf, version 2 (containers-registries.conf(5)): mirrors, insecure and blocked registries, short names.

The files are /etc/containers/registries.conf (or $CONTAINERS_REGISTRIES_CONF) and the *.conf in the registries.conf.d
beside it, in order. A later file's table replaces an earlier one with the same prefix. A name without a registry
belongs to docker.io unless it is an alias. unqualified-search-registries is ignored, because it would let the network
decide what a name means.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape, glob
from typing import Any

from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.reference import Endpoint, Reference

PATH = "/etc/containers/registries.conf"
_WHEN = frozenset(("", "all", "digest-only", "tag-only"))


@dataclass(frozen=True, slots=True)
class Mirror:
    location: str
    insecure: bool = False
    when: str = "all"  # all, digest-only, tag-only


@dataclass(frozen=True, slots=True)
class RegistryTable:
    """One [[registry]] table. `prefix` is host[/path…] or *.domain. Without a location, names are not rewritten."""

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    source: str = ""

    def matches(self, name: str) -> bool:
        if self.prefix.startswith("*."):
            host = name.partition("/")[0].partition(":")[0]
            return host.endswith(self.prefix[1:])
        return name == self.prefix or name.startswith((f"{self.prefix}/", f"{self.prefix}:"))


@dataclass(frozen=True, slots=True)
class Registries:
    tables: tuple[RegistryTable, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def expand(self, text: str) -> str:
        """Replace a short name by its alias. Returns any other name unchanged."""
        name, at, digest = text.partition("@")
        name, colon, tag = name.partition(":") if "/" not in name.rpartition(":")[2] else (name, "", "")
        target = self.aliases.get(name)
        return f"{target}{colon}{tag}{at}{digest}" if target else text

    def endpoints(self, wanted: Reference) -> list[Endpoint]:
        """The endpoints of the repository, in order: mirrors, then the registry itself. Raises ImageError if it is
        blocked."""
        table = self._table(wanted.name)
        if table is None:
            return [Endpoint(wanted.registry, wanted.repository)]
        if table.blocked:
            raise ImageError(f"registry {table.prefix} is blocked in {table.source}")
        found = [
            _endpoint(mirror.location, mirror.insecure, table.prefix, wanted)
            for mirror in table.mirrors
            if mirror.when == "all" or (mirror.when == "digest-only") == bool(wanted.digest)
        ]
        return [*found, _endpoint(table.location, table.insecure, table.prefix, wanted)]

    def insecure(self, registry: str) -> bool:
        """Whether the registry is marked insecure, for a login."""
        table = self._table(registry)
        return table is not None and table.insecure

    def _table(self, name: str) -> RegistryTable | None:
        """The table with the longest matching prefix."""
        fitting = [table for table in self.tables if table.matches(name)]
        return max(fitting, key=lambda table: len(table.prefix), default=None)


def _endpoint(location: str, insecure: bool, prefix: str, wanted: Reference) -> Endpoint:
    if not location:
        return Endpoint(wanted.registry, wanted.repository, insecure)
    rest = f"/{wanted.repository}" if prefix.startswith("*.") else wanted.name[len(prefix) :]
    registry, _, repository = f"{location}{rest}".partition("/")
    return Endpoint(registry, repository, insecure)


def load(environ: Mapping[str, str] | None = None) -> Registries:
    """Read all files. Missing files count as empty. Raises ImageError (InvalidRegistriesConf), which names the invalid
    file."""
    return merge([_read(path) for path in files(environ) if os.path.exists(path)])


def files(environ: Mapping[str, str] | None = None) -> list[str]:
    """The paths of the files. The first need not exist."""
    environ = os.environ if environ is None else environ
    main = environ.get("CONTAINERS_REGISTRIES_CONF") or PATH
    return [main, *sorted(glob(f"{escape(main)}.d/*.conf"))]


def merge(parts: Sequence[Registries]) -> Registries:
    """Merge files: the last one to define a prefix or an alias wins. An empty alias removes it
    (containers-registries.conf.d(5))."""
    tables: dict[str, RegistryTable] = {}
    aliases: dict[str, str] = {}
    for part in parts:
        tables.update({table.prefix: table for table in part.tables})
        aliases.update(part.aliases)
    return Registries(tuple(tables.values()), {k: v for k, v in aliases.items() if v})


def _read(path: str) -> Registries:
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}", reason="InvalidRegistriesConf") from error
    return parse(document, path)


def parse(document: Mapping[str, Any], source: str) -> Registries:
    """Parse a document of version 2. Raises ImageError (InvalidRegistriesConf)."""
    if "registries" in document:
        raise _bad(
            source,
            "it is version 1 ([registries.search] and so on), which is not supported; convert it to version 2",
        )
    tables = document.get("registry") or []
    aliases = document.get("aliases") or {}
    if not isinstance(tables, list) or not isinstance(aliases, dict):
        raise _bad(source, "[[registry]] must be a list of tables and [aliases] a table")
    for short, target in aliases.items():
        if target:
            _check_alias(source, short, target)
    return Registries(tuple(_table(table, source) for table in tables), dict(aliases))


def _check_alias(source: str, short: str, target: Any) -> None:
    if not isinstance(target, str) or "/" not in target:
        raise _bad(source, f'alias "{short}" must name a registry and a repository')
    try:
        references.parse(target)
    except ImageError as error:
        raise _bad(source, f'alias "{short}": {error}') from error


def _table(table: Any, source: str) -> RegistryTable:
    if not isinstance(table, dict):
        raise _bad(source, "a [[registry]] is not a table")
    location = _location(table, source)
    prefix = str(table.get("prefix") or location).rstrip("/")
    if not prefix:
        raise _bad(source, "a [[registry]] has neither prefix nor location")
    if "*" in prefix and not (prefix.startswith("*.") and "*" not in prefix[1:] and "/" not in prefix):
        raise _bad(source, f'prefix "{prefix}": a * is only allowed at the start, as in *.example.com')
    by_digest = bool(table.get("mirror-by-digest-only"))
    mirrors = tuple(_mirror(entry, source, prefix, by_digest) for entry in table.get("mirror") or ())
    return RegistryTable(
        prefix, location, bool(table.get("insecure")), bool(table.get("blocked")), mirrors, source
    )


def _mirror(entry: Any, source: str, prefix: str, by_digest: bool) -> Mirror:
    if not isinstance(entry, dict) or not _location(entry, source):
        raise _bad(source, f"a mirror of {prefix} has no location")
    when = str(entry.get("pull-from-mirror") or "")
    if when not in _WHEN:
        raise _bad(source, f'pull-from-mirror "{when}" is not one of all, digest-only, tag-only')
    return Mirror(
        _location(entry, source), bool(entry.get("insecure")), when or ("digest-only" if by_digest else "all")
    )


def _location(table: Mapping[str, Any], source: str) -> str:
    location = table.get("location") or ""
    if not isinstance(location, str) or "://" in location or "*" in location:
        raise _bad(source, f'location "{location}" must be host[:port][/path], without a scheme')
    return location.rstrip("/")


def _bad(source: str, why: str) -> ImageError:
    return ImageError(f"{source} cannot be used: {why}", reason="InvalidRegistriesConf")
