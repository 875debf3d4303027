"""Cgroups of RUNs whose builder and runner died together: nobody else of theirs is left to remove them. They are named
after the session of the image store that their builder had, and whoever finds one can tell whether it lives."""

from __future__ import annotations

import os
from contextlib import suppress

CGROUP_PREFIX = "build-"
_CGROUPS = "/sys/fs/cgroup"


def cgroup(parent: str, session: str, number: int) -> str:
    """Of a build's RUN, below the node's own. `session`: the session's directory."""
    return f"{parent}/{CGROUP_PREFIX}{os.path.basename(session)}-{number}"


def found(parent: str, root: str) -> list[str]:
    """Those whose build is over. `parent`: the node's cgroup, "/kubelite"; `root`: the image store."""
    names: set[str] = set()
    with suppress(OSError):
        for top in ("", *os.listdir(_CGROUPS)):  # each hierarchy of v1, and v2's root
            with suppress(OSError):
                below = os.listdir(f"{_CGROUPS}/{top}{parent}")
                names |= {name for name in below if name.startswith(CGROUP_PREFIX)}
    if not names:
        return []
    from runtime.images.store.content import sessions

    # looked at after the cgroups: a session is there before its first RUN
    living = {os.path.basename(path) for path, alive in sessions(root) if alive}
    dead = (name for name in names if name.removeprefix(CGROUP_PREFIX).partition("-")[0] not in living)
    return [f"{parent}/{name}" for name in sorted(dead)]


def sweep(parent: str, root: str) -> list[str]:
    """End what runs in them, and remove them. Which they were; one that resists stays for the next time."""
    gone = found(parent, root)
    for path in gone:
        from runtime.cgroups import open_cgroup

        with suppress(OSError):
            open_cgroup(path).remove()
    return gone
