"""ADD from a git repository, with the machine's git. It never prompts, and ignores git's configuration files and hooks.

The source is URL[#REF[:DIRECTORY]], as in docker (reference, "Adding files from a Git repository"). The result is a
commit, and its id is part of the step's key.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from runtime.builder.copy.copying import CopyError
from runtime.tree import walk

_SCHEMES = ("http://", "https://", "git://", "ssh://")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",  # also for submodules: neither file nor ext
    "LC_ALL": "C",
}
_KEPT = ("PATH", "HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR")
_DEEPEST = 10  # levels of submodules
_PAUSE = 0.05  # seconds between checks for cancellation


@dataclass(frozen=True, slots=True)
class Source:
    """A source. `ref` "" means the repository's default branch, `directory` "" its root."""

    url: str
    ref: str = ""
    directory: str = ""


def is_git(word: str) -> bool:
    """Whether a source is a git repository: by its scheme, or by a path that ends in .git (before a ref)."""
    path = word.partition("#")[0].partition("?")[0]
    if word.startswith(("git@", "git://", "ssh://")):
        return True
    return word.startswith(("http://", "https://")) and path.rstrip("/").endswith(".git")


def parse(word: str) -> Source:
    """Parse a source. Raises CopyError."""
    url, _, fragment = word.partition("#")
    ref, _, directory = fragment.partition(":")
    if ref.startswith("-") or url.startswith("-") or any(ord(char) < 33 for char in url + ref):
        raise CopyError(f"{word} is not the URL of a git repository")
    if not url.startswith(_SCHEMES) and not re.match(r"git@[^:/]+:", url):
        raise CopyError(f"{word} is not the URL of a git repository")
    return Source(url, ref, directory.strip("/"))


def check_out(
    source: Source,
    into: str,
    *,
    keep: bool,
    checksum: str,
    check: Callable[[], None],
    proxies: dict[str, str],
    host: bool,
) -> str:
    """Check out the commit's files into the new directory `into`; with `keep`, .git too. `host`: fetching from the
    host's own addresses is allowed. Returns the commit's id. Raises CopyError."""
    if shutil.which("git") is None:
        raise CopyError(f"cannot fetch {source.url}: git is not installed on this machine")
    if not host:
        _reachable(source.url)
    run = _Git(source.url, into, check, proxies)
    url = source.url if host else _checked(source.url, run)
    run("init", "--quiet", "--template=", into)
    ref = source.ref or "HEAD"
    fetch = ("fetch", "--quiet", "--no-tags", "--force")
    try:
        run(*fetch, "--depth=1", "--", url, ref)
    except CopyError:  # the server has no shallow clones or refuses a commit id
        spec = "+refs/*:refs/fetched/*" if _COMMIT.fullmatch(ref) else ref
        run(*fetch, "--", url, spec)
    wanted = ref if _COMMIT.fullmatch(ref) else "FETCH_HEAD"
    commit = run("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}").strip()
    if checksum and not (len(checksum) >= 7 and commit.startswith(checksum)):
        raise CopyError(f"{source.url} is at commit {commit}, not {checksum}")
    run("-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", "--detach", commit)
    if host and os.path.exists(f"{into}/.gitmodules"):
        run("submodule", "--quiet", "update", "--init", "--recursive")
    elif not host:
        _update_submodules(run)
    if not keep:
        shutil.rmtree(f"{into}/.git")
        for fd, name, _ in walk(into):
            if name == ".git":  # in a submodule, it is a file
                os.unlink(name, dir_fd=fd)
    return commit


def _update_submodules(run: _Git, depth: int = 0) -> None:
    """Check out the submodules and theirs, after a check of each URL. Raises CopyError."""
    if not os.path.exists(f"{run.directory}/.gitmodules"):
        return
    if depth == _DEEPEST:
        raise CopyError(f"the submodules of {run.url} are nested more than {_DEEPEST} levels deep")
    run("submodule", "--quiet", "init")  # writes each URL, as `update` uses it, to .git/config
    for entry in run("config", "--local", "--null", "--list").split("\0"):
        key, _, url = entry.partition("\n")
        if key.startswith("submodule.") and key.endswith(".url") and (final := _checked(url, run)) != url:
            run("config", key, final)
    run("submodule", "--quiet", "update")
    for entry in run("ls-files", "--stage", "-z").split("\0"):
        about, _, path = entry.partition("\t")
        below = f"{run.directory}/{path}"
        # A submodule that is not checked out has no .git. Without it, git would work on the repository around it.
        if about.startswith("160000 ") and os.path.exists(f"{below}/.git"):
            if os.path.realpath(below) != f"{os.path.realpath(run.directory)}/{path}":
                raise CopyError(f"{run.url}: the submodule {path} is behind a link")
            _update_submodules(run.within(below), depth + 1)


def _checked(url: str, run: _Git) -> str:
    """The URL to fetch from: the one to which `url` redirects. Raises CopyError if one on the way refers to one of the
    host's own addresses. git then connects to the addresses that have been checked (not by ssh, nor by its own
    protocol, nor through a proxy, which look the name up once more)."""
    from runtime.builder.copy import reach

    _reachable(url)  # also a submodule's
    if not url.startswith(("http://", "https://")):
        return url
    final = reach.git_url(url, run.proxies)
    _reachable(final)
    resolved = ""
    with suppress(OSError, ValueError):  # a name that only the proxy knows
        resolved = reach.pinned(final)
    run.pin(resolved)
    return final


def _reachable(url: str) -> None:
    """Raise CopyError if the URL (or HOST:PATH) refers to one of the host's own addresses, or if git could understand
    it differently from this function. Names that cannot be resolved are left to git and its proxy."""
    from runtime.builder.copy import reach

    scheme, separator, rest = url.partition("://")
    if separator:
        try:
            name = urllib.parse.urlsplit(url).hostname or ""
        except ValueError:
            name = ""
    elif url.startswith(("/", ".")):
        return  # a path, which GIT_ALLOW_PROTOCOL forbids
    else:
        name = url.partition(":")[0].rpartition("@")[2]
    # HELPER::ADDRESS makes git pass any address to a helper; [ADDRESS]:PATH can be written as ssh://[ADDRESS]/PATH.
    if not name or "::" in scheme or "[" in scheme or rest.startswith("/"):
        raise CopyError(f"{url} is not the URL of a git repository")
    with suppress(OSError):
        reach.resolve(name, 0)


class _Git:
    """Runs git in one directory. Cancelling the build kills it."""

    def __init__(self, url: str, directory: str, check: Callable[[], None], proxies: dict[str, str]) -> None:
        self.url, self.directory, self.proxies = url, directory, proxies
        self._check = check
        self._pins: list[str] = []
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._environ = {**kept, **proxies, **_QUIET}
        os.makedirs(directory, exist_ok=True)

    def pin(self, resolved: str) -> None:
        """Follow no redirects from now on, and connect to these addresses of a host (reach.pinned); "": to any."""
        if not self._pins:
            self._pins += ["-c", "http.followRedirects=false"]
        if resolved:
            self._pins += ["-c", f"http.curloptResolve={resolved}"]

    def within(self, directory: str) -> _Git:
        """git in the checked out repository of a submodule."""
        made = _Git(self.url, directory, self._check, self.proxies)
        made._pins = self._pins
        return made

    def __call__(self, *words: str) -> str:
        safe = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *self._pins)
        process = subprocess.Popen(
            ["git", *safe, *words],
            cwd=self.directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,  # file modes must not depend on the caller
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
            raise CopyError(f"cannot fetch {self.url}: git {_shown(words)}: {lines[-1].strip()}")
        return out.decode(errors="replace")


def _shown(words: Sequence[str]) -> str:
    return next((word for word in words if not word.startswith("-") and "=" not in word), "")
