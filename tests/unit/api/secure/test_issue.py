"""The node's authority and its certificates."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from kubelite.api.secure.issue import SERVER_DAYS, answer

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def server(directory: Path, now: dt.datetime = NOW, **changes: Any) -> bytes:
    names = {"names": ["localhost"], "addresses": ["127.0.0.1", "::1"], **changes}
    answer({"directory": str(directory), "server": names}, now)
    return (directory / "server.pem").read_bytes()


def client(directory: Path, user: str, *groups: str, seconds: float = 3600) -> x509.Certificate:
    wanted = {"user": user, "groups": list(groups), "seconds": seconds}
    found = answer({"directory": str(directory), "client": wanted}, NOW)
    return x509.load_pem_x509_certificate(found["certificate"].encode())


def test_the_certificate_of_the_server_is_kept_until_a_quarter_of_its_life_is_left(tmp_path: Path) -> None:
    first = server(tmp_path)
    assert server(tmp_path, NOW + DAY * (SERVER_DAYS * 3 // 4 - 1)) == first
    assert server(tmp_path, NOW + DAY * (SERVER_DAYS * 3 // 4 + 2)) != first
    found = x509.load_pem_x509_certificate(first)
    assert found.not_valid_after_utc == NOW + DAY * SERVER_DAYS


def test_other_names_and_a_broken_file_lead_to_a_new_certificate(tmp_path: Path) -> None:
    first = server(tmp_path)
    assert server(tmp_path, names=["localhost", "node-1"]) != first
    (tmp_path / "server.pem").write_text("nothing")
    assert server(tmp_path).startswith(b"-----BEGIN CERTIFICATE-----")
    assert server(tmp_path, NOW - 10 * DAY) != first, "the clock was set back: it is not valid yet"


def test_a_new_authority_leads_to_a_new_certificate(tmp_path: Path) -> None:
    first = server(tmp_path)
    (tmp_path / "ca.crt").unlink()
    assert server(tmp_path) != first


def test_a_user_is_the_subject_of_a_certificate(tmp_path: Path) -> None:
    found = client(tmp_path, "jane", "developers", "system:masters")
    assert [part.value for part in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["jane"]
    groups = found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [part.value for part in groups] == ["developers", "system:masters"]
    assert found.not_valid_after_utc - NOW == dt.timedelta(hours=1)


def test_no_certificate_outlives_the_authority(tmp_path: Path) -> None:
    authority = x509.load_pem_x509_certificate(answer_ca(tmp_path))
    assert (
        client(tmp_path, "jane", seconds=20 * 366 * 86400).not_valid_after_utc
        == authority.not_valid_after_utc
    )


def answer_ca(directory: Path) -> bytes:
    server(directory)
    return (directory / "ca.crt").read_bytes()


def test_a_key_that_is_none_is_an_error(tmp_path: Path) -> None:
    server(tmp_path)
    (tmp_path / "ca.key").write_text("nothing")
    with pytest.raises(ValueError, match="PEM"):
        client(tmp_path, "jane")
