"""The Pod Security admission levels of each namespace, from the node's settings."""

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
    """The levels of a namespace whose violations are refused, warned of, and audited."""

    enforce: Level = Level.PRIVILEGED
    warn: Level = Level.PRIVILEGED
    audit: Level = Level.PRIVILEGED

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels that a namespace with these levels has on a cluster; none for privileged."""
        given = {"audit": self.audit, "enforce": self.enforce, "warn": self.warn}
        return {
            f"{PREFIX}{mode}": str(level) for mode, level in given.items() if level is not Level.PRIVILEGED
        }


@dataclass(frozen=True, slots=True)
class PodSecurity:
    """The node's rules for pods. `default`: the levels of namespaces that are not in `namespaces`; `host_paths`: the
    paths that hostPath volumes may use (None: all); `digests_only`: whether images must be named by digest."""

    default: Levels = Levels()
    namespaces: Mapping[str, Levels] = field(default_factory=dict)
    host_paths: tuple[str, ...] | None = None
    digests_only: bool = False

    @property
    def open(self) -> bool:
        """Whether every pod is admitted without a warning or an audit record."""
        return (
            not self.digests_only
            and self.host_paths is None
            and all(one == Levels() for one in (self.default, *self.namespaces.values()))
        )

    def levels(self, namespace: str) -> Levels:
        return self.namespaces.get(namespace, self.default)


def parse_levels(text: str, default: Levels) -> Levels:
    """Parse a level to enforce (`restricted`), or modes joined by `+` (`enforce:baseline+warn:restricted`). Modes that
    are not named have the level of `default`. Raises ValueError."""
    found = {"enforce": default.enforce, "warn": default.warn, "audit": default.audit}
    for part in text.split("+"):
        mode, colon, level = part.strip().rpartition(":")
        if colon and mode not in found:
            raise ValueError(f"{mode!r} is not a mode: use enforce, warn or audit")
        if level not in [str(known) for known in Level]:
            raise ValueError(f"{level!r} is not a level: use privileged, baseline or restricted")
        found[mode or "enforce"] = Level(level)
    return Levels(**found)
