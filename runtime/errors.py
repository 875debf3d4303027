"""The error tree of the runtime room. Programs read the class and `reason`; people read the sentence.

    RuntimeFault                       anything the runtime reports on purpose
    ├── SyscallError                   a system call failed: errno, name of the call, what it was about
    ├── SpecError                      config.json (or a request) asks for something impossible or malformed
    ├── StateError                     the operation does not fit the container's state (start of a running one, …)
    │   └── NotFoundError              no such container, exec, image, sandbox
    ├── StartError                     the entry point could not be executed (not found, no permission, bad format)
    ├── CapabilityError                this kernel or machine lacks what is asked for
    ├── ImageError                     registry, archive or layer trouble
    └── NetworkError                   bridge, veth, address or rule trouble

`reason` is a CamelCase word as in Kubernetes status; `retriable` says whether trying again later can help.
"""

from __future__ import annotations

import os


class RuntimeFault(Exception):
    """Base of every deliberate error. `reason` (CamelCase) is for programs, str(error) for people."""

    reason = "RuntimeFault"
    retriable = False

    def __init__(self, message: str, *, reason: str | None = None, retriable: bool | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        if retriable is not None:
            self.retriable = retriable


class SyscallError(RuntimeFault, OSError):
    """A system call failed. Is an OSError too, so `errno` matching (FileNotFoundError aside) works."""

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
    """The container's program could not be executed; kubelet's StartError, exit code 128 (or 127/126 for exec)."""

    reason = "StartError"


class CapabilityError(RuntimeFault):
    reason = "NotSupported"


class ImageError(RuntimeFault):
    reason = "ErrImagePull"


class NetworkError(RuntimeFault):
    reason = "NetworkNotReady"
    retriable = True
