"""The build of the benchmark: a Containerfile based only on a static busybox and sources, with steps of each kind. A
fully cached build is measured: the time a user waits who has changed nothing."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

NAME = "localhost/bench/build:1"
_FILES, _SIZE = 200, 20_000  # sources: number of files, bytes of each
_TEXT = """\
FROM scratch AS base
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV WHERE=/app
WORKDIR /app
COPY src /app/src
RUN ["/bin/sh", "-c", "ls /app/src > /app/list"]
RUN ["/bin/sh", "-c", "wc -l /app/list > /app/count"]
FROM base
COPY --from=base /app/count /count
LABEL made.by=bench
CMD ["/bin/sh"]
"""


def missing() -> str:
    return "" if shutil.which("busybox") else "busybox"


def prepare(base: Path) -> Path:
    """The context; the same content every time."""
    context = base / "context"
    (context / "src").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    noise = random.Random(1)
    for number in range(_FILES):
        (context / "src" / f"f{number}").write_bytes(noise.randbytes(_SIZE))
    (context / "Containerfile").write_text(_TEXT)
    os.link(context / "Containerfile", context / "Dockerfile")
    return context


def settle(context: Path) -> None:
    """Wait until its files have not changed for a minute."""
    newest = max(path.stat().st_ctime for path in context.rglob("*"))
    time.sleep(max(newest + 61 - time.time(), 0))
