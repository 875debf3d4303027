"""All modules of the command in one file, as compiled code: finding, reading and linking forty files one by one costs
a command more than its container.

    python -I -X no_debug_ranges -m runtime.oci.cli.startup.bundle [--staged DIR] HOME LAUNCHER PATH…

makes the directory HOME and the command, an interpreter with neither site nor environment (PATH is its sys.path for
what is not in HOME). With --staged, everything is below DIR for now and will be moved: DIR is in no path that is
written. In HOME are

    modules               the modules in sets: what is needed together is marshalled together, in the order in which it
                          can be executed, so that to load a set is one pread(2) and no search. `boot.py`, which is in
                          the file too, does that; its docstring has the layout
    kubelite_oci.py       the command's first lines, compiled once and not at each start
    encodings.py          codec.py, in place of the standard library's package
    python, python._pth   a link to the interpreter, and where it looks for modules: HOME first (getpath.py of CPython
                          takes such a file beside its executable on every system)

A set of which a source has changed is not believed, and imported as anybody imports; `make setup` writes a new file. An
interpreter that does not know ._pth files starts all the same, some milliseconds later.
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
# The standard library's modules that are shared objects; to look for them is to list its directories.
_EXTENSIONS: Final = ("_ctypes", "termios")
# What is imported together, by what begins it; each has what those before it do not have. Every other module is a set
# of its own.
SETS: Final = (
    (
        "runtime.oci.cli.startup.stdlib_stubs",
        "runtime.oci.cli.startup.stdlib_stubs_os",
        "runtime.oci.cli.main",
        "runtime.oci.cli.lifecycle",
    ),
    ("runtime.cgroups", "runtime.cgroups.files", "runtime.cgroups.killing"),
    ("runtime.cgroups.v2",),
    ("runtime.cgroups.hybrid",),
    (
        "runtime.oci.cli.creating",
        "runtime.oci.cli.foreground",
        "runtime.cgroups.devices",
        "runtime.cgroups.resources_v1",
        "runtime.cgroups.writes",
    ),
)
Module = tuple[str, bool, str, CodeType]
PIECE: Final = 64 << 10
# Of sys.hexversion: major, minor, and whether it is a release. Releases of one minor version execute each other's code.
VERSION: Final = 0xFFFF00F0


def names() -> list[str]:
    """Every module the command may need."""
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
    """Our modules that importing these brings along, with the stand-ins for others' in place: each after those that
    it needs."""
    root = os.path.dirname(os.path.dirname(_origin("runtime")))
    code = _ORDER.format(path=[root], wanted=wanted)
    command = [sys.executable, "-ISBE", "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def sets() -> list[list[str]]:
    """The names of each set's modules, in the order in which they can be executed."""
    found: list[list[str]] = []
    have: set[str] = set()
    for wanted in SETS:
        new = [name for name in order(wanted) if name not in have]
        found.append(new)
        have.update(new)
    return found + [[name] for name in names() if name not in have]


def build(stage: str = "") -> bytes:
    """The file's content (see boot.py). `stage`: what is left out of every path."""
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
        raise ValueError(f"the index has {len(head)} bytes: more than boot.BASE")
    return head.ljust(boot.BASE, b"\0") + b"".join(blobs)


def _pieces(modules: tuple[Module, ...]) -> list[tuple[Module, ...]]:
    """In order, about PIECE bytes each: a buffer that malloc(3) has from its heap is used again, a larger one comes
    from the kernel page by page and goes back."""
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
    """Without docstrings, and without what only type checkers read: a fifth of the names that a command would load."""
    with open(origin, "rb") as file:
        tree = ast.parse(file.read(), path)
    code = compile(_Untyped().visit(tree), path, "exec", dont_inherit=True, optimize=2)
    assert isinstance(code, CodeType)
    return code


class _Untyped(ast.NodeTransformer):
    """Annotations go, but for those of classes, from which dataclasses and tuples are made; and TypedDict, Protocol."""

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
        """What only type checkers look into is nobody's class: a name, for whoever imports it."""
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
_LONGEST: Final = 200  # of an interpreter's path: the kernel reads 256 bytes of a script (execve(2))


def main() -> None:
    """`home` and `launcher` are paths; the rest of the command line is the launcher's sys.path."""
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
    """A .pyc that is believed without a look at its source (PEP 552)."""
    code = compile(source, path, "exec", dont_inherit=True, optimize=2)
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)


def _link(target: str, path: str) -> None:
    draft = f"{path}.{os.getpid()}"
    os.symlink(target, draft)
    os.rename(draft, path)


def _write(path: str, content: bytes, mode: int = 0o644) -> None:
    """By rename: a command that begins meanwhile has the one or the other."""
    draft = f"{path}.{os.getpid()}"
    with open(draft, "wb") as file:
        file.write(content)
    os.chmod(draft, mode)
    os.rename(draft, path)


if __name__ == "__main__":
    main()
