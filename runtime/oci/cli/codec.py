# mypy: ignore-errors
"""`encodings` as the command's interpreter finds it: UTF-8, without the table of everybody's names for encodings, whose
reading is a tenth of an interpreter's start. Whoever asks for another encoding gets the standard library's package.

bundle.py lays this text where the interpreter looks first. It is imported before anything else can be, and can itself
import nothing but what is frozen into the interpreter.
"""

import codecs
import sys

# a package, for whoever imports encodings.idna
__path__ = __spec__.submodule_search_locations = [f"{directory}/encodings" for directory in sys.path]
__package__ = __name__


class _Encoder(codecs.IncrementalEncoder):
    def encode(self, input, final=False):
        return codecs.utf_8_encode(input, self.errors)[0]


class _Decoder(codecs.BufferedIncrementalDecoder):
    _buffer_decode = codecs.utf_8_decode


class _Writer(codecs.StreamWriter):
    encode = codecs.utf_8_encode


class _Reader(codecs.StreamReader):
    decode = codecs.utf_8_decode


_UTF_8 = codecs.CodecInfo(
    name="utf-8",
    encode=codecs.utf_8_encode,
    decode=lambda input, errors="strict": codecs.utf_8_decode(input, errors, True),
    incrementalencoder=_Encoder,
    incrementaldecoder=_Decoder,
    streamreader=_Reader,
    streamwriter=_Writer,
)


def _search(name):
    """For codecs.register."""
    if name in ("utf_8", "utf-8"):
        return _UTF_8
    if not sys.meta_path:  # init.py: nothing is imported where the files are a container's (CVE-2019-14271)
        return None
    codecs.unregister(_search)
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


codecs.register(_search)
