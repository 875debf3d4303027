"""Lay what shims write to side by side, so that few of the pages that a fork shares are ever copied.

Byte code is written to as it runs: since 3.13 each conditional jump notes which way it went, every time, and what could
not be specialised counts down to the next attempt. So each page with a function that a shim runs becomes the shim's
own, and functions lie where they were compiled, between all that never runs again. Here those that a rehearsal was seen
to run are copied to one place. A copy has learnt nothing: rehearse again after.

And new objects go into the gaps that a heap has, one page here and one there. The gaps are filled first, by blocks that
are kept: what comes after begins new pages.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import types
from collections.abc import Callable
from opcode import opmap

_POOL, _POOL_HEADER = (
    16384,
    48,
)  # bytes of a pymalloc pool (obmalloc.h, 64 bit), which is aligned, and of its header
_SMALL = 512  # bytes; what is larger is malloc's
_CACHED, _CACHE = (
    1040,
    7,
)  # malloc(3) keeps so many freed chunks of each size up to that one, for the next who asks
_LARGE = (65536, 16384, 8192, 4096, 2048, 1024, 768, 640, 544)
_MOST = 256 * 1024  # bytes at most that are given for the gaps in the pools of one size
_MOST_CHUNKS = 4096
_CHUNK_HEADER = 16
_BYTES_HEADER = 33  # of a bytes object

_filling: list[object] = []

Learnt = list[tuple[types.FunctionType, bytes]]


def learnt() -> Learnt:
    """Each function with its byte code as it is now, with what that has learnt. What is there is frozen afterwards."""
    gc.unfreeze()  # what is frozen is not told
    found = [item for item in gc.get_objects() if type(item) is types.FunctionType]
    gc.freeze()
    return [(item, _adaptive(item.__code__)) for item in found]


def _adaptive(code: types.CodeType) -> bytes:
    """Its own and that of all functions defined in it; empty where the interpreter does not tell."""
    own: bytes = getattr(code, "_co_code_adaptive", b"")
    return own + b"".join(_adaptive(item) for item in code.co_consts if isinstance(item, types.CodeType))


def pack(before: Learnt) -> int:
    """Move the functions that have run since `before`; how many that were."""
    ran = [item for item, code in before if _adaptive(item.__code__) != code]
    fill_gaps()
    for item in ran:
        item.__code__ = _copy(item.__code__)
    return len(ran)


def _copy(code: types.CodeType) -> types.CodeType:
    """With as much behind its last instruction as makes it malloc's, which puts one behind the other: pymalloc, whose
    the smaller ones are, has pools for each size."""
    consts = tuple(_copy(item) if isinstance(item, types.CodeType) else item for item in code.co_consts)
    missing = max(_SMALL + 16 - sys.getsizeof(code), 0) // 2
    return code.replace(co_consts=consts, co_code=code.co_code + bytes((opmap["NOP"], 0)) * missing)


def fill_gaps() -> None:
    """Leave no gap in the heap for a new object to go into."""
    malloc = _Malloc.here()
    if malloc is not None:
        malloc.trim()
        for size in _LARGE:
            malloc.fill(size)
        for size in range(_SMALL + 16, _CACHED, 16):
            malloc.take(size, _CACHE)
    _fill_pools(16, object)
    for size in range(48, _SMALL + 1, 16):
        _fill_pools(size, lambda size=size: bytes(size - _BYTES_HEADER))  # type: ignore[misc]


def _fill_pools(size: int, make: Callable[[], object]) -> None:
    """pymalloc has pools of one size, and begins one when no block is left in the others."""
    for _ in range(_MOST // size):
        block = make()
        _filling.append(block)
        if id(block) % _POOL == _POOL_HEADER:
            return


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3)."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")
    _fields_ = tuple((name, ctypes.c_size_t) for name in (*_names, "fordblks", "keepcost"))


class _Malloc:
    """malloc(3) itself: what it gives and nobody writes to takes no memory."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        self._malloc, self._free = libc.malloc, libc.free
        self._info, self._trim = libc.mallinfo2, libc.malloc_trim
        self._malloc.restype, self._malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
        self._free.restype, self._free.argtypes = None, (ctypes.c_void_p,)
        self._info.restype = _Mallinfo

    @classmethod
    def here(cls) -> _Malloc | None:
        """None without glibc 2.33."""
        try:
            return cls(ctypes.CDLL(None))
        except (OSError, AttributeError):
            return None

    def trim(self) -> None:
        """Give back the pages that are free."""
        self._trim(ctypes.c_size_t(0))

    def take(self, size: int, count: int) -> None:
        for _ in range(count):
            self._malloc(size - _CHUNK_HEADER)

    def fill(self, size: int) -> None:
        """Take chunks for as long as there is room for one in between: then malloc cuts from its top."""
        left = self._between()
        for _ in range(_MOST_CHUNKS):
            chunk = self._malloc(size - _CHUNK_HEADER)
            now = self._between()
            if now >= left:
                self._free(chunk)
                return
            left = now

    def _between(self) -> int:
        """Bytes that are free, but for the top."""
        info = self._info()
        return int(info.fordblks - info.keepcost)
