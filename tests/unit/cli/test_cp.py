"""`kubelite cp`, and the ports of `kubelite port-forward`: their grammar, and what a container may say of its files."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from kubelite.cli.containers.cp import Place, _unpack, place_of
from kubelite.cli.containers.port_forward import Pair, pair_of
from kubelite.cli.errors import CliError
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server

__all__ = ["server"]

# the containers of these tests are processes of this machine, and so are their programs
needs_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/etc/hosts", Place("web", "default", "/etc/hosts")),
        ("pod/web:x", Place("web", "pod", "x")),  # the namespace pod, as kubectl has it
        ("prod/api:/x:y", Place("api", "prod", "/x:y")),
        ("file", Place("", "", "file")),
        ("/a:b", Place("", "", "/a:b")),
        ("./a:b", Place("", "", "./a:b")),
    ],
)
def test_what_a_place_is(text: str, place: Place) -> None:
    assert place_of(text, "default") == place


@pytest.mark.parametrize("text", [":x", "a/b/c:x", "web:", "a/:x"])
def test_what_no_place_is(text: str) -> None:
    with pytest.raises(CliError):
        place_of(text, "default")


@needs_tar
def test_there_and_back(server: Served, tmp_path: Path) -> None:
    tree, there = tmp_path / "tree", tmp_path / "there"
    (tree / "deep").mkdir(parents=True)
    there.mkdir()
    (tree / "deep" / "data").write_bytes(bytes(range(256)) * 1000)
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("/etc/passwd")
    ok(server, "cp", str(tree), f"web:{there}")  # into a directory that is there
    ok(server, "cp", str(tree), f"default/web:{there}/other")  # under another name
    for name in ("tree", "other"):
        assert (there / name / "deep" / "data").read_bytes() == (tree / "deep" / "data").read_bytes()
        assert os.readlink(there / name / "link") == "/etc/passwd"
    done = kubelite(server, "cp", f"web:{there}/tree", str(tmp_path / "back"))
    assert done.returncode == 0 and "skipping symlink: tree/link -> /etc/passwd" in done.stderr
    back = tmp_path / "back"
    assert (back / "deep" / "data").read_bytes() == (tree / "deep" / "data").read_bytes()
    assert os.access(back / "run", os.X_OK) and not os.path.lexists(back / "link")
    ok(server, "cp", f"web:{there}/tree/run", str(back))
    ok(server, "cp", f"web:{there}/tree/run", str(back / "named"))
    assert (back / "named").read_text() == (back / "run").read_text() == "#!/bin/sh\n"


@needs_tar
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("a", "b"), 2, "one of src or dest must be a remote file specification"),
        (("web:a", "db:b"), 2, "one of src or dest must be a local file specification"),
        (("nix:/a", "b"), 1, 'Error from server (NotFound): pods "nix" not found'),
        (("/no/such/file", "web:/tmp"), 1, "/no/such/file doesn't exist in local filesystem"),
        (("web:/no/such/file", "x"), 1, "/no/such"),
        (("web:/etc/hostname", "/no/such/directory/x"), 1, "there is no directory /no/such/directory"),
    ],
)
def test_what_cannot_be_copied(server: Served, arguments: tuple[str, str], code: int, words: str) -> None:
    done = kubelite(server, "cp", *arguments)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done


def test_a_container_writes_nowhere_but_where_it_was_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tar is its own: it may name what it likes."""
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w") as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"bad"))

        add("d", tarfile.DIRTYPE)
        add("d/good")
        for name in ("other", "d/../beside", "/d/absolute", "d/../../above", "dd/x"):
            add(name)
        add("d/out", tarfile.SYMTYPE, "../beside")
        add("d/out/through")
        add("d/hard", tarfile.LNKTYPE, "d/../beside/file")
        add("d/device", tarfile.CHRTYPE)
        add("d/same", tarfile.LNKTYPE, "d/good")
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "file").write_text("mine")
    told.seek(0)
    with tarfile.open(fileobj=told, mode="r|") as archive:
        for member in archive:
            _unpack(archive, member, "d", str(tmp_path / "target"))
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"beside/file", "target/good", "target/out/through", "target/same"}
    assert (beside / "file").read_text() == "mine" and not (tmp_path / "target" / "out").is_symlink()
    assert len(capsys.readouterr().err.splitlines()) == 8


def test_what_a_pair_of_ports_is(server: Served) -> None:
    assert [pair_of(text) for text in ("8080:80", "80", ":80", "0:80")] == [
        Pair(8080, 80), Pair(80, 80), Pair(0, 80), Pair(0, 80),
    ]  # fmt: skip
    for text in ("80:", "a:80", "80:0", "65536:1", "1:2:3", "-1", "²"):
        with pytest.raises(CliError):
            pair_of(text)
    done = kubelite(server, "port-forward", "web", "8080:http")
    assert done.returncode == 2 and "is no pair of ports" in done.stderr
    done = kubelite(server, "port-forward", "nix", "80")
    assert done.returncode == 1 and 'pods "nix" not found' in done.stderr
