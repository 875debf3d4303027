"""Which images may be pulled: containers-policy.json(5), for the transport `docker`. Pure, except that `load` reads it.

A policy lists requirements for scopes: an image, a repository, a part of its path, a registry, a wildcard for its
subdomains, or everything else. Only the most specific scope that matches applies, and all of its requirements must be
met. Of the types that check signatures, only `sigstoreSigned` with keys is supported. Anything unknown is an error, as
in containers/image: a policy that is understood only in part could allow what it forbids.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runtime.errors import ImageError
from runtime.images import reference
from runtime.images.reference import Reference

REASON = "SignatureValidationFailed"  # kubelet's ErrSignatureValidation (pkg/kubelet/images/types.go)
ACCEPT, REJECT, SIGSTORE = "insecureAcceptAnything", "reject", "sigstoreSigned"
_IDENTITIES = ("matchRepoDigestOrExact", "matchExact", "matchRepository", "exactReference", "exactRepository")
_KEYLESS_KEYS = frozenset(
    {
        "fulcio",
        "pki",
        "rekorPublicKeyPath",
        "rekorPublicKeyPaths",
        "rekorPublicKeyData",
        "rekorPublicKeyDatas",
    }
)
_KEYLESS = ": this version checks signatures with keys, not those of Fulcio, of a PKI, or in Rekor's log"
_KEYS = frozenset({"keyPath", "keyPaths", "keyData", "keyDatas"})


class Wrong(ImageError):
    """The policy cannot be used: nothing is pulled. `line`: the line of the error; 0: unknown."""

    def __init__(self, path: str, why: str, line: int = 0) -> None:
        where = f"{path}, line {line}," if line else path
        super().__init__(f"the image policy {where} cannot be used: {why}", reason=REASON)


@dataclass(frozen=True, slots=True)
class _Where:
    """The way to a value of the policy, by keys and indices."""

    steps: tuple[str | int, ...] = ()

    def __truediv__(self, step: str | int) -> _Where:
        return _Where((*self.steps, step))

    def __str__(self) -> str:
        shown = ""
        for number, step in enumerate(self.steps):
            if isinstance(step, int):
                shown += f"[{step}]"
            elif self.steps[:2] == ("transports", "docker") and number == 2:
                shown += f"[{step!r}]"  # a scope
            else:
                shown += f".{step}" if shown else step
        return shown or "the policy"


class _Invalid(ValueError):
    """A value of the policy is invalid. The text follows the name of the value."""

    def __init__(self, where: _Where, text: str, key: str = "") -> None:
        super().__init__(f"{where}{text}")
        self.where = where / key if key else where


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
            data = file.read()
        text = data.decode(json.detect_encoding(data))
        document = json.loads(text)
    except OSError as error:
        raise Wrong(path, str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise Wrong(path, f"it is not JSON: {error}", getattr(error, "lineno", 0)) from error
    return parse(document, path, text)


def parse(document: Any, path: str, text: str = "") -> Policy:
    """Parse a policy. `text`: what the document was read from, for line numbers. Raises Wrong."""
    everything = _Where()
    try:
        given = _object(document, everything, {"default", "transports"})
        if "default" not in given:
            raise _Invalid(everything, ": it has no default")
        transports = _object(given.get("transports", {}), everything / "transports", None)
        docker = everything / "transports" / "docker"
        named = _object(transports.get("docker", {}), docker, None)
        scopes = {scope: _requirements(found, docker / scope) for scope, found in named.items()}
        return Policy(path, _requirements(given["default"], everything / "default"), scopes)
    except _Invalid as error:
        raise Wrong(path, str(error), line_of(text, error.where.steps) if text else 0) from error


_DECODER: Final = json.JSONDecoder()
_BLANK: Final = re.compile(r"[ \t\r\n]*")


def line_of(text: str, steps: Sequence[str | int]) -> int:
    """Return the line of a value in a valid JSON text. `steps`: the keys and indices that lead to the value. If one is
    missing, return the line of the object or array that lacks it."""
    at = _skip(text, 0)
    for step in steps:
        found = _member(text, at, step)
        if found < 0:
            break
        at = found
    return text.count("\n", 0, at) + 1


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _member(text: str, at: int, step: str | int) -> int:
    """Where a member of the object or array at `at` begins; -1 if it has none. Of equal keys, the last one counts."""
    if text[at] not in "[{":
        return -1
    is_object, place, found, index = text[at] == "{", _skip(text, at + 1), -1, 0
    while text[place] not in "]}":
        key: object = index
        if is_object:
            key, place = _DECODER.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)  # past the colon
        if key == step:
            found = place
        _, place = _DECODER.raw_decode(text, place)
        place, index = _skip(text, place), index + 1
        if text[place] == ",":
            place = _skip(text, place + 1)
    return found


def _object(value: Any, where: _Where, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Invalid(where, " is not an object")
    if known is not None and (other := sorted(value.keys() - known)):
        hint = _KEYLESS if other[0] in _KEYLESS_KEYS else ""
        raise _Invalid(where, f" has an unknown key {other[0]!r}{hint}", other[0])
    return value


def _requirements(value: Any, where: _Where) -> tuple[Requirement, ...]:
    if not isinstance(value, list) or not value:
        raise _Invalid(where, " is not a list of requirements")
    return tuple(_requirement(one, where / index) for index, one in enumerate(value))


def _instead(kind: object) -> str:
    return f" (signatures with GPG keys); it checks {SIGSTORE} with keys" if kind == "signedBy" else ""


def _requirement(value: Any, where: _Where) -> Requirement:
    kind = _object(value, where, None).get("type")
    if kind in (ACCEPT, REJECT):
        _object(value, where, {"type"})
        return Requirement(kind)
    if kind != SIGSTORE:
        raise _Invalid(where, f": this version cannot check the type {kind!r}{_instead(kind)}")
    given = _object(value, where, {"type", "signedIdentity", *_KEYS})
    if len(given.keys() & _KEYS) != 1:
        raise _Invalid(where, f" must have one of {', '.join(sorted(_KEYS))}")
    paths = [given["keyPath"]] if "keyPath" in given else given.get("keyPaths", [])
    data = [given["keyData"]] if "keyData" in given else given.get("keyDatas", [])
    if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in (paths, data)):
        raise _Invalid(where, ": keys must be texts")
    try:
        decoded = tuple(base64.b64decode(text, validate=True) for text in data)
    except ValueError as error:  # binascii.Error is one
        raise _Invalid(where, f": a key is not base64: {error}") from error
    return Requirement(SIGSTORE, tuple(paths), decoded, _identity(given.get("signedIdentity"), where))


def _identity(value: Any, where: _Where) -> Identity:
    if value is None:
        return Identity()
    where = where / "signedIdentity"
    kind = _object(value, where, None).get("type")
    if kind not in _IDENTITIES:
        raise _Invalid(where, f": this version cannot check the type {kind!r}")
    name = {"exactReference": "dockerReference", "exactRepository": "dockerRepository"}.get(kind)
    _object(value, where, {"type", *([name] if name else [])})
    if name is None:
        return Identity(kind)
    try:
        reference.parse(str(value.get(name)))
    except ImageError as error:
        raise _Invalid(where / name, f": {error}") from error
    return Identity(kind, str(value[name]))
