"""What the store says when it cannot do as asked.

StoreError
├── AlreadyExists      create: this kind, namespace and name (or uid) is taken
├── NotFound           update: no such object
├── Conflict           update: somebody wrote in between (resourceVersion differs)
├── Expired            watch: the changes since that resourceVersion are no longer kept; list again
└── StorageFailed      the disk refused the write (full, read-only, broken); nothing changed, try again later
"""

from __future__ import annotations


class StoreError(Exception):
    """Base. `reason` is the metav1.Status reason."""

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
