"""Disk space that is reserved for the case of a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from state import reserve
from state.reserve import PIECES, Reserve
from state.store import Store


def test_the_reserve_is_released_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    kept = Reserve(str(path), 1 << 20)
    kept.refill()
    assert path.stat().st_size == 1 << 20
    assert path.stat().st_blocks * 512 >= 1 << 20, "really allocated"
    assert [kept.release() for _ in range(PIECES + 1)] == [True] * PIECES + [False]
    assert path.stat().st_size == 0
    kept.refill()
    assert path.stat().st_size == 0, "not at once: the commit that asked for it shall have it"


def test_the_reserve_is_refilled_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "PAUSE", 0.0)
    kept = Reserve(str(tmp_path / "reserve"), 1 << 20)
    kept.refill()
    assert kept.release()
    kept.refill()
    assert (tmp_path / "reserve").stat().st_size == 1 << 20


def test_a_missing_directory_is_not_an_error(tmp_path: Path) -> None:
    kept = Reserve(str(tmp_path / "gone" / "reserve"))
    kept.refill()
    assert not kept.release()


async def test_the_store_has_a_reserve(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.close()
    assert (tmp_path / "state.db.reserve").stat().st_size == reserve.SIZE
