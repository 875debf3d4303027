"""Sources outside the context: git repositories, and an ssh agent."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.build_support import FROM, build, context, logged, states
from tests.e2e.node import Node
from tests.kernel.images_support import need

pytestmark = pytest.mark.skipif(bool(need("git")), reason="needs git")

HOST = ("--network", "host")  # the servers are on the host's loopback


def git(where: Path, *words: str) -> str:
    who = {
        f"GIT_{role}_{what}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **who}
    done = subprocess.run(["git", *words], cwd=where, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with two commits, a tag on the first, and a program in a directory."""
    path = tmp_path / "work"
    (path / "sub").mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    (path / "file").write_text("one\n")
    (path / "sub/tool").write_text("#!/bin/sh\necho tool\n")
    (path / "sub/tool").chmod(0o755)
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "one")
    git(path, "tag", "v1")
    commit(path, "two\n")
    return path


def commit(work: Path, text: str) -> None:
    (work / "file").write_text(text)
    git(work, "commit", "-q", "-a", "-m", "more")
    publish(work)


def publish(work: Path) -> None:
    """Publish it as plain files: git's "dumb" protocol."""
    bare = work.parent / "www/x.git"
    if bare.exists():
        git(work, "push", "-q", "--force", str(bare), "main")
    else:
        git(work, "clone", "-q", "--bare", ".", str(bare))
    git(bare, "update-server-info")


@contextlib.contextmanager
def served(directory: Path, status: int = 0) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(directory))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if not status:
                super().do_GET()
                return
            self.send_response(status)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x.git"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_only_the_commit_counts(builder: Node, work: Path, tmp_path: Path) -> None:
    with served(tmp_path / "www") as url:
        first, second = git(work, "rev-parse", "v1"), git(work, "rev-parse", "main")
        text = (
            f"{FROM}ADD {url} /main/\nADD {url}#v1 /v1/\nADD {url}#{first}:sub /sub/\n"
            f"ADD --keep-git-dir --checksum={second} {url}#main /kept/\n"
            "RUN cat /main/file /v1/file; /sub/tool; ls -A /main /kept; stat -c '%u %g %a' /main/file /sub/tool\n"
        )
        where = context(tmp_path / "c", text)
        assert logged(build(builder, *HOST, where)[0]) == (
            "two\none\ntool\n/kept:\n.git\nfile\nsub\n\n/main:\nfile\nsub\n0 0 644\n0 0 755\n"
        )
        assert set(states(build(builder, *HOST, where)[0]).values()) == {"cached"}, (
            "even with .git, whose times differ"
        )
        commit(work, "three\n")
        moved = states(
            build(builder, *HOST, context(tmp_path / "m", f"{FROM}ADD {url} /main/\nRUN cat /main/file\n"))[0]
        )
        assert set(moved.values()) == {"done"}

        wrong = f"{FROM}ADD --checksum={'0' * 40} {url} /x/\n"
        refused = builder.cli("build", "-q", *HOST, context(tmp_path / "w", wrong), check=False, timeout=60)
        assert refused.code == 1 and "is at commit" in refused.err and "not 0000" in refused.err
        for ref, words in (("none", "cannot fetch"), (":no/where", '"no/where" is not in')):
            lost = context(tmp_path / "l", f"{FROM}ADD {url}#{ref} /x/\n")
            refused = builder.cli("build", "-q", *HOST, lost, check=False, timeout=60)
            assert refused.code == 1 and words in refused.err, refused


@pytest.mark.skipif(bool(need("ssh-agent", "ssh-add", "ssh-keygen")), reason="needs openssh-client")
def test_an_ssh_agent_is_forwarded(builder: Node, tmp_path: Path) -> None:
    """For this step only; the keys are not in the layer, and a step without the mount has no agent."""
    key, sock = tmp_path / "key", tmp_path / "s"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the-key", "-f", str(key)], check=True
    )
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    try:
        builder.wait(sock.exists, "the agent listens")
        subprocess.run(
            ["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": str(sock)}, check=True
        )
        builder.cli("image", "pack", "busybox", "ssh-add", "-t", "sshtools:1")
        text = (
            "FROM sshtools:1\nRUN --mount=type=ssh ssh-add -l; stat -c '%a %u' $SSH_AUTH_SOCK; echo $SSH_AUTH_SOCK\n"
            "RUN --mount=type=ssh,id=other echo other=$SSH_AUTH_SOCK\n"
            "RUN --mount=type=ssh,uid=7,mode=0660,target=/a stat -c '%a %u' /a; ssh-add -l && ssh-add -l\n"
            "RUN ls /run/buildkit /a; echo after=$SSH_AUTH_SOCK\n"
        )
        where = context(tmp_path / "c", text)
        said = logged(build(builder, "--ssh", f"default={sock}", where)[0])
        assert said.count("the-key (ED25519)") == 3, said
        assert "600 0\n/run/buildkit/ssh_agent.0\n" in said and "other=\n" in said and "660 7\n" in said
        assert said.count("No such file") == 2 and said.endswith("after=\n")
        need_it = context(tmp_path / "n", "FROM sshtools:1\nRUN --mount=type=ssh,required true\n")
        refused = builder.cli("build", "-q", need_it, check=False, timeout=60)
        assert (
            refused.code == 1 and "the agent default is required; pass it with --ssh default" in refused.err
        )
        no_agent = builder.cli("build", "-q", "--ssh", f"default={key}", need_it, check=False)
        assert no_agent.code == 1 and "is not an agent's socket" in no_agent.err
    finally:
        agent.terminate()
        agent.wait()


def test_no_password_is_asked_for(builder: Node, tmp_path: Path) -> None:
    with served(tmp_path, status=401) as url:
        where = context(tmp_path / "c", f"{FROM}ADD {url} /x/\n")
        refused = builder.cli("build", "-q", *HOST, where, check=False, timeout=60)
        assert refused.code == 1 and f"cannot fetch {url}: git fetch: " in refused.err, refused
