"""What a worker is asked to do, apart from how it does that: whoever only asks need not load the archives' modules."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PackRequest:
    """What to pack. `cmd` and `entrypoint` None: the first program is the command."""

    programs: list[str]  # paths or names on PATH, put where they are on the host; or HOST:IMAGE
    reference: str
    files: list[str] = field(default_factory=list)  # HOST[:IMAGE], files or whole directories
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] = field(default_factory=list)
    workdir: str = ""
    user: str = ""
