"""Place the memory that shims write to side by side, so that they copy few of the pages shared by the fork.

The interpreter writes to byte code as it runs. Since 3.13 each conditional jump records the direction it took, and
instructions that could not be specialized count down to the next attempt. So a shim copies each page that contains a
function it runs, and functions lie where they were compiled, between others that never run again. This module copies
the functions that ran in a rehearsal to one place. The copies are not specialized, so rehearse again afterwards.

New objects would also go into gaps of the heap, on many different pages. So the gaps are filled first with blocks that
are kept, and later objects start new pages.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import types
from collections.abc import Callable, Set
from opcode import opmap

# Bytes of a pymalloc pool, which is aligned to its size, and of its header (obmalloc.h, 64 bit).
_POOL, _POOL_HEADER = 16384, 48
_SMALL = 512  # bytes; larger blocks come from malloc
# malloc(3) caches up to 7 freed chunks of each size up to 1040 bytes.
_CACHED, _CACHE = 1040, 7
_LARGE = (65536, 16384, 8192, 4096, 2048, 1024, 768, 640, 544)
_MOST = 256 * 1024  # maximum bytes to fill the gaps in the pools of one size
_MOST_CHUNKS = 4096
_CHUNK_HEADER = 16
_BYTES_HEADER = 33  # of a bytes object

_filling: list[object] = []

Snapshot = list[tuple[types.FunctionType, int]]


def snapshot() -> Snapshot:
    """All functions with a hash of their present byte code, including its specializations. (The byte code itself would
    take a megabyte, which the heap keeps.) Freezes all objects (gc.freeze)."""
    gc.unfreeze()  # get_objects does not return frozen objects
    found = [item for item in gc.get_objects() if type(item) is types.FunctionType]
    gc.freeze()
    return [(item, hash(_adaptive(item.__code__))) for item in found]


def _adaptive(code: types.CodeType) -> bytes:
    """The byte code of a function and of all functions defined in it; empty if the interpreter does not expose it."""
    own: bytes = getattr(code, "_co_code_adaptive", b"")
    return own + b"".join(_adaptive(item) for item in code.co_consts if isinstance(item, types.CodeType))


def changed(before: Snapshot) -> list[int]:
    """The places in `before` of the functions that have run since."""
    return [place for place, (item, code) in enumerate(before) if hash(_adaptive(item.__code__)) != code]


def pack(
    before: Snapshot,
    *,
    also: Set[types.FunctionType] = frozenset(),
    but: Set[types.FunctionType] = frozenset(),
) -> frozenset[types.FunctionType]:
    """Copy the functions that have run since `before`, and `also`, except `but`, to one place; returns them."""
    ran = ({before[place][0] for place in changed(before)} | also) - but
    fill_gaps()
    for item, _ in before:  # in order, so that the functions of a module stay together
        if item in ran:
            item.__code__ = _copy(item.__code__)
    return frozenset(ran)


def _copy(code: types.CodeType) -> types.CodeType:
    """Copy a code object, padded so that malloc allocates it.

    malloc places blocks one after the other. pymalloc, which allocates smaller ones, has separate pools per size.
    """
    consts = tuple(_copy(item) if isinstance(item, types.CodeType) else item for item in code.co_consts)
    missing = max(_SMALL + 16 - sys.getsizeof(code), 0) // 2
    return code.replace(co_consts=consts, co_code=code.co_code + bytes((opmap["NOP"], 0)) * missing)


def fill_gaps() -> None:
    """Fill all gaps in the heap, so that new objects start new pages."""
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
    """Allocate blocks until pymalloc starts a new pool for this size, which it does when the existing pools are
    full."""
    for _ in range(_MOST // size):
        block = make()
        _filling.append(block)
        if id(block) % _POOL == _POOL_HEADER:
            return


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 (mallinfo(3))."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")
    _fields_ = tuple((name, ctypes.c_size_t) for name in (*_names, "fordblks", "keepcost"))


class _Malloc:
    """Direct access to malloc(3). Chunks that nobody writes to use no memory."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        self._malloc, self._free = libc.malloc, libc.free
        self._info, self._trim = libc.mallinfo2, libc.malloc_trim
        self._malloc.restype, self._malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
        self._free.restype, self._free.argtypes = None, (ctypes.c_void_p,)
        self._info.restype = _Mallinfo

    @classmethod
    def here(cls) -> _Malloc | None:
        """This process's malloc; None without glibc 2.33 or later."""
        try:
            return cls(ctypes.CDLL(None))
        except (OSError, AttributeError):
            return None

    def trim(self) -> None:
        """Return free pages to the kernel."""
        self._trim(ctypes.c_size_t(0))

    def take(self, size: int, count: int) -> None:
        for _ in range(count):
            self._malloc(size - _CHUNK_HEADER)

    def fill(self, size: int) -> None:
        """Take chunks as long as one fits in a gap, until malloc allocates from the top of the heap."""
        left = self._between()
        for _ in range(_MOST_CHUNKS):
            chunk = self._malloc(size - _CHUNK_HEADER)
            now = self._between()
            if now >= left:
                self._free(chunk)
                return
            left = now

    def _between(self) -> int:
        """Free bytes, not counting the top."""
        info = self._info()
        return int(info.fordblks - info.keepcost)
