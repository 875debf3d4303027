"""The Pod Security admission levels of each namespace, from the node's settings and the labels of Namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

PREFIX = "pod-security.kubernetes.io/"
CHECKED = 36  # the minor version of Kubernetes whose checks are applied, whatever version a label names


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

    def labels(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the labels that a namespace with these levels has on a cluster. `privileged`, the default there, is
        shown only in place of a `given` label."""
        levels = {"audit": self.audit, "enforce": self.enforce, "warn": self.warn}
        return {
            key: str(level)
            for mode, level in levels.items()
            if (key := f"{PREFIX}{mode}") in given or level is not Level.PRIVILEGED
        }


class Labels(StrEnum):
    """What the labels of a Namespace do to the levels of the settings."""

    OVERRIDE = "Override"  # replace them, as on a cluster
    RESTRICT = "Restrict"  # make them stricter, never laxer
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class PodSecurity:
    """The node's rules for pods. `default`: the levels of namespaces that are not in `namespaces`; `labels`: what
    `declared` does to both, which has the labels of each namespace that a manifest defines (`kubelite.sources` keeps it
    current); `host_paths`: the paths that hostPath volumes may use (None: all); `digests_only`: whether images must be
    named by digest."""

    default: Levels = Levels()
    namespaces: Mapping[str, Levels] = field(default_factory=dict)
    host_paths: tuple[str, ...] | None = None
    digests_only: bool = False
    labels: Labels = Labels.OVERRIDE
    declared: dict[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether every pod is admitted without a warning or an audit record."""
        return (
            not self.digests_only
            and self.host_paths is None
            and all(one == Levels() for one in (self.default, *self.namespaces.values()))
            and all(self.levels(name) == Levels() for name in self.declared)
        )

    def levels(self, namespace: str) -> Levels:
        given = self.namespaces.get(namespace, self.default)
        labels = self.declared.get(namespace)
        if not labels or self.labels is Labels.IGNORE:
            return given
        found = labelled(labels, given)
        return found if self.labels is Labels.OVERRIDE else stricter(found, given)

    def declaring(self, labels: Mapping[str, Mapping[str, str]]) -> PodSecurity:
        """Return the rules with other labels for these namespaces."""
        return replace(self, declared={**self.declared, **labels})


def labelled(labels: Mapping[str, str], default: Levels) -> Levels:
    """Return the levels of a namespace with these labels. Manifests with an unknown level are invalid; if there is one
    nevertheless, it enforces `restricted`, and neither warns nor audits (Kubernetes: PolicyToEvaluate in
    pod-security-admission/api/helpers.go)."""
    known = {str(level): level for level in Level}

    def level(mode: str, otherwise: Level, unknown: Level) -> Level:
        text = labels.get(f"{PREFIX}{mode}")
        return otherwise if text is None else known.get(text, unknown)

    return Levels(
        enforce=level("enforce", default.enforce, Level.RESTRICTED),
        warn=level("warn", default.warn, Level.PRIVILEGED),
        audit=level("audit", default.audit, Level.PRIVILEGED),
    )


def stricter(one: Levels, other: Levels) -> Levels:
    """Return the stricter level for each mode."""
    order = list(Level)
    pairs = ((one.enforce, other.enforce), (one.warn, other.warn), (one.audit, other.audit))
    return Levels(*(max(pair, key=order.index) for pair in pairs))


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
