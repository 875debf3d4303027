# mypy: ignore-errors
"""Load the command's modules from a single file, set by set. The launcher executes this module first.

    <version: bundle.VERSION of sys.hexversion, 4 bytes><marshalled: (this module's code, index, extensions)> …
    <from BASE on: the sets, marshalled>

`index` maps a module to ((offset after BASE, size) of each piece of its set, (path, mtime in ns, size) of each source
of the set); all modules of a set have the same entry. A piece is a tuple of (name, is a package, path, code) in the
order of execution. `extensions` maps names to paths of the standard library's shared objects that a command needs. If a
source of a set has changed, the set is not used, and the ordinary importer loads its modules.

This module can import neither our own modules nor `__future__`, which would be read from a file.
"""

import gc
import marshal
import sys
from _frozen_importlib import ModuleSpec  # importing importlib.machinery takes a millisecond
from _frozen_importlib_external import ExtensionFileLoader
from posix import O_CLOEXEC, O_RDONLY, close, fstat, preadv, stat
from posix import open as open_

BASE = 1 << 16  # bytes; twice the index for a hundred sources with paths of 300 characters
STUBS = "runtime.oci.cli.startup.stdlib_stubs"
_Module = type(sys)


class Sets:
    """A finder (sys.meta_path) that executes a whole set when the first of its modules is imported."""

    def __init__(self, path, index, extensions, made):
        self.path = path
        self.index = index
        self.extensions = extensions
        self.made = made

    def find_spec(self, name, path=None, target=None):
        entry = self.index.get(name)
        if name in self.extensions and _is_there(self.extensions[name]):
            path = self.extensions[name]
            return ModuleSpec(name, ExtensionFileLoader(name, path), origin=path)
        if entry is None or not self.load(entry):
            return None
        return ModuleSpec(name, self, origin=sys.modules[name].__file__)

    def create_module(self, spec):
        return sys.modules[spec.name]

    def exec_module(self, module):
        """Nothing to do: `load` has executed the module."""

    def load(self, entry):
        """Execute a set. False if one of its sources has changed."""
        pieces, sources = entry
        for path, mtime, length in sources:
            try:
                info = stat(path)
            except OSError:
                return False
            if info.st_mtime_ns != mtime or info.st_size != length:
                return False
        # Close the file each time, because the caller decides which descriptors the command has (--preserve-fds).
        try:
            file = open_(self.path, O_RDONLY | O_CLOEXEC)
        except OSError:
            return False
        try:
            info = fstat(file)
            # the file has been replaced and does not match the index
            if (info.st_ino, info.st_mtime_ns) != self.made:
                return False
            buffer = memoryview(bytearray(max(size for _, size in pieces)))
            for at, size in pieces:
                if preadv(file, [buffer[:size]], BASE + at) != size:
                    return False
                _execute(marshal.loads(buffer[:size]))
        finally:
            close(file)
        return True


def _execute(members):
    """Execute the modules of a piece. All are put into sys.modules first.

    After a failure, the failed module and those not yet executed are removed, so that no incomplete module is left.
    """
    modules = sys.modules
    made = []
    for name, package, path, code in members:
        module = modules[name] = _Module(name)
        module.__file__ = path
        module.__package__ = name if package else name.rpartition(".")[0]
        if package:
            module.__path__ = [path.rpartition("/")[0]]
        made.append((name, module, code))
    done = 0
    try:
        for name, module, code in made:
            parent, _, tail = name.rpartition(".")
            if parent and parent not in modules:  # the package is in another set
                __import__(parent)
            exec(code, module.__dict__)
            if parent:
                setattr(modules[parent], tail, module)
            if name == STUBS:
                module.install()
            done += 1
    finally:
        for name, _, _ in made[done:]:
            modules.pop(name, None)


def _is_there(path):
    try:
        stat(path)
    except OSError:
        return False
    return True


def boot(path, index, extensions, info):
    """Load our modules from the file `path` from now on (`info`: its fstat), and the first set immediately, since every
    command needs it.

    The garbage collector is disabled, because a command ends before there are cycles to collect. Long-running commands
    enable it again.
    """
    gc.disable()
    sets = Sets(path, index, extensions, (info.st_ino, info.st_mtime_ns))
    sys.meta_path.insert(0, sets)
    sets.load(index[STUBS])
