"""Uids and ids: what they look like, that none comes twice, that a fork begins anew, and what gzip makes of them."""

from __future__ import annotations

import os
import re
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from runtime.identity import COUNT_OF_ID, COUNT_OF_UID, Identities, new_id, new_uid


def test_a_uid_is_a_uuid_of_version_8() -> None:
    for _ in range(100):
        text = Identities().uid()
        found = uuid.UUID(text)
        assert str(found) == text
        assert (found.version, found.variant) == (8, uuid.RFC_4122)


def test_an_id_is_64_hexadecimal_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", Identities().id())


def test_ids_from_parallel_threads_are_unique() -> None:
    ours = Identities()
    with ThreadPoolExecutor(8) as pool:
        uids = list(pool.map(lambda _: ours.uid(), range(4000)))
        ids = list(pool.map(lambda _: ours.id(), range(4000)))
    assert len(set(uids)) == len(set(ids)) == 4000
    assert len({one[:12] for one in ids}) == 4000, "the short form tells them apart too"


def test_two_series_share_nothing() -> None:
    one, other = Identities(), Identities()
    assert one.uid()[:28] != other.uid()[:28]
    assert one.id()[:12] != other.id()[:12]
    assert one.id()[12:] != other.id()[12:]


def test_an_exhausted_counter_starts_a_new_series() -> None:
    ours = Identities()
    ours._uids = (ours._uids[0], count((1 << COUNT_OF_UID) - 1))
    ours._ids = (ours._ids[0], count((1 << COUNT_OF_ID) - 1))
    last, new = (ours.uid(), ours.id()), (ours.uid(), ours.id())
    assert last[0].endswith("ffffffff")
    assert new[0].endswith("00000000")
    assert last[0][:28] != new[0][:28]
    assert last[1][6:12] == "ffffff"
    assert new[1][6:12] == "000000"
    assert len(new[0]) == 36
    assert len(new[1]) == 64


def test_a_forked_child_has_its_own_series() -> None:
    new_uid(), new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, f"{new_uid()} {new_id()}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        uid, identity = stream.read().split()
    os.waitpid(child, 0)
    assert uid[:28] != new_uid()[:28]
    assert identity[12:] != new_id()[12:]


def test_ids_compress_to_their_counter() -> None:
    text = "".join(f"/pod{new_uid()}/{new_id()}\n" for _ in range(1000)).encode()
    assert len(zlib.compress(text, 1)) < 16 * 1000, (
        "of 106 characters each; 66 with 50 bytes of chance in them"
    )
