"""The program that makes the node's certificate authority and its certificates: `python -m kubelite.api.secure.issue`.

The daemon starts it when a certificate is needed, because the package cryptography takes ten megabytes that a process
which ends gives back. It reads one request (JSON) and writes one answer (JSON):

    {"directory": PATH, "server": {"names": […], "addresses": […]}}      → {"expires": Unix seconds}
    {"directory": PATH, "client": {"user", "groups": […], "seconds"}}    → {"authority", "certificate", "key"}, all PEM
    either, if it fails                                                  → {"error": SENTENCE}

The directory (mode 0700) has `ca.crt` and `ca.key`, made once, and `server.pem` (certificate and key), made anew when
less than a quarter of its life is left, or when its names change. Files are written by rename, with mode 0600.

The profile is that of kubeadm (cmd/kubeadm/app/util/pkiutil/pki_helpers.go): a user's name is the CN, the groups are
the O's of the subject.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
_SKEW = dt.timedelta(minutes=5)  # a certificate is valid a little earlier, for clocks that are behind


def answer(request: dict[str, Any], now: dt.datetime) -> dict[str, Any]:
    """Carry out a request. Raises OSError, ValueError (a file is no certificate or key)."""
    directory = str(request["directory"])
    os.makedirs(directory, mode=0o700, exist_ok=True)
    os.chmod(directory, 0o700)
    authority = _Authority(directory, now)
    if wanted := request.get("client"):
        made, key = authority.client(
            wanted["user"], wanted["groups"], dt.timedelta(seconds=wanted["seconds"])
        )
        return {"authority": authority.pem, "certificate": made, "key": key}
    return {"expires": authority.server(request["server"]["names"], request["server"]["addresses"])}


class _Authority:
    """The authority in a directory. It is made if the directory has none."""

    def __init__(self, directory: str, now: dt.datetime) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        self._directory, self._now = directory, now
        if not os.path.exists(f"{directory}/ca.crt"):
            self._create()
        with open(f"{directory}/ca.key", "rb") as file:
            key = load_pem_private_key(file.read(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{directory}/ca.key is not the key of an elliptic curve")
        with open(f"{directory}/ca.crt", "rb") as file:
            content = file.read()
        self._key, self.pem = key, content.decode()
        self._certificate = x509.load_pem_x509_certificate(content)

    def _create(self) -> None:
        """Make the key first: a certificate without its key would be of no use."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        # Clients that know several nodes tell the authorities apart by their names.
        name = _name(f"kubelite-ca@{int(self._now.timestamp())}", ())
        life = dt.timedelta(days=AUTHORITY_DAYS)
        builder = (
            _builder(name, name, key.public_key(), self._now, life)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        _write(f"{self._directory}/ca.key", _pem_of_key(key))
        _write(f"{self._directory}/ca.crt", _signed(builder, key))

    def client(self, user: str, groups: list[str], life: dt.timedelta) -> tuple[str, str]:
        """Return the certificate of a user, and its key."""
        from cryptography.x509.oid import ExtendedKeyUsageOID as Use

        certificate, key = self._issue(_name(user, groups), Use.CLIENT_AUTH, life, ())
        return certificate.decode(), key.decode()

    def server(self, names: list[str], addresses: list[str]) -> float:
        """Make the server's certificate anew if it is old or lacks a name. Return when it expires."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID as Use

        wanted = [
            *(x509.DNSName(name) for name in names),
            *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses),
        ]
        path = f"{self._directory}/server.pem"
        found = self._usable(path, wanted)
        if found is None:
            life = dt.timedelta(days=SERVER_DAYS)
            certificate, key = self._issue(_name("kubelite", ()), Use.SERVER_AUTH, life, wanted)
            _write(path, certificate + key)
            found = x509.load_pem_x509_certificate(certificate)
        return found.not_valid_after_utc.timestamp()

    def _usable(self, path: str, wanted: list[x509.GeneralName]) -> x509.Certificate | None:
        """Return the server's certificate, or None if a new one is needed."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature

        try:
            with open(path, "rb") as file:
                found = x509.load_pem_x509_certificate(file.read())
            found.verify_directly_issued_by(self._certificate)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return None
        left = found.not_valid_after_utc - self._now
        fresh = left > (found.not_valid_after_utc - found.not_valid_before_utc) / 4
        return found if fresh and list(names) == wanted and found.not_valid_before_utc <= self._now else None

    def _issue(
        self, subject: x509.Name, use: x509.ObjectIdentifier, life: dt.timedelta, names: Any
    ) -> tuple[bytes, bytes]:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        life = min(life, self._certificate.not_valid_after_utc - self._now)
        issuer = self._key.public_key()
        builder = (
            _builder(subject, self._certificate.subject, key.public_key(), self._now, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _signed(builder, self._key), _pem_of_key(key)


def _name(user: str, groups: Any) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    life: dt.timedelta,
) -> x509.CertificateBuilder:
    from cryptography import x509

    return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - _SKEW, now + life)


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: str, content: bytes) -> None:
    temporary = f"{path}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def main() -> None:
    """Answer the request on standard input."""
    try:
        said = answer(json.load(sys.stdin), dt.datetime.now(dt.UTC))
    except ImportError:
        said = {"error": "certificates need the Python package cryptography: pip install 'kubelite[kubectl]'"}
    except (OSError, ValueError) as error:
        said = {"error": f"cannot make a certificate: {error}"}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
