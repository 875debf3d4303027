# mypy: disable-error-code="call-arg,misc,untyped-decorator"
"""The stubs behave like the originals as far as the engine uses them, and the command runs with them."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.oci.cli.startup import bundle

stubs: Any = importlib.import_module("runtime.oci.cli.startup.stdlib_stubs")
stubs_os: Any = importlib.import_module("runtime.oci.cli.startup.stdlib_stubs_os")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
_json: dict[str, Any] = stubs._json()


@given(value=JSON)
def test_json_is_the_same(value: Any) -> None:
    text = json.dumps(value)
    assert _json["dumps"](value) == text
    assert _json["loads"](text) == _json["loads"](text.encode()) == _json["loads"](f" {text}\n") == value


@given(value=JSON, indent=st.integers(0, 4) | st.just("\t"))
def test_indented_json_is_the_same(value: Any, indent: int | str) -> None:
    assert _json["dumps"](value, indent=indent) == json.dumps(value, indent=indent)


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a":1} x', "nul", '"\\x"', "\0", "[1"])
def test_invalid_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        _json["loads"](text)


def test_the_commands_words_about_bad_json_are_the_same() -> None:
    """The scanner raises an error from json.decoder, which must not require the rest of the real module."""
    texts = ['{"a" 1}', '{"a":\n 1,}', '"\\x"', "[1", "[1,]", "", " \n ", "\n nul", " {} \n x", "[1]]"]
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parents[4])!r}]\n"
        "from runtime.oci.cli.startup.stdlib_stubs import install; install()\nimport json\n"
        f"for text in {texts!r}:\n try: json.loads(text)\n except ValueError as error: print(error)\n"
        "print('re' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-ISE", "-c", code], capture_output=True, text=True, check=False)
    words = []
    for text in texts:
        with pytest.raises(ValueError, match=r".+") as caught:
            json.loads(text)
        words.append(str(caught.value))
    assert done.stdout.splitlines() == [*words, "False"], done.stderr


def stacks() -> Iterator[type[Any]]:
    yield contextlib.ExitStack
    yield stubs._ExitStack


@pytest.mark.parametrize("kind", list(stacks()))
def test_exit_stack_runs_all_in_reverse(kind: type[Any]) -> None:
    seen: list[int] = []
    with pytest.raises(KeyError, match="second"), kind() as stack:
        stack.callback(seen.append, 1)
        stack.callback(lambda: (_ for _ in ()).throw(KeyError("second")))
        stack.callback(seen.append, 3)
        raise ValueError("first")
    assert seen == [3, 1]


@pytest.mark.parametrize("kind", list(stacks()))
def test_exit_stack_pop_all(kind: type[Any]) -> None:
    seen: list[int] = []
    with kind() as stack:
        stack.callback(seen.append, 1)
        kept = stack.pop_all()
    assert seen == []
    kept.close()
    assert seen == [1]


@pytest.mark.parametrize("kind", list(stacks()))
def test_exit_stack_enters_what_may_swallow(kind: type[Any]) -> None:
    with kind() as stack:
        stack.enter_context(contextlib.suppress(ValueError))
        raise ValueError("swallowed")


@pytest.mark.parametrize("make", [contextlib.contextmanager, stubs._contextmanager])
def test_context_manager(make: Any) -> None:
    seen: list[str] = []

    @make
    def managed() -> Iterator[int]:
        try:
            yield 7
        finally:
            seen.append("left")

    with managed() as value:
        assert value == 7
    with pytest.raises(ValueError, match="through"), managed():
        raise ValueError("through")
    assert seen == ["left", "left"]


def test_suppress_only_its_types() -> None:
    with stubs._suppress(KeyError, OSError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="not"), stubs._suppress(KeyError):
        raise ValueError("not")


def test_dataclass() -> None:
    @stubs._dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 2
        rest: list[int] = stubs._field(default_factory=list)

    one, two = Point(1), Point(x=3, y=4)
    assert (one.x, one.y, one.rest, two.x, two.y) == (1, 2, [], 3, 4)
    assert one.rest is not two.rest
    wrongs: list[tuple[Any, ...]] = [(), (1, 2, [], 4)]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            Point(*wrong)
    with pytest.raises(TypeError):
        Point(1, z=1)


def test_named_tuple() -> None:
    meta: Any = stubs._NamedTupleMeta
    kind = meta("Pair", (stubs._NamedTuple,), {"__annotations__": {"a": int, "b": int}, "b": 5})
    assert kind(1) == (1, 5)
    assert kind(b=2, a=3).a == 3
    assert kind._fields == ("a", "b")
    assert kind(1)._replace(b=9) == (1, 9)
    wrongs: list[dict[str, int]] = [{}, {"a": 1, "c": 2}]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            kind(**wrong)


def test_str_enum() -> None:
    class Kind(stubs._StrEnum):
        ONE = "one"

    assert Kind.ONE == "one"
    assert {Kind.ONE: 1}["one"] == 1
    assert f"{Kind.ONE}" == "one"


def test_sockets_pass_descriptors() -> None:
    made: dict[str, Any] = stubs._socket()
    with made["socketpair"](socket.AF_UNIX, socket.SOCK_SEQPACKET)[0] as one:
        assert one.type == socket.SOCK_SEQPACKET
    assert one.fileno() == -1


def test_os_is_the_same() -> None:
    made: dict[str, Any] = stubs_os.make_os()
    for name in set(made) - {"environ", "makedirs", "fsencode", "fsdecode", "fdopen", "__name__"}:
        if not name.startswith("_") and hasattr(os, name):
            assert made[name] == getattr(os, name), name
    assert made["environ"] == dict(os.environ)
    paths: list[Any] = ["a", b"a", "\udcff", b"\xff", Path("b")]
    for path in paths:
        assert made["fsencode"](path) == os.fsencode(path)
        assert made["fsdecode"](path) == os.fsdecode(path)


@pytest.mark.parametrize("makedirs", [os.makedirs, stubs_os.make_os()["makedirs"]])
def test_directories_are_made_with_their_parents(makedirs: Any, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        makedirs(f"{tmp_path}/a/b/c", mode=0o700)
    finally:
        os.umask(before)
    assert [(tmp_path / part).stat().st_mode & 0o777 for part in ("a", "a/b", "a/b/c")] == [
        0o755,
        0o755,
        0o700,
    ]
    makedirs(f"{tmp_path}/a/b", exist_ok=True)
    (tmp_path / "file").touch()
    for path, kind in (("a/b", FileExistsError), ("file", FileExistsError), ("file/b", NotADirectoryError)):
        with pytest.raises(kind):
            makedirs(f"{tmp_path}/{path}", exist_ok=path == "file")


PATHS = [
    "",
    ".",
    "/",
    "//",
    "a",
    "/a",
    "a/",
    "/a/",
    "a//b",
    "/a/./b/../c",
    "../a",
    "//a/b//",
    "/tmp",
    "/no/where",
    "/etc/passwd",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_the_same(path: str) -> None:
    made: dict[str, Any] = stubs_os.make_os_path()
    for name, function in made.items():
        if name == "join":
            for more in PATHS:
                assert function(path, more) == os.path.join(path, more)
                assert function(path, more, "x") == os.path.join(path, more, "x")
        elif name == "relpath":
            for start in filter(None, PATHS):
                assert not path or function(path, start) == os.path.relpath(path, start)
        else:
            assert function(path) == getattr(os.path, name)(path), name
    assert not made["exists"]("a\0b")
    assert not made["isdir"]("a\0b")


def test_every_path_function_of_the_engine_is_there() -> None:
    """A container's init cannot import modules, so a name that is missing in the stub would fail there."""
    made = stubs_os.make_os_path()
    root = Path(__file__).parents[4] / "runtime"
    files = [
        *(root / "oci").glob("*.py"),
        *root.glob("*.py"),
        *root.glob("cgroups/*.py"),
        *root.glob("security/*.py"),
    ]
    used = {name for file in files for name in re.findall(r"os\.path\.(\w+)", file.read_text())}
    assert used <= set(made)


def test_system_calls_are_the_same() -> None:
    made: dict[str, Any] = stubs_os.make_ctypes(stubs.real)
    library = made["PyDLL"](None, use_errno=True)
    assert library.getpid() == os.getpid()
    assert library.close(-1) == -1
    assert made["get_errno"]() == 9
    library.labs.restype = made["c_long"]
    assert library.labs(made["c_long"](-(1 << 40))) == 1 << 40
    value = made["c_int"](7)
    assert made["addressof"](value)
    assert made["create_string_buffer"](b"ab", 2).raw == b"ab"
    assert made["create_string_buffer"](b"ab").raw == b"ab\0"
    assert made["create_string_buffer"](3).raw == b"\0\0\0"


CODE = """
import sys
sys.path[:0] = [{root!r}]
from runtime.oci.cli.startup.stdlib_stubs import install
install()
import runtime.oci.cli.create, runtime.oci.cli.foreground, runtime.oci.cli.processes, runtime.oci.cli.resources
heavy = {{"inspect", "re", "ast", "tokenize", "selectors", "weakref", "collections", "hashlib", "subprocess"}}
heavy |= {{"_collections_abc", "enum", "types", "operator.py", "typing", "logging"}}
print(sorted(name for name in heavy & set(sys.modules) if hasattr(sys.modules[name], "__file__")))
"""


def test_annotations_exist_in_the_class_body() -> None:
    """Since Python 3.14 only because of the import; `_SUPPORTED` counts on it."""
    root = Path(__file__).parents[4]
    for name in (name for members in bundle.sets() for name in members):
        path = root / name.replace(".", "/")
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        tree = ast.parse(source.read_text())
        annotated = any(isinstance(node, ast.ClassDef) and any(isinstance(part, ast.AnnAssign) for part in node.body)
                        for node in ast.walk(tree))  # fmt: skip
        future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        assert future or not annotated, source


def test_nothing_heavy_is_imported() -> None:
    if not stubs._SUPPORTED:
        pytest.skip("needs a Python that the stand-ins know")
    root = str(Path(__file__).parents[4])
    done = subprocess.run(
        [sys.executable, "-ISE", "-c", CODE.format(root=root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["ctypes.util", "os.path", "collections.abc", "pyseccomp"])
def test_modules_of_the_originals_are_found(name: str) -> None:
    root, site = str(Path(__file__).parents[4]), str(Path(pytest.__file__).parents[1])
    code = (
        f"import sys; sys.path += [{root!r}, {site!r}]\n"
        "from runtime.oci.cli.startup.stdlib_stubs import install; install()\n"
        f"import os, json, ctypes\nos.getpid(), json.dumps, ctypes.c_int\nimport {name}\n"
        f"assert os.getpid() and json.loads('1') and {name}\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-ISE", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_missing_names_come_from_the_original() -> None:
    root = str(Path(__file__).parents[4])
    code = (
        f"import sys; sys.path[:0] = [{root!r}]\nfrom runtime.oci.cli.startup.stdlib_stubs import install; install()\n"
        "from typing import Optional\nimport json, contextlib, dataclasses\nassert Optional[int]\n"
        "assert json.dumps([1], indent=1) == '[\\n 1\\n]'\nassert contextlib.closing and dataclasses.replace\n"
        "import subprocess, argparse, tempfile, hashlib, ctypes.util, os, signal\n"
        "assert ctypes.c_void_p and os.walk and signal.Signals and os.environ.copy\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-ISE", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr
