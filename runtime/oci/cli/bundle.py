"""All modules of the command in one file, as compiled code: finding and reading thirty files one by one is a third of
what their import costs.

    python -m runtime.oci.cli.bundle FILE

FILE is a marshalled dict: "version" (sys.hexversion), "files" ((path, mtime in ns, size) of each source: what the
launcher compares before it believes the file) and "modules" (name → (is a package, path, code, marshalled by
itself: a command needs half of them). A source that changed
means that the launcher imports as anybody does; `make setup` writes a new file.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.util import find_spec

_PACKAGES = ("runtime", "runtime.oci", "runtime.oci.cli", "runtime.cgroups", "runtime.security")
_MODULES = ("runtime.errors", "runtime.syscalls")
_LEFT_OUT = frozenset({"runtime.oci.cli.bundle", "runtime.oci.sealed"})


def names() -> list[str]:
    """Every module the command may need."""
    found = list(_MODULES)
    for package in _PACKAGES:
        found.append(package)
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        if package == "runtime":
            continue
        for entry in sorted(os.listdir(os.path.dirname(spec.origin))):
            if entry.endswith(".py") and entry != "__init__.py":
                found.append(f"{package}.{entry.removesuffix('.py')}")
    return [name for name in found if name not in _LEFT_OUT]


def build() -> bytes:
    modules: dict[str, tuple[bool, str, bytes]] = {}
    files = []
    for name in names():
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        info = os.stat(spec.origin)
        with open(spec.origin, "rb") as file:
            code = compile(
                file.read(), spec.origin, "exec", dont_inherit=True, optimize=2
            )  # without docstrings
        modules[name] = (spec.submodule_search_locations is not None, spec.origin, marshal.dumps(code))
        files.append((spec.origin, info.st_mtime_ns, info.st_size))
    return marshal.dumps({"version": sys.hexversion, "files": tuple(files), "modules": modules})


def main() -> None:
    target = sys.argv[1]
    draft = f"{target}.{os.getpid()}"
    with open(draft, "wb") as file:
        file.write(build())
    os.chmod(draft, 0o644)
    os.rename(draft, target)


if __name__ == "__main__":
    main()
