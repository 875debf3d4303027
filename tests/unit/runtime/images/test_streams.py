"""Streams: decompression in bounded chunks, growing files, and all forms of tar entries."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from runtime.errors import ImageError
from runtime.images.layers.streams import CHUNK, Aborted, BombGuard, Pipe, Spool, SpoolReader, decompress
from runtime.images.layers.tarstream import ChunkSource, Entry, TarStream

DATA = os.urandom(300_000) + b"zeros" + bytes(5_000_000)
FORMS = {
    "gzip": gzip.compress(DATA),
    "gzip in two members": gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:]),
    "gzip with padding": gzip.compress(DATA) + bytes(2000),
    "zstd": zstandard.compress(DATA),
    "zstd in two frames": zstandard.compress(DATA[:1000]) + zstandard.compress(DATA[1000:]),
    "zstd after a skippable frame": b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + zstandard.compress(DATA),
    "bzip2": bz2.compress(DATA),
    "xz": lzma.compress(DATA),
    "plain": DATA,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_recognised_by_its_content(name: str) -> None:
    chunks = list(decompress(io.BytesIO(FORMS[name])))
    assert b"".join(chunks) == DATA
    assert max(map(len, chunks)) <= CHUNK


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
def test_a_cut_stream_is_an_error(name: str) -> None:
    with pytest.raises(ImageError, match=f"not a good {name} stream"):
        list(decompress(io.BytesIO(FORMS[name][:200_000])))


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz"])
def test_a_damaged_stream_is_an_error(name: str) -> None:
    """Data without a checksum of its own (zstd's raw blocks) is left to the diff id."""
    broken = bytearray(FORMS[name])
    at = 4 if name == "zstd" else 2000
    broken[at : at + 100] = b"\xff" * 100
    with pytest.raises(ImageError, match=f"not a good {name} stream"):
        list(decompress(io.BytesIO(bytes(broken))))


def test_an_empty_stream() -> None:
    assert list(decompress(io.BytesIO(b""))) == []


def test_a_bomb_is_refused_and_zeros_are_not() -> None:
    bomb = gzip.compress(bytes(3_000_000))
    with pytest.raises(ImageError, match="bomb"):
        list(BombGuard(len(bomb), floor=1_000_000, ratio=10).watch(decompress(io.BytesIO(bomb))))
    assert sum(map(len, BombGuard(len(bomb)).watch(decompress(io.BytesIO(bomb))))) == 3_000_000


class TestSpool:
    def test_a_reader_follows_the_writer(self, tmp_path: Path) -> None:
        spool = Spool(str(tmp_path / "s"), len(DATA))
        digests: list[str] = []
        thread = threading.Thread(target=lambda: digests.append(SpoolReader(spool).finish()))
        thread.start()
        for at in range(0, len(DATA), 100_000):
            spool.write(DATA[at : at + 100_000])
        spool.complete()
        thread.join(10)
        assert digests == [f"sha256:{hashlib.sha256(DATA).hexdigest()}"]
        spool.close()

    def test_more_or_less_data_than_announced_is_rejected(self, tmp_path: Path) -> None:
        spool = Spool(str(tmp_path / "s"), 10)
        spool.write(b"12345")
        with pytest.raises(ImageError, match="only 5 of the 10 bytes"):
            spool.complete()
        with pytest.raises(ImageError, match="more than the 10 bytes"):
            spool.write(b"123456")
        spool.close()

    def test_readers_get_the_error_of_a_failure(self, tmp_path: Path) -> None:
        spool = Spool(str(tmp_path / "s"), 10)
        threading.Timer(0.05, spool.fail, [ImageError("x")]).start()
        with pytest.raises(Aborted):
            SpoolReader(spool).read(5)
        spool.close()


class TestPipe:
    def test_a_failed_producer_shows(self) -> None:
        def chunks() -> object:
            yield b"one"
            raise ImageError("broken")

        pipe = Pipe()

        def produce() -> None:
            with pytest.raises(ImageError):
                pipe.put_all(chunks())  # type: ignore[arg-type]

        thread = threading.Thread(target=produce)
        thread.start()
        with pytest.raises(Aborted):
            list(pipe)
        thread.join(5)

    def test_a_stopped_consumer_ends_the_producer(self) -> None:
        pipe = Pipe(1)
        caught: list[BaseException] = []

        def produce() -> None:
            try:
                pipe.put_all(iter([b"x"] * 100))
            except Aborted as error:
                caught.append(error)

        thread = threading.Thread(target=produce)
        thread.start()
        pipe.stop()
        thread.join(5)
        assert not thread.is_alive() and len(caught) == 1


def entries(data: bytes, piece: int = 700) -> list[tuple[Entry, bytes]]:
    stream = TarStream(ChunkSource(data[at : at + piece] for at in range(0, len(data), piece)))
    found = []
    for entry in stream:
        content = io.BytesIO()
        stream.copy_data(entry, lambda view, into=content: into.write(view))  # type: ignore[misc]
        found.append((entry, content.getvalue()))
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("piece", [1, 511, 512, 100_000])
def test_every_format_of_the_standard_library(form: int, piece: int) -> None:
    out = io.BytesIO()
    long = "dir/" + "n" * 90 + ("/" + "l" * 99 if form != tarfile.USTAR_FORMAT else "")
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, size in (("a", 0), (long, 1234), ("b", 512)):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid, info.mtime = size, 0o640, 7, 8, 1_000_000_000
            archive.addfile(info, io.BytesIO(b"x" * size))
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "t" * (150 if form != tarfile.USTAR_FORMAT else 90)
        archive.addfile(info)
    found = entries(out.getvalue(), piece)
    assert [(e.name.decode(), len(c)) for e, c in found] == [("a", 0), (long, 1234), ("b", 512), ("link", 0)]
    assert [(e.mode, e.uid, e.gid, e.mtime_ns) for e, _ in found[:1]] == [(0o640, 7, 8, 10**18)]
    assert found[-1][0].link.decode() == info.linkname


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_long_file_name_cut_at_a_slash_is_a_file(form: int) -> None:
    name = "d" * 99 + "/file"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for each in (name, "next"):
            info = tarfile.TarInfo(each)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"12345"))
    found = [(entry.name, entry.type, content) for entry, content in entries(out.getvalue())]
    assert found == [(name.encode(), b"0", b"12345"), (b"next", b"0", b"12345")]


def test_a_regular_file_whose_name_ends_in_a_slash_is_a_directory() -> None:
    """The form of Unix V7's tar. Data of such an entry is skipped."""
    info = tarfile.TarInfo("old/")
    info.size = 3
    data = info.tobuf(tarfile.USTAR_FORMAT) + b"xyz" + bytes(509)
    after = tarfile.TarInfo("after").tobuf(tarfile.USTAR_FORMAT)
    found = [(entry.name, entry.type) for entry in TarStream(ChunkSource([data + after + bytes(1024)]))]
    assert found == [(b"old/", b"5"), (b"after", b"0")]


def test_large_numbers_of_gnu_tar() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.uid, info.gid, info.mtime = 3_000_000, 4_000_000_000, -5
        archive.addfile(info)
    ((entry, _),) = entries(out.getvalue())
    assert (entry.uid, entry.gid, entry.mtime_ns) == (3_000_000, 4_000_000_000, -5_000_000_000)


@pytest.mark.parametrize(
    "data",
    [b"not a tar at all" * 100, b"x", os.urandom(1024), b"<html>" + bytes(1018)],
    ids=["text", "one byte", "random", "a page"],
)
def test_data_that_is_not_a_tar_is_rejected(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a good tar stream"):
        entries(data)


def test_empty_archives() -> None:
    assert entries(b"") == [] and entries(bytes(1024)) == [] and entries(bytes(512)) == []


def test_everything_after_the_end_is_still_read() -> None:
    """The diff id covers all bytes of the stream."""
    seen: list[int] = []

    def chunks() -> object:
        for chunk in (bytes(1024), b"trailing", b"more"):
            seen.append(len(chunk))
            yield chunk

    assert list(TarStream(ChunkSource(chunks()))) == []  # type: ignore[arg-type]
    assert seen == [1024, 8, 4]


class TestMemory:
    """The image chooses the window size, so memory must be bounded."""

    def test_windows_beyond_the_limit_are_rejected(self) -> None:
        for window_log, fits in ((27, True), (28, False)):
            data = long_zeros(window_log)
            if fits:
                assert sum(map(len, decompress(io.BytesIO(data)))) == 1 << 20
            else:
                with pytest.raises(ImageError, match="too much memory"):
                    list(decompress(io.BytesIO(data)))
        large = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}])
        with pytest.raises(ImageError, match=r"xz stream: Memory usage limit"):
            list(decompress(io.BytesIO(large)))

    def test_streams_with_large_windows_take_turns(self) -> None:
        """Streams with usual windows run in parallel. One with a large window waits for the others to end."""
        first = decompress(io.BytesIO(zstandard.compress(DATA)))
        second = decompress(io.BytesIO(zstandard.compress(DATA)))
        next(first), next(second)
        began, thread = threading.Event(), None

        def read() -> None:
            chunks = decompress(io.BytesIO(long_zeros(27)))
            next(chunks)
            began.set()
            chunks.close()

        thread = threading.Thread(target=read)
        thread.start()
        first.close()
        assert not began.wait(0.05), "one is still read"
        second.close()
        assert began.wait(20)
        thread.join()


def long_zeros(window_log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, compression_level=1)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(bytes(1 << 20)) + stream.flush()
