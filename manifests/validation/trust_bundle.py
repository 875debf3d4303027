"""Rules of a ClusterTrustBundle (ValidateClusterTrustBundle in Kubernetes pkg/apis/certificates/validation)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests.names import dns_subdomain
from manifests.problems import Problem, invalid
from manifests.types.trust_bundle import ClusterTrustBundle, pem_blocks
from manifests.validation.rules import formatted

MAX_BYTES = 1 << 20
_OMITTED = "<value omitted>"
_SIGNER_PATH = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?")


def trust_bundle_problems(bundle: ClusterTrustBundle) -> Iterator[Problem]:
    yield from _name(bundle.metadata.name or "", bundle.spec.signer_name or "")
    yield from _anchors(bundle.spec.trust_bundle)


def _name(name: str, signer: str) -> Iterator[Problem]:
    """Check that a signer's bundle is named with the signer's name as prefix, its slash replaced by a colon."""
    path = ("metadata", "name")
    if signer:
        domain, slash, rest = signer.partition("/")
        if not slash or dns_subdomain(domain) or not _SIGNER_PATH.fullmatch(rest):
            sentence = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
            yield invalid(("spec", "signerName"), signer, sentence)
        prefix = signer.replace("/", ":") + ":"
        if not name.startswith(prefix):
            words = f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
            yield invalid(path, name, words)
        elif name.removeprefix(prefix):
            yield from formatted(path, name.removeprefix(prefix), dns_subdomain)
    elif ":" in name:
        yield invalid(path, name, "ClusterTrustBundle without signer name must not have ':' in its name")
    else:
        yield from formatted(path, name, dns_subdomain)


def _anchors(text: str) -> Iterator[Problem]:
    path = ("spec", "trustBundle")
    if len(text.encode()) > MAX_BYTES:
        yield Problem(path, f"Too long: may not be more than {MAX_BYTES} bytes")
        return
    seen: dict[bytes, list[int]] = {}
    for number, block in enumerate(pem_blocks(text)):
        if block.label != "CERTIFICATE":
            yield invalid(path, _OMITTED, f"entry {number} has bad block type: {block.label}")
        elif block.headers:
            yield invalid(path, _OMITTED, f"entry {number} has PEM block headers")
        elif (authority := _is_authority(block.content)) is None:
            yield invalid(path, _OMITTED, f"entry {number} does not parse as X.509")
        elif not authority:
            yield invalid(path, _OMITTED, f"entry {number} does not have the CA bit set")
        else:
            seen.setdefault(block.content, []).append(number)
    for numbers in seen.values():
        if len(numbers) > 1:
            found = " ".join(str(number) for number in numbers)
            yield invalid(path, _OMITTED, f"duplicate trust anchor (indices [{found}])")
    if not seen:
        yield invalid(path, _OMITTED, "at least one trust anchor must be provided")


def _is_authority(certificate: bytes) -> bool | None:
    """Tell, with OpenSSL, whether a DER certificate belongs to a CA; None if it is not a certificate."""
    import ssl  # takes 8 ms, and few manifests need it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=certificate)
    except (ssl.SSLError, ValueError):
        return None
    return context.cert_store_stats()["x509_ca"] > 0
