"""Which images may be pulled: containers-policy.json(5), for the transport `docker`. Pure, except that `load` reads it.

A policy lists requirements for scopes: an image, a repository, a part of its path, a registry, a wildcard for its
subdomains, or everything else. Only the most specific scope that matches applies, and all of its requirements must be
met. Of the types that check signatures, only `sigstoreSigned` with keys is supported. Anything unknown is an error, as
in containers/image: a policy that is understood only in part could allow what it forbids.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import ImageError
from runtime.images import reference
from runtime.images.reference import Reference

REASON = "SignatureValidationFailed"  # kubelet's ErrSignatureValidation (pkg/kubelet/images/types.go)
ACCEPT, REJECT, SIGSTORE = "insecureAcceptAnything", "reject", "sigstoreSigned"
_IDENTITIES = ("matchRepoDigestOrExact", "matchExact", "matchRepository", "exactReference", "exactRepository")
_KEYS = frozenset({"keyPath", "keyPaths", "keyData", "keyDatas"})


class Wrong(ImageError):
    """The policy cannot be used: nothing is pulled."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"the image policy {path} cannot be used: {why}", reason=REASON)


@dataclass(frozen=True, slots=True)
class Identity:
    """The name that a signature must have (signedIdentity). `given`: the policy's name, for exactReference and
    exactRepository."""

    kind: str = "matchRepoDigestOrExact"
    given: str = ""

    def matches(self, signed: str, wanted: Reference) -> bool:
        """Whether a signature's docker-reference matches the wanted image (policy_reference_match.go)."""
        try:
            found = reference.parse(signed)
        except ImageError:
            return False
        named = found.tag if "@" in signed or ":" in signed.rpartition("/")[2] else ""
        named = named or found.digest
        if self.kind == "matchRepository":
            return found.name == wanted.name
        if self.kind == "exactRepository":
            return found.name == reference.parse(self.given).name
        if self.kind == "exactReference":
            return bool(named) and str(found) == str(reference.parse(self.given))
        if not named:
            return False  # the signature names no tag, and the default tag is not the signer's claim
        if self.kind == "matchRepoDigestOrExact" and wanted.digest:
            return found.name == wanted.name
        return str(found) == str(wanted)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement. `key_paths` are paths of PEM files, `key_data` is PEM; one of these keys must have signed."""

    kind: str
    key_paths: tuple[str, ...] = ()
    key_data: tuple[bytes, ...] = ()
    identity: Identity = Identity()


@dataclass(frozen=True, slots=True)
class Policy:
    """`default`: the requirements of images without a matching scope. `scopes`: scope → requirements; "" is the
    transport's own default."""

    path: str
    default: tuple[Requirement, ...]
    scopes: Mapping[str, tuple[Requirement, ...]]

    def requirements(self, wanted: Reference) -> tuple[Requirement, ...]:
        return next((self.scopes[scope] for scope in scopes_of(wanted) if scope in self.scopes), self.default)

    def admit(self, wanted: Reference) -> tuple[Requirement, ...]:
        """The requirements on an image's signatures; empty if it needs none. Raises ImageError if the policy rejects
        the image."""
        found = self.requirements(wanted)
        if any(one.kind == REJECT for one in found):
            words = f"Running image docker://{wanted} is rejected by policy."
            raise ImageError(f"Source image rejected: {words} ({self.path})", reason=REASON)
        return tuple(one for one in found if one.kind == SIGSTORE)


def scopes_of(wanted: Reference) -> Iterator[str]:
    """Yield the scopes of an image, the most specific first (docker/policyconfiguration/naming.go)."""
    yield f"{wanted.name}@{wanted.digest}" if wanted.digest else f"{wanted.name}:{wanted.tag}"
    name = wanted.name
    while True:
        yield name
        if "/" not in name:
            break
        name = name.rpartition("/")[0]
    host = name
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"
    yield ""


def load(path: str) -> Policy:
    """Read a policy. Raises Wrong."""
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except OSError as error:
        raise Wrong(path, str(error.strerror)) from error
    except ValueError as error:
        raise Wrong(path, f"it is not JSON: {error}") from error
    return parse(document, path)


def parse(document: Any, path: str) -> Policy:
    """Parse a policy. Raises Wrong."""
    try:
        given = _object(document, "the policy", {"default", "transports"})
        if "default" not in given:
            raise ValueError("it has no default")
        transports = _object(given.get("transports", {}), "transports", None)
        named = _object(transports.get("docker", {}), "transports.docker", None)
        scopes = {
            scope: _requirements(found, f"transports.docker[{scope!r}]") for scope, found in named.items()
        }
        return Policy(path, _requirements(given["default"], "default"), scopes)
    except ValueError as error:
        raise Wrong(path, str(error)) from error


def _object(value: Any, where: str, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    if known is not None and (other := sorted(value.keys() - known)):
        raise ValueError(f"{where} has an unknown key {other[0]!r}")
    return value


def _requirements(value: Any, where: str) -> tuple[Requirement, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} is not a list of requirements")
    return tuple(_requirement(one, f"{where}[{index}]") for index, one in enumerate(value))


def _requirement(value: Any, where: str) -> Requirement:
    kind = _object(value, where, None).get("type")
    if kind in (ACCEPT, REJECT):
        _object(value, where, {"type"})
        return Requirement(kind)
    if kind != SIGSTORE:
        raise ValueError(f"{where}: this version cannot check the type {kind!r}")
    given = _object(value, where, {"type", "signedIdentity", *_KEYS})
    if len(given.keys() & _KEYS) != 1:
        raise ValueError(f"{where} must have one of {', '.join(sorted(_KEYS))}")
    paths = [given["keyPath"]] if "keyPath" in given else given.get("keyPaths", [])
    data = [given["keyData"]] if "keyData" in given else given.get("keyDatas", [])
    if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in (paths, data)):
        raise ValueError(f"{where}: keys must be texts")
    try:
        decoded = tuple(base64.b64decode(text, validate=True) for text in data)
    except binascii.Error as error:
        raise ValueError(f"{where}: a key is not base64: {error}") from error
    return Requirement(SIGSTORE, tuple(paths), decoded, _identity(given.get("signedIdentity"), where))


def _identity(value: Any, where: str) -> Identity:
    if value is None:
        return Identity()
    kind = _object(value, f"{where}.signedIdentity", None).get("type")
    if kind not in _IDENTITIES:
        raise ValueError(f"{where}.signedIdentity: this version cannot check the type {kind!r}")
    name = {"exactReference": "dockerReference", "exactRepository": "dockerRepository"}.get(kind)
    _object(value, f"{where}.signedIdentity", {"type", *([name] if name else [])})
    if name is None:
        return Identity(kind)
    try:
        reference.parse(str(value.get(name)))
    except ImageError as error:
        raise ValueError(f"{where}.signedIdentity.{name}: {error}") from error
    return Identity(kind, str(value[name]))
