"""The file with the command's modules: which modules a command loads from it, and that stale code never runs."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.oci.cli.startup import bundle
from runtime.oci.cli.store import VERSION

REPO = Path(__file__).resolve().parents[4]
# The modules of ours that each quick command imports. An additional import at the top of one of them would cost all
# commands a millisecond.
SHORT = {
    "runtime", "runtime.errors", "runtime.oci", "runtime.oci.cli", "runtime.oci.cli.context", "runtime.oci.cli.startup",
    "runtime.oci.cli.startup.stdlib_stubs", "runtime.oci.cli.startup.stdlib_stubs_os", "runtime.oci.cli.lifecycle",
    "runtime.oci.cli.main", "runtime.oci.cli.options", "runtime.oci.cli.store", "runtime.oci.config",
    "runtime.oci.config.shape", "runtime.oci.termination",
}  # fmt: skip


@pytest.fixture
def command(tmp_path: Path) -> Path:
    return made_in(tmp_path)


def made_in(directory: Path, *, stage: Path | None = None) -> Path:
    """Make a copy of the engine with its own bundle and launcher. `stage`: see bundle's --staged."""
    for room in ("oci", "cgroups", "security"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPO / "runtime" / room, directory / "runtime" / room, ignore=ignored)
    for name in ("__init__", "errors", "syscalls"):
        shutil.copy(REPO / "runtime" / f"{name}.py", directory / "runtime")
    made = directory / "kubelite-oci"
    arguments = [*(("--staged", str(stage)) if stage else ()), f"{directory}/home", str(made), str(directory)]
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runtime.oci.cli.startup import bundle; bundle.main()"
    subprocess.run([sys.executable, "-I", "-c", code, str(directory), *arguments], check=True)
    return made


def run(command: Path, *words: str) -> str:
    done = subprocess.run(
        [command, "--root", f"{command}.root", *words], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def imported(command: Path, *words: str) -> set[str]:
    """The names in sys.modules when the command has finished."""
    text = command.read_text().replace("main()\n", "import posix\nexit = posix._exit\ndef told(code):\n"
        "    print('\\n#', *sys.modules, file=sys.stderr, flush=True)\n    exit(code)\n"
        "sys.modules['os'].getpid\nsys.modules['os']._exit = told\nmain()\n")  # fmt: skip
    telling = command.with_name("telling")
    telling.write_text(text)
    telling.chmod(0o755)
    return set(run(telling, *words).rpartition("#")[2].split())


def test_it_has_every_module() -> None:
    every = [name for members in bundle.sets() for name in members]
    assert sorted(every) == sorted(set(every))
    assert {"runtime.oci.init", "runtime.cgroups.v2", "runtime.security.seccomp", "runtime.errors"} <= set(
        every
    )
    assert not [name for name in every if name.startswith("runtime.shim")]
    assert sorted(bundle.names()) == sorted(every)


def test_a_checkout_at_a_long_path_has_a_bundle_too(tmp_path: Path) -> None:
    """The index contains the sources' paths."""
    directory = tmp_path / ("x" * 100) / ("y" * 100)
    directory.mkdir(parents=True)
    assert "runtime.oci.cli.lifecycle" in imported(made_in(directory), "start", "x")


@pytest.mark.parametrize("words", [("start", "x"), ("kill", "x"), ("delete", "x"), ("state", "x"), ("list",)])
def test_a_short_command_takes_little(command: Path, words: tuple[str, ...]) -> None:
    seen = imported(command, *words)
    ours = {name for name in seen if name.partition(".")[0] == "runtime"}
    assert ours == SHORT | ({"runtime.oci.cli.report"} if words[0] in ("state", "list") else set())
    heavy = {
        name for name in ("ctypes", "_ctypes", "_collections_abc", "types", "re", "pwd", "termios")
    } & seen
    assert not heavy - {"ctypes"}  # ctypes is an unused stub


def test_a_container_loads_only_the_engine(command: Path) -> None:
    seen = imported(command, "run", "--bundle", "/nonexistent", "x")
    assert "runtime.oci.container" in seen
    if sys.version_info < (3, 13):
        seen -= {"collections"}  # a stub there; the real one would bring _collections_abc
    assert not seen & {
        "runtime.oci.rootfs.idmap", "runtime.oci.optional.intel_rdt", "runtime.oci.optional.netdevices",
        "runtime.oci.optional.notify", "runtime.oci.cli.console", "runtime.oci.cli.report", "runtime.oci.cli.processes",
        "runtime.cgroups.systemd", "runtime.cgroups.reading.reader", "runtime.cgroups.reading.stats",
        "runtime.cgroups.no_cgroup", "runtime.security.seccomp", "re", "types", "pwd",
        "_collections_abc", "traceback", "warnings", "tokenize", "selectors", "weakref", "collections", "subprocess",
    }  # fmt: skip


def test_a_changed_source_invalidates_the_bundle(command: Path) -> None:
    assert f"version {VERSION}" in run(command, "--version")
    source = command.parent / "runtime/oci/cli/store.py"
    source.write_text(source.read_text().replace(f'"{VERSION}"', '"7.7.7"'))
    assert "version 7.7.7" in run(command, "--version")


def test_a_change_of_a_lazily_loaded_module_counts(command: Path) -> None:
    source = command.parent / "runtime/oci/cli/report.py"
    source.write_text(source.read_text().replace("def list_(", "print('changed')\n\n\ndef list_("))
    assert "changed" in run(command, "list")


@pytest.mark.parametrize(
    "damage", [b"", b"x", b"x" * 200_000, None], ids=["empty", "short", "long", "missing"]
)
def test_without_the_bundle_the_command_works(command: Path, damage: bytes | None) -> None:
    file = command.parent / "home/modules"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    assert f"version {VERSION}" in run(command, "--version")
    assert json.loads(run(command, "features"))["ociVersionMax"] == "1.3.0"


def test_a_file_of_another_interpreter_is_not_read(command: Path) -> None:
    file = command.parent / "home/modules"
    with open(file, "r+b") as opened:
        opened.write((sys.hexversion + 1).to_bytes(4, "little"))
        opened.write(b"\xff" * 1000)
    assert f"version {VERSION}" in run(command, "--version")


def test_another_release_of_the_same_version_reads_it(command: Path) -> None:
    """As after a security update of the distribution's Python."""
    other = sys.hexversion ^ 0x0300  # the micro version
    text = command.read_text().replace("import sys\n", f"import sys\nsys.hexversion = {other}\n", 1)
    command.write_text(text)
    assert _loaders(command) == {"Sets"}


def test_a_stage_is_in_no_path(tmp_path: Path) -> None:
    """While a package is built, its files are not yet at their final place."""
    stage, place = tmp_path / "stage", tmp_path / "place"
    staged = stage / str(place).lstrip("/")
    staged.mkdir(parents=True)
    command = made_in(staged, stage=stage)
    staged.rename(place)
    shutil.rmtree(stage)
    for path in (place / command.name, *(place / "home").rglob("*")):
        assert path.is_dir() or str(stage).encode() not in path.read_bytes(), path
    assert _loaders(place / command.name) == {"Sets"}


def _loaders(command: Path) -> set[str]:
    """The names of the loaders of the command's modules; only `Sets` means the single file."""
    text = command.read_text().replace("main()\n", "print({type(module.__spec__.loader).__name__ if module.__spec__ "
        "else 'Sets' for name, module in sys.modules.items() if name.startswith('runtime')})\n")  # fmt: skip
    telling = command.with_name("telling")
    telling.write_text(text)
    telling.chmod(0o755)
    return set(ast.literal_eval(run(telling)))


def test_a_file_that_is_replaced_meanwhile_is_not_mixed(command: Path) -> None:
    """The index belongs to the file that was read first."""
    other = command.with_name("other")
    other.write_bytes(os.urandom(1 << 20))
    text = command.read_text().replace("main()\n", f"import posix\nposix.rename({str(other)!r}, "
        f"{str(command.parent / 'home/modules')!r})\nmain()\n")  # fmt: skip
    racing = command.with_name("racing")
    racing.write_text(text)
    racing.chmod(0o755)
    assert json.loads(run(racing, "features"))["ociVersionMax"] == "1.3.0"


def test_it_keeps_no_descriptor(command: Path) -> None:
    text = command.read_text().replace(
        "main()\n", "import posix\nprint(*posix.listdir('/proc/self/fd'))\nmain()\n"
    )
    looking = command.with_name("looking")
    looking.write_text(text)
    looking.chmod(0o755)
    assert run(looking, "list").splitlines()[0].split() == ["0", "1", "2", "3"]  # 3: the listing's own


def with_its_python(command: Path, code: str, **environment: str) -> str:
    """Run code with the command's interpreter."""
    python = command.parent / "home/python"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, env=environment)
    return done.stdout + done.stderr


def test_its_interpreter_knows_utf_8_alone_until_asked(command: Path) -> None:
    code = "import sys; print('encodings.aliases' in sys.modules, sys.stdout.encoding, 'ä€'.encode('utf-8').decode())"
    assert with_its_python(command, code) == "False utf-8 ä€\n"
    text = "b'a\\xff'.decode('utf-8', 'replace'), 'ä'.encode('UTF8')"
    assert with_its_python(command, f"print(({text}))") == f"{eval(text)}\n"


def test_its_utf_8_is_the_standard_librarys(command: Path) -> None:
    """Decoding in pieces, by stream and by name. `codecs` is imported only when used."""
    code = (
        "import sys; print('codecs' in sys.modules)\n"
        "import codecs, io\n"
        "found = codecs.lookup('utf-8')\n"
        "raw = 'aä€𐍈\\n'.encode()\n"
        "decoder, encoder = found.incrementaldecoder(), codecs.getincrementalencoder('utf-8')('replace')\n"
        "print([decoder.decode(raw[i:i + 1]) for i in range(len(raw))], decoder.getstate())\n"
        "print(encoder.encode('ä\\udc80'))\n"
        "decoder.decode(raw[:2]); state = decoder.getstate(); decoder.reset(); decoder.setstate(state)\n"
        "print(state, decoder.decode(raw[2:], True), found.decode(raw), found.encode('ä'), found.name)\n"
        "try: codecs.getincrementaldecoder('utf-8')().decode(raw[:2], True)\n"
        "except UnicodeDecodeError as error: print(error)\n"
        "print(codecs.getreader('utf-8')(io.BytesIO(raw)).read(), found[2](io.BytesIO(raw)).readlines())\n"
        "for writer in (codecs.getwriter('utf-8'), found[3]):\n"
        " into = io.BytesIO(); writer(into).write('ä'); print(into.getvalue())\n"
        "text = io.TextIOWrapper(io.BytesIO(raw * 9), encoding='utf-8'); text.readline()\n"
        "at = text.tell(); line = text.readline(); text.seek(at); print(at, line == text.readline())\n"
    )
    whole = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert with_its_python(command, code).splitlines() == ["False", *whole.stdout.splitlines()[1:]]


def test_its_interpreter_finds_the_other_encodings(command: Path) -> None:
    code = (
        "import codecs, encodings.idna\n"
        "print('ä'.encode('latin2'), 'ä'.encode('idna'), b'ab'.decode('cp1252'), codecs.lookup('rot13').name)\n"
        "try: 'a'.encode('no-such')\nexcept LookupError as error: print(error)"
    )
    assert with_its_python(command, code) == "b'\\xe4' b'xn--4ca' ab rot-13\nunknown encoding: no-such\n"
    assert with_its_python(command, "print('unharmed')", LC_ALL="POSIX") == "unharmed\n"


def test_no_encoding_is_looked_for_where_nothing_may_be_imported(command: Path) -> None:
    """In a container's init, the interpreter's directories would be the container's files (CVE-2019-14271)."""
    code = (
        "import sys; sys.meta_path.clear()\n"
        "try: 'a'.encode('cp1252')\nexcept LookupError as error: print(error)\n"
        "print('ä'.encode('utf-8'), 'encodings.aliases' in sys.modules)"
    )
    assert with_its_python(command, code) == "unknown encoding: cp1252\nb'\\xc3\\xa4' False\n"


def test_without_its_interpreters_directory_it_runs_all_the_same(command: Path) -> None:
    """As with an interpreter that does not support ._pth files."""
    (command.parent / "home/python._pth").unlink()
    assert f"version {VERSION}" in run(command, "--version")


def test_a_failed_import_leaves_no_partial_module(command: Path) -> None:
    code = (
        f"import sys, posix, marshal; sys.path.append({str(command.parent)!r})\n"
        "from runtime.oci.cli.startup import boot\n"
        "bad = compile('x = 1 / 0', 'bad', 'exec')\ngood = compile('y = 2', 'good', 'exec')\n"
        "members = [('good', False, 'good', good), ('bad', False, 'bad', bad), ('late', False, 'late', good)]\n"
        "try: boot._execute(members)\n"
        "except ZeroDivisionError: print(sorted({'good', 'bad', 'late'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['good']\n"


@pytest.mark.parametrize(
    "source", ["errors", "oci/init", "oci/cli/startup/boot", "cgroups/v1", "security/seccomp"]
)
def test_make_rewrites_the_bundle_for_a_changed_source(tmp_path: Path, source: str) -> None:
    """Otherwise the command of an updated checkout would start as slowly as without the file."""
    home = tmp_path / "lib/kubelite-oci"
    home.mkdir(parents=True)
    (tmp_path / ".ready").touch()
    (home / "modules").touch()
    command = ["make", "--dry-run", "setup", f"VENV={tmp_path}"]
    bare = {
        key: value for key, value in os.environ.items() if not key.startswith("MAKE")
    }  # of the one that tests
    for more, todo in (([], False), ([f"--what-if=runtime/{source}.py"], True)):
        done = subprocess.run(
            [*command, *more], cwd=REPO, env=bare, capture_output=True, text=True, check=True
        )
        assert (f"deploy/oci-command {tmp_path}" in done.stdout) == todo
