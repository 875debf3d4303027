"""The fast path of `kubelite build` for an unchanged build: check the inputs of the last identical build with stat(2)
alone, and print its result again.

The command imports this module first, and the module imports almost nothing: loading the builder takes longer than an
unchanged build. `attempt` returns the exit code, or None: the full build then runs, independently of this module.

A note records one successful build, in a file in `<run directory>/builds`. Only its owner can read it, and a reboot
removes it. Its lines are:

    <command, directory, socket: everything that the result depends on and that no file holds>
    E <variable>=<value>    E <variable>                    an environment variable, set or unset
    S <device> <inode> <size> <mtime> <ctime> <path>        a file or directory; S - <path>: it does not exist
    T <path>                                                a step's record, or the image's config: mark it as used
    K <--progress, or quiet>    P <progress event in JSON>  O <line of output>
"""

from __future__ import annotations

import os
import sys
from zlib import crc32

_SOCKET = "/run/kubelite/kubelite.sock"
_DIRECTORY = "builds"
_KEEP = 100  # notes; the oldest are deleted
#: In ns: a file modified more recently can change again with the same stamp (runtime.builder.known).
SETTLED = 60 * 10**9
_TICK = 3 * 10**9  # ns: the same for files that only kubelite writes, by rename


def attempt(words: list[str]) -> int | None:
    """Print the recorded result of the same build and return its exit code, or return None if a full build is needed.
    `words`: the arguments after `kubelite`."""
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
    """Return the note's lines without the first. Raises OSError or ValueError if these arguments have no note."""
    head, path = _place(words)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        if os.fstat(fd).st_uid != os.geteuid():
            raise ValueError("somebody else's")
        first, *lines = file.read().split("\n")
    if first != head:
        raise ValueError("a note of another command with the same file name")
    return lines


def _lines(lines: list[str], kind: str) -> list[str]:
    return [line[2:] for line in lines if line[:2] == kind]


def _place(words: list[str]) -> tuple[str, str]:
    """Return (the note's first line, its path)."""
    head = "\0".join(("1", sys.version.partition(" ")[0], socket(), os.getcwd(), *words))
    if "\n" in head:
        raise ValueError("a line break in the command")
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
    """Return the file's current stamp. Links are not followed."""
    try:
        return shown(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return "-"


def shown(st: os.stat_result) -> str:
    """Return the attributes that must be unchanged. Only the kernel sets a ctime."""
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
    """Write the note of a successful build. `began`: ns since 1970. `files`: input → its stamp (`shown`, or "-") from
    before it was read; `ours`: the same for kubelite's own files. `used`: files whose times record their last use.
    Write no note if an input is so new that it could change unnoticed."""
    here = os.path.dirname(__file__)  # another version may give another result
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
        return  # the note only saves time


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
