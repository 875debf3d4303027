"""The TCP port with TLS and client certificates, and their renewal on a node that keeps running."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID as Use

from tests.certificates import Authority
from tests.e2e.node import Node, running_node
from tests.programs import missing

pytestmark = pytest.mark.skipif(bool(missing("curl")), reason="needs curl")


def curl(node: Node, authority: Path, path: str, *options: str | Path) -> tuple[int, str]:
    """(status, or 0 after a failed handshake; the answer)"""
    command = node.in_netns(
        "curl", "-sS", "--max-time", "20", "--cacert", str(authority), "-w", "\n%{http_code}",
        *map(str, options), f"https://127.0.0.1:10255{path}",
    )  # fmt: skip
    body, _, code = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60
    ).stdout.rpartition("\n")
    return int(code), body


def write(directory: Path, name: str, pair: tuple[bytes, bytes]) -> None:
    for suffix, text in zip(("crt", "key"), pair, strict=True):
        (directory / f"{name}.{suffix}").write_bytes(text)


def test_metrics_need_a_client_certificate_and_renewal_needs_no_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    write(tmp_path, "server", old.issue(serial=1))
    write(tmp_path, "client", old.issue(serial=2, use=Use.CLIENT_AUTH))
    me = ("--cert", tmp_path / "client.crt", "--key", tmp_path / "client.key")
    clients = tmp_path / "clients.crt"
    clients.write_bytes(old.file.read_bytes())
    settings = {
        "tls_cert_file": str(tmp_path / "server.crt"), "tls_private_key_file": str(tmp_path / "server.key"),
        "client_ca_file": str(clients),
    }  # fmt: skip
    with running_node(tmp_path / "node", None, **settings) as node:
        assert curl(node, old.file, "/healthz")[0] == 200
        assert curl(node, old.file, "/metrics")[0] == 401
        code, body = curl(node, old.file, "/metrics", *me)
        assert code == 200 and "kubelet_running_pods" in body
        [target] = json.loads(curl(node, old.file, "/sd", *me)[1])
        assert target["labels"]["__scheme__"] == "https"
        write(tmp_path, "server", new.issue(serial=3))
        clients.write_bytes(new.file.read_bytes())
        assert curl(node, old.file, "/healthz")[0] == 0, "the server's certificate is another one"
        assert curl(node, new.file, "/healthz")[0] == 200
        assert curl(node, new.file, "/metrics", *me)[0] == 0, "the client's authority is trusted no more"
        write(tmp_path, "client", new.issue(serial=4, use=Use.CLIENT_AUTH))
        assert curl(node, new.file, "/metrics", *me)[0] == 200
