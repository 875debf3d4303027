"""The images to pull: two images from files of this machine, in a registry's storage.

Every peer has docker-registry beside it, on its own loopback, with the same storage; nothing is fetched from anywhere
else. A pull is cold: each goes into a store that is empty, and what it wrote stays until the end, since ext4 is slow
for minutes to make files where many were deleted, and whoever comes next would pay for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.account import Account
from tests.kernel.images_support import push, registry, write_layout

HOST = "127.0.0.1:5000"
LARGE, LAYERS = f"{HOST}/bench/large:1", f"{HOST}/bench/layers:1"
ROWS = frozenset(("pull", "layers", "pullcpu", "pullmem"))
_SIZES = {LARGE: (400 << 20, 5), LAYERS: (200 << 20, 30)}  # bytes before compression, layers
_TREES = ("/usr/share", "/usr/lib", "/usr/bin", "/usr/sbin", "/usr/include")
_LARGEST = 8 << 20  # bytes of one file: one huge library must not be the image


def missing() -> str:
    """The first missing program, or ""."""
    return next((name for name in ("docker-registry", "skopeo") if shutil.which(name) is None), "")


def prepare(base: Path) -> Path:
    """Make and store the images. Return the config of a registry that serves them."""
    with registry(base / "registry") as host:
        for reference, (size, layers) in _SIZES.items():
            layout = base / f"layout-{layers}"
            write_layout(layout, [tar_of(files) for files in split(choose(size), layers)])
            push(layout, "latest", reference.replace(HOST, host), "--dest-compress-format", "gzip")
            shutil.rmtree(layout)
    config = base / "registry" / "bench.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {base}/registry/data}}}}\nhttp: {{addr: '{HOST}'}}\n"
    )
    return config


@dataclass(frozen=True, slots=True)
class File:
    path: str
    size: int


def choose(wanted: int) -> list[File]:
    """Every n-th file, so that sizes and kinds are typical for the machine; all files if there are too few."""
    found = [file for tree in _TREES for file in _below(tree)]
    share = min(1.0, wanted / max(1, sum(file.size for file in found)))
    return [file for at, file in enumerate(found) if int((at + 1) * share) > int(at * share)]


def _below(tree: str) -> Iterator[File]:
    for directory, names, files in os.walk(tree):
        names.sort()
        for name in sorted(files):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                st = os.lstat(path)
                if stat.S_ISLNK(st.st_mode) or (stat.S_ISREG(st.st_mode) and st.st_size < _LARGEST):
                    yield File(path, st.st_size)


def split(files: list[File], layers: int) -> list[list[File]]:
    """Split them into parts of about the same size."""
    whole, taken = sum(file.size for file in files), 0
    found: list[list[File]] = [[] for _ in range(layers)]
    for file in files:
        found[min(layers - 1, taken * layers // max(1, whole))].append(file)
        taken += file.size
    return found


def tar_of(files: list[File]) -> bytes:
    """A tar of the files with their directories."""
    out, listed = io.BytesIO(), set[str]()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            for parent in (*reversed([str(p) for p in Path(file.path).parents if str(p) != "/"]), file.path):
                if parent not in listed:
                    listed.add(parent)
                    archive.add(parent, arcname=parent[1:], recursive=False)
    return out.getvalue()


def wait_for(command: list[str], what: str) -> None:
    """Wait until a command that contacts the registry succeeds."""
    until = time.monotonic() + 20
    while subprocess.run(command, check=False, capture_output=True).returncode:
        if time.monotonic() > until:
            raise RuntimeError(f"{what} does not answer")
        time.sleep(0.05)


@contextlib.contextmanager
def peak(account: Account) -> Iterator[list[float]]:
    """MB of the largest process of the peer's, the registry aside. The kernel keeps each one's peak (VmHWM); looking
    often is for those that end."""
    found, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for pid in account.processes():
                with contextlib.suppress(OSError, IndexError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    if not status.startswith("Name:\tdocker-registry"):
                        found[0] = max(found[0], int(status.partition("VmHWM:")[2].split()[0]) / 1024)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
