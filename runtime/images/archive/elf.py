"""What a host program needs in an image: its dynamic loader and shared libraries, or a script's interpreter.

The libraries come from the loader itself (`ld.so --list`, ld.so(8)), which knows rpaths, hwcaps and its cache. It only
maps the program and runs none of its code.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess

from runtime.errors import ImageError

_PT_INTERP = 3
_LISTED = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$")


def interpreter(path: str) -> str:
    """The program interpreter (dynamic loader) of an ELF program, "" for a static program or another file. elf(5).
    Raises OSError."""
    with open(path, "rb") as file:
        ident = file.read(16)
        if ident[:4] != b"\x7fELF":
            return ""
        wide = ident[4] == 2
        order = "<" if ident[5] == 1 else ">"
        header = file.read(48 if wide else 36)
        offset = struct.unpack_from(f"{order}Q" if wide else f"{order}I", header, 16 if wide else 12)[0]
        size, count = struct.unpack_from(f"{order}HH", header, 38 if wide else 26)
        for number in range(count):
            file.seek(offset + number * size)
            entry = file.read(size)
            if struct.unpack_from(f"{order}I", entry)[0] != _PT_INTERP:
                continue
            at = struct.unpack_from(f"{order}Q" if wide else f"{order}I", entry, 8 if wide else 4)[0]
            length = struct.unpack_from(f"{order}Q" if wide else f"{order}I", entry, 32 if wide else 16)[0]
            file.seek(at)
            return os.fsdecode(file.read(length).rstrip(b"\0"))
    return ""


def needed(path: str) -> list[str]:
    """Absolute host paths of the loader and libraries that a program loads at start, or of a script's interpreter (the
    caller follows that one further). Raises ImageError if a library is missing."""
    with open(path, "rb") as file:
        head = file.read(256)
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        return [os.fsdecode(words[0])] if words else []
    if not head.startswith(b"\x7fELF"):
        return []
    loader = interpreter(path)
    if not loader:
        return []
    result = subprocess.run(
        [loader, "--list", path], capture_output=True, text=True, env={"LC_ALL": "C"}, timeout=30, check=False
    )
    missing = [line.split()[0] for line in result.stdout.splitlines() if "not found" in line]
    if result.returncode != 0 or missing:
        what = ", ".join(missing) or result.stderr.strip() or f"status {result.returncode}"
        raise ImageError(f"cannot find the libraries of {path}: {what}", reason="InvalidRequest")
    found = [match[1] for line in result.stdout.splitlines() if (match := _LISTED.match(line))]
    return [loader, *(library for library in found if library != loader)]
