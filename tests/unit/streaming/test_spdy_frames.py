"""The SPDY codec: it reads what it writes, in pieces of any size, and refuses other bytes within bounded memory."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelite.streaming.spdy.frames import (
    MOST_DATA,
    Data,
    Decoder,
    Encoder,
    Frame,
    FrameError,
    GoAway,
    Ping,
    Reset,
    RstStream,
    SynReply,
    SynStream,
)
from kubelite.streaming.spdy.headers import DICTIONARY, MOST_BYTES

NUMBER = st.integers(1, 2**31 - 1)
NAME = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
HEADERS = st.dictionaries(NAME, st.text(st.characters(max_codepoint=127), max_size=20), max_size=5)
FRAME = st.one_of(
    st.builds(SynStream, NUMBER, HEADERS, st.booleans()),
    st.builds(SynReply, NUMBER, HEADERS, st.booleans()),
    st.builds(RstStream, NUMBER, st.sampled_from(Reset).map(int)),
    st.builds(Ping, NUMBER),
    st.builds(GoAway, NUMBER, st.integers(0, 2)),
    st.builds(Data, NUMBER, st.binary(max_size=64), st.booleans()),
)


def joined(frames: list[Frame]) -> list[Frame]:
    """The frames, with the pieces of data joined per frame: a piece without fin may be followed by the next one."""
    found: list[Frame] = []
    for frame in frames:
        before = found[-1] if found else None
        if not isinstance(frame, Data) or not isinstance(before, Data) or before.fin:
            found.append(frame)
        elif before.stream == frame.stream:
            found[-1] = Data(frame.stream, before.data + frame.data, frame.fin)
        else:
            found.append(frame)
    return found


@given(st.lists(FRAME, max_size=8), st.lists(st.integers(1, 50), min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read_in_whatever_pieces(frames: list[Frame], sizes: list[int]) -> None:
    encoder, decoder = Encoder(), Decoder()
    data = b"".join(encoder.encode(frame) for frame in frames)
    found: list[Frame] = []
    at = 0
    for size in [*sizes, len(data)]:
        found += decoder.feed(data[at : at + size])
        at += size
    assert joined(found) == joined(frames)


@given(st.binary(max_size=400))
@settings(max_examples=500, deadline=None)
def test_other_bytes_are_frames_or_an_error(data: bytes) -> None:
    try:
        list(Decoder().feed(data))
    except FrameError as error:
        assert str(error)


@given(st.lists(FRAME, min_size=1, max_size=4), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_frames_are_frames_or_an_error(frames: list[Frame], draw: st.DataObject) -> None:
    encoder = Encoder()
    data = bytearray(b"".join(encoder.encode(frame) for frame in frames))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        list(Decoder().feed(bytes(data)))
    except FrameError as error:
        assert str(error)


def control(kind: int, body: bytes, *, version: int = 3, length: int | None = None) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, len(body) if length is None else length) + body


def block(plain: bytes) -> bytes:
    made = zlib.compressobj(zdict=DICTIONARY)
    return made.compress(plain) + made.flush(zlib.Z_SYNC_FLUSH)


def test_the_dictionary_is_that_of_spdy_3() -> None:
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2  # as in the first header block of every SPDY/3 connection


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (control(1, b"\0\0\0\1" + b"\0" * 6 + block(b"\0" * (MOST_BYTES * 4))), "more than"),
        (control(1, b"\0\0\0\1" + b"\0" * 6 + block(b"\0\0\xff\xff")), "65535 headers"),
        (control(1, b"\0\0\0\1" + b"\0" * 6 + block(b"\0\0\0\1\0\0\0\7abc")), "too short"),
        (control(1, b"\0\0\0\1" + b"\0" * 6 + b"no zlib"), "decompressed"),
        (control(1, b"\0\0\0\0" + b"\0" * 6 + block(b"\0\0\0\0")), "no stream"),
        (control(6, b"\0", version=2), "version 2"),
        (control(3, b"\0\0\0\1"), "too short"),
        (control(4, b"", length=1 << 20), "more than"),
        (struct.pack(">II", 0, 1) + b"x", "no stream"),
    ],
)
def test_what_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(FrameError, match=said):
        list(Decoder().feed(data))


def test_frames_without_a_meaning_are_skipped() -> None:
    settings_ = control(4, struct.pack(">III", 1, 7, 1 << 16))
    window = control(9, struct.pack(">II", 1, 1000))
    assert list(Decoder().feed(settings_ + window + control(99, b"x") + control(6, b"\0\0\0\5"))) == [Ping(5)]


def test_data_is_handed_on_before_its_frame_is_complete() -> None:
    decoder = Decoder()
    assert list(decoder.feed(struct.pack(">II", 3, 1 << 24 | MOST_DATA) + b"abc")) == [Data(3, b"abc")]
    assert list(decoder.feed(b"\0" * (MOST_DATA - 3))) == [Data(3, b"\0" * (MOST_DATA - 3), True)]
    assert list(decoder.feed(b"")) == []
