"""registries.conf, version 2 (containers-registries.conf(5)): mirrors, insecure and blocked registries, short names.

Read are /etc/containers/registries.conf (or $CONTAINERS_REGISTRIES_CONF) and the *.conf beside it in
registries.conf.d, in order: a later file's table for the same prefix replaces an earlier one's. Names without a
registry are docker.io's, unless an alias says otherwise: unqualified-search-registries, which would let the network
decide what a name means, is not used.
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
    """One [[registry]]. `prefix` is host[/path…] or *.domain; without a location names stay as they are."""

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
        """A short name with an alias as what it stands for; anything else as it is."""
        name, at, digest = text.partition("@")
        name, colon, tag = name.partition(":") if "/" not in name.rpartition(":")[2] else (name, "", "")
        target = self.aliases.get(name)
        return f"{target}{colon}{tag}{at}{digest}" if target else text

    def endpoints(self, wanted: Reference) -> list[Endpoint]:
        """Where the repository is to be had, in order: mirrors, then itself. Raises ImageError when it is blocked."""
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
        """Whether a host is marked insecure, for a login."""
        table = self._table(registry)
        return table is not None and table.insecure

    def _table(self, name: str) -> RegistryTable | None:
        """The longest prefix that fits."""
        fitting = [table for table in self.tables if table.matches(name)]
        return max(fitting, key=lambda table: len(table.prefix), default=None)


def _endpoint(location: str, insecure: bool, prefix: str, wanted: Reference) -> Endpoint:
    if not location:
        return Endpoint(wanted.registry, wanted.repository, insecure)
    rest = f"/{wanted.repository}" if prefix.startswith("*.") else wanted.name[len(prefix) :]
    registry, _, repository = f"{location}{rest}".partition("/")
    return Endpoint(registry, repository, insecure)


def load(environ: Mapping[str, str] | None = None) -> Registries:
    """What the files say; nothing where there are none. Raises ImageError naming the file that cannot be used."""
    return merge([_read(path) for path in files(environ) if os.path.exists(path)])


def files(environ: Mapping[str, str] | None = None) -> list[str]:
    """Which they are; the first need not be there."""
    environ = os.environ if environ is None else environ
    main = environ.get("CONTAINERS_REGISTRIES_CONF") or PATH
    return [main, *sorted(glob(f"{escape(main)}.d/*.conf"))]


def merge(parts: Sequence[Registries]) -> Registries:
    """Several files as one: of each prefix and each alias the last says what it is; an empty alias takes it away
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
        raise ImageError(f"{path} cannot be read: {error}", reason="InvalidRegistriesConf") from error
    return parse(document, path)


def parse(document: Mapping[str, Any], source: str) -> Registries:
    """Raises ImageError (InvalidRegistriesConf) for what is not version 2."""
    if "registries" in document:
        raise _bad(
            source,
            "it is version 1 ([registries.search] and so on), which no tool writes any more: write version 2",
        )
    tables = document.get("registry") or []
    aliases = document.get("aliases") or {}
    if not isinstance(tables, list) or not isinstance(aliases, dict):
        raise _bad(source, "[[registry]] is a list of tables and [aliases] a table")
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
        raise _bad(source, "a [[registry]] is no table")
    location = _location(table, source)
    prefix = str(table.get("prefix") or location).rstrip("/")
    if not prefix:
        raise _bad(source, "a [[registry]] has neither prefix nor location")
    if "*" in prefix and not (prefix.startswith("*.") and "*" not in prefix[1:] and "/" not in prefix):
        raise _bad(source, f'prefix "{prefix}": a * stands only in front, as in *.example.com')
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
        raise _bad(source, f'pull-from-mirror "{when}" is none of all, digest-only, tag-only')
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
