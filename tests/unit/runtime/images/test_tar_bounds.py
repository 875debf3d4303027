"""The extended headers of a hostile layer use a limited amount of memory, even if the layer is small."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.layers import tarstream
from runtime.images.layers.tarstream import ChunkSource, TarStream

ROOT = Path(__file__).parents[4]
MEMORY = 100 << 20  # bytes that reading a hostile archive may take; it took 1.5 GB


def member(kind: bytes, data: bytes = b"", name: str = "a") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return b"%d" % length + body


def attributes(first: int, count: int = 20_000) -> bytes:
    return b"".join(record(f"SCHILY.xattr.user.{number}", "") for number in range(first, first + count))


def one_entry() -> Iterator[bytes]:
    """An entry with a great many attributes, spread over headers of less than 1 MiB each."""
    for number in range(100):
        yield member(b"x", attributes(number * 20_000))
    yield member(b"0")


def for_all() -> Iterator[bytes]:
    """Global headers between entries, each with other attributes, which every entry that follows has, too."""
    for number in range(100):
        yield member(b"g", attributes(number * 20_000))
        yield member(b"5", name=f"{number}/")


def few_for_all() -> Iterator[bytes]:
    """A few attributes for all of many directories."""
    yield member(b"g", attributes(0, 5000))
    for number in range(5000):
        yield member(b"5", name=f"{number}/")


def empty_headers() -> Iterator[bytes]:
    yield member(b"x") * 1000
    yield member(b"0")


def long_names() -> Iterator[bytes]:
    """Hard links to missing files are remembered by name until the end."""
    for number in range(1000):
        yield member(b"K", b"/".join([b"b" * 250] * 4000))
        yield member(b"1", name=str(number))


HOSTILE = {f.__name__: f for f in (one_entry, for_all, few_for_all, empty_headers, long_names)}


@pytest.mark.parametrize("name", HOSTILE)
def test_too_many_headers_are_rejected(name: str) -> None:
    with pytest.raises(ImageError, match=r"extended headers .*(at most|more than)"):
        for _ in TarStream(ChunkSource(HOSTILE[name]())):
            pass


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_takes_little_memory(name: str) -> None:
    code = f"""
import resource
from runtime.errors import ImageError
from runtime.images.layers.tarstream import ChunkSource, TarStream
from tests.unit.runtime.images.test_tar_bounds import HOSTILE
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = peak()
kept = []
try:
    for entry in TarStream(ChunkSource(HOSTILE[{name!r}]())):
        kept.append((entry.name, entry.link, dict(entry.xattrs)))
except ImageError:
    pass
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    kept = tarstream.MAX_TOTAL if name == "long_names" else 0  # names that are in use until the end
    assert int(done.stdout) < kept + MEMORY


def test_headers_of_ordinary_layers_are_read() -> None:
    """A label and a long path for every entry, as a build on Fedora writes; and headers that mean nothing to us."""

    def archive() -> Iterator[bytes]:
        yield member(b"g", record("comment", "x" * 1000) + record("SCHILY.xattr.user.all", "1"))
        for number in range(2000):
            name = f"{'d' * 100}/{number}"
            known = record("path", name) + record(
                "SCHILY.xattr.security.selinux", "system_u:object_r:usr_t:s0"
            )
            yield member(b"x", known + record("atime", "1.5") + record("VENDOR.thing", "y" * 5000))
            yield member(b"0")

    entries = list(TarStream(ChunkSource(archive())))
    assert len(entries) == 2000
    assert entries[7].name == b"d" * 100 + b"/7"
    assert entries[7].xattrs == {b"user.all": b"1", b"security.selinux": b"system_u:object_r:usr_t:s0"}
