"""Write all modules of the command to a single file of compiled code.

Importing forty files one by one would take longer than creating the container.

    python -I -X no_debug_ranges -m runtime.oci.cli.startup.bundle [--staged DIR] HOME LAUNCHER PATH…

creates the directory HOME and the command LAUNCHER, which runs an interpreter without site and environment. PATH is
added to its sys.path for modules that are not in HOME. With --staged, all paths are below DIR for now and will be
moved, so DIR is left out of every path that is written. HOME contains

    modules               the modules in sets. Modules that are needed together are marshalled together in the order
                          of execution, so loading a set takes one pread(2) and no search. `boot.py`, which is also in
                          the file, does that; its docstring describes the layout
    kubelite_oci.py       the command's first lines, precompiled
    encodings.py          codec.py, which replaces the standard library's package
    python, python._pth   a link to the interpreter, and its module search path, HOME first (CPython's getpath.py reads
                          such a file next to the executable on every system)

If a source of a set has changed, its modules are imported in the ordinary way; `make setup` writes a new file. An
interpreter that does not know ._pth files works too, but starts some milliseconds later.
"""

from __future__ import annotations

import ast
import marshal
import os
import subprocess
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source, find_spec, source_hash
from types import CodeType
from typing import Final

from runtime.oci.cli.startup import boot

_PACKAGES: Final = (
    "runtime",
    "runtime.oci",
    "runtime.oci.cli",
    "runtime.oci.cli.startup",
    "runtime.oci.config",
    "runtime.oci.rootfs",
    "runtime.oci.optional",
    "runtime.cgroups",
    "runtime.cgroups.reading",
    "runtime.security",
)
_MODULES: Final = ("runtime.errors", "runtime.syscalls")
_LEFT_OUT: Final = frozenset(
    {
        "runtime.oci.cli.startup.bundle",
        "runtime.oci.cli.startup.boot",
        "runtime.oci.cli.startup.codec",
        "runtime.oci.sealed",
    }
)
# The standard library's shared objects that a command needs. Recording their paths avoids listing directories to find
# them.
_EXTENSIONS: Final = ("_ctypes", "termios")
# Each entry is a set: the given modules and everything they import that is not in an earlier set. Every other module is
# a set of its own.
SETS: Final = (
    (
        "runtime.oci.cli.startup.stdlib_stubs",
        "runtime.oci.cli.startup.stdlib_stubs_os",
        "runtime.oci.cli.main",
        "runtime.oci.cli.lifecycle",
    ),
    ("runtime.cgroups", "runtime.cgroups.files", "runtime.cgroups.kill"),
    ("runtime.cgroups.v2",),
    ("runtime.cgroups.hybrid",),
    (
        "runtime.oci.cli.create",
        "runtime.oci.cli.foreground",
        "runtime.cgroups.devices",
        "runtime.cgroups.resources_v1",
        "runtime.cgroups.writes",
    ),
)
Module = tuple[str, bool, str, CodeType]
PIECE: Final = 64 << 10
# The mask for sys.hexversion: major, minor, and whether it is a final release. Final releases of one minor version
# share their bytecode.
VERSION: Final = 0xFFFF00F0


def names() -> list[str]:
    """All modules that the command may need."""
    found = list(_MODULES)
    for package in _PACKAGES:
        found.append(package)
        if package == "runtime":
            continue
        for entry in sorted(os.listdir(os.path.dirname(_origin(package)))):
            if entry.endswith(".py") and entry != "__init__.py":
                found.append(f"{package}.{entry.removesuffix('.py')}")
    return [name for name in found if name not in _LEFT_OUT]


def _origin(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


_ORDER = """
import sys
sys.path += {path!r}
from _frozen_importlib_external import SourceFileLoader
execute, done = SourceFileLoader.exec_module, []
def recorded(self, module):
    execute(self, module)
    done.append(module.__name__)
SourceFileLoader.exec_module = recorded
import runtime.oci.cli.startup.stdlib_stubs
runtime.oci.cli.startup.stdlib_stubs.install()
for name in {wanted!r}:
    __import__(name)
print(*[name for name in done if name.partition(".")[0] == "runtime"])
"""


def order(wanted: tuple[str, ...]) -> list[str]:
    """Our modules that get imported with `wanted` while the stubs are installed, each after those it needs."""
    root = os.path.dirname(os.path.dirname(_origin("runtime")))
    code = _ORDER.format(path=[root], wanted=wanted)
    command = [sys.executable, "-ISBE", "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def sets() -> list[list[str]]:
    """The names of each set's modules, in the order of execution."""
    found: list[list[str]] = []
    have: set[str] = set()
    for wanted in SETS:
        new = [name for name in order(wanted) if name not in have]
        found.append(new)
        have.update(new)
    return found + [[name] for name in names() if name not in have]


def build(stage: str = "") -> bytes:
    """The file's content (see boot.py). `stage` is removed from the beginning of every path."""
    index: dict[str, tuple[tuple[tuple[int, int], ...], tuple[tuple[str, int, int], ...]]] = {}
    blobs, at = [], 0
    for members in sets():
        origins = [_origin(name) for name in members]
        modules = tuple(_module(name, path, stage) for name, path in zip(members, origins, strict=True))
        sources = tuple(_source(path, stage) for path in origins)
        pieces = []
        for piece in _pieces(modules):
            blob = marshal.dumps(piece)
            pieces.append((at, len(blob)))
            blobs.append(blob)
            at += len(blob)
        index.update(dict.fromkeys(members, (tuple(pieces), sources)))
    found = {name: spec.origin for name in _EXTENSIONS if (spec := find_spec(name)) and spec.has_location}
    starter = _origin("runtime.oci.cli.startup.boot")
    head = (sys.hexversion & VERSION).to_bytes(4, "little") + marshal.dumps(
        (_compiled(starter, starter.removeprefix(stage)), index, found)
    )
    if len(head) > boot.BASE:
        raise ValueError(f"the index has {len(head)} bytes, more than boot.BASE")
    return head.ljust(boot.BASE, b"\0") + b"".join(blobs)


def _pieces(modules: tuple[Module, ...]) -> list[tuple[Module, ...]]:
    """Split a set into pieces of about PIECE bytes, in order.

    malloc(3) reuses a buffer of that size from its heap. A larger one would be mapped from the kernel and returned to
    it.
    """
    found: list[list[Module]] = [[]]
    size = 0
    for module in modules:
        if size > PIECE:
            found.append([])
            size = 0
        found[-1].append(module)
        size += len(marshal.dumps(module))
    return [tuple(piece) for piece in found]


def _module(name: str, origin: str, stage: str) -> Module:
    path = origin.removeprefix(stage)
    return name, origin.endswith("/__init__.py"), path, _compiled(origin, path)


def _source(path: str, stage: str) -> tuple[str, int, int]:
    info = os.stat(path)
    return path.removeprefix(stage), info.st_mtime_ns, info.st_size


def _compiled(origin: str, path: str) -> CodeType:
    """Compile a module without docstrings and type annotations; the latter are a fifth of the names that it loads."""
    with open(origin, "rb") as file:
        tree = ast.parse(file.read(), path)
    code = compile(_Untyped().visit(tree), path, "exec", dont_inherit=True, optimize=2)
    assert isinstance(code, CodeType)
    return code


class _Untyped(ast.NodeTransformer):
    """Removes annotations except those in classes, which dataclasses and named tuples need. Replaces TypedDict and
    Protocol classes."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        given = node.args
        for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
            if arg is not None:
                arg.annotation = None
        node.body = [ast.copy_location(_plain(line), line) for line in node.body]
        return self.generic_visit(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [ast.copy_location(_plain(line), line) for line in node.body]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Replace a class that only type checkers use by a plain name, so that it can still be imported."""
        if any(isinstance(base, ast.Name) and base.id in ("TypedDict", "Protocol") for base in node.bases):
            name, kind = ast.Name(node.name, ast.Store()), ast.Name("dict", ast.Load())
            return ast.fix_missing_locations(ast.copy_location(ast.Assign([name], kind), node))
        return self.generic_visit(node)


def _plain(line: ast.stmt) -> ast.stmt:
    if not isinstance(line, ast.AnnAssign):
        return line
    if line.value is None:
        return ast.Pass()
    return ast.Assign(targets=[line.target], value=line.value)


_LAUNCHER: Final = """\
#!{python} -ISE
import sys
sys.path.insert(0, {home!r})
from kubelite_oci import main
main()
"""
_FIRST: Final = """\
import sys
sys.path += {path!r}
try:
    import marshal, posix
    file = posix.open({modules!r}, posix.O_RDONLY | posix.O_CLOEXEC)
    head, info = posix.pread(file, {base}, 0), posix.fstat(file)
    posix.close(file)
    if head[:4] == (sys.hexversion & {version}).to_bytes(4, "little"):
        code, index, extensions = marshal.loads(head[4:])
        made = {{"__name__": "boot"}}
        exec(code, made)
        made["boot"]({modules!r}, index, extensions, info)
except (OSError, ValueError, EOFError, TypeError, KeyError):
    pass
from runtime.oci.cli.startup.stdlib_stubs import install
install()
from runtime.oci.cli.main import main
"""
# bytes of an interpreter's path: the kernel reads 256 bytes of a script's first line (execve(2))
_LONGEST: Final = 200


def main() -> None:
    """Write HOME and LAUNCHER; see the module's docstring."""
    words, stage = sys.argv[1:], ""
    if words[0] == "--staged":
        stage, words = words[1], words[2:]
    home, launcher, *path = words
    final = home.removeprefix(stage)
    os.makedirs(f"{home}/__pycache__", exist_ok=True)
    _write(f"{home}/modules", build(stage))
    first = _FIRST.format(
        path=[where.removeprefix(stage) for where in path],
        modules=f"{final}/modules",
        base=boot.BASE,
        version=VERSION,
    )
    with open(_origin("runtime.oci.cli.startup.codec"), encoding="utf-8") as file:
        codec = file.read()
    for name, text in (("kubelite_oci", first), ("encodings", codec)):
        _write(f"{home}/{name}.py", text.encode())
        _write(cache_from_source(f"{home}/{name}.py"), _unchecked(text.encode(), f"{final}/{name}.py"))
    python = os.path.realpath(sys.executable)
    command = [python, "-ISE", "-c", "import sys; print(*sys.path, sep='\\n')"]
    known = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\n")
    _write(f"{home}/python._pth", "\n".join([final, *filter(os.path.isdir, known)]).encode())
    _link(python, f"{home}/python")
    if len(final) < _LONGEST:
        python = f"{final}/python"
    _write(launcher, _LAUNCHER.format(python=python, home=final).encode(), 0o755)


def _unchecked(source: bytes, path: str) -> bytes:
    """The content of a .pyc that is not validated against its source (PEP 552)."""
    code = compile(source, path, "exec", dont_inherit=True, optimize=2)
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)


def _link(target: str, path: str) -> None:
    draft = f"{path}.{os.getpid()}"
    os.symlink(target, draft)
    os.rename(draft, path)


def _write(path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file by rename, so that a command that starts meanwhile reads either the old or the new one."""
    draft = f"{path}.{os.getpid()}"
    with open(draft, "wb") as file:
        file.write(content)
    os.chmod(draft, mode)
    os.rename(draft, path)


if __name__ == "__main__":
    main()
