"""What git fetches for ADD: redirects, names and nested submodules do not lead to the host's own addresses."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.builder.copy import git, reach
from runtime.builder.copy.copying import CopyError
from tests.kernel.images_support import need

pytestmark = pytest.mark.skipif(bool(need("git")), reason="needs git")
DISCOVERY = "/info/refs?service=git-upload-pack"


class Outside(http.server.ThreadingHTTPServer):
    """Serves directories as outside.example. `moved`: beginning of a path → URL to redirect to, for git alone or for
    all clients."""

    def __init__(self, directory: Path) -> None:
        self.moved: dict[str, str] = {}
        self.only_git = False
        self.asked: list[tuple[str, str]] = []  # path, Host
        outside = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *words: object) -> None:
                super().__init__(*words, directory=str(directory))  # type: ignore[arg-type]

            def do_GET(self) -> None:
                outside.asked.append((self.path, self.headers["Host"]))
                git_itself = self.headers["User-Agent"] != "git/2"
                for begin, to in outside.moved.items():
                    if self.path.startswith(begin) and (git_itself or not outside.only_git):
                        self.send_response(302)
                        self.send_header("Location", to + self.path.removeprefix(begin))
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.base = f"http://outside.example:{self.server_port}"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    """A server outside, as far as is known: only its name leads to it."""
    checked = reach.resolve
    server = Outside(tmp_path / "www")

    def resolve(host: str, port: int) -> list[tuple[object, ...]]:
        if host == "outside.example":
            return [(2, 1, 6, "", ("127.0.0.1", server.server_port))]
        return checked(host, port)

    monkeypatch.setattr(reach, "resolve", resolve)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(where: Path, *words: str) -> str:
    who = {
        f"GIT_{role}_{what}": "x@example.com"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["git", *words], cwd=where, env={**who, **quiet}, capture_output=True, text=True, check=True
    ).stdout.strip()


def publish(root: Path, name: str, submodules: dict[str, tuple[str, str]] | None = None) -> str:
    """Publish a repository as plain files at /NAME.git. `submodules`: path → (URL, commit). Returns its commit."""
    work = root / "work" / name
    work.mkdir(parents=True)
    run(work, "init", "-q", "-b", "main")
    (work / "file").write_text(f"of {name}\n")
    text = "".join(
        f'[submodule "{p}"]\n\tpath = {p}\n\turl = {url}\n' for p, (url, _) in (submodules or {}).items()
    )
    if text:
        (work / ".gitmodules").write_text(text)
    run(work, "add", ".")
    for path, (_, commit) in (submodules or {}).items():
        run(work, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    run(work, "commit", "-q", "-m", "one")
    bare = root / f"www/{name}.git"
    run(work, "clone", "-q", "--bare", ".", str(bare))
    run(bare, "update-server-info")
    return run(work, "rev-parse", "HEAD")


def check_out(url: str, into: Path) -> str:
    return git.check_out(
        git.parse(url), str(into), keep=False, checksum="", check=lambda: None, proxies={}, host=False
    )  # fmt: skip


def test_git_connects_to_the_checked_address_of_a_name(outside: Outside, tmp_path: Path) -> None:
    """No name server knows outside.example."""
    publish(tmp_path, "x")
    check_out(f"{outside.base}/x.git", tmp_path / "out")
    assert (tmp_path / "out/file").read_text() == "of x\n"
    assert {host for _, host in outside.asked} == {f"outside.example:{outside.server_port}"}


@pytest.mark.parametrize("hops", [1, 3])
def test_a_repository_that_has_moved_is_found(outside: Outside, tmp_path: Path, hops: int) -> None:
    publish(tmp_path, "x")
    for hop in range(hops):
        outside.moved[f"/old{hop}.git"] = (
            f"{outside.base}/old{hop + 1}.git" if hop + 1 < hops else f"{outside.base}/x.git"
        )
    check_out(f"{outside.base}/old0.git", tmp_path / "out")
    assert (tmp_path / "out/file").read_text() == "of x\n"


@pytest.mark.parametrize("only_git", [False, True])
@pytest.mark.parametrize("begin", ["/x.git/info", "/x.git/objects", "/x.git/HEAD"])
def test_a_redirect_does_not_lead_to_loopback(
    outside: Outside, tmp_path: Path, begin: str, only_git: bool
) -> None:
    """A server may tell our request from git's own."""
    publish(tmp_path, "x")
    inside = Outside(tmp_path / "www")
    thread = threading.Thread(target=inside.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        outside.moved[begin] = f"http://127.0.0.1:{inside.server_port}{begin}"
        outside.only_git = only_git
        with pytest.raises(CopyError):
            check_out(f"{outside.base}/x.git", tmp_path / "out")
        assert inside.asked == []
    finally:
        inside.shutdown()
        inside.server_close()
        thread.join()


def test_a_redirect_to_something_else_is_named(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www/login").write_text("who are you?")
    outside.moved["/x.git/info/refs"] = f"{outside.base}/login"
    with pytest.raises(CopyError, match=r"x\.git redirects to .*/login.*, which is not a git repository"):
        check_out(f"{outside.base}/x.git", tmp_path / "out")


def test_submodules_and_theirs_are_checked_out(outside: Outside, tmp_path: Path) -> None:
    low = publish(tmp_path, "low")
    outside.moved["/elsewhere.git"] = f"{outside.base}/low.git"
    middle = publish(tmp_path, "middle", {"in/low": (f"{outside.base}/elsewhere.git", low)})
    publish(tmp_path, "top", {"mid dle": (f"{outside.base}/middle.git", middle)})
    check_out(f"{outside.base}/top.git", tmp_path / "out")
    assert (tmp_path / "out/mid dle/in/low/file").read_text() == "of low\n"
    assert not list((tmp_path / "out").rglob(".git"))


def test_a_nested_submodule_does_not_reach_loopback(outside: Outside, tmp_path: Path) -> None:
    inside = Outside(tmp_path / "www")
    thread = threading.Thread(target=inside.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        low = publish(tmp_path, "low")
        middle = publish(tmp_path, "middle", {"low": (f"http://127.0.0.1:{inside.server_port}/low.git", low)})
        publish(tmp_path, "top", {"middle": (f"{outside.base}/middle.git", middle)})
        with pytest.raises(CopyError, match="`kubelite build --network host` allows them"):
            check_out(f"{outside.base}/top.git", tmp_path / "out")
        assert inside.asked == []
    finally:
        inside.shutdown()
        inside.server_close()
        thread.join()


def test_submodules_end(outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "_DEEPEST", 2)
    commit, name = publish(tmp_path, "r0"), "r0"
    for level in range(1, 4):
        commit, name = (
            publish(tmp_path, f"r{level}", {"s": (f"{outside.base}/{name}.git", commit)}),
            f"r{level}",
        )
    with pytest.raises(CopyError, match="more than 2 levels"):
        check_out(f"{outside.base}/{name}.git", tmp_path / "out")


@pytest.mark.parametrize(
    ("variables", "place", "found"),
    [
        ({}, "a.example", {}),
        ({"HTTPS_PROXY": "http://p"}, "a.example", {"https": "http://p"}),
        (
            {"all_proxy": "http://p", "http_proxy": "http://q"},
            "a.example",
            {"http": "http://q", "https": "http://p"},
        ),
        ({"all_proxy": "http://p", "NO_PROXY": ".example"}, "a.example", {}),
        ({"http_proxy": ""}, "a.example", {}),
    ],
)
def test_proxies(variables: dict[str, str], place: str, found: dict[str, str]) -> None:
    assert reach._proxies(place, variables) == found


def test_a_login_is_sent_to_the_first_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Opener:
        def open(self, request: object, timeout: float) -> object:
            seen.append((request.full_url, request.headers, request.unredirected_hdrs))  # type: ignore[attr-defined]
            raise OSError

    monkeypatch.setattr(reach, "opener", lambda **_: Opener())
    assert reach.git_url("https://me:p%40ss@a.example/x.git/", {}) == "https://me:p%40ss@a.example/x.git/"
    ((url, headers, once),) = seen
    assert url == f"https://a.example/x.git{DISCOVERY}"
    assert "Authorization" not in headers and once["Authorization"] == "Basic bWU6cEBzcw=="
