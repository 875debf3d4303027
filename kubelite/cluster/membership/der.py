"""What a node reads of a certificate without a library for certificates: its public key and its dates. Pure.

Source: RFC 5280, section 4.1 (the fields of TBSCertificate, in order) and ITU-T X.690 (the encoding).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from typing import NamedTuple

_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17
_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"


class Validity(NamedTuple):
    """When a certificate is valid, in Unix seconds."""

    begin: float
    end: float


class _Element(NamedTuple):
    tag: int
    whole: bytes
    content: bytes


def certificates(pem: str) -> list[bytes]:
    """Return the certificates of a PEM text, in DER. Raises ValueError."""
    blocks = pem.split(_BEGIN)[1:]
    return [ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{block.partition(_END)[0]}{_END}\n") for block in blocks]


def key_hash(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate's SubjectPublicKeyInfo, as kubeadm pins it (cmd/kubeadm/app/util/pubkeypin):
    `sha256:` and 64 hexadecimal digits. Raises ValueError."""
    return f"sha256:{hashlib.sha256(_fields(certificate)[5].whole).hexdigest()}"


def validity(certificate: bytes) -> Validity:
    """Return the dates of a certificate. Raises ValueError."""
    begin, end = _elements(_fields(certificate)[3].content)[:2]
    return Validity(_time(begin), _time(end))


def _fields(certificate: bytes) -> list[_Element]:
    """Return the fields of TBSCertificate after the version: serial number, signature, issuer, validity, subject,
    public key."""
    whole = _elements(certificate)
    inner = _elements(whole[0].content) if whole else []
    fields = _elements(inner[0].content) if inner else []
    if fields and fields[0].tag == _VERSION:
        fields = fields[1:]
    if len(fields) < 6 or fields[5].tag != _SEQUENCE:
        raise ValueError("not an X.509 certificate")
    return fields


def _elements(data: bytes) -> list[_Element]:
    found, at = [], 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("an element of a certificate is cut off")
        size, start = data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, start = int.from_bytes(data[start : start + count], "big"), start + count
        end = start + size
        if end > len(data):
            raise ValueError("an element of a certificate is cut off")
        found.append(_Element(data[at], data[at:end], data[start:end]))
        at = end
    return found


def _time(element: _Element) -> float:
    """UTCTime has two digits of the year: 50 to 99 are of the last century (RFC 5280, section 4.1.2.5.1)."""
    text = element.content.decode("ascii")
    if element.tag == _UTC_TIME:
        text = f"{'19' if text[:2] >= '50' else '20'}{text}"
    return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()
