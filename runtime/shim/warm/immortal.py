"""Keep a forked shim's memory pages shared by making objects immortal, so that their reference counts are never
written.

CPython writes an object's reference count even when it only reads the object, so a forked child soon copies nearly
every page it uses. Since 3.12 (PEP 683) an object is immortal if the highest bit of its 32-bit count is set: INCREF and
DECREF do not change it. The forkserver makes all objects that exist before the first fork immortal. Measured, that
halves a shim's private memory (2.8 to 1.3 MB on 3.13). Immortal objects are never freed, but these would exist for the
whole lifetime anyway.

On 3.11, on a free-threaded build, or if the check below fails, nothing is done, and shims use more memory.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
import types

# The count that CPython itself gives to immortal objects. Python 3.14 still increments and decrements the count of an
# object that was mortal when it was pushed on the stack (_Py_INCREF_MORTAL). From 0xFFFFFFFF an increment would wrap to
# zero, and the object would be freed; so 3.14 starts at a lower count, which may drift (Include/refcount.h).
_IMMORTAL = 0xFFFFFFFF if sys.version_info < (3, 14) else 3 << 30
_LEAST = 1 << 31


def supported() -> bool:
    """Whether this interpreter has immortal objects with the expected layout; checked with an object of our own."""
    if sys.implementation.name != "cpython" or not (3, 12) <= sys.version_info[:2] <= (3, 14):
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED") or sys.byteorder != "little":
        return False
    probe = [object()]
    before = ctypes.c_uint32.from_address(id(probe)).value
    another = probe
    grown = ctypes.c_uint32.from_address(id(probe)).value
    del another
    # 3.14 may borrow the reference instead of counting it
    return grown == before + 1 or sys.version_info >= (3, 14)


def immortalise() -> int:
    """Make all existing objects immortal; returns how many. Call it after a collection, just before gc.freeze().

    The interpreter must then end with os._exit, because finalization requires that objects can be freed.
    """
    if not supported():
        return 0
    known = _reachable(gc.get_objects())
    for address in known:
        references = ctypes.c_uint32.from_address(address)
        # a repeated call must not write to pages that are already shared with shims
        if references.value < _LEAST:
            references.value = _IMMORTAL
    count = len(known)
    known.clear()
    return count


def _reachable(roots: list[object]) -> dict[int, object]:
    """All objects reachable from `roots`, by address. The references keep them alive, so that the addresses stay
    valid."""
    known: dict[int, object] = {}
    todo = roots
    while todo:
        found: list[object] = []
        for item in todo:
            if id(item) in known:
                continue
            known[id(item)] = item
            found += gc.get_referents(item)
            if isinstance(item, types.CodeType):  # the collector does not traverse code objects
                found += (item.co_consts, item.co_names)
        todo = found
    return known
