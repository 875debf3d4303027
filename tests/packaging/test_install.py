"""`make install` and `make uninstall` below a DESTDIR, as packagers use them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[tuple[Path, Path]]:
    """A checkout, and the directory below which it is installed."""
    directory = tmp_path_factory.mktemp("install")
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "pyseccomp"]
    if subprocess.run(asked, cwd=directory, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("needs a Python package index")
    checkout, stage = directory / "checkout", directory / "stage"
    shutil.copytree(source, checkout)
    run(checkout / "deploy/install", stage)
    yield checkout, stage
    shutil.rmtree(directory)


def run(script: Path, stage: Path, **environ: str) -> str:
    environ = {"DESTDIR": str(stage), "PREFIX": "/opt/k", "PYTHON": sys.executable, **environ}
    done = subprocess.run(
        [script], env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dead_links(directory: Path) -> list[str]:
    """The links of installed documents to files that are not installed."""
    found = []
    for document in directory.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                found.append(f"{document.relative_to(directory)}: {target}")
    return found


def files(stage: Path) -> set[str]:
    return {
        str(path.relative_to(stage)) for path in stage.rglob("*") if not path.is_dir() or path.is_symlink()
    }


@pytest.mark.timeout(600)
def test_all_is_below_it_and_then_nothing(staged: tuple[Path, Path]) -> None:
    checkout, stage = staged
    made = files(stage)
    share = "opt/k/share"
    assert {
        "etc/systemd/system/kubelite.service",
        "opt/k/bin/kubelite",
        "opt/k/bin/kubelite-oci",
        f"{share}/man/man1/kubelite.1",
        f"{share}/man/man1/kubelite-oci.1",
        f"{share}/man/man1/kubelite-rollout-undo.1",
        f"{share}/man/man5/kubelite-config.yaml.5",
        f"{share}/bash-completion/completions/kubelite",
        f"{share}/zsh/site-functions/_kubelite-oci",
        f"{share}/fish/vendor_completions.d/kubelite.fish",
        f"{share}/doc/kubelite/README.md",
        f"{share}/doc/kubelite/docs/how-to/install.md",
        f"{share}/doc/kubelite/examples/web.yaml",
        "etc/kubelite/config.yaml",
    } <= made
    assert not dead_links(stage / share / "doc/kubelite")
    assert (stage / "opt/k/bin/kubelite").resolve() == (stage / "opt/k/lib/kubelite/venv/bin/kubelite")
    unit = (stage / "etc/systemd/system/kubelite.service").read_text()
    assert "\nExecStart=/opt/k/bin/kubelite serve\n" in unit
    assert "\nType=notify\n" in unit
    documentation = unit.partition("file:")[2].partition("\n")[0]
    assert (stage / documentation.lstrip("/")).is_file()
    config = stage / "etc/kubelite/config.yaml"
    assert "#max_pods: 1000" in config.read_text()
    assert not [line for line in config.read_text().splitlines() if line and not line.startswith("#")]
    for path in made:
        content = (stage / path).read_bytes() if not (stage / path).is_symlink() else b""
        assert str(stage).encode() not in content, path
    assert not [path for path in made if "/pip/" in path or "/setuptools/" in path]

    (stage / "etc/kubelite/manifests/web.yaml").write_text("kind: Pod")
    run(checkout / "deploy/uninstall", stage)
    assert files(stage) == {"etc/kubelite/manifests/web.yaml"}, "an unedited configuration is removed"
    config.write_text("max_pods: 7\n")
    run(checkout / "deploy/uninstall", stage)
    assert files(stage) == {"etc/kubelite/manifests/web.yaml", "etc/kubelite/config.yaml"}
    run(checkout / "deploy/uninstall", stage, PURGE="1")
    assert files(stage) == set()
