"""The Pod Security admission levels of each namespace, from the node's settings and the labels of Namespaces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

PREFIX = "pod-security.kubernetes.io/"


class Level(StrEnum):
    PRIVILEGED = "privileged"
    BASELINE = "baseline"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True)
class Policy:
    """A level as it was in a minor version of Kubernetes 1; None: as it is in the latest version."""

    level: Level = Level.PRIVILEGED
    minor: int | None = None

    @property
    def version(self) -> str:
        return "latest" if self.minor is None else f"v1.{self.minor}"

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


@dataclass(frozen=True, slots=True)
class Levels:
    """The policies of a namespace whose violations are refused, warned of, and audited."""

    enforce: Policy = Policy()
    warn: Policy = Policy()
    audit: Policy = Policy()

    @classmethod
    def of(
        cls,
        enforce: Level = Level.PRIVILEGED,
        warn: Level = Level.PRIVILEGED,
        audit: Level = Level.PRIVILEGED,
    ) -> Levels:
        """Return the levels, each of the latest version."""
        return cls(Policy(enforce), Policy(warn), Policy(audit))

    @property
    def privileged(self) -> bool:
        """Whether every pod is admitted without a warning or an audit record."""
        return all(one.level is Level.PRIVILEGED for one in (self.enforce, self.warn, self.audit))

    def labels(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the labels that a namespace with these policies has on a cluster. `privileged`, the default there, is
        shown only in place of a `given` label, and so is a version."""
        found = {}
        for mode, policy in (("audit", self.audit), ("enforce", self.enforce), ("warn", self.warn)):
            key = f"{PREFIX}{mode}"
            implied = mode == "warn" and policy == self.enforce and f"{PREFIX}enforce" in given
            if key in given or (policy.level is not Level.PRIVILEGED and not implied):
                found[key] = str(policy.level)
            if f"{key}-version" in given:
                found[f"{key}-version"] = policy.version
        return found


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
            and all(one.privileged for one in (self.default, *self.namespaces.values()))
            and all(self.levels(name).privileged for name in self.declared)
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
    """Return the policies of a namespace with these labels. Manifests with an unknown level or version are invalid; if
    there is one nevertheless, it enforces `restricted`, and neither warns nor audits; an unknown version is the latest.
    A level to enforce is also warned of, unless a label says otherwise (Kubernetes: PolicyToEvaluate in
    pod-security-admission/api/helpers.go)."""
    enforce = _labelled(labels, "enforce", default.enforce, Level.RESTRICTED)
    warn = _labelled(labels, "warn", default.warn, Level.PRIVILEGED)
    order = list(Level)
    known = labels.get(f"{PREFIX}enforce") in order and f"{PREFIX}warn" not in labels
    if known and order.index(enforce.level) > order.index(warn.level):
        minor = warn.minor if f"{PREFIX}warn-version" in labels else enforce.minor
        warn = Policy(enforce.level, minor)
    return Levels(enforce, warn, _labelled(labels, "audit", default.audit, Level.PRIVILEGED))


def _labelled(labels: Mapping[str, str], mode: str, default: Policy, unknown: Level) -> Policy:
    known = {str(level): level for level in Level}
    level, version = (labels.get(f"{PREFIX}{mode}{suffix}") for suffix in ("", "-version"))
    return Policy(
        default.level if level is None else known.get(level, unknown),
        default.minor if version is None else _minor(version),
    )


def _minor(version: str) -> int | None:
    found = re.fullmatch(r"v1\.(0|[1-9][0-9]*)", version)
    return int(found[1]) if found else None


def stricter(one: Levels, other: Levels) -> Levels:
    """Return the stricter level for each mode, in the latest version: an older one may be laxer."""
    order = list(Level)
    pairs = ((one.enforce, other.enforce), (one.warn, other.warn), (one.audit, other.audit))
    return Levels.of(*(max((a.level, b.level), key=order.index) for a, b in pairs))


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
        found[mode or "enforce"] = Policy(Level(level))
    return Levels(**found)
