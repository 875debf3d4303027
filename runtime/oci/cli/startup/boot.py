# mypy: ignore-errors
"""What the launcher executes first: it takes the command's modules out of their one file, set by set.

    <version: bundle.VERSION of sys.hexversion, 4 bytes><marshalled: (this module's code, index, extensions)> …
    <from BASE on: the sets, marshalled>

`index` is module → ((offset after BASE, size) of each piece of its set, (path, mtime in ns, size) of each source it was
made from), the same entry for all modules of a set. A piece is a tuple of (name, is a package, path, code), in the
order in which they can be executed. `extensions` is name → path of the shared objects that a command needs of the
standard library. A set of which a source is not what it was is never executed: the ordinary importer finds its modules.

Nothing of ours can be imported here, nor `__future__`, which is a file.
"""

import gc
import marshal
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery costs a millisecond
from _frozen_importlib_external import ExtensionFileLoader
from posix import O_CLOEXEC, O_RDONLY, close, fstat, preadv, stat
from posix import open as open_

BASE = 1 << 16  # bytes; a path of 300 characters to each of a hundred sources is half of that
LIGHT = "runtime.oci.cli.startup.stdlib_stubs"
_Module = type(sys)


class Sets:
    """A finder (sys.meta_path) that executes a whole set when the first of its modules is asked for."""

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
        """It is executed already."""

    def load(self, entry):
        """False when a source has changed."""
        pieces, sources = entry
        for path, mtime, length in sources:
            try:
                info = stat(path)
            except OSError:
                return False
            if info.st_mtime_ns != mtime or info.st_size != length:
                return False
        # It is not kept open: a command's descriptors are its caller's affair (--preserve-fds).
        try:
            file = open_(self.path, O_RDONLY | O_CLOEXEC)
        except OSError:
            return False
        try:
            info = fstat(file)
            if (info.st_ino, info.st_mtime_ns) != self.made:  # not any more the file that the index is of
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
    """The modules of a piece, all there is of them before the first is executed. What fails, and what has not been
    executed for it, is not left half made to be taken for a module."""
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
            if name == LIGHT:
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
    """From here on our modules come out of the file `path` (`info`: its fstat). The first set is needed in any case.
    A command is over before there is any garbage in cycles: what lasts turns the collector on again."""
    gc.disable()
    sets = Sets(path, index, extensions, (info.st_ino, info.st_mtime_ns))
    sys.meta_path.insert(0, sets)
    sets.load(index[LIGHT])
