# mypy: ignore-errors
# ruff: noqa: B905, BLE001, RUF063
"""Stubs for parts of the standard library whose import takes longer than creating a container.

`dataclasses` imports `inspect`, `ast` and `tokenize`; `json` and `typing` import `re`; `socket` imports `enum`; `os`
imports all abstract base classes; `ctypes` creates types that the engine does not use. Together that takes 30 ms in a
command that itself takes 10. The engine needs little of each module. That part is here under the same names, for this
process only (`install`, called first in the command). Other names come from the real module, which is then imported
after all. The differences do not matter to any command: dataclasses are neither frozen nor slotted, and compare by
identity. tests/unit/runtime/oci/test_stdlib_stubs.py compares each stub with the original.
"""

import sys

_ModuleType = type(sys)

# In these versions a class namespace contains __annotations__ while the class is created. In 3.14 it does so only where
# the module has `from __future__ import annotations`, as each module of the engine has.
_SUPPORTED = (3, 11) <= sys.version_info[:2] <= (3, 14)


class _Stub(_ModuleType):
    """A stub module. It is filled on first use, and is replaced by the real module when a name is missing."""

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__") and (name, self.__name__) not in _PATHS:
            raise AttributeError(name)
        contents = _EMPTY.pop(self.__name__, None)
        if contents is not None:
            self.__dict__.update(contents())
            return getattr(self, name)
        return getattr(real(self.__name__), name)


# The import of a submodule reads the __path__ of its package. json.decoder has a stub; ctypes.util needs the real
# package.
_PATHS = {("__path__", "json"), ("__path__", "ctypes"), ("__path__", "collections")}
_EMPTY = {}


def real(name):
    """Import the standard library's module. All stubs are removed, because the real modules import each other."""
    from importlib import import_module

    for other in [other for other, module in sys.modules.items() if isinstance(module, _Stub)]:
        del sys.modules[other]
    for other, module in _ALIASES.items():
        if sys.modules.get(other) is module:
            del sys.modules[other]
    for package in ("ctypes", "json"):  # an import of one of their submodules may be in progress
        import_module(package)
    return import_module(name)


_ALIASES = {}


# --- typing ---


class _Subscriptable:
    def __class_getitem__(cls, _item):
        return cls


class _TypedDict(dict):
    def __init_subclass__(cls, total=True):
        pass


class _NamedTupleMeta(type):
    def __new__(mcs, name, bases, namespace):
        if not bases:
            return type.__new__(mcs, name, bases, namespace)
        from _collections import _tuplegetter

        fields = tuple(namespace.get("__annotations__", ()))
        defaults = {field: namespace[field] for field in fields if field in namespace}

        def make(cls, *args, **named):
            if named or len(args) != len(fields):
                values = {**defaults, **dict(zip(fields, args)), **named}
                if len(args) > len(fields) or len(values) != len(fields):
                    raise TypeError(f"{name} takes {fields}, got {args} and {named}")
                args = tuple([values[field] for field in fields])
            return tuple.__new__(cls, args)

        def replaced(self, **named):
            return make(type(self), **{**dict(zip(fields, self)), **named})

        namespace.update(__slots__=(), _fields=fields, __new__=make, _replace=replaced)
        namespace["_asdict"] = lambda self: dict(zip(fields, self))
        namespace.update((field, _tuplegetter(index, field)) for index, field in enumerate(fields))
        return type(name, (tuple,), namespace)


class _NamedTuple(metaclass=_NamedTupleMeta):
    pass


def _typing():
    names = dict.fromkeys(("Any", "Final", "NoReturn", "Self", "Protocol"), _Subscriptable)
    return {**names, "TYPE_CHECKING": False, "NamedTuple": _NamedTuple, "TypedDict": _TypedDict}


# --- dataclasses ---


class _Field:
    __slots__ = ("factory",)

    def __init__(self, factory):
        self.factory = factory


def _field(*, default_factory, **_rest):
    return _Field(default_factory)


def _dataclass(cls=None, **_options):
    if cls is None:
        return _dataclass
    fields = tuple(cls.__dict__.get("__annotations__", ()))
    known = frozenset(fields)
    factories = []
    required = []
    for name in fields:
        value = cls.__dict__.get(name, _Field)
        if isinstance(value, _Field):
            factories.append((name, value.factory))
            delattr(cls, name)
        elif value is _Field:
            required.append(name)

    def init(self, *args, **named):
        values = self.__dict__
        if args:
            values.update(zip(fields, args))
        values.update(named)
        for name in required:
            if name not in values:
                raise TypeError(f"{cls.__name__} needs {name}")
        if len(args) > len(fields) or not known.issuperset(named):
            raise TypeError(f"{cls.__name__} takes {fields}, got {args} and {named}")
        for name, factory in factories:
            if name not in values:
                values[name] = factory()

    cls.__init__ = init
    return cls


# --- contextlib ---


class _ExitStack:
    def __init__(self):
        self._exits = []

    def callback(self, function, *args, **named):
        self._exits.append(lambda *_: (function(*args, **named), False)[1])
        return function

    def enter_context(self, manager):
        entered = manager.__enter__()
        self._exits.append(manager.__exit__)
        return entered

    def pop_all(self):
        taken = type(self)()
        taken._exits, self._exits = self._exits, []
        return taken

    def close(self):
        self.__exit__(None, None, None)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        first, pending = error, error
        while self._exits:
            leave = self._exits.pop()
            try:
                if leave(type(pending) if pending is not None else None, pending, trace):
                    pending = None
            except BaseException as raised:
                pending = raised
        if pending is not None and pending is not first:
            raise pending
        return first is not None and pending is None


class _suppress:
    def __init__(self, *kinds):
        self._kinds = kinds

    def __enter__(self):
        pass

    def __exit__(self, kind, _error, _trace):
        return kind is not None and issubclass(kind, self._kinds)


class _Managed:
    def __init__(self, generator):
        self._generator = generator

    def __enter__(self):
        return next(self._generator)

    def __exit__(self, kind, error, _trace):
        if kind is None:
            next(self._generator, None)
            return False
        try:
            self._generator.throw(error)
        except StopIteration:
            return True
        except BaseException as raised:
            if raised is error:
                return False
            raise
        return False


def _contextmanager(function):
    return lambda *args, **named: _Managed(function(*args, **named))


# --- json ---


def _json():
    import _json as accelerated

    class Reading:
        strict = True
        object_hook = object_pairs_hook = None
        parse_float, parse_int = float, int
        parse_constant = {
            "NaN": float("nan"),
            "Infinity": float("inf"),
            "-Infinity": -float("inf"),
        }.__getitem__
        memo = {}  # noqa: RUF012

    scan = accelerated.make_scanner(Reading())
    blank = " \t\n\r"

    def refuse(value):
        raise TypeError(f"{type(value).__name__} is not JSON")

    ascii_ = accelerated.encode_basestring_ascii
    encode = accelerated.make_encoder({}, refuse, ascii_, None, ": ", ", ", False, False, True)

    def loads(text, **more):
        if (
            more
            or not isinstance(text, str | bytes)
            or text[:1] in (b"\xef", b"\xfe", b"\xff", b"\0", "\ufeff")
        ):
            return real("json").loads(text, **more)
        text = text if isinstance(text, str) else text.decode("utf-8", "surrogatepass")
        start = len(text) - len(text.lstrip(blank))
        try:
            value, end = scan(text, start)
        except StopIteration as stopped:
            raise _malformed("Expecting value", text, stopped.value) from None
        if end != len(text) and (rest := text[end:].lstrip(blank)):
            raise _malformed("Extra data", text, len(text) - len(rest))
        return value

    def dumps(value, indent=None, **more):
        if more:
            return real("json").dumps(value, indent=indent, **more)
        return "".join(
            encode(value, 0)
            if indent is None
            else _indented(value, encode, "\n", " " * indent if isinstance(indent, int) else indent)
        )

    # The scanner raises an error from json.decoder, so this module must be a package.
    return {"loads": loads, "dumps": dumps, "load": lambda file: loads(file.read()), "__path__": []}


def _indented(value, encode, margin, step):
    inner = margin + step
    if isinstance(value, dict) and value:
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' if number else ''}{inner}{''.join(encode({key: 0}, 0))[1:-4]}: "
            yield from _indented(item, encode, inner, step)
        yield f"{margin}}}"
    elif isinstance(value, list | tuple) and value:
        yield "["
        for number, item in enumerate(value):
            yield f"{',' if number else ''}{inner}"
            yield from _indented(item, encode, inner, step)
        yield f"{margin}]"
    else:
        yield from encode(value, 0)


def _malformed(message, text, at):
    from json.decoder import JSONDecodeError

    return JSONDecodeError(message, text, at)


def _decoder():
    class JSONDecodeError(ValueError):
        def __init__(self, message, text, at):
            line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
            ValueError.__init__(self, f"{message}: line {line} column {column} (char {at})")

    return {"JSONDecodeError": JSONDecodeError}


# --- os and ctypes ---


def _from_os_stubs(name, *given):
    def contents():
        from runtime.oci.cli.startup import stdlib_stubs_os

        return getattr(stdlib_stubs_os, name)(*given)

    return contents


# --- the rest ---


def _socket():
    import _socket as kernel

    class Socket(kernel.socket):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def accept(self):
            fd, address = self._accept()
            return Socket(self.family, self.type, self.proto, fileno=fd), address

    Socket.__name__ = "socket"

    def socketpair(family=kernel.AF_UNIX, kind=kernel.SOCK_STREAM, proto=0):
        return tuple(
            Socket(family, kind, proto, end.detach()) for end in kernel.socketpair(family, kind, proto)
        )

    return {**vars(kernel), "socket": Socket, "socketpair": socketpair, "__name__": "socket"}


def _abstract():
    names = ("Callable", "Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence")
    return dict.fromkeys(names, _Subscriptable)


def _functools():
    import _functools as fast

    return {"cache": lambda function: fast._lru_cache_wrapper(function, None, False, tuple)}


class _StrEnum(str):
    __slots__ = ("name", "value")

    def __init_subclass__(cls):
        for name, value in list(vars(cls).items()):
            if isinstance(value, str) and not name.startswith("_"):
                member = str.__new__(cls, value)
                member.name, member.value = name, value
                setattr(cls, name, member)


def install() -> None:
    """Install the stubs for modules that are not imported yet. Do nothing on an unsupported Python version."""
    if not _SUPPORTED:
        return
    import _operator
    import _signal
    import _stat
    import _struct

    _ALIASES.update(signal=_signal, operator=_operator, stat=_stat, struct=_struct)
    for name, module in _ALIASES.items():
        sys.modules.setdefault(name, module)
    for name, contents in (
        ("__future__", lambda: {"annotations": None}),
        ("os", _from_os_stubs("make_os")),
        ("ctypes", _from_os_stubs("make_ctypes", real)),
        ("collections.abc", _abstract),
        ("typing", _typing),
        ("dataclasses", lambda: {"dataclass": _dataclass, "field": _field}),
        (
            "contextlib",
            lambda: {"ExitStack": _ExitStack, "suppress": _suppress, "contextmanager": _contextmanager},
        ),
        ("json", _json),
        ("json.decoder", _decoder),
        ("socket", _socket),
        ("functools", _functools),
        ("enum", lambda: {"StrEnum": _StrEnum}),
    ):
        if name not in sys.modules:
            sys.modules[name] = _Stub(name)
            _EMPTY[name] = contents
    # Since 3.13 collections has the attribute `abc` by itself. Before, the import system sets it when it loads
    # collections.abc, which has a stub.
    if sys.version_info < (3, 13) and "collections" not in sys.modules:
        sys.modules["collections"] = _Stub("collections")
        _EMPTY["collections"] = lambda: {"abc": sys.modules["collections.abc"]}
    if "os.path" not in sys.modules:
        sys.modules["os"].path = sys.modules["os.path"] = _Stub("os.path")
        _EMPTY["os.path"] = _from_os_stubs("make_os_path")
