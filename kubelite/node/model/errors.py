"""Errors that keep a container from being created. Each class has the reason that the container's status shows."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class ConfigError(RuntimeFault):
    """The manifest refers to something that does not exist or is not allowed: a key, a user, a sub-path."""

    reason = "CreateContainerConfigError"


class CreateError(RuntimeFault):
    """The container cannot be created as specified."""

    reason = "CreateContainerError"


class MountError(RuntimeFault):
    """A volume cannot be set up (event FailedMount). The pod's containers wait."""

    reason = "ContainerCreating"
    retriable = True
