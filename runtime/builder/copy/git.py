"""ADD from a git repository, by the machine's own git: nothing asks, and nobody's configuration or hooks are used.

URL[#REF[:DIRECTORY]], as docker has it (reference, "Adding files from a Git repository"). What is taken is a commit:
its name is what a step is known by.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from runtime.builder.copy.copying import CopyError

_SCHEMES = ("http://", "https://", "git://", "ssh://")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",  # of submodules too: no file, no ext
    "LC_ALL": "C",
}
_KEPT = ("PATH", "HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PAUSE = 0.05  # seconds between looks at whether the build goes on


@dataclass(frozen=True, slots=True)
class Source:
    """`ref` "" is the repository's own branch; `directory` "" its root."""

    url: str
    ref: str = ""
    directory: str = ""


def is_git(word: str) -> bool:
    """By its scheme, or by a path that ends in .git, behind which a ref may stand."""
    path = word.partition("#")[0].partition("?")[0]
    if word.startswith(("git@", "git://", "ssh://")):
        return True
    return word.startswith(("http://", "https://")) and path.rstrip("/").endswith(".git")


def parse(word: str) -> Source:
    """Raises CopyError."""
    url, _, fragment = word.partition("#")
    ref, _, directory = fragment.partition(":")
    if ref.startswith("-") or url.startswith("-") or any(ord(char) < 33 for char in url + ref):
        raise CopyError(f"{word} is no git repository's URL")
    if not url.startswith(_SCHEMES) and not re.match(r"git@[^:/]+:", url):
        raise CopyError(f"{word} is no git repository's URL")
    return Source(url, ref, directory.strip("/"))


def check_out(
    source: Source,
    into: str,
    *,
    keep: bool,
    checksum: str,
    check: Callable[[], None],
    proxies: dict[str, str],
) -> str:
    """The commit's files into the new directory `into`; with `keep`, .git as well. Returns the commit.
    Raises CopyError."""
    if shutil.which("git") is None:
        raise CopyError(f"cannot get {source.url}: there is no git on this machine")
    run = _Git(source.url, into, check, proxies)
    run("init", "--quiet", "--template=", into)
    ref = source.ref or "HEAD"
    fetch = ("fetch", "--quiet", "--no-tags", "--force")
    try:
        run(*fetch, "--depth=1", "--", source.url, ref)
    except CopyError:  # a server that knows no shallow clones, or gives no commit by its name
        spec = "+refs/*:refs/fetched/*" if _COMMIT.fullmatch(ref) else ref
        run(*fetch, "--", source.url, spec)
    wanted = ref if _COMMIT.fullmatch(ref) else "FETCH_HEAD"
    commit = run("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}").strip()
    if checksum and not (len(checksum) >= 7 and commit.startswith(checksum)):
        raise CopyError(f"{source.url} is at commit {commit}, not {checksum}")
    run("-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", "--detach", commit)
    if os.path.exists(f"{into}/.gitmodules"):
        run("submodule", "--quiet", "update", "--init", "--recursive")
    if not keep:
        shutil.rmtree(f"{into}/.git")
        for directory, names, files in os.walk(into):  # a submodule's .git is a file
            if ".git" in files and directory != into:
                os.unlink(f"{directory}/.git")
            names[:] = [name for name in names if name != ".git"]
    return commit


class _Git:
    """git in one directory. A build that is cancelled ends it."""

    def __init__(self, url: str, directory: str, check: Callable[[], None], proxies: dict[str, str]) -> None:
        self._url, self._directory, self._check = url, directory, check
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._environ = {**kept, **proxies, **_QUIET}
        os.makedirs(directory, exist_ok=True)

    def __call__(self, *words: str) -> str:
        safe = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
        process = subprocess.Popen(
            ["git", *safe, *words],
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,  # modes are the repository's, whoever builds
        )
        try:
            while process.poll() is None:
                self._check()
                with suppress(subprocess.TimeoutExpired):
                    out, err = process.communicate(timeout=_PAUSE)
                    break
            else:
                out, err = process.communicate()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.communicate()
            raise
        if process.returncode != 0:
            lines = err.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            raise CopyError(f"cannot get {self._url}: git {_shown(words)}: {lines[-1].strip()}")
        return out.decode(errors="replace")


def _shown(words: Sequence[str]) -> str:
    return next((word for word in words if not word.startswith("-") and "=" not in word), "")
