"""The exceptions of the runtime package. Programs use the class and `reason`; people read the message.

    RuntimeFault                       base of all errors that the runtime raises deliberately
    ├── SyscallError                   a system call failed: errno, its name, its object
    ├── SpecError                      config.json or a request is malformed, or requests something impossible
    ├── StateError                     the operation is invalid in the container's state (start of a running one, …)
    │   └── NotFoundError              no such container, exec, image or sandbox
    ├── StartError                     the entry point could not be executed (not found, no permission, bad format)
    ├── CapabilityError                this kernel or machine lacks a requested feature
    ├── ImageError                     a registry, archive or layer failed
    └── NetworkError                   a bridge, veth, address or rule failed

`reason` is a CamelCase word as in Kubernetes status. `retriable` tells whether a later retry can help.
"""

from __future__ import annotations

import os


class RuntimeFault(Exception):
    """The base of all deliberate errors. `reason` (CamelCase) is for programs, str(error) for people."""

    reason = "RuntimeFault"
    retriable = False

    def __init__(self, message: str, *, reason: str | None = None, retriable: bool | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        if retriable is not None:
            self.retriable = retriable


class SyscallError(RuntimeFault, OSError):
    """A system call failed. It is also an OSError, so code can match `errno` (but not subclasses such as
    FileNotFoundError)."""

    reason = "SyscallError"

    def __init__(self, errno_: int, call: str, about: str = "") -> None:
        RuntimeFault.__init__(self, f"{call}{f' {about}' if about else ''}: {os.strerror(errno_)}")
        self.errno = errno_
        self.call = call
        self.about = about

    def __str__(self) -> str:
        return str(self.args[0])


class SpecError(RuntimeFault):
    reason = "InvalidSpec"


class StateError(RuntimeFault):
    reason = "InvalidState"


class NotFoundError(StateError):
    reason = "NotFound"


class StartError(RuntimeFault):
    """The container's program could not be executed: kubelet's StartError with exit code 128 (127 or 126 for exec)."""

    reason = "StartError"


class CapabilityError(RuntimeFault):
    reason = "NotSupported"


class ImageError(RuntimeFault):
    reason = "ErrImagePull"


class NetworkError(RuntimeFault):
    reason = "NetworkNotReady"
    retriable = True
