"""Logins against real registries: docker-registry with htpasswd (Basic) and with a token server (Bearer)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.store import ImageStore
from runtime.images.store.verify import check_store
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, run, tar, write_layout

_MISSING = support.need("docker-registry", "skopeo", "openssl")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
]

ALICE = base64.b64encode(b"alice:swordfish").decode()
MALLORY = base64.b64encode(b"mallory:guess").decode()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "layout"
    write_layout(path, [tar(directory("etc"), (member("etc/x"), b"x" * 300_000))])
    return path


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[str]:
    path = tmp_path_factory.mktemp("basic")
    with support.registry(path / "r", support.htpasswd(path)) as host:
        push(layout, f"{host}/private/app:1")
        yield host


@pytest.fixture(scope="module")
def tokens(
    tmp_path_factory: pytest.TempPathFactory, layout: Path
) -> Iterator[tuple[str, support.TokenServer]]:
    path = tmp_path_factory.mktemp("tokens")
    with support.token_server(path) as server, support.registry(path / "r", server.settings()) as host:
        for name in ("private/app", "public/app"):
            push(layout, f"{host}/{name}:1")
        yield host, server


@pytest.fixture(autouse=True)
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the logins of the user who runs the tests."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    return home


def push(layout: Path, target: str) -> None:
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds=alice:swordfish",
        f"oci:{layout}:latest", f"docker://{target}")  # fmt: skip


def put(path: Path, host: str, auth: str = ALICE, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}, **more}))


def secret(host: str, auth: str = ALICE) -> dict[str, Any]:
    return {"source": "secret default/pull", "config": {"auths": {host: {"auth": auth}}}}


def pull(root: Path, reference: str, *secrets: dict[str, Any]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []

    async def go() -> None:
        client = ImageClient(str(root / "store"), auth_file=str(root / "auth.json"))
        try:
            await client.pull(reference, secrets=secrets, progress=events.append)
        finally:
            await client.close()

    asyncio.run(go())
    assert check_store(ImageStore(str(root / "store")), deep=True) == []
    return events


def test_basic_from_every_file(tmp_path: Path, basic: str, nobodys_home: Path) -> None:
    image = f"{basic}/private/app:1"
    with pytest.raises(ImageError, match="asks for a user name and password: authentication required"):
        pull(tmp_path, image)
    for place in (
        nobodys_home / ".docker/config.json",
        nobodys_home / ".config/containers/auth.json",
        nobodys_home / "run/containers/auth.json",
        tmp_path / "auth.json",
    ):
        put(place, basic)
        pull(tmp_path, image)
        put(place, basic, MALLORY)  # a later file takes precedence over this one
        with pytest.raises(ImageError, match=rf"401 Unauthorized.*logged in as mallory \({place}\)"):
            pull(tmp_path, image)


def test_what_podman_and_skopeo_log_in_to_is_ours_too(tmp_path: Path, basic: str, nobodys_home: Path) -> None:
    file = nobodys_home / "run/containers/auth.json"
    file.parent.mkdir(parents=True)
    run(
        "skopeo",
        "login",
        "--authfile",
        str(file),
        "--tls-verify=false",
        "-u",
        "alice",
        "-p",
        "swordfish",
        basic,
    )
    pull(tmp_path, f"{basic}/private/app:1")


def test_a_bad_secret_leaves_the_good_ones(tmp_path: Path, basic: str) -> None:
    image = f"{basic}/private/app:1"
    pull(tmp_path, image, secret(basic, MALLORY), secret(f"{basic}/private"), secret("elsewhere.test"))
    put(tmp_path / "auth.json", basic)
    pull(tmp_path, image, secret(basic, MALLORY))
    with pytest.raises(ImageError, match=r"logged in as mallory.*; .*logged in as eve"):
        put(tmp_path / "auth.json", basic, base64.b64encode(b"eve:x").decode())
        pull(tmp_path, image, secret(basic, MALLORY))


def test_nobody_rides_on_anothers_pull(tmp_path: Path, basic: str) -> None:
    async def go() -> list[Any]:
        client = ImageClient(str(tmp_path / "store"))
        try:
            ways = [
                client.pull(f"{basic}/private/app:1", secrets=s)
                for s in ([secret(basic)], [], [secret(basic)])
            ]
            return await asyncio.gather(*ways, return_exceptions=True)
        finally:
            await client.close()

    first, second, third = asyncio.run(go())
    assert first == third and isinstance(second, ImageError) and "user name" in str(second)


def test_tokens_for_nobody_and_for_somebody(tmp_path: Path, tokens: tuple[str, support.TokenServer]) -> None:
    host, server = tokens
    del server.asked[:]
    pull(tmp_path, f"{host}/public/app:1")
    assert server.asked == [("", ["repository:public/app:pull"])], "one token does for the whole pull"
    with pytest.raises(ImageError, match=r"authentication required|access to the requested resource"):
        pull(tmp_path, f"{host}/private/app:1")
    pull(tmp_path, f"{host}/private/app:1", secret(host))
    assert server.asked[-1][0] == "alice"
    with pytest.raises(ImageError, match=r"does not accept the login of mallory.*unknown user or password"):
        pull(tmp_path, f"{host}/private/app:1", secret(host, MALLORY))
    token = {"source": "secret", "config": {"auths": {host: {"identitytoken": "refresh-alice"}}}}
    pull(tmp_path, f"{host}/private/app:1", token)


def test_a_token_that_runs_out_meanwhile_is_renewed(tmp_path: Path, layout: Path) -> None:
    """docker-registry accepts a token for 60 seconds after it expires, but rejects one that is older."""
    with (
        support.token_server(tmp_path / "t", lifetime=-90) as server,
        support.registry(tmp_path / "r", server.settings()) as host,
    ):
        with pytest.raises(ImageError, match="401 Unauthorized"):
            pull(tmp_path, f"{host}/public/app:1")
        assert len(server.asked) == 1, "asked anew once for each request, not without end"


def test_login_is_kept_only_when_it_is_taken(
    tmp_path: Path, basic: str, tokens: tuple[str, support.TokenServer]
) -> None:
    file = tmp_path / "auth.json"

    async def go() -> None:
        client = ImageClient(str(tmp_path / "store"), auth_file=str(file))
        try:
            for host in (basic, tokens[0]):
                with pytest.raises(ImageError, match="mallory"):
                    await client.login(host, "mallory", "guess")
                assert host not in (file.read_text() if file.exists() else "")
                assert await client.login(host, "alice", "swordfish") == str(file)
                await client.pull(f"{host}/private/app:1")
            assert await client.login(tokens[0], "<token>", "refresh-alice")
            assert await client.logout(basic) and not await client.logout(basic)
            with pytest.raises(ImageError, match="user name"):
                await client.pull(f"{basic}/private/app:1")
            await client.pull(f"{tokens[0]}/private/app:1")
        finally:
            await client.close()

    asyncio.run(go())
