"""`-k DIR`: kustomize or kubectl builds, and the result is applied, compared or deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.objects.kustomize import built
from tests.unit.api.server import Served
from tests.unit.cli.kit import WEB, kubelite, ok, server

__all__ = ["server"]

OVERLAY = "resources: [web.yaml]\nnamePrefix: test-\n"
needs_builder = pytest.mark.skipif(
    not (shutil.which("kustomize") or shutil.which("kubectl")), reason="needs kubectl or kustomize"
)


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    directory = tmp_path / "overlay"
    directory.mkdir()
    (directory / "kustomization.yaml").write_text(OVERLAY)
    (directory / "web.yaml").write_text(WEB)
    return directory


@needs_builder
def test_a_kustomization_is_built_and_applied(server: Served, overlay: Path) -> None:
    assert ok(server, "apply", "-k", str(overlay)) == "pod/test-nginx created\n"
    written = Path(server.node.manifests_dir, "overlay.yaml")
    assert "name: test-nginx" in written.read_text()
    assert ok(server, "apply", "-k", f"{overlay}/") == "pod/test-nginx unchanged\n"
    assert ok(server, "diff", "-k", str(overlay)) == ""
    assert ok(server, "delete", "-k", str(overlay), "--no-wait").startswith('pod "test-nginx" deleted')
    assert not written.exists()


@needs_builder
def test_a_kustomization_is_created_once(server: Served, overlay: Path) -> None:
    assert ok(server, "create", "-k", str(overlay)) == "pod/test-nginx created\n"
    done = kubelite(server, "create", "-k", str(overlay))
    assert done.returncode == 1 and "already exists" in done.stderr


@needs_builder
def test_what_cannot_be_built_is_said(server: Served, overlay: Path) -> None:
    (overlay / "web.yaml").unlink()
    done = kubelite(server, "apply", "-k", str(overlay))
    assert done.returncode == 1
    assert str(overlay) in done.stderr and "failed: " in done.stderr and "web.yaml" in done.stderr
    done = kubelite(server, "apply", "-k", str(overlay), "-f", "x.yaml")
    assert done.returncode == 2 and "only one of -f or -k" in done.stderr


def test_without_a_builder_the_package_is_named(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        CliError, match=r"needs the program kustomize or kubectl: `apt-get install kustomize`"
    ):
        built(str(overlay))


def test_kustomize_precedes_kubectl(overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kubectl", "kustomize"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "# {name} $*"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.chdir(overlay)
    assert built(".") == ("overlay.yaml", b"# kustomize build -- .\n")
    (tmp_path / "kustomize").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "kubectl").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(CliError, match=r"kubectl kustomize \. failed"):
        built(".")


@pytest.mark.parametrize(
    "text", [OVERLAY, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"]
)
def test_a_kustomization_among_the_manifests_is_explained(server: Served, tmp_path: Path, text: str) -> None:
    file = tmp_path / "kustomization.yaml"
    file.write_text(text)
    done = kubelite(server, "apply", "-f", str(file))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {file}:1: a kustomization is not applied itself: keep it outside the manifest directory, and "
        "`kubelite apply -k DIR` writes the objects that it makes\n"
    )
