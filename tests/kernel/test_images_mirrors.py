"""Mirrors, insecure and blocked registries, TLS with an authority of one's own: real registries, real files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.client import ImageClient
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, registry, run, tar, write_layout

_MISSING = support.need("docker-registry", "skopeo", "openssl")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("mirror")
    write_layout(path / "layout", [tar(directory("etc"), (member("etc/x"), b"x" * 300_000))])
    with registry(path / "r") as address:
        for name in ("hub/library/nginx:latest", "plain/app:1"):
            support.push(path / "layout", "latest", f"{address}/{name}")
        yield address


def pull(root: Path, reference: str) -> tuple[Any, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    async def go() -> Any:
        client = ImageClient(str(root / "store"))
        try:
            return await client.pull(reference, progress=events.append)
        finally:
            await client.close()

    return asyncio.run(go()), events


def configure(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    (path / "registries.conf").write_text(text)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path / "registries.conf"))


def test_a_mirror_gives_what_the_registry_would(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(
        monkeypatch,
        tmp_path,
        f"""[[registry]]
prefix = "docker.io"
location = "127.0.0.1:1/nowhere"
[[registry.mirror]]
location = "127.0.0.1:1/dead"
[[registry.mirror]]
location = "{host}/empty"
[[registry.mirror]]
location = "{host}/hub"
[aliases]
"web" = "docker.io/library/nginx"
""",
    )
    record, events = pull(tmp_path, "nginx")
    assert record.reference == "docker.io/library/nginx:latest"
    assert record.repo_digests[0].startswith("docker.io/library/nginx@sha256:"), "the mirror leaves no trace"
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    assert len(warnings) == 2 and "mirror 127.0.0.1:1" in warnings[0] and "404 Not Found" in warnings[1]
    assert pull(tmp_path, "web")[0].id == record.id, "a short name of the aliases"
    with pytest.raises(ImageError, match=r"cannot reach 127\.0\.0\.1:1.*; .* 404 Not Found") as caught:
        pull(tmp_path, "other")
    assert caught.value.retriable


def test_a_blocked_registry_is_not_asked(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, tmp_path, f'[[registry]]\nlocation = "{host}"\nblocked = true\n')
    with pytest.raises(ImageError, match="is blocked in"):
        pull(tmp_path, f"{host}/plain/app:1")


def test_a_file_that_is_none_is_named(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, tmp_path, "= what")
    with pytest.raises(ImageError, match=r"registries\.conf cannot be read"):
        pull(tmp_path, f"{host}/plain/app:1")


def test_tls_on_loopback_and_insecure_registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with a certificate nobody knows: on loopback it is found out that it speaks TLS; elsewhere it takes
    `insecure`, or its authority."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = "subjectAltName=DNS:reg.test,IP:127.0.0.1"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=reg.test",
        "-addext", names, "-keyout", str(key), "-out", str(certificate))  # fmt: skip
    write_layout(tmp_path / "layout", [tar(directory("etc"))])
    with registry(tmp_path / "r", tls=(certificate, key)) as host:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:latest",
            f"docker://{host}/app:1")  # fmt: skip
        pull(tmp_path, f"{host}/app:1")
        port = host.rpartition(":")[2]
        name = f"127.0.0.1.nip.test:{port}"
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 127.0.0.1.nip.test reg.test localhost\n")
        script = (
            f"mount --bind {hosts} /etc/hosts && exec {sys.executable} -m tests.kernel.images_pull_one "
            f"{tmp_path}/other"
        )

        def elsewhere(reference: str, **environment: str) -> str:
            command = ["unshare", "--mount", "sh", "-c", f"{script} {reference}"]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=Path(__file__).parents[2],
                env={**os.environ, **environment},
                check=False,
            )
            return done.stdout + done.stderr

        unknown = elsewhere(f"reg.test:{port}/app:1")
        assert "certificate verify failed" in unknown, unknown
        assert "pulled" in elsewhere(f"reg.test:{port}/app:1", SSL_CERT_FILE=str(certificate))
        wrong_name = elsewhere(f"{name}/app:1", SSL_CERT_FILE=str(certificate))
        assert "certificate" in wrong_name and "pulled" not in wrong_name
        configure(monkeypatch, tmp_path, f'[[registry]]\nlocation = "{name}"\ninsecure = true\n')
        assert "pulled" in elsewhere(f"{name}/app:1")
