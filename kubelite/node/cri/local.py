"""The `Cri` of this machine: shims, network and image store together, and their records in the store.

`observe` asks the shims each time. The rows in the store add only what no shim knows any more: the instances of an
earlier sandbox, and the containers that ran when the machine went down. All calls for a pod come from its worker, so
there is no lock per pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from kubelite.node.cri import pod_files, recovery
from kubelite.node.cri.bundles import prepare, runtime_path, sandbox_config
from kubelite.node.cri.commands import Commands, exec_process
from kubelite.node.cri.engine_settings import EngineSettings
from kubelite.node.cri.memory_shrink import check_memory
from kubelite.node.cri.observed import ObservedImages, observed_container, observed_image, observed_sandbox
from kubelite.node.cri.pod_network import PodNetwork
from kubelite.node.cri.rows import ContainerRows
from kubelite.node.cri.shim_connection import RunningShim, both, noted_rates, rates_of
from kubelite.node.model.cri import (
    ContainerRequest,
    ExecResult,
    HostPort,
    ObservedContainer,
    ObservedImage,
    ObservedPod,
    ObservedSandbox,
    Rates,
    SandboxRequest,
    host_ports,
)
from kubelite.node.model.node_config import pod_log_name
from kubelite.node.model.recorder import StepRecorder
from kubelite.node.storage.mounts import unmount_below
from manifests.problems import InvalidObject
from manifests.types.core import Pod
from runtime.cgroups import open_cgroup
from runtime.errors import NotFoundError, RuntimeFault, StartError, StateError
from runtime.images.client import ImageClient
from runtime.network.plan import Attachment, Bandwidth, PortMapping
from runtime.shim.client import ShimClient, ShimGone, read_state, reap_dead, shim_alive
from runtime.shim.protocol import EVENT_EXEC_EXIT, EVENT_EXIT, ContainerRecord, SandboxRecord
from runtime.shim.state import occupied
from runtime.shim.warm.forkserver_client import Forkserver
from state.errors import StoreError
from state.store import Store

log = logging.getLogger(__name__)
ADOPT_SECONDS = 10.0  # for a shim to answer at the daemon's start; later, its pod's own rounds wait for it
DYING = 3.0  # seconds that a shim may take to exit after it closed its connection


class LocalCri:
    """Drive the engine for the node. `on_change(uid)` is called when a pod needs a round, `warn(uid, message)` for what
    a user should know. A pod is attached to the network when `admitted(uid)` has returned."""

    def __init__(
        self,
        settings: EngineSettings,
        store: Store,
        *,
        forkserver: Forkserver,
        network: PodNetwork,
        images: ImageClient,
        tracer: StepRecorder,
        on_change: Callable[[str], None] = lambda _uid: None,
        warn: Callable[[str, str], None] = lambda _uid, _message: None,
        admitted: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._on_change = on_change
        self._warn = warn
        self._admitted = admitted
        self.images = images
        self._settings = settings
        self._store = store
        self._forkserver = forkserver
        self._network = network
        self._tracer = tracer
        self._shims: dict[str, RunningShim] = {}
        self._messages: dict[str, str] = {}  # container id -> termination message, read once
        self._rows = ContainerRows(store)
        self._stopping: set[str] = set()  # pods whose network is being released
        self._commands = Commands()
        self._images = ObservedImages(images)

    # -- paths --------------------------------------------------------------------------------------------------

    def run_dir(self, uid: str) -> str:
        return f"{self._settings.run_dir}/shims/{uid}"

    def pod_dir(self, uid: str) -> str:
        return f"{self._settings.root}/pods/{uid}"

    def bundle(self, uid: str, name: str, attempt: int) -> str:
        return f"{self.pod_dir(uid)}/containers/{name}/{attempt}"

    # -- life of the node ---------------------------------------------------------------------------------------

    async def adopt(self) -> dict[str, SandboxRecord]:
        """Connect to running shims, clean up after dead ones and end those that cannot be reached. Release addresses of
        no pod, and attach pods that lost theirs. Return the records of the running shims by pod uid."""
        for uid in await asyncio.to_thread(recovery.end_unreachable, self._settings):
            log.error("ended a pod's shim, whose files were removed or damaged", extra={"uid": uid})
        directory = f"{self._settings.run_dir}/shims"
        uids = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        waits = (asyncio.wait_for(self._shim(uid), ADOPT_SECONDS) for uid in uids)
        for uid, result in zip(uids, await asyncio.gather(*waits, return_exceptions=True), strict=True):
            if isinstance(result, (RuntimeFault, StoreError, OSError)):
                said = str(result) or "it does not answer"  # the pod's own rounds meet it again and report it
                log.error("cannot adopt or clean up a pod's shim: %s", said, extra={"uid": uid})
            elif isinstance(result, BaseException):
                raise result
        pod_files.link_logs(self._settings.log_dir, [shim.record for shim in self._shims.values()])
        here = {*self._shims, *(uid for uid in uids if occupied(self.run_dir(uid)))}
        await recovery.release_gone(self._network, here)
        for sentence in await self.attach_lost():
            log.warning("network repaired: %s", sentence)
        return self.running_sandboxes()

    async def attach_lost(self) -> list[str]:
        """Attach running pods again whose leases were lost, at their addresses if free. Return a sentence for each."""
        held = {attachment.uid for attachment in await self._network.list()}
        done = []
        for uid, shim in list(self._shims.items() if self._network.reattaches else ()):
            had, pod = shim.record.annotations.get("ip", ""), self._store.get_uid(uid)
            if not had or uid in held or uid in self._stopping or pod is None or shim.client.closed:
                continue
            try:
                parsed = Pod.parse(pod.doc)
                found = await self._add(uid, shim.record.pid, host_ports(parsed), rates_of(shim.record), had)
                if (found.ip, found.ip6) != (had, shim.record.annotations.get("ip6", "")):
                    shim.record = await shim.client.annotate({"ip": found.ip, "ip6": found.ip6})
                    self._on_change(uid)
            except (RuntimeFault, InvalidObject) as error:
                log.error("cannot attach the pod to the network again: %s", error, extra={"uid": uid})
                continue
            done.append(f"pod {uid}: had lost its lease of {had}, and has {found.ip}")
        return done

    async def rewrite_records(self, uids: Iterable[str]) -> None:
        await recovery.rewrite_records(self._settings, self._shims, uids)

    async def close(self) -> None:
        """Close the connections to the shims. They and their containers keep running."""
        for shim in self._shims.values():
            shim.client.close()
        self._shims.clear()
        await self._rows.close()

    def running_sandboxes(self) -> dict[str, SandboxRecord]:
        """Return the running sandboxes as last reported, by pod uid (for metrics and doctor)."""
        shims = list(self._shims.items())  # one atomic step: the metrics call this from their own thread
        return {uid: shim.record for uid, shim in shims if not shim.client.closed}

    def helpers(self) -> tuple[int, ...]:
        """Return the pids of the daemon's own processes in the shims' cgroup."""
        return (self._forkserver.pid, self._forkserver.spare)

    # -- observation --------------------------------------------------------------------------------------------

    async def observe(self, uid: str) -> ObservedPod:
        shim = await self._shim(uid)
        record: SandboxRecord | None = None
        if shim is not None:
            try:
                with recovery.killing_if_silent(uid, shim, really=self._is_deleted(uid)):
                    record = await shim.look()
            except ShimGone:
                return await self.observe(uid)
        containers = [ContainerRecord.from_json(c) for c in record.containers] if record else []
        known = {c.id for c in containers}
        here = record.sandbox_id if record else ""
        observed = [self._observed(c, sandbox=here, lost=False) for c in containers]
        for row in self._store.containers(uid):
            if row.id not in known:
                before = str(row.doc.get("sandbox_id") or "lost")
                observed.append(self._observed(ContainerRecord.from_json(row.doc), sandbox=before, lost=True))
        observed.sort(key=lambda c: (c.name, c.attempt, c.created_at))
        logged = {} if observed or record is not None else self._logged(uid)
        return ObservedPod(uid, observed_sandbox(record) if record else None, tuple(observed), logged)

    def _is_deleted(self, uid: str) -> bool:
        pod = self._store.get_uid(uid)
        return pod is None or pod.deleting

    def _logged(self, uid: str) -> dict[str, int]:
        """Return the newest attempt of each container that left a log, if nothing else is known of the pod."""
        known = self._store.get_uid(uid)
        if known is None:
            return {}
        name = pod_log_name(known.namespace, known.name, uid)
        return pod_files.logged_attempts(f"{self._settings.log_dir}/pods/{name}")

    def _observed(self, record: ContainerRecord, *, sandbox: str, lost: bool) -> ObservedContainer:
        return observed_container(record, sandbox=sandbox, lost=lost, message=self._message)

    def _message(self, record: ContainerRecord) -> str:
        """Return what the container wrote to its termination message file. The file is read once."""
        path = record.labels.get("message_path", "")
        if path and record.id not in self._messages:
            self._messages[record.id] = pod_files.termination_message(path)
        return self._messages.get(record.id, "")

    async def _shim(self, uid: str) -> RunningShim | None:
        """Return the connection to the pod's running shim. Clean up after a dead one."""
        shim = self._shims.get(uid)
        if shim is not None and not shim.client.closed:
            return shim
        self._shims.pop(uid, None)
        run_dir = self.run_dir(uid)
        until = time.monotonic() + DYING
        while True:
            record = read_state(run_dir)
            if record is not None and shim_alive(record):
                with contextlib.suppress(ShimGone):
                    return await self._connect(uid, run_dir)
            if not os.path.isdir(run_dir):
                return None
            if not occupied(run_dir):
                await self._bury(uid, run_dir)
                return None
            # The shim has closed its connection but not exited, or it is just starting. Neither means "no sandbox": the
            # caller would conclude that the pod has ended, and nothing would look for the shim again.
            if time.monotonic() > until:
                raise StateError(f"the shim of pod {uid} neither answers nor exits", retriable=True)
            await asyncio.sleep(0.01)

    async def _connect(self, uid: str, run_dir: str) -> RunningShim:
        client = await ShimClient.connect(
            run_dir,
            on_event=lambda event: self._on_event(uid, event),
            on_close=lambda: self._on_close(uid),
        )
        try:
            shim = RunningShim(await client.subscribe(), client)
        except BaseException:
            client.close()
            raise
        other = self._shims.get(uid)
        if other is not None and not other.client.closed:  # the API connected at the same time
            client.close()
            return other
        self._shims[uid] = shim
        return shim

    async def _bury(self, uid: str, run_dir: str) -> None:
        """Clean up after a dead shim: release its address, keep its records, end its leftovers. The run directory is
        removed last: while it exists, the next round repeats what failed."""
        until = time.monotonic() + DYING
        while occupied(run_dir):
            if time.monotonic() > until:
                raise StateError(f"the shim of pod {uid} does not exit", retriable=True)
            await asyncio.sleep(0.01)
        await self._network.delete(uid)
        if (last := read_state(run_dir)) is not None:  # nothing else has these records
            await self._rows.write(uid, last.containers)
        last = await reap_dead(run_dir)
        if last is not None:
            log.warning("shim died", extra={"uid": uid, "pid": last.pid})
            await self._rows.write(uid, last.containers)
        else:
            shutil.rmtree(run_dir, ignore_errors=True)

    def _on_close(self, uid: str) -> None:
        self._commands.hung_up(uid)
        self._on_change(uid)

    def _on_event(self, uid: str, event: dict[str, Any]) -> None:
        if event.get("event") == EVENT_EXEC_EXIT:
            self._commands.ended(event)
        elif event.get("event") == EVENT_EXIT:
            if uid in self._shims:
                self._shims[uid].ended.add(event["container"]["id"])
            self._rows.soon(uid, ContainerRecord.from_json(event["container"]))
            self._on_change(uid)

    # -- sandbox ------------------------------------------------------------------------------------------------

    async def run_sandbox(self, request: SandboxRequest) -> ObservedSandbox:
        uid = request.uid
        runtime_path(request.runtime_class, self._settings)  # an unknown class fails first
        config = sandbox_config(request, self.run_dir(uid), self._settings)
        with self._tracer.step(uid, "shim"):
            record = await self._forkserver.spawn(config)
        self._tracer.counted("cgroup create", record.cgroup_took)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self._abandon, uid)
            with self._tracer.step(uid, "network"):
                connected, attached = self._connect(uid, config.run_dir), self._attach(request, record.pid)
                shim, address = await both(connected, attached)
            if address is not None:
                for warning in address.warnings:
                    self._warn(uid, warning)
                noted = noted_rates(request.bandwidth) if any(request.bandwidth) else {}
                shim.record = await shim.client.annotate(address.addresses | noted)
            undo.pop_all()
        return observed_sandbox(shim.record)

    async def _attach(self, request: SandboxRequest, pid: int) -> Attachment | None:
        if request.host_network:
            return None
        if self._admitted:
            await self._admitted(request.uid)
        return await self._add(request.uid, pid, request.host_ports, request.bandwidth)

    async def _add(
        self, uid: str, pid: int, ports: Iterable[HostPort], to: Rates, had: str = ""
    ) -> Attachment:
        """Attach the network namespace of the shim `pid`, limited `to` rates. `had`: as for NetworkClient.add."""
        mappings = [PortMapping(p.host_port, p.container_port, p.protocol, p.host_ip) for p in ports]
        return await self._network.add(uid, f"/proc/{pid}/ns/net", mappings, had=had, limit=Bandwidth(*to))

    async def _abandon(self, uid: str) -> None:
        try:
            await self.stop_sandbox(uid)
        except RuntimeFault as error:
            log.warning("cannot undo a failed sandbox: %s", error, extra={"uid": uid})

    async def update_sandbox(self, uid: str, *, resources: dict[str, Any], resources_hash: str) -> None:
        shim = await self._running(uid)
        group = open_cgroup(shim.record.cgroup)
        check_memory(group, resources, of="pod")
        with self._tracer.count("cgroup update"):
            for warning in await asyncio.to_thread(group.apply, resources):
                self._warn(uid, warning)
        await shim.client.annotate({"resources_hash": resources_hash})

    async def limit_sandbox(self, uid: str, rates: Rates) -> None:
        shim = await self._running(uid)
        for warning in await self._network.limit(uid, Bandwidth(*rates)):
            self._warn(uid, warning)
        shim.record = await shim.client.annotate(noted_rates(rates))

    async def stop_sandbox(self, uid: str) -> None:
        self._stopping.add(uid)
        try:
            await self._stop_sandbox(uid)
        finally:
            self._stopping.discard(uid)

    async def _stop_sandbox(self, uid: str) -> None:
        # the address first: while the run directory exists, the next round repeats what failed
        await self._network.delete(uid)
        shim = await self._shim(uid)
        pod = self._store.get_uid(uid)
        kept = pod is None or not pod.deleting  # for a pod being deleted, the records are removed next anyway
        if shim is not None:
            with contextlib.suppress(ShimGone), recovery.killing_if_silent(uid, shim):
                if kept:
                    last = await shim.client.state()
                    await self._rows.write(uid, last.containers)
            with (
                contextlib.suppress(ShimGone),
                recovery.killing_if_silent(uid, shim),
                self._tracer.count("stop sandbox"),
            ):
                self._tracer.counted("cgroup destroy", await shim.client.shutdown(force=True))
            shim.client.close()
            self._shims.pop(uid, None)
        if os.path.isdir(self.run_dir(uid)):
            await self._bury(uid, self.run_dir(uid))
        if kept:
            await self._rows.mark_lost(uid)

    async def remove_pod(self, uid: str) -> None:
        row_logs = {
            os.path.dirname(os.path.dirname(r.doc.get("log_path", ""))) for r in self._store.containers(uid)
        }
        for row in self._store.containers(uid):
            self._messages.pop(row.id, None)
        self._rows.forget(uid)
        await asyncio.to_thread(unmount_below, self.pod_dir(uid))
        logs = [path for path in row_logs if path.endswith(uid)]
        await asyncio.to_thread(pod_files.remove_pod, uid, self.pod_dir(uid), logs, self._settings.log_dir)

    # -- containers ---------------------------------------------------------------------------------------------

    async def start_container(self, request: ContainerRequest) -> ObservedContainer:
        uid = request.uid
        shim = await self._running(uid)
        with self._tracer.step(uid, "bundle", container=request.name):
            create = prepare(request, self.bundle(uid, request.name, request.attempt), self._settings)
        try:
            with contextlib.ExitStack() as under_way:
                with self._tracer.step(uid, "create", container=request.name):
                    launch = under_way.enter_context(shim.client.launch(create))
                    times = await launch.created()
                self._tracer.inner(uid, request.name, times, step="create")
                # the log exists now, so the link never dangles
                pod_files.link_log(self._settings.log_dir, request.log_path, request.name, request.id)
                with self._tracer.step(uid, "start", container=request.name):
                    record, times = await launch.started()
            self._tracer.inner(uid, request.name, times, step="start")
        except StartError:
            with contextlib.suppress(ShimGone):
                now = await shim.client.state()
                found = [container for container in now.containers if container["id"] == request.id]
                self._rows.in_background(self._rows.write(uid, found))
            raise
        except Exception:
            with contextlib.suppress(RuntimeFault):  # usually there is no such container
                await shim.client.kill(request.id, 9, all=True)
            raise
        # A cancelled start (the daemon stops) is left alone: the next observation shows whether it took place.
        if record.id not in shim.ended:  # otherwise its exit is already recorded
            self._rows.soon(uid, record)
        return self._observed(record, sandbox=shim.record.sandbox_id, lost=False)

    async def stop_container(
        self, uid: str, container_id: str, *, signal: int, grace: float, killed_for: str = ""
    ) -> None:
        if (client := await self._client(uid)) is not None:
            with contextlib.suppress(NotFoundError):
                if killed_for:  # first: its exit must not be mistaken for an ordered stop
                    await client.update(container_id, labels={"killed_for": killed_for})
                with self._tracer.count("stop"):
                    await client.stop(container_id, signal=signal, grace=grace)

    async def label_container(self, uid: str, container_id: str, labels: dict[str, str]) -> None:
        await (await self.client(uid)).update(container_id, labels=labels)

    async def update_container(
        self, uid: str, container_id: str, *, resources: dict[str, Any], resources_hash: str
    ) -> None:
        client = (await self._running(uid)).client
        for found in map(ContainerRecord.from_json, (await client.state()).containers):
            if found.id == container_id and found.cgroup:
                check_memory(open_cgroup(found.cgroup), resources, of="container")
        with self._tracer.count("update"):
            await client.update(container_id, resources=resources, labels={"resources_hash": resources_hash})

    async def remove_container(self, uid: str, container_id: str, *, keep_log: bool = False) -> None:
        client = await self._client(uid)
        known = {row.id: ContainerRecord.from_json(row.doc) for row in self._store.containers(uid)}
        if client is not None:
            here = [ContainerRecord.from_json(c) for c in (await client.state()).containers]
            known |= {c.id: c for c in here}
            if any(c.id == container_id for c in here):
                with self._tracer.count("remove"):
                    await client.delete(container_id)
        found = known.pop(container_id, None)
        if found is not None:
            pod_files.unlink_log(self._settings.log_dir, found.log_path, found.name, found.id)
            used = {other.log_path for other in known.values()}
            await asyncio.to_thread(pod_files.forget_log, found.log_path, used, earlier=keep_log)
        # also when there is no row yet: its record may be about to be written
        self._rows.remove(container_id)
        self._messages.pop(container_id, None)
        if uid in self._shims:
            self._shims[uid].ended.discard(container_id)
        if found is not None and found.bundle.startswith(self.pod_dir(uid) + "/"):
            await asyncio.to_thread(pod_files.remove_trees, [found.bundle])

    async def exec(
        self, uid: str, container_id: str, command: list[str], *, timeout: float | None
    ) -> ExecResult:
        client = await self.client(uid)
        shim = self._shims.get(uid)
        known = {c["id"]: c for c in shim.record.containers} if shim is not None else {}
        if container_id not in known:  # it started after the last observation
            known = {c["id"]: c for c in (await client.state()).containers}
        if container_id not in known:
            raise NotFoundError(f"container {container_id} is not in its sandbox")
        process = exec_process(str(known[container_id]["bundle"]), command)
        return await self._commands.run(uid, client, container_id, process, timeout)

    async def client(self, uid: str) -> ShimClient:
        """Return the connection to a pod's shim, for exec and attach. Raises NotFoundError if there is no sandbox."""
        if (found := await self._client(uid)) is None:
            raise NotFoundError(f"pod {uid} has no running sandbox")
        return found

    async def _running(self, uid: str) -> RunningShim:
        if (shim := await self._shim(uid)) is None:
            raise NotFoundError(f"the sandbox of pod {uid} is gone", retriable=True)
        return shim

    async def _client(self, uid: str) -> ShimClient | None:
        return shim.client if (shim := await self._shim(uid)) else None

    # -- images -------------------------------------------------------------------------------------------------

    def image(self, reference: str) -> ObservedImage | None:
        return self._images.get(reference)

    async def pull(self, uid: str, reference: str, secrets: Sequence[dict[str, Any]] = ()) -> ObservedImage:
        began = time.perf_counter()
        with self._tracer.step(uid, "pull", detail=reference):
            found = observed_image(*await self.images.pull_with_login(reference, secrets=secrets))
        self._tracer.counted("pulled", time.perf_counter() - began, detail=str(found.size))
        return found
