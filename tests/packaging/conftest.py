"""Fixtures: the wheel, and environments that also have other packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.machine import missing

REPO = Path(__file__).resolve().parents[2]
#: What another project may call its own packages.
COMMON_NAMES = ("manifests", "runtime", "state")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, to be copied again: builds write into their source."""
    directory = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for path in REPO.iterdir():
        if path.is_file():
            shutil.copy(path, directory)
        elif path.name in ("kubelite", *COMMON_NAMES, "deploy", "docs"):
            shutil.copytree(path, directory / path.name, ignore=ignored)
    return directory


@pytest.fixture(scope="session")
def dist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with what `make wheel` makes: the source archive, and the wheel built from that."""
    made = tmp_path_factory.mktemp("dist")
    checkout = made / "checkout"
    shutil.copytree(source, checkout)  # where a source archive is made, something stays
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(checkout)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("kubelite-*.whl")
    return found


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[Path]:
    if lacking := missing("dpkg-deb"):
        pytest.skip(f"needs {lacking}")
    directory = tmp_path_factory.mktemp("deb")
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "pyseccomp"]
    if subprocess.run(asked, cwd=directory, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("needs a Python package index")
    checkout = directory / "checkout"
    shutil.copytree(source, checkout)
    environ = {**os.environ, "DEB_VERSION": "1.0-1", "DEBFULLNAME": "A Test", "DEBEMAIL": "test@example.org"}
    done = subprocess.run(
        [checkout / "deploy/deb/make"], env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (checkout / "dist").glob("*.deb")
    yield found
    shutil.rmtree(checkout)


def environment(directory: Path) -> Path:
    """A new virtual environment that finds what kubelite depends on, and has packages of another project whose names
    are those of kubelite's; its bin directory."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=120)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = directory / "lib" / version / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in COMMON_NAMES:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(f'WHOSE = "another {name}"\n')
    return directory / "bin"


def install(where: Path, *what: str) -> None:
    """Into this environment, from nowhere but this machine."""
    pip = [str(where / "python"), "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, *what], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
