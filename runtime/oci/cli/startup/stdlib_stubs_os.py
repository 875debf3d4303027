# mypy: ignore-errors
"""The contents of the stubs for `os`, `os.path` and `ctypes` (see stdlib_stubs.py), each made by a function."""

import sys


def make_os():
    import posix

    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

    def fsencode(name):
        name = posix.fspath(name)
        return name.encode(encoding, errors) if isinstance(name, str) else name

    def fsdecode(name):
        name = posix.fspath(name)
        return name.decode(encoding, errors) if isinstance(name, bytes) else name

    def makedirs(name, mode=0o777, exist_ok=False):
        head, tail = name.rstrip("/").rpartition("/")[::2]
        try:
            posix.mkdir(name, mode)
        except FileNotFoundError:
            if not head or not tail:
                raise
            makedirs(head, exist_ok=True)  # parents get the default mode, reduced by the umask
            makedirs(name, mode, exist_ok)
        except OSError:
            if not exist_ok or not _is_directory(name):
                raise

    def fdopen(fd, *args, **named):
        if not isinstance(fd, int):
            raise TypeError("invalid fd type (an integer is needed)")
        return open(fd, *args, **named)

    return {
        **vars(posix),
        **{"fsencode": fsencode, "fsdecode": fsdecode, "makedirs": makedirs, "fdopen": fdopen},
        **{
            "name": "posix",
            "sep": "/",
            "linesep": "\n",
            "curdir": ".",
            "pardir": "..",
            "devnull": "/dev/null",
        },
        **{"SEEK_SET": 0, "SEEK_CUR": 1, "SEEK_END": 2},
        "environ": {fsdecode(key): fsdecode(value) for key, value in posix.environ.items()},
        "__name__": "os",
    }


def _is_directory(name):
    import posix

    try:
        return posix.stat(name).st_mode & 0o170000 == 0o040000
    except (OSError, ValueError):
        return False


def make_os_path():
    import posix

    def join(path, *more):
        for part in map(posix.fspath, more):
            path = (
                part
                if part.startswith("/")
                else f"{path}{part}"
                if path[-1:] in ("", "/")
                else f"{path}/{part}"
            )
        return path

    def split(path):
        head, slash, tail = path.rpartition("/")
        return (head.rstrip("/") or head + slash), tail

    def exists(path):
        try:
            posix.stat(path)
        except (OSError, ValueError):
            return False
        return True

    def lexists(path):
        try:
            posix.lstat(path)
        except (OSError, ValueError):
            return False
        return True

    def abspath(path):
        return normpath(path if path.startswith("/") else join(posix.getcwd(), path))

    def relpath(path, start):
        there, here = ([part for part in abspath(each).split("/") if part] for each in (path, start))
        while there and here and there[0] == here[0]:
            del there[0], here[0]
        return "/".join([".."] * len(here) + there) or "."

    def normpath(path):
        return posix._path_normpath(path) or "."  # "" stays "" before 3.13

    return {
        **{"join": join, "split": split, "exists": exists, "isdir": _is_directory, "normpath": normpath},
        "basename": lambda path: path.rpartition("/")[2],
        "dirname": lambda path: split(path)[0],
        "isabs": lambda path: path.startswith("/"),
        **{"lexists": lexists, "abspath": abspath, "relpath": relpath},
    }


def make_ctypes(real):
    """`real`: stdlib_stubs.real."""
    import _ctypes as kernel

    letters = {"c_char": "c", "c_int": "i", "c_uint": "I", "c_uint32": "I", "c_long": "l", "c_ulong": "L"}
    letters["c_void_p"] = "P"
    types = {name: type(name, (kernel._SimpleCData,), {"_type_": letter}) for name, letter in letters.items()}

    class Function(kernel.CFuncPtr):
        _flags_ = kernel.FUNCFLAG_CDECL | kernel.FUNCFLAG_PYTHONAPI | kernel.FUNCFLAG_USE_ERRNO
        _restype_ = types["c_int"]

    class Library:
        def __init__(self, name):
            self._handle = kernel.dlopen(name, kernel.RTLD_LOCAL)

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            function = Function((name, self))
            setattr(self, name, function)
            return function

    def PyDLL(name, use_errno=False):
        if use_errno:
            return Library(name)
        return real("ctypes").PyDLL(name)

    def create_string_buffer(value, size=None):
        if not isinstance(value, bytes):
            return (types["c_char"] * value)()
        made = (types["c_char"] * (len(value) + 1 if size is None else size))()
        made.value = value
        return made

    names = {name: getattr(kernel, name) for name in ("addressof", "get_errno", "sizeof", "Array")}
    return {**types, **names, "PyDLL": PyDLL, "create_string_buffer": create_string_buffer}
