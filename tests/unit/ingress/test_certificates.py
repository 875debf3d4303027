"""Certificates of Secrets, and the one of hosts that have none."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from kubelite.ingress.certificates import default_certificate, pem_of, self_signed
from tests.unit.ingress.kit import Doc

ONE, TWO = (self_signed("node", time.time()) for _ in range(2))
KEY = b"-----BEGIN PRIVATE"


def secret(crt: bytes, key: bytes) -> Doc:
    data = {"tls.crt": crt, "tls.key": key}
    return {
        "metadata": {"name": "s"},
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def test_the_parts_of_a_secret_become_one_file() -> None:
    junk = b"subject=x\n# comment\n"
    found = pem_of(secret(junk + ONE[: ONE.index(KEY)], junk + ONE[ONE.index(KEY) :]))
    assert isinstance(found, bytes) and found.split() == ONE.split()


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        ({"metadata": {"name": "s"}}, 'secret "s" has no certificate in tls.crt'),
        ({"metadata": {"name": "s"}, "data": {"tls.crt": "?"}}, "is not Base64"),
        (secret(ONE[: ONE.index(KEY)], b""), "has no private key without a password in tls.key"),
        (secret(ONE[: ONE.index(KEY)], TWO[TWO.index(KEY) :]), "is of no use: KEY_VALUES_MISMATCH"),
        (secret(ONE[: ONE.index(KEY)].replace(b"M", b"N"), ONE[ONE.index(KEY) :]), 'secret "s" is of no use'),
    ],
)
def test_what_is_wrong_with_a_secret(doc: Doc, sentence: str) -> None:
    found = pem_of(doc)
    assert isinstance(found, str) and sentence in found, found


def test_the_default_certificate_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "ingress/default.pem"
    made = default_certificate(path, "node", time.time())
    assert made is not None and default_certificate(path, "node", time.time()) == made
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"broken")
    assert default_certificate(path, "node", time.time()) not in (None, made)
