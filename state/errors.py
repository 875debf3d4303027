"""The store's errors.

StoreError
├── AlreadyExists      create: an object with this kind, namespace and name (or uid) exists
├── NotFound           update: no such object
├── Conflict           update: the object was changed meanwhile (its resourceVersion differs)
├── Expired            watch: the changes since that resourceVersion are no longer retained; list again
└── StorageFailed      the disk refused the write (full, read-only, broken); nothing changed, try again later
"""

from __future__ import annotations


class StoreError(Exception):
    """Base class. `reason` is the reason of a metav1.Status."""

    reason = "InternalError"


class AlreadyExists(StoreError):
    reason = "AlreadyExists"


class NotFound(StoreError):
    reason = "NotFound"


class Conflict(StoreError):
    reason = "Conflict"


class Expired(StoreError):
    reason = "Expired"


class StorageFailed(StoreError):
    reason = "InternalError"
