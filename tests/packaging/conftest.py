"""What is installed: the wheel, in environments that have other packages, too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
#: What another project may call its own packages.
COMMON_NAMES = ("manifests", "runtime", "state")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from: builds write into their source."""
    if find_spec("build") is None:
        pytest.skip("needs the Python package build: make setup")
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "setuptools>=77"]
    if subprocess.run(asked, cwd=tmp_path_factory.mktemp("asked"), check=False, timeout=120).returncode:
        pytest.skip("needs a package index with setuptools")
    directory = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for path in REPO.iterdir():
        if path.is_file():
            shutil.copy(path, directory)
        elif path.name in ("kubelite", *COMMON_NAMES, "deploy", "docs"):
            shutil.copytree(path, directory / path.name, ignore=ignored)
    return directory


@pytest.fixture(scope="session")
def dist(source: Path) -> Path:
    """The directory with what `make wheel` makes: the source archive, and the wheel built from that."""
    build = [sys.executable, "-m", "build", "--outdir", str(source / "dist"), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist"


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("kubelite-*.whl")
    return found


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
    """Into this environment, alone."""
    pip = [str(where / "python"), "-m", "pip", "install", "--no-deps"]
    done = subprocess.run([*pip, *what], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
