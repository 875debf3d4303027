"""Logins: docker's and podman's files, credential helpers, and the match of a login with an image."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.reference import parse
from runtime.images.registry import auth
from runtime.images.registry.auth import AuthConfig, Login


def entry(user: str, password: str = "pw") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def config(name: str = "file", /, **auths: Any) -> AuthConfig:
    return auth.read_config({"auths": auths}, name)


def lookup(
    image: str, *, secrets: list[AuthConfig] | None = None, files: list[AuthConfig] | None = None
) -> tuple[list[str], list[str]]:
    """The users tried, in order, and the warnings."""
    warnings: list[str] = []
    found = asyncio.run(auth.logins_for(parse(image), secrets or [], files or [], warnings.append))
    return [login.username or f"token:{login.identity_token}" for login in found], warnings


@pytest.mark.parametrize(
    ("key", "image", "matches"),
    [
        ("reg.test", "reg.test/a", True),
        ("REG.test", "reg.test/a", True),
        ("https://reg.test", "reg.test/a", True),
        ("https://reg.test/v2/", "reg.test/a", True),
        ("http://reg.test/v1/team", "reg.test/team/app", True),
        ("reg.test:5000", "reg.test:5000/a", True),
        ("reg.test", "reg.test:5000/a", False),
        ("reg.test:5000", "reg.test/a", False),
        ("reg.test/team", "reg.test/team/app", True),
        ("reg.test/team/app", "reg.test/team/app:1", True),
        ("reg.test/team", "reg.test/teammates/app", False),
        ("reg.test/team", "reg.test/app", False),
        ("https://index.docker.io/v1/", "nginx", True),
        ("index.docker.io", "user/app", True),
        ("docker.io", "nginx", True),
        ("docker.io/library", "nginx", True),
        ("docker.io/user", "nginx", False),
        ("*.test", "reg.test/a", True),
        ("*.test", "a.reg.test/a", False),
        ("*.reg.test:5000", "a.reg.test:5000/a", True),
        ("*.reg.test", "a.reg.test:5000/a", False),
        ("r?g.test", "reg.test/a", True),
        ("evil-reg.test", "reg.test/a", False),
        ("[::1]:5000", "[::1]:5000/a", True),
    ],
)
def test_the_match_of_a_key_with_an_image(key: str, image: str, matches: bool) -> None:
    assert (auth.specificity(key, parse(image)) is not None) == matches
    assert (lookup(image, files=[config(**{key: entry("me")})])[0] == ["me"]) == matches


def test_secrets_come_first_most_exact_first_then_the_first_file_that_knows() -> None:
    secrets = [
        config("one", **{"reg.test": entry("whole"), "*.test": entry("glob")}),
        config("two", **{"reg.test/team": entry("team"), "other.test": entry("other")}),
    ]
    files = [config("f1", **{"other.test": entry("x")}), config("f2", **{"reg.test": entry("f2")}),
             config("f3", **{"reg.test": entry("f3")})]  # fmt: skip
    assert lookup("reg.test/team/app", secrets=secrets, files=files)[0] == ["team", "whole", "glob", "f2"]
    assert lookup("reg.test/app", secrets=secrets, files=files)[0] == ["whole", "glob", "f2"]
    assert lookup("nowhere.io/app", secrets=secrets, files=files)[0] == []
    same = config("f4", **{"reg.test": entry("whole")})
    assert lookup("reg.test/app", secrets=secrets, files=[same])[0] == ["whole", "glob"], "each login once"


@pytest.mark.parametrize(
    ("written", "login"),
    [
        ({"auth": base64.b64encode(b"u:p:with:colons\0\0").decode()}, Login("u", "p:with:colons")),
        ({"username": "u", "password": "p"}, Login("u", "p")),
        ({"auth": base64.b64encode(b"u:p").decode(), "username": "x", "password": "y"}, Login("u", "p")),
        ({"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": "t"}, Login("<token>", "", "t")),
        ({"registrytoken": "r"}, Login(registry_token="r")),
        ({"email": "me@example"}, None),
        ({}, None),
    ],
)
def test_forms_of_an_entry(written: dict[str, str], login: Login | None) -> None:
    found = config(**{"reg.test": written}).logins
    assert [value for _, value in found] == ([login] if login else [])
    assert "p:with" not in repr(found) and "'t'" not in repr(found), "secrets are not shown"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "not a JSON object"),
        ({"auths": []}, "auths and credHelpers must be objects"),
        ({"auths": {"reg.test": "x"}}, "reg.test is not an object"),
        ({"auths": {"reg.test": {"auth": "%%%"}}}, "reg.test: auth is not base64 of user:password"),
        ({"auths": {"reg.test": {"auth": "bm9jb2xvbg=="}}}, "reg.test: auth is not base64 of user:password"),
    ],
)
def test_invalid_docker_configs(document: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        auth.read_config(document, "here")


def test_a_dockercfg_is_read_without_its_outer_object() -> None:
    found = auth.read_config({"https://index.docker.io/v1/": entry("old")}, "cfg")
    assert lookup("nginx", files=[found])[0] == ["old"]


HELPER = """#!/bin/sh
read server
[ "$1" = get ] || exit 9
case "$server" in
reg.test|https://index.docker.io/v1/) echo '{"ServerURL":"'$server'","Username":"helped","Secret":"s"}' ;;
token.test) echo '{"Username":"<token>","Secret":"refresh"}' ;;
odd.test) echo 'not json' ;;
none.test) echo 'credentials not found in native keychain'; exit 1 ;;
*) echo 'the keyring is locked'; exit 1 ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    program = tmp_path / "docker-credential-fake"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return "fake"


def test_credential_helpers(helper: str) -> None:
    stored = auth.read_config({"credsStore": helper, "auths": {"none.test": entry("file")}}, "c")
    assert lookup("reg.test/a", files=[stored]) == (["helped"], [])
    assert lookup("nginx", files=[stored]) == (["helped"], []), "docker hub under the name docker gives it"
    assert lookup("token.test/a", files=[stored]) == (["token:refresh"], [])
    assert lookup("none.test/a", files=[stored]) == (["file"], []), (
        "what the helper does not know, the file may"
    )
    users, warnings = lookup("locked.test/a", files=[stored])
    assert users == [] and len(warnings) == 1 and "the keyring is locked" in warnings[0]
    users, warnings = lookup("odd.test/a", files=[stored])
    assert users == [] and "did not answer with a user name" in warnings[0]

    one = auth.read_config({"credHelpers": {"reg.test": helper}, "auths": {"other.test": entry("file")}}, "c")
    assert lookup("reg.test/a", files=[one]) == (["helped"], [])
    assert lookup("other.test/a", files=[one]) == (["file"], [])


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", "a b"])
def test_a_credential_helper_that_cannot_run_causes_a_warning(name: str) -> None:
    users, warnings = lookup("reg.test/a", files=[auth.read_config({"credsStore": name}, "c")])
    assert users == [] and len(warnings) == 1 and name.split("/", maxsplit=1)[0] in warnings[0]


def test_the_order_of_files() -> None:
    assert auth.file_paths("/own", {"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}) == [
        "/own", "/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json",
        "/h/.dockercfg",
    ]  # fmt: skip
    moved = auth.file_paths("", {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"})
    assert moved[1:3] == ["/c/containers/auth.json", "/d/config.json"]
    assert moved[0].startswith("/run/containers/")
    assert auth.file_paths("/own", {"HOME": "/h", "REGISTRY_AUTH_FILE": "/x"}) == ["/own", "/x"]
    assert auth.file_paths("", {})[-1].endswith("/.dockercfg"), "a service has no HOME"


def test_an_invalid_file_is_skipped_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{")
    (tmp_path / "b").write_text('{"auths": 1}')
    (tmp_path / "c").write_text(json.dumps({"auths": {"reg.test": entry("c")}}))
    (tmp_path / "empty").write_text("")
    warnings: list[str] = []
    paths = [str(tmp_path / name) for name in ("missing", "a", "b", "empty", "c")]
    found = auth.read_files(paths, warnings.append)
    assert [c.source for c in found] == paths[3:] and len(warnings) == 2
    assert all(str(tmp_path) in w and "ignored" in w for w in warnings)


def test_logins_are_added_to_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "sub/auth.json"
    auth.write_login(str(path), "https://reg.test/", Login("a", "1"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(json.dumps({**json.loads(path.read_text()), "credHelpers": {"x.test": "fake"}}))
    auth.write_login(str(path), "reg.test", Login("b", "2:3"))
    auth.write_login(str(path), "index.docker.io", Login("hub", "4"))
    auth.write_login(str(path), "t.test", Login(identity_token="i"))
    document = json.loads(path.read_text())
    assert document["credHelpers"] == {"x.test": "fake"} and set(document["auths"]) == {
        "reg.test", "docker.io", "t.test"
    }  # fmt: skip
    (found,) = auth.read_files([str(path)], pytest.fail)
    assert lookup("reg.test/x", files=[found])[0] == ["b"]
    assert lookup("nginx", files=[found])[0] == ["hub"]
    assert lookup("t.test/x", files=[found])[0] == ["token:i"]

    assert auth.remove_login(str(path), "reg.test") and not auth.remove_login(str(path), "reg.test")
    assert auth.remove_login(str(path), "") and json.loads(path.read_text())["auths"] == {}
    assert not auth.remove_login(str(tmp_path / "none"), "reg.test")
    assert [p.name for p in path.parent.iterdir()] == ["auth.json"]


def test_a_file_that_is_not_a_config_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("not json")
    with pytest.raises(ImageError, match="is not JSON"):
        auth.write_login(str(path), "reg.test", Login("a", "1"))
    assert path.read_text() == "not json"


def test_logins_are_hashed_as_kubelet_does() -> None:
    """SHA-256 of what Go's json.Marshal makes of AuthConfig: empty fields left out, <, > and & escaped."""
    text = '{"username":"alice","password":"a\\u003cb\\u0026ü"}'
    login = auth.Login("alice", "a<b&ü", source="anywhere")
    assert auth.login_hash(login) == hashlib.sha256(text.encode()).hexdigest()
    token = auth.Login(identity_token="t", source="x")
    assert auth.login_hash(token) == hashlib.sha256(b'{"identitytoken":"t"}').hexdigest()


def test_a_file_that_is_nested_too_deeply_is_ignored(tmp_path: Path) -> None:
    path, said = tmp_path / "auth.json", list[str]()
    path.write_text("[" * 100_000)
    assert auth.read_files([str(path)], said.append) == []
    assert len(said) == 1 and said[0].startswith(f"{path} is ignored: ")
