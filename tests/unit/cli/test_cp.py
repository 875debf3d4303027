"""`kubelite cp`, with hostile containers, and the port arguments of `kubelite port-forward`."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubelite.cli.containers.cp import Place, _out, _unpack, place_of
from kubelite.cli.containers.logs import default_container
from kubelite.cli.containers.port_forward import Pair, pair_of
from kubelite.cli.errors import CliError, Exit
from tests.unit.api.server import Served
from tests.unit.cli.kit import KUBELITE, environment, kubelite, ok, server
from tests.waiting import SECONDS, until

__all__ = ["server"]

# the containers of these tests are local processes and use the programs of this machine
needs_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
# PEP 706
needs_filter = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="needs Python 3.11.4")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/etc/hosts", Place("web", "default", "/etc/hosts")),
        ("pod/web:x", Place("web", "pod", "x")),  # the namespace "pod", as in kubectl
        ("prod/api:/x:y", Place("api", "prod", "/x:y")),
        ("file", Place("", "", "file")),
        ("/a:b", Place("", "", "/a:b")),
        ("./a:b", Place("", "", "./a:b")),
    ],
)
def test_arguments_of_cp(text: str, place: Place) -> None:
    assert place_of(text, "default") == place


@pytest.mark.parametrize("text", [":x", "a/b/c:x", "web:", "a/:x"])
def test_invalid_arguments_of_cp(text: str) -> None:
    with pytest.raises(CliError):
        place_of(text, "default")


@needs_tar
def test_no_module_of_the_current_directory_is_imported(server: Served, tmp_path: Path) -> None:
    (tmp_path / "kubelite").mkdir()
    (tmp_path / "kubelite/__init__.py").write_text("raise SystemExit('this package is not ours')")
    (tmp_path / "file").write_text("content")
    command = [str(Path(sys.executable).with_name("kubelite")), "cp", "file", f"web:{tmp_path}/copy"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(server),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "copy").read_text() == "content"


@needs_tar
@needs_filter
def test_copies_in_both_directions(server: Served, tmp_path: Path) -> None:
    tree, there = tmp_path / "tree", tmp_path / "there"
    (tree / "deep").mkdir(parents=True)
    there.mkdir()
    (tree / "deep" / "data").write_bytes(bytes(range(256)) * 1000)
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("/etc/passwd")
    ok(server, "cp", str(tree), f"web:{there}")  # into an existing directory
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
        (("web:a", "-"), 2, "`kubelite exec POD -- cat FILE` prints a file"),
        (("nix:/a", "b"), 1, 'Error from server (NotFound): pods "nix" not found'),
        (("/no/such/file", "web:/tmp"), 1, "/no/such/file doesn't exist in local filesystem"),
    ],
)
def test_errors_of_cp(server: Served, arguments: tuple[str, str], code: int, words: str) -> None:
    done = kubelite(server, "cp", *arguments)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done


@needs_tar
@needs_filter
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("web:/no/such/file", "x"), 1, "/no/such"),
        (
            ("web:/no/such/file", "x"),
            1,
            "error: the copy failed in container app of pod default/web (exit code ",
        ),
        (("web:/etc/hostname", "/no/such/directory/x"), 1, "directory /no/such/directory does not exist"),
    ],
)
def test_errors_of_copies_from_a_container(
    server: Served, arguments: tuple[str, str], code: int, words: str
) -> None:
    done = kubelite(server, "cp", *arguments)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done


def test_an_unsafe_python_version_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with pytest.raises(CliError, match=r"needs Python 3\.11\.4 or newer"):
        _out(["false"], Place("pod", "default", "/f"), str(tmp_path / "f"), "container app")
    assert not list(tmp_path.iterdir())


@needs_filter
def test_a_container_cannot_write_outside_the_destination(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The container controls its tar, which may send any names."""
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


@pytest.mark.parametrize("quiet", [False, True])
def test_the_default_container_is_named_on_stderr_alone(
    quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """stdout belongs to the command: when copying from a pod with several containers, it is an archive."""
    pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "app"}, {"name": "side"}]}}
    assert default_container(pod, quiet=quiet) == "app"
    said = capsys.readouterr()
    assert said.out == "" and ("Defaulted container" in said.err) is not quiet


def _archive(*members: tuple[str, bytes, str]) -> bytes:
    """An archive with members of this name, type and link target. A regular file's content is given as its link
    target."""
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w") as archive:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(link)
                archive.addfile(member, io.BytesIO(link.encode()))
            else:
                member.linkname = link
                archive.addfile(member)
    return told.getvalue()


# in place of `kubelite exec … POD -- COMMAND`
RUN = ["sh", "-c", 'shift; exec "$@"']


def _hostile_tar(directory: Path, output: bytes, code: int = 0) -> str:
    """A PATH whose `tar` writes these bytes."""
    directory.mkdir()
    (directory / "answer").write_bytes(output)
    program = directory / "tar"
    program.write_text(f"#!/bin/sh\ncat {directory}/answer\nexit {code}\n")
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


@needs_filter
@pytest.mark.parametrize(
    "members",
    [
        [("f", tarfile.LNKTYPE, "f/.bashrc"), ("f", tarfile.REGTYPE, "bad")],
        [("f", tarfile.LNKTYPE, ".bashrc"), ("f", tarfile.REGTYPE, "bad")],
        [("f", tarfile.DIRTYPE, ""), ("f/../.bashrc", tarfile.REGTYPE, "bad")],
        [("f", tarfile.SYMTYPE, ".bashrc"), ("f", tarfile.REGTYPE, "bad")],
    ],
)
def test_a_hostile_tar_cannot_write_to_other_files(
    tmp_path: Path, members: list[tuple[str, bytes, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hard link to another file of the directory, then a file of the same name, which would be written through the
    link."""
    monkeypatch.setenv("PATH", _hostile_tar(tmp_path / "bin", _archive(*members)))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("mine")
    with contextlib.suppress(CliError, Exit, OSError):
        _out(RUN, Place("pod", "default", "/f"), str(home / "f"), "container app")
    assert (home / ".bashrc").read_text() == "mine" and (home / ".bashrc").stat().st_nlink == 1
    assert {path.name for path in home.iterdir()} <= {".bashrc", "f"}


@needs_filter
@pytest.mark.parametrize(("output", "code"), [(b"", 0), (b"Defaulted container\n" * 100, 0), (b"", 2)])
def test_output_that_is_not_an_archive_is_an_error(
    tmp_path: Path, output: bytes, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", _hostile_tar(tmp_path / "bin", output, code))
    with pytest.raises(Exit if code else CliError):
        _out(RUN, Place("pod", "default", "/f"), str(tmp_path / "f"), "container app")
    assert not (tmp_path / "f").exists()


@contextlib.contextmanager
def _slow_copy(server: Served, directory: Path, *shell: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `kubelite cp` to `directory` whose container has sent half of a file. It sends the rest at the end."""
    (bin_ := directory.parent / "bin").mkdir()
    whole = _archive(("f", tarfile.REGTYPE, "x" * 2_000_000))
    (bin_ / "half").write_bytes(whole[:1_000_000])
    (bin_ / "rest").write_bytes(whole[1_000_000:])
    (bin_ / "tar").write_text(
        f"#!/bin/sh\ncd {bin_}\ncat half\nuntil [ -e go ]; do sleep 0.05; done\nexec cat rest\n"
    )
    (bin_ / "tar").chmod(0o755)
    directory.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
        command = [*shell, *KUBELITE, "cp", "web:/f", str(directory / "f")]
        process = subprocess.Popen(command, env=environment(server), start_new_session=True)
        try:
            until(
                lambda: any(p.stat().st_size for p in directory.glob(".kubelite-cp-*/f")), "half of the file"
            )
            yield process
        finally:
            (bin_ / "go").touch()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)


@needs_filter
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg])  # killpg: as when a terminal is closed
def test_a_copy_that_a_signal_ends_leaves_nothing(
    server: Served, tmp_path: Path, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    listening = ("env", "--default-signal=TERM,HUP")  # the tests themselves may run under nohup
    with _slow_copy(server, tmp_path / "there", *listening) as process:
        send(process.pid, number)
        assert process.wait(SECONDS) == -number
        assert list((tmp_path / "there").iterdir()) == []


@needs_filter
def test_a_copy_under_nohup_goes_on(server: Served, tmp_path: Path) -> None:
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with _slow_copy(server, tmp_path / "there", *ignoring) as process:
        os.killpg(process.pid, signal.SIGHUP)
        (tmp_path / "bin" / "go").touch()
        assert process.wait(SECONDS) == 0
        assert [(p.name, p.stat().st_size) for p in (tmp_path / "there").iterdir()] == [("f", 2_000_000)]


@needs_filter
def test_a_copy_into_a_directory_retains_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _archive(
        ("d", tarfile.DIRTYPE, ""), ("d/new", tarfile.REGTYPE, "1"), ("d/old", tarfile.REGTYPE, "2")
    )
    monkeypatch.setenv("PATH", _hostile_tar(tmp_path / "bin", told))
    (tmp_path / "d").mkdir()
    for name in ("old", "other"):
        (tmp_path / "d" / name).write_text("0")
    _out(RUN, Place("pod", "default", "/d"), str(tmp_path), "container app")
    assert {p.name: p.read_text() for p in (tmp_path / "d").iterdir()} == {
        "new": "1",
        "old": "2",
        "other": "0",
    }


def test_arguments_of_port_forward(server: Served) -> None:
    assert [pair_of(text) for text in ("8080:80", "80", ":80", "0:80")] == [
        Pair(8080, 80), Pair(80, 80), Pair(0, 80), Pair(0, 80),
    ]  # fmt: skip
    for text in ("80:", "a:80", "80:0", "65536:1", "1:2:3", "-1", "²"):
        with pytest.raises(CliError):
            pair_of(text)
    done = kubelite(server, "port-forward", "web", "8080:http")
    assert done.returncode == 2 and "invalid ports" in done.stderr
    done = kubelite(server, "port-forward", "nix", "80")
    assert done.returncode == 1 and 'pods "nix" not found' in done.stderr
