"""Open pods' network namespaces by path, identify them by inode, and enter them (in the helper's main thread only)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from runtime import syscalls
from runtime.errors import NetworkError, SpecError

_EX_SOFTWARE = 70


class Namespaces:
    """Enters a pod's network namespace and returns to the node's own, in which this object was created."""

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        """Run in another network namespace. If the thread cannot return, the helper exits."""
        syscalls.setns(namespace, syscalls.CLONE_NEWNET, about="the pod's network namespace")
        try:
            yield
        finally:
            try:
                syscalls.setns(self._home, syscalls.CLONE_NEWNET, about="the node's network namespace")
            except OSError:
                os._exit(_EX_SOFTWARE)  # the client starts a new helper, which repairs the node

    def checked_identity(self, namespace: int, path: str) -> str:
        """The namespace's identity. Raises SpecError for the node's own namespace, because an eth0 must never be
        configured there."""
        found = identity_of(namespace)
        if found == identity_of(self._home):
            raise SpecError(f"{path} is the node's own network namespace, not a pod's")
        return found


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of the namespace at a path such as /proc/<pid>/ns/net. Raises NetworkError if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkError(f"cannot open the pod's network namespace {path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def identity_of(namespace: int) -> str:
    """Device and inode of a namespace's descriptor: the same for the same namespace, whatever path it was opened by."""
    status = os.fstat(namespace)
    return f"{status.st_dev}:{status.st_ino}"
