"""Signatures, against a second implementation, and hostile tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubelite.accounts.claims import Rejected
from kubelite.accounts.keys import MOST, SigningKey, payload_of
from runtime.errors import RuntimeFault

CLAIMS = {"sub": "system:serviceaccount:default:bot", "aud": ["a"], "n": "ü"}


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=="))


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey(str(tmp_path / "pki/sa.key"))


def test_a_token_is_signed_and_checked(key: SigningKey, tmp_path: Path) -> None:
    token = key.sign(CLAIMS)
    assert key.verified(token) == CLAIMS == payload_of(token)
    assert SigningKey(str(tmp_path / "pki/sa.key")).verified(token) == CLAIMS, "after a restart"
    file = tmp_path / "pki/sa.key"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert os.listdir(file.parent) == ["sa.key"]


def test_openssl_accepts_the_signature_with_the_published_key(key: SigningKey) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    header, payload, signature = key.sign(CLAIMS).split(".")
    public = key.public()
    assert decoded(header) == {"alg": "ES256", "kid": public["kid"]}
    x, y = (int.from_bytes(base64.urlsafe_b64decode(public[axis] + "=")) for axis in ("x", "y"))
    raw = base64.urlsafe_b64decode(signature + "==")
    der = utils.encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    numbers = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())
    numbers.public_key().verify(der, f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))


def test_hostile_tokens_are_rejected(key: SigningKey, tmp_path: Path) -> None:
    header, payload, signature = key.sign(CLAIMS).split(".")
    public, kid = key.public(), decoded(header)["kid"]
    root = encoded({**CLAIMS, "sub": "system:serviceaccount:kube-system:root"})

    def signed_with(secret: bytes, head: Any) -> str:
        text = f"{encoded(head)}.{root}"
        return f"{text}.{encoded(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    other = SigningKey(str(tmp_path / "other/sa.key"))
    zeros = encoded(bytes(64))
    hostile = [
        "", ".", "..", "...", "a.b", f"{header}.{payload}", f"{header}.{payload}.", f".{payload}.{signature}",
        f"{encoded({'alg': 'none'})}.{root}.", f"{encoded({'alg': 'none', 'kid': kid})}.{root}.AA",
        f"{encoded({'alg': 'None', 'typ': 'JWT'})}.{root}.{signature}",
        signed_with(json.dumps(public).encode(), {"alg": "HS256", "kid": kid}),  # key confusion
        signed_with(public["x"].encode(), {"alg": "HS256", "typ": "JWT", "kid": kid}),
        f"{encoded({'alg': 'ES256', 'kid': kid, 'jwk': other.public()})}.{root}.{other.sign(CLAIMS).split('.')[2]}",
        other.sign(CLAIMS),  # of another node
        f"{header}.{root}.{signature}", f"{header}.{payload}.{signature[:-2]}", f"{header}.{payload}.{zeros}",
        f"{header}.{payload}.{encoded(b'0' * 63)}", f"{header}.{payload}={'.'}{signature}",
        f"{header}.{payload}.{signature} ", f"{header}\n.{payload}.{signature}", f"{header}.{payload}.{signature}.x",
        f"{header}.{encoded(b'[' * 3000)}.{signature}", "A" * (MOST + 1), f"{header}.{'A' * 100_000}.{signature}",
        f"{header}.{payload}.{'ü' * 86}",
    ]  # fmt: skip
    for token in hostile:
        with pytest.raises(Rejected):
            key.verified(token)
    assert key.verified(f"{header}.{payload}.{signature}") == CLAIMS


def test_every_changed_character_is_noticed(key: SigningKey) -> None:
    token = key.sign(CLAIMS)
    for at, char in enumerate(token[:-1]):  # the last one has bits that do not count
        changed = token[:at] + ("A" if char != "A" else "B") + token[at + 1 :]
        with pytest.raises(Rejected):
            key.verified(changed)


def test_a_check_makes_no_key(key: SigningKey, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="issued no token"):
        key.verified("a.b.c")
    assert not (tmp_path / "pki").exists()


def test_a_file_that_is_no_key_is_said(key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/sa.key").write_text("nonsense")
    with pytest.raises(RuntimeFault, match=r"sa\.key cannot be used"):
        key.sign(CLAIMS)


def test_what_is_no_token_has_no_payload() -> None:
    for text in ("", "x", "a.b.c", f"a.{encoded([])}.c", f"a.{encoded(b'[' * 5000)}.c"):
        assert payload_of(text) is None
