"""External programs that tests use. A test without its program is skipped with the program's name."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from runtime.images.archive import elf

# Where deploy/busybox unpacks the distribution's, on a machine that has none installed.
_UNPACKED = Path(sys.prefix, "lib/busybox")
_SYSTEM = "/usr/bin/busybox"


def _static_busybox() -> str:
    for path in (shutil.which("busybox"), _SYSTEM, str(_UNPACKED / "busybox")):
        if path and os.access(path, os.X_OK) and not elf.interpreter(path):
            return path
    return ""


BUSYBOX = _static_busybox()
"""A busybox that needs no libraries, so that it runs in any root directory; "" where there is none."""

PACKED_BUSYBOX = BUSYBOX if BUSYBOX == _SYSTEM else f"{BUSYBOX}:{_SYSTEM}"
"""The same as `kubelite image pack` takes it: in an image it is always in one place."""


def missing(*programs: str) -> str:
    """The first of these programs that this machine lacks, or "". "busybox" means `BUSYBOX`."""
    for program in programs:
        if not (BUSYBOX if program == "busybox" else shutil.which(program)):
            return program
    return ""
