"""The levels of Pod Security admission that each namespace has, by the node's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PREFIX = "pod-security.kubernetes.io/"


class Level(StrEnum):
    PRIVILEGED = "privileged"
    BASELINE = "baseline"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True)
class Levels:
    """What is refused, what is warned of, and what is audited."""

    enforce: Level = Level.PRIVILEGED
    warn: Level = Level.PRIVILEGED
    audit: Level = Level.PRIVILEGED

    @property
    def labels(self) -> dict[str, str]:
        """The labels that a namespace with these levels has on a cluster; none for privileged."""
        given = {"audit": self.audit, "enforce": self.enforce, "warn": self.warn}
        return {
            f"{PREFIX}{mode}": str(level) for mode, level in given.items() if level is not Level.PRIVILEGED
        }


@dataclass(frozen=True, slots=True)
class PodSecurity:
    """The levels of all namespaces, those of single ones, the paths that hostPath volumes may use (None: all), and
    whether images must be named by digest."""

    default: Levels = Levels()
    namespaces: Mapping[str, Levels] = field(default_factory=dict)
    host_paths: tuple[str, ...] | None = None
    digests_only: bool = False

    @property
    def open(self) -> bool:
        """Tell whether it never says anything."""
        return (
            not self.digests_only
            and self.host_paths is None
            and all(one == Levels() for one in (self.default, *self.namespaces.values()))
        )

    def levels(self, namespace: str) -> Levels:
        return self.namespaces.get(namespace, self.default)


def parse_levels(text: str, default: Levels) -> Levels:
    """Parse `restricted` (enforce), or modes joined by `+`: `enforce:baseline+warn:restricted`. A mode that is not
    named has the default's level. Raises ValueError."""
    found = {"enforce": default.enforce, "warn": default.warn, "audit": default.audit}
    for part in text.split("+"):
        mode, colon, level = part.strip().rpartition(":")
        if colon and mode not in found:
            raise ValueError(f"{mode!r} is not a mode: use enforce, warn or audit")
        if level not in [str(known) for known in Level]:
            raise ValueError(f"{level!r} is not a level: use privileged, baseline or restricted")
        found[mode or "enforce"] = Level(level)
    return Levels(**found)
