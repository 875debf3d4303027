"""Calls a network's plugins one after the other: ADD in the order of the list, DEL in the opposite one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from runtime.cni import execution
from runtime.cni.conflist import (
    CHECK_SINCE,
    GC_SINCE,
    STATUS_SINCE,
    VERSIONS,
    Network,
    agreed_version,
    at_least,
)
from runtime.cni.execution import PluginError
from runtime.cni.records import Record
from runtime.cni.requests import Pod, environment, plugin_config
from runtime.cni.results import parse_result, parse_versions
from runtime.errors import NetworkError, SpecError

T = TypeVar("T")

_VERBS = {"DEL": "delete"}  # libcni's words for commands, where they differ

#: Given a pod's uid and "ADD bridge": a context around the call of a plugin, such as a step of a trace.
Step = Callable[[str, str], AbstractContextManager[None]]


def no_step(_uid: str, _call: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(slots=True)
class Plugins:
    """The programs of plugins in `paths`, the first that has one wins. `seconds`: the deadline of each call."""

    paths: Sequence[str]
    seconds: float
    step: Step = no_step
    _versions: dict[tuple[str, int], frozenset[str]] = field(
        default_factory=dict
    )  # by path and time of change

    async def version(self, network: Network) -> str:
        """The version in which all plugins of the network are asked. Raises NetworkError."""
        kinds = dict.fromkeys(plugin["type"] for plugin in network.plugins)
        known = {kind: await self._supported(kind, network) for kind in kinds}
        try:
            return agreed_version(network, known.__getitem__)
        except SpecError as error:
            raise NetworkError(f"network {network.name}: {error}") from error

    async def _supported(self, kind: str, network: Network) -> frozenset[str]:
        path = execution.find(kind, self.paths)
        try:
            key = (path, (await asyncio.to_thread(_changed, path)))
        except OSError as error:
            raise PluginError(f"{path}: {error.strerror}") from error
        if key not in self._versions:
            config = {"cniVersion": VERSIONS[-1]}
            answer = await self._call("VERSION", network, {"type": kind}, None, config)
            self._versions[key] = _parsed("VERSION", network, kind, lambda: parse_versions(answer))
        return self._versions[key]

    async def add(self, record: Record) -> dict[str, Any]:
        """Attach a pod. Returns the last plugin's result. Raises NetworkError; what the first plugins did stays."""
        result: dict[str, Any] | None = None
        network, version = record.network, record.version
        for plugin in network.plugins:
            config = plugin_config(network, plugin, version, values=record.pod.values, previous=result)
            answer = await self._call("ADD", network, plugin, record.pod, config)
            result = _parsed("ADD", network, plugin["type"], lambda: parse_result(answer, version))  # noqa: B023
        assert result is not None  # a list has at least one plugin
        return result

    async def delete(self, record: Record, netns: str) -> None:
        """Detach a pod. `netns`: the path of its namespace, or "" if that is gone. Raises NetworkError at the first
        plugin that fails."""
        pod = _with_netns(record.pod, netns)
        for plugin in reversed(record.network.plugins):
            previous = record.result if at_least(record.version, CHECK_SINCE) else None
            config = plugin_config(
                record.network, plugin, record.version, values=pod.values, previous=previous
            )
            await self._call("DEL", record.network, plugin, pod, config)

    async def check(self, record: Record) -> None:
        """Raises NetworkError if a plugin finds the attachment damaged. Returns at once if the network has no check."""
        network = record.network
        if network.disable_check or not at_least(record.version, CHECK_SINCE) or record.result is None:
            return
        for plugin in network.plugins:
            config = plugin_config(
                network, plugin, record.version, values=record.pod.values, previous=record.result
            )
            await self._call("CHECK", network, plugin, record.pod, config)

    async def collect(self, network: Network, version: str, valid: Sequence[Pod]) -> list[str]:
        """Have the plugins remove what belongs to no valid attachment. Returns a sentence for each that fails (the
        specification, section 4: GC goes on after an error)."""
        if not collects(network, version):
            return []
        listed = [{"containerID": pod.container_id, "ifname": pod.ifname} for pod in valid]
        failed = []
        for plugin in network.plugins:
            more = {"cni.dev/valid-attachments": listed}
            try:
                await self._call(
                    "GC", network, plugin, None, plugin_config(network, plugin, version, more=more)
                )
            except NetworkError as error:
                failed.append(str(error))
        return failed

    async def status(self, network: Network, version: str) -> None:
        """Raises NetworkError if a plugin cannot attach pods now."""
        if not at_least(version, STATUS_SINCE):
            return
        for plugin in network.plugins:
            await self._call("STATUS", network, plugin, None, plugin_config(network, plugin, version))

    async def _call(
        self,
        command: str,
        network: Network,
        plugin: Mapping[str, Any],
        pod: Pod | None,
        config: Mapping[str, Any],
    ) -> bytes:
        kind = plugin["type"]
        step = self.step(pod.uid, f"{command} {kind}") if pod is not None else nullcontext()
        try:
            with step:
                path = execution.find(kind, self.paths)
                return await execution.run(
                    path, environment(command, pod, self.paths), config, seconds=self.seconds
                )
        except PluginError as error:
            raise PluginError(f"{_described(command, network, kind)}: {error}", error.code) from error


def collects(network: Network, version: str) -> bool:
    """Whether the plugins of a network have GC."""
    return not network.disable_gc and at_least(version, GC_SINCE)


def _described(command: str, network: Network, kind: str) -> str:
    """libcni's words for a call that failed (pkg/libcni/api.go, pluginDescription)."""
    return f'plugin type="{kind}" name="{network.name}" failed ({_VERBS.get(command, command.lower())})'


def _parsed(command: str, network: Network, kind: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except ValueError as error:
        raise PluginError(f"{_described(command, network, kind)}: unexpected answer: {error}") from error


def _with_netns(pod: Pod, netns: str) -> Pod:
    return replace(pod, netns=netns)


def _changed(path: str) -> int:
    return os.stat(path).st_mtime_ns
