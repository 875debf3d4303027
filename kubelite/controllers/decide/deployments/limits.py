"""How many pods a Deployment may have during a rollout, and how many must be available.

Source: Kubernetes pkg/controller/deployment/util/deployment_util.go (ResolveFenceposts, MaxSurge, MaxUnavailable).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from kubelite.kube.json import Json


@dataclass(frozen=True, slots=True)
class Limits:
    """`replicas`: spec.replicas. `surge`: how many pods more there may be. `unavailable`: how many of the replicas need
    not be available. `rolling`: the strategy is RollingUpdate."""

    replicas: int
    surge: int
    unavailable: int
    rolling: bool

    @property
    def most(self) -> int:
        return self.replicas + self.surge

    @property
    def least_available(self) -> int:
        return self.replicas - self.unavailable

    @classmethod
    def of(cls, deployment: Json) -> Self:
        spec = deployment["spec"]
        replicas, strategy = spec.get("replicas", 1), spec.get("strategy") or {}
        if strategy.get("type") == "Recreate":
            return cls(replicas, 0, 0, rolling=False)
        rolling = strategy.get("rollingUpdate") or {}
        surge = scaled(rolling.get("maxSurge"), replicas, round_up=True)
        unavailable = scaled(rolling.get("maxUnavailable"), replicas, round_up=False)
        if surge == 0 and unavailable == 0:
            # Validation forbids both to be 0, but a percentage may be rounded down to it.
            unavailable = 1
        return cls(replicas, surge, min(unavailable, replicas), rolling=True)


def scaled(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Return a count, given as such or as a percentage of `total` (intstr.GetScaledValueFromIntOrPercent). None: 0."""
    if not isinstance(value, str):
        return value or 0
    percent = int(value.removesuffix("%"))
    return -(-percent * total // 100) if round_up else percent * total // 100
