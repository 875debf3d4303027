"""ADD of a local archive: what is one, and its files into a directory. The layers' own unpacker does the work, so that
nothing an archive holds can leave the directory; but a name that begins with .wh. is only a name here."""

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
    """A tar, compressed or not, by its content: its name says nothing (reference, "ADD")."""
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
    """V7's, which has no magic: its checksum must fit."""
    try:
        wanted = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return wanted == sum(block[:148]) + 8 * 32 + sum(block[156:]) and any(block)


def unpack(root: int, path: str, into: str) -> bool:
    """Whether the archive says itself what its root is like. Raises CopyError naming the archive and the entry."""
    try:
        with (
            open(open_beneath(root, path, os.O_RDONLY), "rb") as file,
            _Plain(into) as unpacker,
        ):
            unpacker.unpack(_Relative(ChunkSource(decompress(file))))
            lists_root = unpacker.lists_root
            unpacker.finish([])
            return lists_root
    except ImageError as error:
        raise CopyError(f"cannot unpack {posixpath.basename(path)}: {error}") from error


class _Plain(LayerUnpacker):
    """Without whiteouts."""

    whiteouts = False


class _Relative(TarStream):
    """Absolute names, which tar itself takes the slash from."""

    def __iter__(self) -> Iterator[Entry]:
        for entry in super().__iter__():
            entry.name = entry.name.lstrip(b"/")
            if entry.type == b"1":
                entry.link = entry.link.lstrip(b"/")
            yield entry
