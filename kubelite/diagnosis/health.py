"""How well a pod is, in four levels, and how each level looks in the terminal and on the web page: its mark, its word
and its colour. Pure.

A level follows from what `kubelite get pods` shows: STATUS and READY.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """The worst level first: that is the order in which pods are shown."""

    FAILING = "failing"  # something has to be done
    WAITING = "waiting"  # it is not ready: it starts, ends, or a probe says no
    RUNNING = "running"  # all its containers are ready
    COMPLETED = "completed"


class Look(NamedTuple):
    """The marks differ in shape, so that nothing depends on colours. `colour` is one of the eight of each terminal, ""
    its own. `dark` and `light` are the web page's; their contrast is at least 4.5 (WCAG 2.2, 1.4.3)."""

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
    """Return the level of a pod with these cells of `kubelite get pods`: STATUS, and READY such as `1/2`."""
    if status in _DONE:
        return Level.COMPLETED
    if status == "Running":
        done, _, wanted = ready.partition("/")
        return Level.RUNNING if done == wanted else Level.WAITING
    if status in _ON_ITS_WAY or _INIT.fullmatch(status):
        return Level.WAITING
    return Level.FAILING


def counts(levels: Iterable[Level]) -> dict[Level, int]:
    """Count the levels; each one is in the answer, the worst first."""
    found = dict.fromkeys(Level, 0)
    for one in levels:
        found[one] += 1
    return found


def sentence(found: dict[Level, int]) -> str:
    """Say the counts that are not 0: `2 failing, 1 waiting, 21 running`."""
    return ", ".join(f"{count} {one}" for one, count in found.items() if count) or "no pods"
