"""Remove the cgroups of RUNs whose builder and runner both died.

A cgroup is named after the builder's session in the image store, so any process can tell whether its build still runs.
"""

from __future__ import annotations

import os
from contextlib import suppress

CGROUP_PREFIX = "build-"
_CGROUPS = "/sys/fs/cgroup"


def cgroup(parent: str, session: str, number: int) -> str:
    """The cgroup of a RUN, below the node's cgroup `parent`. `session` is the session's directory."""
    return f"{parent}/{CGROUP_PREFIX}{os.path.basename(session)}-{number}"


def stale_cgroups(parent: str, root: str) -> list[str]:
    """The cgroups whose build has ended. `parent` is the node's cgroup, "/kubelite"; `root` is the image store."""
    names: set[str] = set()
    with suppress(OSError):
        for top in ("", *os.listdir(_CGROUPS)):  # every v1 hierarchy, and the root of v2
            with suppress(OSError):
                below = os.listdir(f"{_CGROUPS}/{top}{parent}")
                names |= {name for name in below if name.startswith(CGROUP_PREFIX)}
    if not names:
        return []
    from runtime.images.store.content import sessions

    # Read after the cgroups, because a session exists before its first RUN.
    living = {os.path.basename(path) for path, alive in sessions(root) if alive}
    dead = (name for name in names if name.removeprefix(CGROUP_PREFIX).partition("-")[0] not in living)
    return [f"{parent}/{name}" for name in sorted(dead)]


def sweep(parent: str, root: str) -> list[str]:
    """Kill the processes in these cgroups and remove them. Returns their names. A cgroup that cannot be removed stays
    until the next sweep."""
    stale = stale_cgroups(parent, root)
    for path in stale:
        from runtime.cgroups import open_cgroup

        with suppress(OSError):
            open_cgroup(path).remove()
    return stale
