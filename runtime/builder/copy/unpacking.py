"""ADD of a local archive: detect an archive, and unpack it into a directory.

The layers' own unpacker does the work, so an archive cannot write outside the directory. But a name that starts with
.wh. is an ordinary name here.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from runtime.builder.copy.copying import CopyError
from runtime.builder.overlay import open_beneath
from runtime.errors import ImageError
from runtime.images.layers.streams import decompress
from runtime.images.layers.tarstream import BLOCK as _BLOCK
from runtime.images.layers.tarstream import ChunkSource, Entry, TarStream
from runtime.images.layers.unpack import LayerUnpacker


def is_archive(root: int, path: str) -> bool:
    """Whether a file is a tar, compressed or not, by its content: its name does not count (reference, "ADD")."""
    data = b""
    with open(open_beneath(root, path, os.O_RDONLY), "rb") as file:
        try:
            for chunk in decompress(file):
                data += chunk
                if len(data) >= _BLOCK:
                    break
        except ImageError:
            return False
    block = data[:_BLOCK]
    return len(block) == _BLOCK and (block[257:262] == b"ustar" or _old_tar(block))


def _old_tar(block: bytes) -> bool:
    """Whether a block is a header of V7 tar, which has no magic number: its checksum must match."""
    try:
        wanted = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return wanted == sum(block[:148]) + 8 * 32 + sum(block[156:]) and any(block)


def unpack(root: int, path: str, into: str) -> bool:
    """Unpack an archive. Returns whether the archive lists its root. Raises CopyError, which names the archive and the
    entry."""
    try:
        with (
            open(open_beneath(root, path, os.O_RDONLY), "rb") as file,
            _WithoutWhiteouts(into) as unpacker,
        ):
            unpacker.unpack(_RelativeTar(ChunkSource(decompress(file))))
            lists_root = unpacker.lists_root
            unpacker.finish([])
            return lists_root
    except ImageError as error:
        raise CopyError(f"cannot unpack {posixpath.basename(path)}: {error}") from error


class _WithoutWhiteouts(LayerUnpacker):
    """An unpacker without whiteouts."""

    whiteouts = False


class _RelativeTar(TarStream):
    """A tar whose absolute names become relative, as in tar(1)."""

    def __iter__(self) -> Iterator[Entry]:
        for entry in super().__iter__():
            entry.name = entry.name.lstrip(b"/")
            if entry.type == b"1":
                entry.link = entry.link.lstrip(b"/")
            yield entry
