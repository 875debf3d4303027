"""Who we are to a registry: logins from docker's and podman's files, from credential helpers and from pull secrets.

Formats: docker's config.json (docs "docker login", cli/config/configfile), containers-auth.json(5), and the two Secret
types kubernetes.io/dockerconfigjson and kubernetes.io/dockercfg. Keys are matched as kubelet does (a `*` within one
part of the host's name, paths as prefixes of whole components) and as podman does (the longest path first).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fnmatch
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
_HUB_SERVER = "https://index.docker.io/v1/"  # what docker's helpers call it
TOKEN_USER = "<token>"  # a helper's way to say: the secret is an identity token
_HELPER_PATIENCE = 30.0  # seconds
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Login:
    """One way to be somebody. The identity token (an OAuth2 refresh token) goes to the token server, the registry token
    is sent as it is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    source: str = field(default="", compare=False)  # for messages


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """One file, or one Secret."""

    source: str
    logins: tuple[tuple[str, Login], ...] = ()  # by the key as written
    helpers: tuple[tuple[str, str], ...] = ()  # registry → docker-credential-NAME
    store: str = ""  # the helper for every registry


def read_config(document: Any, source: str) -> AuthConfig:
    """A config.json, an auth.json, or (the same without the outer `auths`) a .dockercfg. Raises ImageError."""
    if not isinstance(document, dict):
        raise ImageError(f"{source} is not a docker config: it is no JSON object")
    if not {"auths", "credHelpers", "credsStore"} & document.keys() and _looks_legacy(document):
        document = {"auths": document}
    entries, helpers = (
        document[key] if document.get(key) is not None else {} for key in ("auths", "credHelpers")
    )
    if not isinstance(entries, dict) or not isinstance(helpers, dict):
        raise ImageError(f"{source} is not a docker config: auths and credHelpers are objects")
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
    """None for an entry that only says that a helper has the rest, as docker writes."""
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


def split_key(key: str) -> tuple[str, str]:
    """(host, path) of a key: a host, a URL, or a host with a path. All of docker hub's names are docker.io."""
    text = re.sub(r"^https?://", "", key.strip()).strip("/")
    host, _, path = text.partition("/")
    if path in {"v1", "v2"} or path.startswith(("v1/", "v2/")):
        path = path[3:]
    host = host.lower()
    return (DEFAULT_REGISTRY if host in _HUB_HOSTS else host), path


def specificity(key: str, reference: Reference) -> tuple[int, int] | None:
    """How exactly a key means this image, larger is more; None when it does not."""
    host, path = split_key(key)
    exact = host == reference.registry.lower()
    if not exact and not _globs(host, reference.registry.lower()):
        return None
    if path and not f"{reference.repository}/".startswith(f"{path}/"):
        return None
    return len(path), 1 if exact else 0


def _globs(pattern: str, host: str) -> bool:
    """`*.example.com:5000`: each part of the name by itself, the port to the letter."""
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
    """Every login worth trying, in order: each matching one of the pull secrets, the most exact first, then what the
    first file that knows the registry says."""
    found = _matching(reference, secrets)
    for config in files:
        helped = await _ask_helpers(reference, config, warn)
        logins = [helped] if helped is not None else _matching(reference, [config])[:1]
        if logins:
            found += logins
            break
    return list(dict.fromkeys(found))


def _matching(reference: Reference, configs: Sequence[AuthConfig]) -> list[Login]:
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
    """`docker-credential-NAME get` (docker/docker-credential-helpers): the server in, JSON out. A helper that does not
    work is warned of, and the registry is asked without it."""
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
        warn(f"{source} names the credential helper {program}, which cannot be run: {error.strerror}")
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
        warn(f"{source} answered with something that is not a login")
        return None
    if username == TOKEN_USER:
        return Login(identity_token=secret, source=source)
    return Login(username, secret, source=source)


# --- files ---


def file_paths(own: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Where logins are looked for, in order: the node's own file, then podman's places (containers-auth.json(5)), which
    end with docker's. REGISTRY_AUTH_FILE stands for all of them but the node's own."""
    environ = os.environ if environ is None else environ
    paths = [own] if own else []
    if environ.get("REGISTRY_AUTH_FILE"):
        return [*paths, environ["REGISTRY_AUTH_FILE"]]
    home = environ.get("HOME") or _home()  # systemd gives a service none
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
    """Those of the files that are there. One that cannot be read is warned of and passed over."""
    found = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                found.append(read_config(json.loads(file.read() or b"{}"), path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            warn(f"{path} is passed over: {words}")
        except ImageError as error:
            warn(f"{error}; the file is passed over")
    return found


def write_login(path: str, key: str, login: Login) -> None:
    """Keep a login in a file of docker's format; what else is in it stays. Only the owner can read it."""
    document = _document(path)
    entry: dict[str, str] = {}
    if login.identity_token:
        entry["identitytoken"] = login.identity_token
    else:
        entry["auth"] = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    auths = {k: v for k, v in (document.get("auths") or {}).items() if split_key(k) != split_key(key)}
    _write(path, {**document, "auths": {**auths, "/".join(filter(None, split_key(key))): entry}})


def remove_login(path: str, key: str) -> bool:
    """Forget it (every one, when the key is empty); False when there was none."""
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
        read_config(document, path)  # what is no such file is not written over
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
