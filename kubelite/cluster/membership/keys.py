"""The program that makes keys, certificate requests and self-signed certificates, run with `python -m`.

The daemon starts it when a key is needed, because the package cryptography takes ten megabytes that a process which
ends gives back. It reads one request (JSON) and writes one answer (JSON):

    {"request": {"node": NAME}}                                  → {"key": PEM, "request": PEM}
    {"serving": {"node": NAME, "addresses": […]}}                → {"certificate": PEM, certificate and key}
    either, if it fails                                          → {"error": SENTENCE}

The subject of a request is a node's (Kubernetes pkg/apis/certificates/helpers.go, IsKubeletClientCSR): the organization
system:nodes and the common name system:node:NAME.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

SERVING_DAYS = 365
_SKEW = dt.timedelta(minutes=5)  # for clocks that are behind


def answer(request: dict[str, Any], now: dt.datetime) -> dict[str, Any]:
    """Carry out a request. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    if wanted := request.get("request"):
        return {"key": _pem_of_key(key), "request": _request(str(wanted["node"]), key)}
    serving = request["serving"]
    made = _self_signed(str(serving["node"]), serving["addresses"], key, now)
    return {"certificate": made + _pem_of_key(key)}


def _subject(node: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )


def _request(node: str, key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    made = x509.CertificateSigningRequestBuilder(_subject(node)).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def _self_signed(node: str, addresses: list[str], key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    names = [x509.DNSName(node), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
    name, life = _subject(node), dt.timedelta(days=SERVING_DAYS)
    builder = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - _SKEW, now + life
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def main() -> None:
    try:
        said = answer(json.load(sys.stdin), dt.datetime.now(dt.UTC))
    except ImportError:
        said = {"error": "certificates need the Python package cryptography: pip install 'kubelite[kubectl]'"}
    except ValueError as error:
        said = {"error": f"cannot make a key: {error}"}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
