# mypy: ignore-errors
"""The package `encodings` of the command's interpreter, with only UTF-8.

The standard library's package reads a table of encoding aliases, which takes a tenth of an interpreter's start. It is
loaded when another encoding is used.

bundle.py writes this text where the interpreter looks first. It is imported before anything else, so it can itself
import only modules that are frozen into the interpreter.
"""

import sys
from _codecs import register, unregister, utf_8_decode, utf_8_encode

# a package, so that encodings.idna can be imported
__path__ = __spec__.submodule_search_locations = [f"{directory}/encodings" for directory in sys.path]
__package__ = __name__


class _Encoder:
    """codecs.IncrementalEncoder without importing `codecs`, which takes a sixteenth of an interpreter's start."""

    def __init__(self, errors="strict"):
        self.errors = errors

    def encode(self, input, final=False):
        return utf_8_encode(input, self.errors)[0]

    def reset(self):
        pass

    def getstate(self):
        return 0

    def setstate(self, state):
        pass


class _Decoder:
    """codecs.BufferedIncrementalDecoder: an incomplete character is kept until the rest of it arrives."""

    def __init__(self, errors="strict"):
        self.errors = errors
        self.buffer = b""

    def decode(self, input, final=False):
        data = self.buffer + input
        text, used = utf_8_decode(data, self.errors, final)
        self.buffer = data[used:]
        return text

    def reset(self):
        self.buffer = b""

    def getstate(self):
        return self.buffer, 0

    def setstate(self, state):
        self.buffer = state[0]


class _Info(tuple):
    """The codecs.CodecInfo of UTF-8."""

    name = "utf-8"
    incrementalencoder, incrementaldecoder = _Encoder, _Decoder
    _is_text_encoding = True
    encode, decode = property(lambda self: self[0]), property(lambda self: self[1])
    streamreader, streamwriter = property(lambda self: _stream(2)), property(lambda self: _stream(3))


def _stream(which):
    """The standard library's stream classes, which the command itself does not use."""
    import codecs

    if which == 2:
        return type("StreamReader", (codecs.StreamReader,), {"decode": utf_8_decode})
    return type("StreamWriter", (codecs.StreamWriter,), {"encode": utf_8_encode})


_UTF_8 = _Info(
    (
        utf_8_encode,
        lambda input, errors="strict": utf_8_decode(input, errors, True),
        lambda stream, errors="strict": _stream(2)(stream, errors),
        lambda stream, errors="strict": _stream(3)(stream, errors),
    )
)


def _search(name):
    """The search function for codecs.register."""
    if name in ("utf_8", "utf-8"):
        return _UTF_8
    if not sys.meta_path:  # init.py cleared it: never import a container's files (CVE-2019-14271)
        return None
    unregister(_search)
    return _whole().search_function(name)


def _whole():
    """Turn this module into the standard library's package."""
    from _frozen_importlib_external import SourceFileLoader

    for directory in __path__:
        try:
            SourceFileLoader(__name__, f"{directory}/__init__.py").exec_module(sys.modules[__name__])
        except FileNotFoundError:
            continue
        return sys.modules[__name__]
    raise LookupError("this interpreter has no standard library")


register(_search)
