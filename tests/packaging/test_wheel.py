"""The wheel: nothing of it but `kubelite` is at the top of site-packages, and it works beside packages that are called
as the parts of it are."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import programs
from tests.e2e.conftest import missing
from tests.e2e.manifests import container, pod
from tests.e2e.node import IMAGE, Node
from tests.packaging.conftest import COMMON_NAMES, environment, install


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    where = environment(tmp_path_factory.mktemp("environment"))
    install(where, str(wheel))
    return where


def run(*command: str | Path, fails: bool = False, directory: Path | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=directory or "/"
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_nothing_but_kubelite_is_at_the_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top_level,) = (name for name in names if name.endswith("/top_level.txt"))
        assert archive.read(top_level).split() == [b"kubelite"]
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kubelite"}
    assert {"kubelite/cli/main.py", "kubelite/_packages/runtime/oci/cli/main.py"} <= set(names)
    assert "kubelite/telemetry/web/static/kubelite.css" in names
    assert {"kubelite/_packages/state/__init__.py", "kubelite/_packages/manifests/py.typed"} <= set(names)


def test_the_source_archive_is_the_checkout(dist: Path) -> None:
    (path,) = dist.glob("kubelite-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("Makefile", "setup.py", "deploy/install", "deploy/kubelite.service", "runtime/oci/init.py")
    assert set(wanted) <= names
    assert not [name for name in names if "__pycache__" in name]


def test_packages_of_the_same_name_do_not_conflict(installed: Path) -> None:
    python = installed / "python"
    for name in COMMON_NAMES:
        assert run(python, "-c", f"import {name}; print({name}.WHOSE)") == f"another {name}\n"
    assert run(installed / "kubelite", "version", "--client").startswith("Client Version: ")
    assert run(python, "-m", "kubelite", "version", "--client").startswith("Client Version: ")
    assert run(installed / "kubelite-oci", "--version").startswith("kubelite-oci version ")
    ours = run(python, "-c", "import kubelite, runtime, state; print(runtime.__file__, state.__file__)")
    assert ours.count("/kubelite/_packages/") == 2


def test_a_package_that_is_imported_already_is_named(installed: Path) -> None:
    said = run(installed / "python", "-c", "import runtime, kubelite", fails=True)
    assert "kubelite needs its own package 'runtime', but " in said
    assert "site-packages/runtime/__init__.py is already imported" in said


@pytest.mark.parametrize("mode", ["lenient", "strict", "compat"])
def test_an_editable_install_finds_the_checkout(tmp_path: Path, source: Path, mode: str) -> None:
    """Not beside packages of the same names: these are at the top there, too."""
    checkout = tmp_path / "checkout"
    shutil.copytree(source, checkout)
    where = environment(tmp_path / "environment")
    install(where, "--config-settings", f"editable_mode={mode}", "--editable", str(checkout))
    assert run(where / "kubelite", "version", "--client").startswith("Client Version: ")
    assert run(where / "kubelite-oci", "--version").startswith("kubelite-oci version ")
    assert run(where / "python", "-c", "import runtime; print(runtime.WHOSE)") == "another runtime\n"


def test_the_fast_command_is_written_into_an_environment(tmp_path: Path, wheel: Path) -> None:
    """As in `make install`."""
    where = environment(tmp_path)
    install(where, str(wheel))
    run(Path(__file__).parents[2] / "deploy/oci-command", tmp_path)
    assert run(where / "kubelite-oci", "--version").startswith("kubelite-oci version ")
    assert "-ISE" in (where / "kubelite-oci").read_text().partition("\n")[0]


@pytest.mark.kernel
def test_a_node_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Daemon, forkserver, network helper and image worker each start an interpreter."""
    if lacking := missing():
        pytest.skip(f"needs {lacking}")
    node = Node(tmp_path, program=(str(installed / "kubelite"),))
    node.prepare()
    try:
        node.start()
        node.cli("image", "pack", programs.PACKED_BUSYBOX, "-t", IMAGE)
        node.apply("p.yaml", pod("p", container()))
        node.wait_status("p", "Running")
        done = run(
            installed / "kubelite", "--socket", node.run_dir / "kubelite.sock", "exec", "p", "--", "id", "-u"
        )
        assert done == "0\n"
        assert not node.doctor()
    finally:
        node.destroy()
    assert not node.leftovers()
