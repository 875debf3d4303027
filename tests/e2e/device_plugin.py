"""A device plugin, as a program of its own: gRPC by grpcio, messages by protobuf, nothing of kubelite.

Its directory has the socket of the node. It registers, again whenever its own socket is removed, as plugins do. What it
offers and answers is in a JSON file that tests change; what it is asked, it appends to another file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests import waiting
from tests.plugin_protos import DEVICE_PLUGIN, message_classes

REPO = Path(__file__).resolve().parents[2]
M = message_classes("v1beta1", DEVICE_PLUGIN)
PERIOD = 0.05  # seconds between looks at the file


@dataclass(slots=True)
class Plugin:
    """The process. `node`: the directory of the node's socket; `base`: of the files of the plugin."""

    node: Path
    base: Path
    resource: str = "example.com/dongle"
    process: subprocess.Popen[bytes] | None = None
    behavior: dict[str, Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return self.resource.replace("/", "-") + ".sock"

    def behave(self, **changes: Any) -> None:
        """Change what it offers: `devices` (id → health), and what it answers: see `_Service`."""
        self.behavior.update(changes)
        self.base.mkdir(exist_ok=True)
        new = self.base / "behavior.new"
        new.write_text(json.dumps(self.behavior))
        new.rename(self.base / "behavior.json")

    def start(self) -> None:
        self.behave()
        with (self.base / "plugin.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.device_plugin", self.node, self.base, self.resource],
                cwd=REPO, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def calls(self, method: str = "") -> list[dict[str, Any]]:
        """Return what it was asked, in order: {"method", and the request's fields}."""
        try:
            lines = (self.base / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [one for one in found if method in ("", one["method"])]

    def wait_registered(self, times: int = 1) -> None:
        waiting.until(lambda: len(self.calls("registered")) >= times, f"registration {times}: {self.log()}")

    def log(self) -> str:
        path = self.base / "plugin.log"
        return path.read_text() if path.exists() else ""


class _Service:
    """Answers as the file says: `options`, `devices` (id → health), `nodes` (id → NUMA nodes), `response` (fields of
    ContainerAllocateResponse; `{ids}` in a variable stands for the devices), `prefer` (ids), `error` and `seconds` by
    method."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._lock = threading.Lock()
        self.closing = threading.Event()

    def behavior(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._base / "behavior.json").read_text())
        return found

    def note(self, method: str, **what: Any) -> None:
        with self._lock, (self._base / "calls").open("a") as file:
            file.write(json.dumps({"method": method, **what}) + "\n")

    def _begin(self, method: str, context: Any, **what: Any) -> dict[str, Any]:
        behavior = self.behavior()
        self.note(method, **what)
        time.sleep(behavior.get("seconds", {}).get(method, 0))
        if error := behavior.get("error", {}).get(method):
            context.abort(grpc.StatusCode.UNKNOWN, error)
        return behavior

    def options(self, _request: Any, context: Any) -> Any:
        behavior = self._begin("GetDevicePluginOptions", context)
        return M["DevicePluginOptions"](**behavior.get("options", {}))

    def watch(self, _request: Any, context: Any) -> Iterator[Any]:
        self.note("ListAndWatch")
        last = None
        while not self.closing.is_set() and context.is_active():
            behavior = self.behavior()
            found = behavior.get("devices", {}), behavior.get("nodes", {})
            if found != last:
                last = found
                yield M["ListAndWatchResponse"](
                    devices=[_device(one, health, found[1].get(one, ())) for one, health in found[0].items()]
                )
            time.sleep(PERIOD)

    def allocate(self, request: Any, context: Any) -> Any:
        asked = [list(one.devices_ids) for one in request.container_requests]
        behavior = self._begin("Allocate", context, ids=asked)
        given = behavior.get("response", {})
        answers = [
            {
                **given,
                "envs": {k: v.replace("{ids}", ",".join(ids)) for k, v in given.get("envs", {}).items()},
            }
            for ids in asked
        ]
        return M["AllocateResponse"](container_responses=answers)

    def before_start(self, request: Any, context: Any) -> Any:
        self._begin("PreStartContainer", context, ids=list(request.devices_ids))
        return M["PreStartContainerResponse"]()

    def prefer(self, request: Any, context: Any) -> Any:
        asked = [
            {
                "available": sorted(one.available_deviceIDs),
                "must": sorted(one.must_include_deviceIDs),
                "size": one.allocation_size,
            }
            for one in request.container_requests
        ]
        behavior = self._begin("GetPreferredAllocation", context, asked=asked)
        wish = {"deviceIDs": behavior.get("prefer", [])}
        return M["PreferredAllocationResponse"](container_responses=[wish for _ in asked])


def _device(identity: str, health: str, nodes: Any) -> Any:
    topology = M["TopologyInfo"](nodes=[{"ID": node} for node in nodes]) if nodes else None
    return M["Device"](ID=identity, health=health, topology=topology)


def serve(node: Path, base: Path, resource: str) -> None:
    service, name = _Service(base), resource.replace("/", "-") + ".sock"
    one = grpc.unary_unary_rpc_method_handler
    methods = {
        "GetDevicePluginOptions": one(service.options, M["Empty"].FromString, _bytes),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(service.watch, M["Empty"].FromString, _bytes),
        "Allocate": one(service.allocate, M["AllocateRequest"].FromString, _bytes),
        "PreStartContainer": one(service.before_start, M["PreStartContainerRequest"].FromString, _bytes),
        "GetPreferredAllocation": one(service.prefer, M["PreferredAllocationRequest"].FromString, _bytes),
    }
    socket = node / name
    socket.unlink(missing_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods),))
    server.add_insecure_port(f"unix:{name}")
    server.start()
    while not socket.exists():
        time.sleep(PERIOD)
    register(name, resource, service)
    while socket.exists():
        time.sleep(PERIOD)
    service.closing.set()
    server.stop(0).wait()


def register(endpoint: str, resource: str, service: _Service) -> None:
    """Register, again until the node takes it."""
    while True:
        with grpc.insecure_channel("unix:kubelet.sock") as channel:
            call = channel.unary_unary("/v1beta1.Registration/Register", _bytes, M["Empty"].FromString)
            request = M["RegisterRequest"](version="v1beta1", endpoint=endpoint, resource_name=resource)
            try:
                call(request, timeout=20)
            except grpc.RpcError as error:
                service.note("refused", words=str(error.details()))
                time.sleep(PERIOD)
            else:
                service.note("registered")
                return


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.chdir(sys.argv[1])  # a socket's address has at most 107 bytes, and the directory's path may have more
    while True:
        serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
