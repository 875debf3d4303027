"""Access to logs on the node's TCP port."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from kubelite.telemetry.web.access import Denied, Tokens, check

TOKEN = "a-token-of-some-length"


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f"me:{TOKEN}"), basic(f":{TOKEN}")]
)
def test_the_token_gives_access(tmp_path: Path, header: str) -> None:
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
def test_everything_else_is_rejected(tmp_path: Path, header: str) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(Denied) as denied:
        check(str(tmp_path / "token"), header)
    assert denied.value.code == 401


def test_without_a_strong_secret_nobody_has_access(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("path", "header", "code"),
    [
        ("/metrics", f"Bearer {TOKEN}", 200),
        ("/metrics", basic(f"prometheus:{TOKEN}"), 200),
        ("/metrics", "", 401),
        ("/metrics", "Bearer another-token-of-length", 401),
        ("/", "", 401),
        ("/stats/summary", "", 401),
        ("/sd", "", 401),
        ("/pods/default/web", "", 401),
        ("/pods/default/web/log/c/more", "", 401),
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/healthz/../metrics", "", 401),
        ("/pods/default/web/log/c", "", 403),
    ],
)
async def test_a_port_with_a_token(tmp_path: Path, path: str, header: str, code: int) -> None:
    """Logs have a token of their own, which is not set here."""
    (tmp_path / "token").write_text(TOKEN)

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("ok", 403 if "/log/" in scope["path"] else 200)(scope, receive, send)

    app = Tokens(site, str(tmp_path / "token"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.get(path, headers={"Authorization": header} if header else {})
    assert answer.status_code == code
    assert ("www-authenticate" in answer.headers) is (code == 401)


async def test_a_file_that_is_gone_opens_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    transport = httpx.ASGITransport(Tokens(PlainTextResponse("ok"), str(tmp_path / "none")))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        assert (await client.get("/metrics", headers={"Authorization": "Bearer "})).status_code == 503
    assert "none" in caplog.text
