"""Who may see logs on the node's TCP port."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from kubelite.telemetry.web.access import Denied, check

TOKEN = "a-token-of-some-length"


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f"me:{TOKEN}"), basic(f":{TOKEN}")]
)
def test_the_token_opens(tmp_path: Path, header: str) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    check(str(tmp_path / "token"), header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer wrong",
        f"Digest {TOKEN}",
        basic("me:wrong"),
        basic(TOKEN),
        "Basic %%%",
        "Basic /w==",
    ],
)
def test_everything_else_does_not(tmp_path: Path, header: str) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(Denied) as denied:
        check(str(tmp_path / "token"), header)
    assert denied.value.code == 401


def test_without_a_secret_worth_the_name_nobody_does(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("secret")
    (tmp_path / "empty").write_text("")
    for file, header, code in (
        ("", "Bearer ", 403), (str(tmp_path / "none"), "Bearer x", 503),
        (str(tmp_path / "short"), "Bearer secret", 503),
        (str(tmp_path / "empty"), "Bearer ", 503),
    ):  # fmt: skip
        with pytest.raises(Denied) as denied:
            check(file, header)
        assert denied.value.code == code
