"""When the token in a pod's file is replaced (Kubernetes pkg/kubelet/token/token_manager_test.go)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.accounts.claims import Wish
from kubelite.accounts.mounted import is_due, wish_of
from kubelite.accounts.tokens import Tokens
from kubelite.kube.json import Json
from kubelite.kube.objects import MOUNTED_SECONDS
from state.store import Store

NOW, ISSUER = 1_800_000_000.0, "https://issuer"
POD = {"name": "web", "uid": "pod-1"}
ACCOUNT: Json = {"metadata": {"namespace": "default", "name": "bot", "uid": "sa-1"}}
DAY = 86400


def token(tmp_path: Path, wish: Wish) -> str:
    store = Store.open(str(tmp_path / "state.db"))
    tokens = Tokens(store, str(tmp_path / "key"), issuer=ISSUER, node="here", clock=lambda: NOW)
    return tokens.issue(ACCOUNT, wish).text


def due(text: str, wish: Wish, account: Json = ACCOUNT, now: float = NOW, **changes: str) -> bool:
    return is_due(text, wish, account, now, **{"issuer": ISSUER, "node": "here", **changes})


@pytest.mark.parametrize(
    ("seconds", "age", "is_old"),
    [
        (MOUNTED_SECONDS, 0, False),
        (MOUNTED_SECONDS, 0.79 * MOUNTED_SECONDS, False),
        (MOUNTED_SECONDS, 0.81 * MOUNTED_SECONDS, True),  # although it is valid for a year
        (600, 479, False),
        (600, 481, True),
        (30 * DAY, DAY - 1, False),
        (30 * DAY, DAY + 1, True),
        (600, -5, True),  # the clock was set back
    ],
)
def test_a_token_is_replaced_in_time(tmp_path: Path, seconds: int, age: float, is_old: bool) -> None:
    wish = wish_of(POD, (ISSUER,), seconds)
    assert due(token(tmp_path, wish), wish, now=NOW + age) is is_old


def test_a_token_of_something_else_is_replaced(tmp_path: Path) -> None:
    wish = wish_of(POD, (ISSUER,), 3600)
    text = token(tmp_path, wish)
    assert not due(text, wish)
    for other in (
        wish_of({**POD, "uid": "pod-2"}, (ISSUER,), 3600),
        wish_of(POD, ("vault",), 3600),
        wish_of(POD, (ISSUER,), 7200),
    ):
        assert due(text, other)
    again = {"metadata": {**ACCOUNT["metadata"], "uid": "sa-2"}}
    assert due(text, wish, again)
    assert due(text, wish, issuer="https://another") and due(text, wish, node="there")
    for text in ("", "x", "a.e30.c", "a.W10.c", "a.eyJrdWJlcm5ldGVzLmlvIjogNX0.c"):
        assert due(text, wish)
