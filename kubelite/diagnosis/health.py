"""The health of a pod in four levels, and the mark and colours of each level in the terminal and on the web page.

The level is derived from the columns STATUS and READY of `kubelite get pods`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """The levels, worst first. Pods are shown in this order."""

    FAILING = "failing"  # needs attention
    WAITING = "waiting"  # not ready: starting, terminating, or a probe fails
    RUNNING = "running"  # all containers are ready
    COMPLETED = "completed"


class Look(NamedTuple):
    """The appearance of a level. The marks differ in shape, so that nothing depends on colours. `colour`: one of the
    eight colours of terminals, "" for the default. `dark` and `light`: the colours of the web page in its two themes,
    with a contrast of at least 4.5 (WCAG 2.2, 1.4.3)."""

    mark: str
    colour: str
    dark: str
    light: str


LOOKS = {
    Level.FAILING: Look("✕", "red", "#ff7b72", "#b42318"),
    Level.WAITING: Look("◐", "yellow", "#e3b341", "#855300"),
    Level.RUNNING: Look("●", "green", "#56d364", "#1a7031"),
    Level.COMPLETED: Look("○", "", "#9aa4af", "#57606a"),
}
ORDER = {level: place for place, level in enumerate(Level)}
_DONE = frozenset({"Completed", "Succeeded"})
_ON_ITS_WAY = frozenset(
    {
        "Pending",
        "ContainerCreating",
        "PodInitializing",
        "Terminating",
        "SchedulingGated",
        "NotReady",
        "Waiting",
    }
)
_INIT = re.compile(r"Init:\d+/\d+")


def level(status: str, ready: str) -> Level:
    """Return the level of a pod. `status` and `ready` are its cells STATUS and READY (`1/2`) of `kubelite get pods`."""
    if status in _DONE:
        return Level.COMPLETED
    if status == "Running":
        done, _, wanted = ready.partition("/")
        return Level.RUNNING if done == wanted else Level.WAITING
    if status in _ON_ITS_WAY or _INIT.fullmatch(status):
        return Level.WAITING
    return Level.FAILING


def counts(levels: Iterable[Level]) -> dict[Level, int]:
    """Return the count of each level, 0 included, worst first."""
    found = dict.fromkeys(Level, 0)
    for one in levels:
        found[one] += 1
    return found


def sentence(found: dict[Level, int]) -> str:
    """Format the counts that are not 0: `2 failing, 1 waiting, 21 running`."""
    return ", ".join(f"{count} {one}" for one, count in found.items() if count) or "no pods"
