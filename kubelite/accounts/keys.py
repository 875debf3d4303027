"""The node's key for tokens, and JSON Web Tokens signed with it (RFC 7519; ES256: RFC 7518, section 3.4).

All tokens of this node have the same header. A token with another algorithm or another key is refused before anything
of it is read. The package cryptography takes ten megabytes: it is imported when a token is signed or checked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

from kubelite.accounts.claims import Rejected
from kubelite.kube.json import Json
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

MOST = 8192  # characters of a token; those of this node have about 1,000
_HALF = 32  # bytes of each number of a signature
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


class SigningKey:
    """The key in a file (PEM, mode 0600). It is made when it is first needed. Methods raise RuntimeFault if it cannot
    be used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._header = ""
        self._id = ""

    def sign(self, claims: Json) -> str:
        """Return the token of these claims."""
        key = self._loaded()
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        signed = f"{self._header}.{_encoded(_text(claims))}"
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(_HALF) + s.to_bytes(_HALF))}"

    def verified(self, token: str) -> Json:
        """Return the claims of a token that this key has signed. Raises Rejected."""
        header, payload, signature = _parts(token)
        if self._key is None and not os.path.exists(self._path):
            raise Rejected("this node has issued no token")
        key = self._loaded()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        if header != self._header:
            raise Rejected("the token is not signed by this node")
        raw = _decoded(signature)
        if len(raw) != 2 * _HALF:
            raise Rejected("the signature of the token has a wrong length")
        whole = encode_dss_signature(int.from_bytes(raw[:_HALF]), int.from_bytes(raw[_HALF:]))
        try:
            key.public_key().verify(whole, f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Rejected("the token is not signed by this node") from None
        claims: Json = json.loads(_decoded(payload))
        return claims

    def is_current(self, token: str) -> bool:
        """Whether a token names this key. Its signature is not checked."""
        if not token:
            return False
        self._loaded()
        return token.partition(".")[0] == self._header

    def public(self) -> Json:
        """Return the public key as a JSON Web Key (RFC 7517)."""
        numbers = self._loaded().public_key().public_numbers()
        place = {
            axis: _encoded(value.to_bytes(_HALF)) for axis, value in (("x", numbers.x), ("y", numbers.y))
        }
        return {"use": "sig", "kty": "EC", "kid": self._id, "crv": "P-256", "alg": "ES256", **place}

    def _loaded(self) -> ec.EllipticCurvePrivateKey:
        if self._key is not None:
            return self._key
        try:
            from cryptography.hazmat.primitives.asymmetric import ec
            from cryptography.hazmat.primitives.serialization import (
                Encoding,
                PublicFormat,
                load_pem_private_key,
            )
        except ImportError as error:
            words = "tokens need the Python package cryptography: pip install 'kubelite[kubectl]'"
            raise RuntimeFault(words, reason="NotSupported") from error
        try:
            if not os.path.exists(self._path):
                _create(self._path)
            with open(self._path, "rb") as file:
                key = load_pem_private_key(file.read(), None)
        except (OSError, ValueError, TypeError) as error:
            raise RuntimeFault(f"the key of tokens {self._path} cannot be used: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise RuntimeFault(f"the key of tokens {self._path} is not one of the curve P-256")
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._id = _encoded(hashlib.sha256(der).digest())
        self._header = _encoded(_text({"alg": "ES256", "kid": self._id}))
        self._key = key
        return key


def payload_of(token: str) -> Json | None:
    """Return the claims of a token, unchecked; None if it is no token."""
    try:
        found = json.loads(_decoded(_parts(token)[1]))
    except (Rejected, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _parts(token: str) -> tuple[str, str, str]:
    if len(token) > MOST:
        raise Rejected(f"the token is longer than {MOST} characters")
    parts = token.split(".")
    if len(parts) != 3 or not all(map(_SEGMENT.fullmatch, parts)):
        raise Rejected("the token is not a JSON Web Token")
    return parts[0], parts[1], parts[2]


def _create(path: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    temporary = f"{path}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Raises Rejected."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise Rejected("the token is not a JSON Web Token") from None
