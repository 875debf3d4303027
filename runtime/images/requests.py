"""Requests to the image worker. They are apart from the modules that do the work, so that clients load only these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class MemoryCap(NamedTuple):
    """The memory limit that all image workers of a store share, and the cgroup that enforces it."""

    cgroup: str  # below the root of each hierarchy, "/kubelite/images"
    limit: int  # bytes


@dataclass(frozen=True, slots=True)
class PackRequest:
    """What to pack. If `cmd` and `entrypoint` are None, the first program is the command."""

    programs: list[str]  # paths or names on PATH, stored at the path they have on the host; or HOST:IMAGE
    reference: str
    files: list[str] = field(default_factory=list)  # HOST[:IMAGE], files or whole directories
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] = field(default_factory=list)
    workdir: str = ""
    user: str = ""
