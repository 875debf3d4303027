"""Image references as docker reads them: `nginx` means docker.io/library/nginx:latest.

Grammar and normalisation follow github.com/distribution/reference (reference.go). A first component with a dot, a colon
or an upper-case letter, or the name `localhost`, is a registry. Any other name is on docker.io, and a single component
there belongs to `library/`. A reference may have a tag and a digest; then the digest selects the image.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from runtime.errors import ImageError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
NAME_MAX = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference with a tag, a digest or both. `str()` gives the canonical form."""

    registry: str  # docker.io, localhost:5000, [::1]:5000, …
    repository: str  # library/nginx
    tag: str = ""
    digest: str = ""  # sha256:…

    @property
    def name(self) -> str:
        """Registry and repository. A repo digest is this name, `@` and a digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """The tag or digest to request from the registry; the digest takes precedence."""
        return self.digest or self.tag

    @property
    def familiar(self) -> str:
        """The short form that users write: nginx, user/app:1.2, quay.io/x/y."""
        name = self.name
        if self.registry == DEFAULT_REGISTRY:
            name = self.repository.removeprefix("library/")
        return self._with_suffix(name)

    def __str__(self) -> str:
        return self._with_suffix(self.name)

    def _with_suffix(self, name: str) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{name}{tag}{digest}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A repository on a registry. `insecure`: do not verify TLS, and fall back to plain HTTP; `plain`: use plain
    HTTP."""

    registry: str
    repository: str
    insecure: bool = False
    plain: bool = False


def parse(text: str) -> Reference:
    """Parse `text` as docker does. Raises ImageError (InvalidImageName)."""
    if not text:
        raise _invalid(text, "it is empty")
    if _BARE_ID.fullmatch(text):
        raise _invalid(text, "64 hexadecimal digits are an image id, not an image name")
    rest, at, digest = text.partition("@")
    if at:
        _check_digest(text, digest)
    rest, tag = _split_tag(rest)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _invalid(text, f'"{tag}" is not a valid tag')
    registry, repository = _split_registry(rest)
    _check_name(text, registry, repository)
    if tag is None and not digest:
        tag = DEFAULT_TAG
    return Reference(registry, repository, tag or "", digest)


def is_digest(text: str) -> bool:
    """True for `sha256:` and 64 lower-case hexadecimal digits, the only digests the store supports."""
    return _SHA256.fullmatch(text) is not None


def is_loopback(registry: str) -> bool:
    """True if the registry is on this machine: localhost, 127.0.0.0/8 or ::1, with or without a port."""
    host = registry
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split_tag(rest: str) -> tuple[str, str | None]:
    """A colon after the last slash starts the tag. A colon before it belongs to the registry's port."""
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        return rest[:colon], rest[colon + 1 :]
    return rest, None


def _split_registry(rest: str) -> tuple[str, str]:
    first, slash, remainder = rest.partition("/")
    registry_like = any(c in first for c in ".:") or first == "localhost" or first.lower() != first
    if not slash or not registry_like:
        first, remainder = DEFAULT_REGISTRY, rest
    if first == "index.docker.io":
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in remainder:
        remainder = f"library/{remainder}"
    return first, remainder


def _check_name(text: str, registry: str, repository: str) -> None:
    if not _DOMAIN.fullmatch(registry):
        raise _invalid(text, f'"{registry}" is not a registry\'s host name')
    if repository.lower() != repository:
        raise _invalid(text, "repository name must be lowercase")
    if not _PATH.fullmatch(repository):
        raise _invalid(text, "invalid reference format")
    if len(registry) + 1 + len(repository) > NAME_MAX:
        raise _invalid(text, f"repository name must not be longer than {NAME_MAX} characters")


def _check_digest(text: str, digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise _invalid(text, f'"{digest}" is not a digest; write sha256: and 64 hexadecimal digits')
    if not is_digest(digest):
        raise _invalid(text, "only sha256 digests (64 lower-case hexadecimal digits) are supported")


def _invalid(text: str, why: str) -> ImageError:
    return ImageError(f'couldn\'t parse image name "{text}": {why}', reason="InvalidImageName")
