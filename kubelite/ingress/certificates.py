"""Certificates of Ingresses: those of Secrets, checked as the proxy will read them, and one for hosts without any."""

from __future__ import annotations

import base64
import binascii
import datetime
import os
import re
import ssl
from pathlib import Path

from kubelite.kube.json import Json

_YEARS = 10
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ((?:RSA |EC )?PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)


def pem_of(secret: Json) -> bytes | str:
    """Return the certificates and the key of a Secret, in PEM, or a sentence that says what is wrong with it."""
    title = f'secret "{secret["metadata"]["name"]}"'
    data = secret.get("data") or {}
    try:
        crt, key = (base64.b64decode(data.get(name) or "", validate=True) for name in ("tls.crt", "tls.key"))
    except binascii.Error:
        return f"{title} has tls.crt or tls.key that is not Base64"
    certificates, keys = _CERTIFICATE.findall(crt), _KEY.search(key)
    if not certificates:
        return f"{title} has no certificate in tls.crt"
    if keys is None:
        return f"{title} has no private key without a password in tls.key"
    pem = b"\n".join((*certificates, keys.group(), b""))
    problem = _problem(pem)
    return f"{title} is of no use: {problem}" if problem else pem


def _problem(pem: bytes) -> str:
    """Return why OpenSSL cannot use a certificate and its key, "" if it can. It reads files only; this one is in
    memory."""
    descriptor = os.memfd_create("certificate")
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            return str(getattr(error, "reason", None) or error)
    return ""


def default_certificate(path: Path, node: str, now: float) -> bytes | None:
    """Return the certificate of hosts that have none: self-signed, made once and kept at `path`. Return None if the
    library that makes it is not installed."""
    if path.exists() and not _problem(pem := path.read_bytes()):
        return pem
    try:
        pem = self_signed(node, now)
    except ImportError:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(pem)
    new.replace(path)
    return pem


def self_signed(node: str, now: float) -> bytes:
    """Make a certificate that no client trusts. Raises ImportError without the package cryptography."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubelite ingress default certificate")])
    begin = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{node}.ingress.invalid")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    private = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(form) + private
