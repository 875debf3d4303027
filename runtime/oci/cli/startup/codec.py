# mypy: ignore-errors
"""`encodings` as the command's interpreter finds it: UTF-8, without the table of everybody's names for encodings, whose
reading is a tenth of an interpreter's start. Whoever asks for another encoding gets the standard library's package.

bundle.py lays this text where the interpreter looks first. It is imported before anything else can be, and can itself
import nothing but what is frozen into the interpreter.
"""

import sys
from _codecs import register, unregister, utf_8_decode, utf_8_encode

# a package, for whoever imports encodings.idna
__path__ = __spec__.submodule_search_locations = [f"{directory}/encodings" for directory in sys.path]
__package__ = __name__


class _Encoder:
    """codecs.IncrementalEncoder, without the module `codecs`: it is a sixteenth of an interpreter's start."""

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
    """codecs.BufferedIncrementalDecoder: what has come of a character waits for the rest of it."""

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
    """codecs.CodecInfo of UTF-8."""

    name = "utf-8"
    incrementalencoder, incrementaldecoder = _Encoder, _Decoder
    _is_text_encoding = True
    encode, decode = property(lambda self: self[0]), property(lambda self: self[1])
    streamreader, streamwriter = property(lambda self: _stream(2)), property(lambda self: _stream(3))


def _stream(which):
    """The standard library's: nothing of ours reads or writes by them."""
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
    """For codecs.register."""
    if name in ("utf_8", "utf-8"):
        return _UTF_8
    if not sys.meta_path:  # init.py: nothing is imported where the files are a container's (CVE-2019-14271)
        return None
    unregister(_search)
    return _whole().search_function(name)


def _whole():
    """This module, become the standard library's."""
    from _frozen_importlib_external import SourceFileLoader

    for directory in __path__:
        try:
            SourceFileLoader(__name__, f"{directory}/__init__.py").exec_module(sys.modules[__name__])
        except FileNotFoundError:
            continue
        return sys.modules[__name__]
    raise LookupError("this interpreter has no standard library")


register(_search)
