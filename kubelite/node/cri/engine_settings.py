"""The node settings that the engine's client reads. `kubelite.settings.Settings` satisfies this protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class EngineSettings(Protocol):
    @property
    def root(self) -> str:
        """State, images and pods: /var/lib/kubelite."""

    @property
    def run_dir(self) -> str:
        """Sockets and shims; gone after a reboot: /run/kubelite."""

    @property
    def log_dir(self) -> str:
        """The parent of pods/ and containers/: /var/log."""

    @property
    def node_name(self) -> str: ...

    @property
    def cgroup_parent(self) -> str: ...

    @property
    def log_max_size(self) -> int:
        """Bytes of a container's log before it is rotated."""

    @property
    def log_max_files(self) -> int: ...

    @property
    def runtime_classes(self) -> Mapping[str, str]:
        """runtimeClassName → path of an OCI runtime."""
