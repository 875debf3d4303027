"""What can stop a container before there is one, in kubelet's words: the class says which reason status shows."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class ConfigError(RuntimeFault):
    """The manifest asks for something that is not there, or must not be: a key, a user, a sub-path."""

    reason = "CreateContainerConfigError"


class CreateError(RuntimeFault):
    """The container cannot be made as asked."""

    reason = "CreateContainerError"


class MountError(RuntimeFault):
    """A volume cannot be set up (event FailedMount); the pod's containers wait."""

    reason = "ContainerCreating"
    retriable = True
