"""The short way of `kubelite build`, for when nothing has changed: what the last such build looked at is looked at
again, by stat(2) alone, and its answer given again.

This module is imported before anything else of the command and imports next to nothing itself: loading the builder
takes longer than all that an unchanged build has to do. `attempt` answers, or says None: then the long way goes on,
which knows everything and asks nothing of this.

A note lies in `<run directory>/builds`, root's alone, gone with a reboot. It is lines:

    <command, directory, socket: all that the answer depends on and that no file holds>
    E <variable>=<value>    E <variable>                    of the environment, set or not
    S <device> <inode> <size> <mtime> <ctime> <path>        a file or directory; S - <path>: there is none
    T <path>                                                of a step's record, or the image's config: it is in use
    K <--progress, or quiet>    P <event of it in JSON>    O <line of the answer>
"""

from __future__ import annotations

import os
import sys
from zlib import crc32

_SOCKET = "/run/kubelite/kubelite.sock"
_DIRECTORY = "builds"
_KEEP = 100  # notes; the oldest go
#: In ns: a file that changed so shortly before may change and look the same (runtime.builder.known).
SETTLED = 60 * 10**9
_TICK = 3 * 10**9  # ns: the same of what only kubelite writes, by rename


def attempt(words: list[str]) -> int | None:
    """The command line's words behind `kubelite` → its exit code, or None: the long way is to be gone."""
    if words[:1] != ["build"]:
        return None
    try:
        lines = _note(words)
        if not _daemon_lives() or not all(map(_holds, lines)):
            return None
        for path in _lines(lines, "T "):
            os.utime(path)
    except (OSError, ValueError):
        return None
    _tell(_lines(lines, "K ")[0], _lines(lines, "P "))
    sys.stdout.writelines(f"{line}\n" for line in _lines(lines, "O "))
    sys.stdout.flush()
    return 0


def _note(words: list[str]) -> list[str]:
    """Its lines, the first one aside. Raises OSError or ValueError when there is none for these words."""
    head, path = _place(words)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        if os.fstat(fd).st_uid != os.geteuid():
            raise ValueError("somebody else's")
        first, *lines = file.read().split("\n")
    if first != head:
        raise ValueError("another command's, whose name is the same")
    return lines


def _lines(lines: list[str], kind: str) -> list[str]:
    return [line[2:] for line in lines if line[:2] == kind]


def _place(words: list[str]) -> tuple[str, str]:
    """(the note's first line, its path)."""
    head = "\0".join(("1", sys.version.partition(" ")[0], socket(), os.getcwd(), *words))
    if "\n" in head:
        raise ValueError("a note is lines")
    return head, f"{os.path.dirname(socket())}/{_DIRECTORY}/{crc32(os.fsencode(head)):08x}"


def socket() -> str:
    return os.environ.get("KUBELITE_SOCKET") or _SOCKET


def _daemon_lives() -> bool:
    with open(f"{os.path.dirname(socket())}/kubelite.pid", encoding="ascii") as file:
        return os.path.exists(f"/proc/{int(file.read())}")


def _holds(line: str) -> bool:
    if line[:2] == "S ":
        *before, path = line[2:].split(" ", 1 if line[2] == "-" else 5)
        return " ".join(before) == stamp(path)
    if line[:2] == "E ":
        name, equals, value = line[2:].partition("=")
        return os.environ.get(name) == (value if equals else None)
    return True


def stamp(path: str) -> str:
    """Its state now, by its name: no link is followed."""
    try:
        return shown(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return "-"


def shown(st: os.stat_result) -> str:
    """What of a file must be the same. Nobody but the kernel sets a ctime."""
    return f"{st.st_dev} {st.st_ino} {st.st_size} {st.st_mtime_ns} {st.st_ctime_ns}"


def _tell(progress: str, events: list[str]) -> None:
    if progress == "quiet":
        return
    import json

    from kubelite.cli.build import build_progress

    with build_progress.shown(build_progress.kind(progress)) as report:
        for event in events:
            report(json.loads(event))


def keep(
    words: list[str],
    *,
    began: int,
    files: dict[str, str],
    ours: dict[str, str],
    environ: list[str],
    used: list[str],
    progress: str,
    events: list[str],
    answer: list[str],
) -> None:
    """Note a build that has succeeded, `began` at that time (ns since 1970). `files`: what it looked at → its stamp
    (`shown`, or "-") from before it was read, and `ours` what of it is kubelite's; `used`: files whose times say when
    they were used. Not noted is what may still change unseen."""
    here = os.path.dirname(__file__)  # another version is another answer
    ours = {here: stamp(here), **ours}
    if _newest(files) > began - SETTLED or _newest(ours) > began - _TICK:
        return
    lines = [f"K {progress}"]
    lines += [f"E {name}={os.environ[name]}" if name in os.environ else f"E {name}" for name in environ]
    lines += [f"S {state} {path}" for path, state in (*ours.items(), *files.items())]
    lines += [f"T {path}" for path in used]
    lines += [f"P {event}" for event in events] + [f"O {line}" for line in answer]
    if any("\n" in line for line in lines):
        return
    try:
        _write(*_place(words), lines)
    except (OSError, ValueError):
        return  # it was for speed alone


def _newest(files: dict[str, str]) -> int:
    return max((int(time) for state in files.values() for time in state.split(" ")[3:]), default=0)


def _write(head: str, path: str, lines: list[str]) -> None:
    directory = os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\n".join([head, *lines]))
    os.rename(temporary, path)
    with os.scandir(directory) as found:
        notes = sorted((entry.stat().st_mtime, entry.path) for entry in found)
    for _, old in notes[:-_KEEP]:
        os.unlink(old)
