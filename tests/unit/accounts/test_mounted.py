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


@pytest.mark.parametrize(
    ("seconds", "age", "due"),
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
def test_a_token_is_replaced_in_time(tmp_path: Path, seconds: int, age: float, due: bool) -> None:
    wish = wish_of(POD, (ISSUER,), seconds)
    assert is_due(token(tmp_path, wish), wish, ACCOUNT, NOW + age) is due


def test_a_token_of_something_else_is_replaced(tmp_path: Path) -> None:
    wish = wish_of(POD, (ISSUER,), 3600)
    text = token(tmp_path, wish)
    assert not is_due(text, wish, ACCOUNT, NOW)
    for other in (
        wish_of({**POD, "uid": "pod-2"}, (ISSUER,), 3600),
        wish_of(POD, ("vault",), 3600),
        wish_of(POD, (ISSUER,), 7200),
    ):
        assert is_due(text, other, ACCOUNT, NOW)
    again = {"metadata": {**ACCOUNT["metadata"], "uid": "sa-2"}}
    assert is_due(text, wish, again, NOW)
    for text in ("", "x", "a.e30.c", "a.W10.c", "a.eyJrdWJlcm5ldGVzLmlvIjogNX0.c"):
        assert is_due(text, wish, ACCOUNT, NOW)
