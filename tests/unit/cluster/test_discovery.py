"""Which join commands and kubeconfigs are believed."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from kubelite.cluster.membership import der
from kubelite.cluster.membership.discovery import (
    JoinError,
    NotYetSigned,
    parse_kubeconfig,
    parse_line,
    trusted,
)
from kubelite.kube.json import Json
from tests.cluster.fake_api import TOKEN, FakeApi

HASH = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    "text",
    [
        f"kubeadm join 10.0.0.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}",
        f"kubeadm join 10.0.0.1:6443 --token {TOKEN} \\\n\t--discovery-token-ca-cert-hash {HASH} ",
        f"--token={TOKEN} --discovery-token-ca-cert-hash={HASH} 10.0.0.1:6443",
        f"https://10.0.0.1:6443/ --discovery-token {TOKEN} --discovery-token-ca-cert-hash {HASH}",
    ],
)
def test_a_join_command_is_read(text: str) -> None:
    found = parse_line(text)
    assert (found.server, found.token, found.hashes) == ("https://10.0.0.1:6443", TOKEN, (HASH,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no API server"),
        (f"10.0.0.1:6443 --token {TOKEN}", "sha256:"),
        (f"10.0.0.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash md5:00", "sha256:"),
        (f"10.0.0.1:6443 --token short --discovery-token-ca-cert-hash {HASH}", "--token of the form"),
        (f"a:1 b:2 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}", "two addresses"),
        (f"a:1 --token {TOKEN} --discovery-token-unsafe-skip-ca-verification", "is not supported"),
        (f"a:1 --token {TOKEN} --control-plane --discovery-token-ca-cert-hash {HASH}", "not supported"),
        ("a:1 '", "cannot read"),
    ],
)
def test_a_bad_join_command_says_what_is_missing(text: str, said: str) -> None:
    with pytest.raises(JoinError, match=said):
        parse_line(text)


def _info(tmp_path: Path) -> tuple[FakeApi, Json]:
    api = FakeApi(tmp_path)
    api.port = 6443
    api._publish()
    return api, api.objects["/api/v1/namespaces/kube-public/configmaps/cluster-info"]


def test_a_signed_cluster_info_with_the_right_ca_is_trusted(tmp_path: Path) -> None:
    api, info = _info(tmp_path)
    found = trusted(info, parse_line(api.line))
    assert found.server == "https://127.0.0.1:6443"
    assert (found.authority, found.token) == (api.authority.pem, TOKEN)


def test_a_changed_cluster_info_is_refused(tmp_path: Path) -> None:
    api, info = _info(tmp_path)
    forged = {"data": {**info["data"], "kubeconfig": info["data"]["kubeconfig"].replace("6443", "6444")}}
    with pytest.raises(JoinError, match="signature of cluster-info does not match"):
        trusted(forged, parse_line(api.line))


@pytest.mark.parametrize("header", [b'{"alg":"none"}', b'{"alg":"RS256"}', b"[]", b"\xff"])
def test_another_algorithm_is_refused(tmp_path: Path, header: bytes) -> None:
    api, info = _info(tmp_path)
    name = "jws-kubeconfig-abcdef"
    _, _, signature = info["data"][name].partition(".")
    forged = {
        "data": {**info["data"], name: f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{signature}"}
    }
    with pytest.raises(JoinError):
        trusted(forged, parse_line(api.line))


def test_another_ca_is_refused(tmp_path: Path) -> None:
    api, info = _info(tmp_path)
    with pytest.raises(JoinError, match="CA of the cluster is not the one"):
        trusted(info, parse_line(api.line.replace(api.authority.hash, HASH)))


def test_a_missing_signature_may_come_later(tmp_path: Path) -> None:
    api, info = _info(tmp_path)
    with pytest.raises(NotYetSigned, match="wrong or has expired"):
        trusted({"data": {"kubeconfig": info["data"]["kubeconfig"]}}, parse_line(api.line))


def _kubeconfig(user: str, cluster: str = "") -> str:
    data = base64.b64encode(b"PEM").decode()
    cluster = cluster or f"{{server: 'https://a:1', certificate-authority-data: {data}}}"
    return f"""
current-context: c
contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
clusters: [{{name: other, cluster: {{server: 'https://no:1'}}}}, {{name: k, cluster: {cluster}}}]
users: [{{name: u, user: {user}}}]
"""


def test_a_kubeconfig_is_read() -> None:
    found = parse_kubeconfig(_kubeconfig("{token: t}"))
    assert (found.server, found.authority, found.token) == ("https://a:1", "PEM", "t")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "not a document of kind Config"),
        ("a: [", "not YAML"),
        (_kubeconfig("{exec: {command: x}}"), "other logins are not supported"),
        (_kubeconfig("{token: t}", "{server: 'http://a:1'}"), "https://"),
        (_kubeconfig("{token: t}", "{server: 'https://a:1'}"), "certificate-authority-data"),
        (_kubeconfig("{token: t}", "{server: 'https://a:1', certificate-authority-data: '!'}"), "base64"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused(text: str, said: str) -> None:
    with pytest.raises(JoinError, match=said):
        parse_kubeconfig(text)


def test_certificates_are_read_without_a_library(tmp_path: Path) -> None:
    api = FakeApi(tmp_path)
    pem = api.authority.login("one.pem", "system:node:a", "system:nodes").read_text()
    first = der.certificates(pem)[0]
    assert der.key_hash(der.certificates(api.authority.pem)[0]) == api.authority.hash
    life = der.validity(first)
    assert life.end - life.begin == pytest.approx(24 * 3600 + 300, abs=2)


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_damaged_certificate_is_an_error(tmp_path: Path, cut: int) -> None:
    api = FakeApi(tmp_path)
    whole = der.certificates(api.authority.pem)[0]
    with pytest.raises(ValueError, match="certificate"):
        der.key_hash(whole[:cut])
