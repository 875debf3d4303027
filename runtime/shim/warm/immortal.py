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

    The count itself marks what has been visited. A set of visited objects would take megabytes, in pages that the
    heap keeps afterwards. The interpreter must then end with os._exit, because finalization requires that objects can
    be freed.
    """
    if not supported():
        return 0
    count = 0
    todo = gc.get_objects()
    for item in todo:
        count += _make_immortal(item)
    while todo:
        todo = [item for container in todo for item in _referents(container) if _make_immortal(item)]
        count += len(todo)
    return count


def _make_immortal(item: object) -> bool:
    """Whether it was mortal. One that is immortal already is not written to: its page may be shared with shims."""
    references = ctypes.c_uint32.from_address(id(item))
    if references.value >= _LEAST:
        return False
    references.value = _IMMORTAL
    return True


def _referents(item: object) -> list[object]:
    """The objects that `item` refers to. What was immortal from the start, such as an interned string, refers to
    nothing that gc.get_objects() would not return."""
    if isinstance(item, types.CodeType):  # the collector does not traverse code objects
        return [*gc.get_referents(item), item.co_consts, item.co_names]
    return gc.get_referents(item)
