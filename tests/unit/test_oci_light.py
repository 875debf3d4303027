# mypy: disable-error-code="call-arg,misc,untyped-decorator"
"""The stand-ins do what the originals do, as far as the engine uses them; and the command runs with them."""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.oci.cli import bundle

light: Any = importlib.import_module("runtime.oci.cli.light")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
_json: dict[str, Any] = light._json()


@given(value=JSON)
def test_json_is_the_same(value: Any) -> None:
    text = json.dumps(value)
    assert _json["dumps"](value) == text
    assert _json["loads"](text) == _json["loads"](text.encode()) == _json["loads"](f" {text}\n") == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a":1} x', "nul", '"\\x"', "\0", "[1"])
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        _json["loads"](text)


def stacks() -> Iterator[type[Any]]:
    yield contextlib.ExitStack
    yield light._ExitStack


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
def test_exit_stack_lets_go(kind: type[Any]) -> None:
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


@pytest.mark.parametrize("make", [contextlib.contextmanager, light._contextmanager])
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


def test_suppress_is_only_for_its_kinds() -> None:
    with light._suppress(KeyError, OSError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="not"), light._suppress(KeyError):
        raise ValueError("not")


def test_dataclass() -> None:
    @light._dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 2
        rest: list[int] = light._field(default_factory=list)

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
    meta: Any = light._NamedTupleMeta
    kind = meta("Pair", (light._NamedTuple,), {"__annotations__": {"a": int, "b": int}, "b": 5})
    assert kind(1) == (1, 5)
    assert kind(b=2, a=3).a == 3
    assert kind._fields == ("a", "b")
    assert kind(1)._replace(b=9) == (1, 9)
    wrongs: list[dict[str, int]] = [{}, {"a": 1, "c": 2}]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            kind(**wrong)


def test_str_enum() -> None:
    class Kind(light._StrEnum):
        ONE = "one"

    assert Kind.ONE == "one"
    assert {Kind.ONE: 1}["one"] == 1
    assert f"{Kind.ONE}" == "one"


def test_sockets_pass_descriptors() -> None:
    made: dict[str, Any] = light._socket()
    with made["socketpair"](socket.AF_UNIX, socket.SOCK_SEQPACKET)[0] as one:
        assert one.type == socket.SOCK_SEQPACKET
    assert one.fileno() == -1


CODE = """
import sys
sys.path[:0] = [{root!r}]
from runtime.oci.cli.light import install
install()
import runtime.oci.cli.lifecycle, runtime.oci.cli.foreground, runtime.oci.cli.processes, runtime.oci.cli.resources
heavy = {{"inspect", "re", "ast", "tokenize", "selectors", "weakref", "collections", "hashlib", "subprocess"}}
print(sorted(heavy & set(sys.modules)))
"""


def test_nothing_heavy_is_imported() -> None:
    if not light._SUPPORTED:
        pytest.skip("needs a Python that the stand-ins know")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-ISE", "-c", CODE.format(root=root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_more_than_there_is_comes_from_the_original() -> None:
    root = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path[:0] = [{root!r}]\nfrom runtime.oci.cli.light import install; install()\n"
        "from typing import Optional\nimport json, contextlib, dataclasses\nassert Optional[int]\n"
        "assert json.dumps([1], indent=1) == '[\\n 1\\n]'\nassert contextlib.closing and dataclasses.replace\n"
        "import subprocess, argparse, tempfile, hashlib\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-ISE", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_the_bundle_has_every_module() -> None:
    names = bundle.names()
    assert {"runtime.oci.init", "runtime.cgroups.v2", "runtime.security.seccomp", "runtime.errors"} <= set(
        names
    )
    assert not [name for name in names if name.startswith("runtime.shim")]
    assert len(bundle.build()) > 100_000
