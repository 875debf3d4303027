"""Types of settings (durations, amounts and maps) that accept the formats of flags, environment variables and kubelet's
configuration file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from kubelite.kube.durations import parse_duration

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def parse_seconds(value: object) -> object:
    """Parse the text of a duration: `30s`, `2m`."""
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0, allow_inf_nan=False)]


def _mapping(value: object) -> object:
    """Parse `name=value,name=value`, the form of a flag or an environment variable."""
    if not isinstance(value, str):
        return value
    entries = [entry.partition("=") for entry in value.replace(",", " ").split()]
    return {name: found for name, _, found in entries}


def _pairs(joint: str) -> BeforeValidator:
    """Accept a mapping, as in kubelet's configuration file, or the text of a flag: `cpu=100m,memory=1Gi`."""

    def text(value: object) -> object:
        if isinstance(value, dict):
            return ",".join(f"{key}{joint}{amount}" for key, amount in value.items())
        return value

    return BeforeValidator(text)


def _by_priority(value: object) -> object:
    """Accept `0=60s,2000000000=10s`, or kubelet's list of objects with priority and shutdownGracePeriodSeconds."""
    if isinstance(value, list):
        return {
            one.get("priority"): one.get("shutdownGracePeriodSeconds")
            for one in value
            if isinstance(one, dict)
        }
    return _mapping(value)


Amounts = Annotated[str, _pairs("=")]
Thresholds = Annotated[str, _pairs("<")]
ByPriority = Annotated[dict[int, Duration], BeforeValidator(_by_priority)]
Texts = Annotated[dict[str, str], BeforeValidator(_mapping)]
Numbers = Annotated[dict[str, int], BeforeValidator(_mapping)]
