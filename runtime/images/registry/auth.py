"""Logins for registries: from docker's and podman's files, from credential helpers and from pull secrets.

Formats: docker's config.json (docs "docker login", cli/config/configfile), containers-auth.json(5), and the Secret
types kubernetes.io/dockerconfigjson and kubernetes.io/dockercfg. Keys match as in kubelet (a `*` matches within one
part of the host's name, a path matches as a prefix of whole components) and as in podman (the longest path first).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fnmatch
import hashlib
import json
import os
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import ImageError
from runtime.images.reference import DEFAULT_REGISTRY, Reference

Warn = Callable[[str], None]

_HUB_HOSTS = frozenset(("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"))
_HUB_SERVER = "https://index.docker.io/v1/"  # its name in docker's helpers
TOKEN_USER = "<token>"  # with this user name, a helper's secret is an identity token
_HELPER_PATIENCE = 30.0  # seconds
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for a registry. The identity token (an OAuth2 refresh token) is sent to the token server. The
    registry token is sent to the registry as it is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    source: str = field(default="", compare=False)  # for messages


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """The credentials of one file or one Secret."""

    source: str
    logins: tuple[tuple[str, Login], ...] = ()  # by the key as written
    helpers: tuple[tuple[str, str], ...] = ()  # registry → docker-credential-NAME
    store: str = ""  # the helper for every registry


def read_config(document: Any, source: str) -> AuthConfig:
    """Parse a config.json, an auth.json, or a .dockercfg (the same without the outer `auths`). Raises ImageError."""
    if not isinstance(document, dict):
        raise ImageError(f"{source} is not a docker config: it is not a JSON object")
    if not {"auths", "credHelpers", "credsStore"} & document.keys() and _looks_legacy(document):
        document = {"auths": document}
    entries, helpers = (
        document[key] if document.get(key) is not None else {} for key in ("auths", "credHelpers")
    )
    if not isinstance(entries, dict) or not isinstance(helpers, dict):
        raise ImageError(f"{source} is not a docker config: auths and credHelpers must be objects")
    logins = []
    for key, entry in entries.items():
        found = _login(entry, f"{source}: {key}", source)
        if found is not None:
            logins.append((key, found))
    store = document.get("credsStore") or ""
    return AuthConfig(source, tuple(logins), tuple((str(k), str(v)) for k, v in helpers.items()), str(store))


def _looks_legacy(document: Mapping[str, Any]) -> bool:
    return any(isinstance(v, dict) and {"auth", "username"} & v.keys() for v in document.values())


def _login(entry: Any, where: str, source: str) -> Login | None:
    """None for an empty entry: docker writes one for credentials that a helper holds."""
    if not isinstance(entry, dict):
        raise ImageError(f"{where} is not an object")
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ImageError(f"{where}: auth is not base64 of user:password") from error
        username, colon, password = text.partition(":")
        if not colon:
            raise ImageError(f"{where}: auth is not base64 of user:password")
        password = password.rstrip("\0")
    identity, token = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
    if not (username or identity or token):
        return None
    return Login(username, password, identity, token, source)


def login_hash(login: Login) -> str:
    """The hash by which kubelet recognizes credentials: SHA-256 of the login as JSON, in hexadecimal. Without the
    e-mail address of old configs, which is no credential (hashAuthConfig in pkg/credentialprovider/keyring.go)."""
    named = {
        "username": login.username,
        "password": login.password,
        "identitytoken": login.identity_token,
        "registrytoken": login.registry_token,
    }
    text = json.dumps(
        {name: value for name, value in named.items() if value}, separators=(",", ":"), ensure_ascii=False
    )
    for sign in "<>&":  # Go's json.Marshal escapes them
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return hashlib.sha256(text.encode()).hexdigest()


def split_key(key: str) -> tuple[str, str]:
    """(host, path) of a key: a host, a URL, or a host with a path. Every host name of Docker Hub becomes docker.io."""
    text = re.sub(r"^https?://", "", key.strip()).strip("/")
    host, _, path = text.partition("/")
    if path in {"v1", "v2"} or path.startswith(("v1/", "v2/")):
        path = path[3:]
    host = host.lower()
    return (DEFAULT_REGISTRY if host in _HUB_HOSTS else host), path


def specificity(key: str, reference: Reference) -> tuple[int, int] | None:
    """How specifically a key matches the image: larger is more specific, None means no match."""
    host, path = split_key(key)
    exact = host == reference.registry.lower()
    if not exact and not _globs(host, reference.registry.lower()):
        return None
    if path and not f"{reference.repository}/".startswith(f"{path}/"):
        return None
    return len(path), 1 if exact else 0


def _globs(pattern: str, host: str) -> bool:
    """Match `*.example.com:5000`: each part of the name as a glob, the port literally."""
    if pattern.startswith("[") or not set(pattern) & set("*?["):
        return False
    pattern, _, pattern_port = pattern.partition(":")
    host, _, port = host.partition(":")
    parts, found = pattern.split("."), host.split(".")
    return (
        pattern_port == port
        and len(parts) == len(found)
        and all(fnmatch.fnmatchcase(name, part) for part, name in zip(parts, found, strict=True))
    )


async def logins_for(
    reference: Reference, secrets: Sequence[AuthConfig], files: Sequence[AuthConfig], warn: Warn
) -> list[Login]:
    """The logins to try, in order: every matching pull secret, the most specific first, then the login of the first
    file that has one for the registry."""
    found = matching(reference, secrets)
    for config in files:
        helped = await _ask_helpers(reference, config, warn)
        logins = [helped] if helped is not None else matching(reference, [config])[:1]
        if logins:
            found += logins
            break
    return list(dict.fromkeys(found))


def matching(reference: Reference, configs: Sequence[AuthConfig]) -> list[Login]:
    """The logins of these configs for an image, the most specific first."""
    ranked = [
        (rank, login)
        for config in configs
        for key, login in config.logins
        if (rank := specificity(key, reference)) is not None
    ]
    return [login for _, login in sorted(ranked, key=lambda pair: pair[0], reverse=True)]


async def _ask_helpers(reference: Reference, config: AuthConfig, warn: Warn) -> Login | None:
    hub = reference.registry == DEFAULT_REGISTRY
    ranked = [
        (rank, key, name) for key, name in config.helpers if (rank := specificity(key, reference)) is not None
    ]
    if ranked:
        _, key, name = max(ranked)
        return await _ask_helper(name, key, config.source, warn)
    if config.store:
        server = _HUB_SERVER if hub else reference.registry
        return await _ask_helper(config.store, server, config.source, warn)
    return None


async def _ask_helper(name: str, server: str, source: str, warn: Warn) -> Login | None:
    """Run `docker-credential-NAME get` (docker/docker-credential-helpers): the server on stdin, JSON on stdout. If the
    helper fails, warn and go on without it."""
    program = f"docker-credential-{name}"
    if not _HELPER_NAME.fullmatch(name):
        warn(f"{source}: {name!r} is not the name of a credential helper")
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            program, "get", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        warn(f"{source} names the credential helper {program}, but it cannot be run: {error.strerror}")
        return None
    try:
        out, err = await asyncio.wait_for(process.communicate(server.encode()), _HELPER_PATIENCE)
    except TimeoutError:
        warn(f"the credential helper {program} did not answer within {_HELPER_PATIENCE:.0f} seconds")
        return None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _helper_answer(process.returncode or 0, out, err, f"{program} ({source})", warn)


def _helper_answer(code: int, out: bytes, err: bytes, source: str, warn: Warn) -> Login | None:
    if code != 0:
        words = (out or err).decode(errors="replace").strip()
        if "credentials not found" not in words:
            warn(f"{source} failed with status {code}: {words[:200]}")
        return None
    try:
        answer = json.loads(out)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        warn(f"{source} did not answer with a user name and a secret")
        return None
    if username == TOKEN_USER:
        return Login(identity_token=secret, source=source)
    return Login(username, secret, source=source)


# --- files ---


def file_paths(own: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Paths of login files, in order: the node's own file, then podman's (containers-auth.json(5)), and last docker's.
    REGISTRY_AUTH_FILE replaces all but the node's own."""
    environ = os.environ if environ is None else environ
    paths = [own] if own else []
    if environ.get("REGISTRY_AUTH_FILE"):
        return [*paths, environ["REGISTRY_AUTH_FILE"]]
    home = environ.get("HOME") or _home()  # systemd sets no HOME for a service
    runtime = environ.get("XDG_RUNTIME_DIR")
    paths.append(
        f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.geteuid()}/auth.json"
    )
    paths.append(f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/containers/auth.json")
    paths.append(f"{environ.get('DOCKER_CONFIG') or f'{home}/.docker'}/config.json")
    paths.append(f"{home}/.dockercfg")
    return paths


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def read_files(paths: Sequence[str], warn: Warn) -> list[AuthConfig]:
    """Read the files that exist. Warn of a file that cannot be read, and ignore it."""
    found = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                found.append(read_config(json.loads(file.read() or b"{}"), path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            warn(f"{path} is ignored: {words}")
        except ImageError as error:
            warn(f"{error}; the file is ignored")
    return found


def write_login(path: str, key: str, login: Login) -> None:
    """Store a login in a file of docker's format, and leave its other content unchanged. Only the owner can read the
    file. Raises ImageError if the file is not in that format, or OSError."""
    document = _document(path)
    entry: dict[str, str] = {}
    if login.identity_token:
        entry["identitytoken"] = login.identity_token
    else:
        entry["auth"] = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    auths = {k: v for k, v in (document.get("auths") or {}).items() if split_key(k) != split_key(key)}
    _write(path, {**document, "auths": {**auths, "/".join(filter(None, split_key(key))): entry}})


def remove_login(path: str, key: str) -> bool:
    """Delete the login of a registry, or all logins if the key is empty. False if there was none. Raises ImageError or
    OSError."""
    document = _document(path)
    auths = document.get("auths") or {}
    kept = {k: v for k, v in auths.items() if key and split_key(k) != split_key(key)}
    if len(kept) == len(auths):
        return False
    _write(path, {**document, "auths": kept})
    return True


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read() or b"{}")
        read_config(document, path)  # do not overwrite a file of another format
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ImageError(f"{path} is not JSON: {error}", reason="InvalidRequest") from error
    return dict(document)


def _write(path: str, document: Mapping[str, Any]) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(json.dumps(document, indent=4).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
