"""A gzip stream of new text and of pieces of earlier streams, and pages made with it."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from kubelite.telemetry.metrics.exposition import Page, gauge, render
from kubelite.telemetry.metrics.packed import Packer, Piece, Shelf


def some_text(rng: random.Random) -> bytes:
    return b"".join(
        b"name{a=%d} %d\n" % (rng.randrange(9), rng.randrange(99)) for _ in range(rng.randrange(3000))
    )


def test_any_order_of_new_and_old_pieces_is_one_stream() -> None:
    rng = random.Random(7)
    known: list[tuple[bytes, Piece]] = []
    for _ in range(30):
        packer, whole = Packer(), b""
        for _ in range(rng.randrange(12)):
            text = some_text(rng)
            match rng.randrange(3):
                case 0:
                    packer.text(text)
                case 1:
                    known.append((text, packer.piece(text)))
                case _ if known:
                    text, piece = rng.choice(known)
                    packer.again(piece)
                case _:
                    text = b""
            whole += text
        packed = packer.end()
        assert gzip.decompress(packed) == whole  # which checks length and checksum, too
        alone = zlib.decompressobj(31)  # as one member: some readers stop after the first
        assert (alone.decompress(packed), alone.unused_data, alone.eof) == (whole, b"", True)


def lines(*values: int) -> str:
    return "".join(f'g{{a="{value}"}} {value}\n' for value in values)


G = gauge("g", "A gauge.")


def test_a_known_version_is_not_written_again() -> None:
    shelf, asked = Shelf(), []

    def page(version: int, values: tuple[int, ...], fresh: str = "") -> str:
        def samples() -> str:
            asked.append(version)
            return lines(*values)

        def write(page: Page) -> None:
            page.one(gauge("first", "Before."), 1)
            page.kept(G, version, samples, fresh)
            page.one(gauge("last", "After."), 2)

        packed = gzip.decompress(render(write, openmetrics=True, compressed=True, shelf=shelf)).decode()
        assert packed == render(write, openmetrics=True, compressed=False).decode()
        asked.pop()  # an uncompressed page asks each time
        return packed

    page(1, (1, 2, 3))
    page(1, (1, 2, 3))
    assert lines(9) in page(1, (1, 2, 3), fresh=lines(9))
    assert asked == [1]
    page(2, (1, 2, 4))
    assert asked == [1, 2]
    assert "# TYPE g gauge" not in page(3, ())
    assert "# TYPE g gauge" not in page(3, ())
    assert "# TYPE g gauge" in page(3, (), fresh=lines(9))


def test_sections_are_cached_per_format() -> None:
    shelf, asked = Shelf(), []

    def some(page: Page) -> None:
        asked.append(page.openmetrics)
        page.family(G, lines(1))
        page.one(gauge("h", "Another."), 1)

    def write(page: Page) -> None:
        page.section("s", "version", some)
        page.one(gauge("last", "After."), 2)

    for openmetrics in (True, False, True, False):
        packed = gzip.decompress(render(write, openmetrics=openmetrics, compressed=True, shelf=shelf))
        before = len(asked)
        assert packed == render(write, openmetrics=openmetrics, compressed=False)
        del asked[before:]
    assert asked == [True, False]


def test_a_failed_page_leaves_no_partial_piece() -> None:
    shelf = Shelf()

    def some(page: Page) -> None:
        page.family(G, lines(1))

    def broken(page: Page) -> None:
        some(page)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        render(lambda page: page.section("s", 1, broken), openmetrics=False, compressed=True, shelf=shelf)
    packed = render(lambda page: page.section("s", 1, some), openmetrics=False, compressed=True, shelf=shelf)
    assert gzip.decompress(packed).decode().endswith(lines(1))


def test_errors_are_raised_without_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_packer: Packer, _text: bytes) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Packer, "text", full)

    def write(page: Page) -> None:
        for number in range(100):
            page.one(gauge(f"g{number}", "More than may wait."), 1)

    with pytest.raises(MemoryError, match="no room"):
        render(write, openmetrics=False, compressed=True)
