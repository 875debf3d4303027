"""`Cri` on this machine: shims, network and image store put together, and the record of it kept in the store.

What exists is asked of the shims each time (`observe`); the rows in the store only add what no shim knows any more: the
instances of an earlier sandbox, and what ran when the machine went down. Every pod's calls come from its one worker, so
nothing here locks per pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from kubelite.node.commands import Commands, exec_process
from kubelite.node.cri import (
    ContainerRequest,
    ContainerSeen,
    ContainerState,
    ExecResult,
    ImageSeen,
    PodSeen,
    SandboxRequest,
    SandboxSeen,
)
from kubelite.node.mounts import unmount_below
from kubelite.settings import Settings
from kubelite.telemetry.trace import Tracer
from runtime.cgroups import open_cgroup
from runtime.errors import ImageError, NotFoundError, RuntimeFault, StartError, StateError
from runtime.images.client import ImageClient
from runtime.images.store import ImageRecord
from runtime.network.client import NetworkClient
from runtime.network.plan import Attachment, PortMapping
from runtime.removal import remove_tree
from runtime.shim.client import Forkserver, ShimClient, ShimGone, read_state, reap_dead, shim_alive
from runtime.shim.protocol import (
    EVENT_EXEC_EXIT,
    EVENT_EXIT,
    ContainerRecord,
    ContainerStatus,
    CreateContainer,
    RootfsOverlay,
    SandboxConfig,
    SandboxRecord,
)
from runtime.shim.state import occupied
from state.errors import StoreError
from state.store import ContainerRow, Store

log = logging.getLogger(__name__)

RECORD_DELAY = 0.1  # seconds that a row waits for other writes; until then the shim alone has it
DYING = 3.0  # seconds that a shim which hung up may take to be gone, before that is said
NAME_MAX = 255  # bytes of a file's name (Linux, include/uapi/linux/limits.h)
MESSAGE_BYTES = 4096  # of a termination message that are kept (spec C5)

_STATES = {
    ContainerStatus.CREATED: ContainerState.CREATED,
    ContainerStatus.RUNNING: ContainerState.RUNNING,
    ContainerStatus.STOPPED: ContainerState.EXITED,
}


@dataclass(slots=True)
class _Shim:
    """A living shim and our connection to it."""

    record: SandboxRecord
    client: ShimClient
    ended: set[str] = field(default_factory=set)  # containers whose exit was heard of


class LocalCri:
    """See the module's text. `on_change(uid)` is called whenever a pod should be looked at."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        forkserver: Forkserver,
        network: NetworkClient,
        images: ImageClient,
        tracer: Tracer,
        on_change: Callable[[str], None] = lambda _uid: None,
        warn: Callable[[str, str], None] = lambda _uid, _message: None,
    ) -> None:
        self.on_change = on_change
        self.warn = warn
        self.images = images
        self._settings = settings
        self._store = store
        self._forkserver = forkserver
        self._network = network
        self._tracer = tracer
        self._shims: dict[str, _Shim] = {}
        self._messages: dict[str, str] = {}  # container id -> termination message, read once
        self._recording: set[asyncio.Task[None]] = set()
        self._commands = Commands()
        self._images: dict[str, ImageSeen | None] = {}  # by name, as in:
        self._image_records: tuple[ImageRecord, ...] = ()

    # -- paths --------------------------------------------------------------------------------------------------

    def run_dir(self, uid: str) -> str:
        return f"{self._settings.run_dir}/shims/{uid}"

    def pod_dir(self, uid: str) -> str:
        return f"{self._settings.root}/pods/{uid}"

    def bundle(self, uid: str, name: str, attempt: int) -> str:
        return f"{self.pod_dir(uid)}/containers/{name}/{attempt}"

    # -- life of the node ---------------------------------------------------------------------------------------

    async def adopt(self) -> dict[str, SandboxRecord]:
        """Connect to every living shim, bury every dead one, give back addresses that belong to nobody. Returns the
        living ones by pod uid."""
        directory = f"{self._settings.run_dir}/shims"
        uids = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        found = await asyncio.gather(*(self._shim(uid) for uid in uids), return_exceptions=True)
        for uid, result in zip(uids, found, strict=True):
            if isinstance(
                result, (RuntimeFault, StoreError, OSError)
            ):  # that pod's own looks meet it again, and say so
                log.error("what is left of a pod is not in order: %s", result, extra={"uid": uid})
            elif isinstance(result, BaseException):
                raise result
        living = {uid: shim.record for uid, shim in self._shims.items()}
        strays = [a.uid for a in await self._network.list() if a.uid not in living]
        await asyncio.gather(*(self._network.delete(uid) for uid in strays))
        return living

    async def close(self) -> None:
        """Let go of the shims; they and their containers live on."""
        for shim in self._shims.values():
            shim.client.close()
        self._shims.clear()
        if self._recording:
            await asyncio.gather(*self._recording, return_exceptions=True)

    def living(self) -> dict[str, SandboxRecord]:
        """The sandboxes as last reported, by pod uid (for metrics and doctor)."""
        shims = list(self._shims.items())  # one step: the metrics ask in a thread of their own
        return {uid: shim.record for uid, shim in shims if not shim.client.closed}

    def helpers(self) -> tuple[int, ...]:
        """Processes of the daemon's own that live among the shims."""
        return (self._forkserver.pid, self._forkserver.spare)

    # -- observation --------------------------------------------------------------------------------------------

    async def observe(self, uid: str) -> PodSeen:
        shim = await self._shim(uid)
        record: SandboxRecord | None = None
        if shim is not None:
            try:
                record = shim.record = await shim.client.state()
            except ShimGone:
                return await self.observe(uid)
        containers = [ContainerRecord.from_json(c) for c in record.containers] if record else []
        known = {c.id for c in containers}
        here = record.sandbox_id if record else ""
        seen = [self._seen(c, sandbox=here, lost=False) for c in containers]
        for row in self._store.containers(uid):
            if row.id not in known:
                before = str(row.doc.get("sandbox_id") or "lost")
                seen.append(self._seen(ContainerRecord.from_json(row.doc), sandbox=before, lost=True))
        seen.sort(key=lambda c: (c.name, c.attempt, c.created_at))
        logged = {} if seen or record is not None else self._logged(uid)
        return PodSeen(uid, _sandbox_seen(record) if record else None, tuple(seen), logged)

    def _logged(self, uid: str) -> dict[str, int]:
        """The newest attempt of each container that left a log, of a pod of which nothing else is known."""
        known = self._store.get_uid(uid)
        directory = f"{self._settings.log_dir}/pods/{known.namespace}_{known.name}_{uid}" if known else ""
        found: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for name in os.listdir(directory) if directory else ():
                logs = (entry.partition(".log")[0] for entry in os.listdir(f"{directory}/{name}"))
                found[name] = max((int(number) for number in logs if number.isdigit()), default=-1)
        return {name: attempt for name, attempt in found.items() if attempt >= 0}

    def _seen(self, record: ContainerRecord, *, sandbox: str, lost: bool) -> ContainerSeen:
        state = _STATES.get(ContainerStatus(record.status), ContainerState.UNKNOWN)
        if lost and state is not ContainerState.EXITED:
            state = ContainerState.UNKNOWN
        labels = record.labels
        return ContainerSeen(
            id=record.id,
            name=record.name,
            attempt=record.attempt,
            state=state,
            image=labels.get("image", ""),
            image_id=labels.get("image_id", ""),
            pid=record.pid,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            exit_code=record.exit_code,
            signal=record.signal,
            oom_killed=record.oom_killed,
            reason=record.reason,
            message=record.message or (self._message(record) if state is ContainerState.EXITED else ""),
            spec_hash=labels.get("spec_hash", ""),
            resources_hash=labels.get("resources_hash", ""),
            stop_deadline=record.stop_deadline,
            log_path=record.log_path,
            cgroup=record.cgroup,
            bundle=record.bundle,
            sandbox_id=sandbox,
            crash_count=int(labels.get("crash_count") or 0),
            stop_signal=record.stop_signal,
            post_start=labels.get("post_start", ""),
            killed_for=labels.get("killed_for", ""),
        )

    def _message(self, record: ContainerRecord) -> str:
        """What the container wrote to its termination message file, at most 4096 bytes."""
        path = record.labels.get("message_path", "")
        if not path:
            return ""
        if record.id not in self._messages:
            found = ""
            # the container could have put anything there: no link is followed, no pipe waited for
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                with open(descriptor, "rb") as file:
                    found = file.read(MESSAGE_BYTES).decode(errors="replace")
            self._messages[record.id] = found
        return self._messages[record.id]

    async def _shim(self, uid: str) -> _Shim | None:
        """The pod's living shim, connected; a dead one is buried on the way."""
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
            # It hung up and is not gone yet, or is only being born. Neither is "no sandbox": whoever is told that takes
            # the pod for ended, and then nobody looks for the shim again.
            if time.monotonic() > until:
                raise StateError(f"the shim of pod {uid} neither answers nor ends", retriable=True)
            await asyncio.sleep(0.01)

    async def _connect(self, uid: str, run_dir: str) -> _Shim:
        client = await ShimClient.connect(
            run_dir,
            on_event=lambda event: self._on_event(uid, event),
            on_close=lambda: self._on_close(uid),
        )
        shim = _Shim(await client.subscribe(), client)
        other = self._shims.get(uid)
        if other is not None and not other.client.closed:  # the API looked at the same time
            client.close()
            return other
        self._shims[uid] = shim
        return shim

    async def _bury(self, uid: str, run_dir: str) -> None:
        """A shim died: give its address back, keep what it knew, end what it left. The run directory goes last: what
        fails before is done again at the next look, because it is there."""
        until = time.monotonic() + DYING
        while occupied(run_dir):
            if time.monotonic() > until:
                raise StateError(f"the shim of pod {uid} does not end", retriable=True)
            await asyncio.sleep(0.01)
        await self._network.delete(uid)
        if (last := read_state(run_dir)) is not None:  # first: what only that file knows goes with it
            await self._record(uid, [ContainerRecord.from_json(c) for c in last.containers])
        last = await reap_dead(run_dir)
        if last is not None:
            log.warning("shim is gone", extra={"uid": uid, "pid": last.pid})
            await self._record(uid, [ContainerRecord.from_json(c) for c in last.containers])
        else:
            shutil.rmtree(run_dir, ignore_errors=True)

    def _on_close(self, uid: str) -> None:
        self._commands.hung_up(uid)
        self.on_change(uid)

    def _on_event(self, uid: str, event: dict[str, Any]) -> None:
        if event.get("event") == EVENT_EXEC_EXIT:
            self._commands.ended(event)
        elif event.get("event") == EVENT_EXIT:
            if uid in self._shims:
                self._shims[uid].ended.add(event["container"]["id"])
            self._record_soon(uid, ContainerRecord.from_json(event["container"]))
            self.on_change(uid)

    # -- sandbox ------------------------------------------------------------------------------------------------

    async def run_sandbox(self, request: SandboxRequest) -> SandboxSeen:
        uid = request.uid
        config = SandboxConfig(
            uid=uid,
            sandbox_id=secrets.token_hex(32),
            run_dir=self.run_dir(uid),
            cgroup=request.cgroup,
            shim_cgroup=f"/{self._settings.cgroup_parent}/shims",
            hostname=request.hostname,
            host_network=request.host_network,
            host_ipc=request.host_ipc,
            host_pid=request.host_pid,
            resources=request.resources,
            sysctls=request.sysctls,
            annotations={
                "spec_hash": request.spec_hash,
                "resources_hash": request.resources_hash,
                "namespace": request.namespace,
                "name": request.name,
                "node": self._settings.node_name,
            },
        )
        with self._tracer.step(uid, "shim"):
            record = await self._forkserver.spawn(config)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self._abandon, uid)
            with self._tracer.step(uid, "network"):
                shim, address = await _both(
                    self._connect(uid, config.run_dir), self._attach(request, record.pid)
                )
            if address is not None:
                for warning in address.warnings:
                    self.warn(uid, warning)
                shim.record = await shim.client.annotate({"ip": address.ip})
            undo.pop_all()
        return _sandbox_seen(shim.record)

    async def _attach(self, request: SandboxRequest, pid: int) -> Attachment | None:
        if request.host_network:
            return None
        ports = [
            PortMapping(p.host_port, p.container_port, p.protocol, p.host_ip) for p in request.host_ports
        ]
        return await self._network.add(request.uid, f"/proc/{pid}/ns/net", ports)

    async def _abandon(self, uid: str) -> None:
        try:
            await self.stop_sandbox(uid)
        except RuntimeFault as error:
            log.warning("undoing a sandbox failed: %s", error, extra={"uid": uid})

    async def update_sandbox(self, uid: str, *, resources: dict[str, Any], resources_hash: str) -> None:
        shim = await self._shim(uid)
        if shim is None:
            raise NotFoundError(f"the sandbox of pod {uid} is gone", retriable=True)
        group = open_cgroup(shim.record.cgroup)
        for warning in await asyncio.to_thread(group.apply, resources):
            self.warn(uid, warning)
        await shim.client.annotate({"resources_hash": resources_hash})

    async def stop_sandbox(self, uid: str) -> None:
        # the address first: what fails here is done again, as long as the run directory is there
        await self._network.delete(uid)
        shim = await self._shim(uid)
        pod = self._store.get_uid(uid)
        kept = pod is None or not pod.deleting  # else what ran is forgotten next, whatever happens meanwhile
        if shim is not None:
            with contextlib.suppress(ShimGone):
                if kept:
                    last = await shim.client.state()
                    await self._record(uid, [ContainerRecord.from_json(c) for c in last.containers])
            with contextlib.suppress(ShimGone):
                await shim.client.shutdown(force=True)
            shim.client.close()
            self._shims.pop(uid, None)
        if os.path.isdir(self.run_dir(uid)):
            await self._bury(uid, self.run_dir(uid))
        if kept:
            await self._mark_lost(uid)

    async def _mark_lost(self, uid: str) -> None:
        """Instances that ran in a sandbox that is gone have ended, one way or another."""
        now = time.time()
        rows: dict[str, ContainerRow | None] = {}
        for row in self._store.containers(uid):
            if row.state in (ContainerStatus.RUNNING, ContainerStatus.CREATED):
                doc = {
                    **row.doc,
                    "status": "stopped",
                    "pid": 0,
                    "finished_at": now,
                    "exit_code": 137,
                    "signal": 9,
                }
                rows[row.id] = replace(row, state="stopped", updated_at=now, doc=doc)
        if rows:
            await self._store.put_containers(rows, durable=False)

    async def remove_pod(self, uid: str) -> None:
        row_logs = {
            os.path.dirname(os.path.dirname(r.doc.get("log_path", ""))) for r in self._store.containers(uid)
        }
        for row in self._store.containers(uid):
            self._messages.pop(row.id, None)
        # rides on the deletion of the pod's object, which is next
        self._in_background(self._store.forget_containers(uid, durable=False, delay=RECORD_DELAY))
        unmount_below(self.pod_dir(uid))
        logs = [path for path in row_logs if path.endswith(uid)]
        await asyncio.to_thread(_remove_pod, uid, self.pod_dir(uid), logs, self._settings.log_dir)

    # -- containers ---------------------------------------------------------------------------------------------

    async def start_container(self, request: ContainerRequest) -> ContainerSeen:
        uid = request.uid
        shim = await self._shim(uid)
        if shim is None:
            raise NotFoundError(f"the sandbox of pod {uid} is gone", retriable=True)
        with self._tracer.step(uid, "bundle", container=request.name):
            create = self._prepare(request)
        try:
            with self._tracer.step(uid, "create", container=request.name):
                await shim.client.create(create)
            with self._tracer.step(uid, "start", container=request.name):
                record = await shim.client.start(request.id)
        except StartError:
            await self._record_current(uid, shim, request.id)
            raise
        except Exception:
            with contextlib.suppress(RuntimeFault):  # mostly there is none
                await shim.client.kill(request.id, 9, all=True)
            raise
        # A cancelled start (the daemon stops) is left alone: it may have taken place, and the next look sees which.
        if record.id not in shim.ended:  # else its exit has been recorded already
            self._record_soon(uid, record)
        return self._seen(record, sandbox=shim.record.sandbox_id, lost=False)

    def _prepare(self, request: ContainerRequest) -> CreateContainer:
        """Make the bundle directory and the log's; what the shim needs to know of them."""
        bundle = self.bundle(request.uid, request.name, request.attempt)
        if os.path.isdir(bundle):  # left by a daemon that was killed here: its instance was never recorded
            _remove_links(f"{self._settings.log_dir}/containers", request.log_path)
            _remove_trees([bundle])
        for name in ("upper", "work", "merged"):
            os.makedirs(f"{bundle}/{name}", mode=0o755)
        os.chmod(bundle, 0o700)
        for path, content in request.files:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, content)
            if path == request.termination_message_path:
                os.chmod(path, 0o666)  # whoever the container runs as may leave its last words there
        _write(f"{bundle}/config.json", json.dumps(request.spec, separators=(",", ":")))
        os.makedirs(os.path.dirname(request.log_path), mode=0o755, exist_ok=True)
        self._link_log(request)
        overlay = RootfsOverlay(list(request.image.layers), f"{bundle}/upper", f"{bundle}/work")
        labels = {
            "image": request.image_ref,
            "image_id": request.image.id,
            "spec_hash": request.spec_hash,
            "resources_hash": request.resources_hash,
            "crash_count": str(request.crash_count),
        }
        if request.post_start:
            labels["post_start"] = "pending"
        if request.termination_message_path:
            labels["message_path"] = request.termination_message_path
        return CreateContainer(
            container_id=request.id,
            name=request.name,
            attempt=request.attempt,
            bundle=bundle,
            rootfs=overlay.to_json(),
            log_path=request.log_path,
            log_max_bytes=self._settings.log_max_size,
            log_max_files=self._settings.log_max_files,
            stdin=request.stdin,
            tty=request.tty,
            termination_message_path=request.termination_message_path,
            labels=labels,
        )

    def _link_log(self, request: ContainerRequest) -> None:
        """/var/log/containers/<pod>_<ns>_<ctr>-<id>.log, where log shippers look (spec C7)."""
        link = self._log_link(request.log_path, request.name, request.id)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(request.log_path, link)

    def _log_link(self, log_path: str, name: str, identity: str) -> str:
        """Cut to what a file's name can hold, as kubelet does (K kuberuntime/legacy.go)."""
        pod_dir = os.path.basename(os.path.dirname(os.path.dirname(log_path)))
        namespace, _, rest = pod_dir.partition("_")
        pod = rest.rpartition("_")[0]
        link = f"{pod}_{namespace}_{name}-{identity}"[: NAME_MAX - len(".log")]
        return f"{self._settings.log_dir}/containers/{link}.log"

    def _unlink_log(self, doc: dict[str, Any]) -> None:
        path = str(doc.get("log_path", ""))
        if not path:
            return
        with contextlib.suppress(OSError):
            os.unlink(self._log_link(path, str(doc["name"]), str(doc["id"])))

    async def stop_container(
        self, uid: str, container_id: str, *, signal: int, grace: float, killed_for: str = ""
    ) -> None:
        client = await self._client(uid)
        if client is not None:
            with contextlib.suppress(NotFoundError):
                if killed_for:  # first: its end must never be taken for one that was only asked for
                    await client.update(container_id, labels={"killed_for": killed_for})
                await client.stop(container_id, signal=signal, grace=grace)

    async def label_container(self, uid: str, container_id: str, labels: dict[str, str]) -> None:
        await (await self.client(uid)).update(container_id, labels=labels)

    async def update_container(
        self, uid: str, container_id: str, *, resources: dict[str, Any], resources_hash: str
    ) -> None:
        client = await self._client(uid)
        if client is None:
            raise NotFoundError(f"the sandbox of pod {uid} is gone", retriable=True)
        await client.update(container_id, resources=resources, labels={"resources_hash": resources_hash})

    async def remove_container(self, uid: str, container_id: str) -> None:
        client = await self._client(uid)
        known = {row.id: ContainerRecord.from_json(row.doc) for row in self._store.containers(uid)}
        if client is not None:
            here = [ContainerRecord.from_json(c) for c in (await client.state()).containers]
            known |= {c.id: c for c in here}
            if any(c.id == container_id for c in here):
                await client.delete(container_id)
        found = known.pop(container_id, None)
        if found is not None:
            self._unlink_log(_values(found))
            if found.log_path and all(other.log_path != found.log_path for other in known.values()):
                await asyncio.to_thread(_remove_log, found.log_path)
        # also when it is not seen yet: its record may be on its way
        self._in_background(
            self._store.put_containers({container_id: None}, durable=False, delay=RECORD_DELAY)
        )
        self._messages.pop(container_id, None)
        if uid in self._shims:
            self._shims[uid].ended.discard(container_id)
        if found is not None and found.bundle.startswith(self.pod_dir(uid) + "/"):
            await asyncio.to_thread(_remove_trees, [found.bundle])

    async def exec(
        self, uid: str, container_id: str, command: list[str], *, timeout: float | None
    ) -> ExecResult:
        client = await self.client(uid)
        shim = self._shims.get(uid)
        known = {c["id"]: c for c in shim.record.containers} if shim is not None else {}
        if container_id not in known:  # it started after the last look
            known = {c["id"]: c for c in (await client.state()).containers}
        if container_id not in known:
            raise NotFoundError(f"container {container_id} is not in its sandbox")
        process = exec_process(str(known[container_id]["bundle"]), command)
        return await self._commands.run(uid, client, container_id, process, timeout)

    async def client(self, uid: str) -> ShimClient:
        """The connection to a pod's shim, for exec and attach; NotFoundError when the pod has no sandbox."""
        found = await self._client(uid)
        if found is None:
            raise NotFoundError(f"pod {uid} has no running sandbox")
        return found

    async def _client(self, uid: str) -> ShimClient | None:
        shim = await self._shim(uid)
        return shim.client if shim else None

    # -- images -------------------------------------------------------------------------------------------------

    def image(self, reference: str) -> ImageSeen | None:
        """None too for what is no image's name: pulling it says so (InvalidImageName). Looked up once for each state of
        the store, which a start asks many times."""
        records = self.images.store.list()
        if records is not self._image_records:
            self._image_records, self._images = records, {}
        if reference not in self._images:
            with contextlib.suppress(ImageError):
                record = self.images.store.get(reference)
                self._images[reference] = _image_seen(record) if record else None
        return self._images.get(reference)

    async def pull(self, reference: str, secrets: Sequence[dict[str, Any]] = ()) -> ImageSeen:
        return _image_seen(await self.images.pull(reference, secrets=secrets))

    # -- the record in the store --------------------------------------------------------------------------------

    def _record_soon(self, uid: str, record: ContainerRecord) -> None:
        """Write the row without holding up the start: the shim's own state.json has it already."""
        self._in_background(self._record(uid, [record], delay=RECORD_DELAY))

    def _in_background(self, write: Coroutine[Any, Any, None]) -> None:
        """A write of rows that nobody waits for."""

        async def quietly() -> None:
            try:
                await write
            except StoreError as error:
                log.error("container records not written, the shims keep them: %s", error)

        task = asyncio.get_running_loop().create_task(quietly())
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record_current(self, uid: str, shim: _Shim, container_id: str) -> None:
        with contextlib.suppress(ShimGone):
            record = await shim.client.state()
            found = [ContainerRecord.from_json(c) for c in record.containers if c["id"] == container_id]
            self._in_background(self._record(uid, found))

    async def _record(self, uid: str, records: Iterable[ContainerRecord], *, delay: float = 0.0) -> None:
        rows: dict[str, ContainerRow | None] = {
            r.id: ContainerRow(r.id, uid, r.name, r.attempt, r.status, time.time(), _values(r))
            for r in records
        }
        if rows:
            # the pod's status, which is durable, follows; a power cut before it is one before all of this
            await self._store.put_containers(rows, durable=False, delay=delay)


async def _both(
    connect: Awaitable[_Shim], attach: Awaitable[Attachment | None]
) -> tuple[_Shim, Attachment | None]:
    """Both at once; when one fails the other is awaited before the error goes on, so that the undo sees all of it."""
    results = await asyncio.gather(connect, attach, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    shim, attachment = results
    assert isinstance(shim, _Shim) and not isinstance(attachment, BaseException)
    return shim, attachment


_FIELDS = tuple(f.name for f in fields(ContainerRecord))


def _values(record: ContainerRecord) -> dict[str, Any]:
    """As a document. What is in it is the record's own: not to be altered."""
    return {name: getattr(record, name) for name in _FIELDS}


def _sandbox_seen(record: SandboxRecord) -> SandboxSeen:
    return SandboxSeen(
        id=record.sandbox_id,
        ready=record.host_network or bool(record.annotations.get("ip")),
        pid=record.pid,
        created_at=record.created_at,
        ip=record.annotations.get("ip", ""),
        host_network=record.host_network,
        spec_hash=record.annotations.get("spec_hash", ""),
        cgroup=record.cgroup,
        resources_hash=record.annotations.get("resources_hash", ""),
    )


def _image_seen(record: ImageRecord) -> ImageSeen:
    return ImageSeen(
        id=record.id,
        reference=record.reference,
        repo_digests=tuple(record.repo_digests),
        size=record.size,
        layers=tuple(record.layers),
        config=dict(record.config),
    )


def _write(path: str, content: str) -> None:
    """Write a small file whole or not at all."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(temporary, path)


def _remove_pod(uid: str, directory: str, logs: Iterable[str], log_dir: str) -> None:
    """All that is on disk of a pod. Logs that were never recorded because shim or daemon died as they were made go too,
    and links to what is in them. In a thread: a disk may take its time over each of them."""
    found = dict.fromkeys(logs)
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(f"{log_dir}/pods") if name.endswith(f"_{uid}")]
        found.update(dict.fromkeys(f"{log_dir}/pods/{name}" for name in names))
    for path in found:
        _remove_links(f"{log_dir}/containers", path)
    _remove_trees([directory, *found])


def _remove_trees(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            remove_tree(path)
        except OSError as error:
            log.error("could not remove %s: something in it is mounted or immutable: %s", path, error)


def _remove_links(directory: str, target: str) -> None:
    """Remove the links to a log, or to what is in a log directory (…/<namespace>_<pod>_<uid>)."""
    pod_dir = os.path.dirname(os.path.dirname(target)) if target.endswith(".log") else target
    namespace, _, rest = os.path.basename(pod_dir).partition("_")
    prefix = f"{rest.rpartition('_')[0]}_{namespace}_"[:200]
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            link = f"{directory}/{name}"
            if name.startswith(prefix) and _leads_to(link, target):
                os.unlink(link)


def _leads_to(link: str, target: str) -> bool:
    found = os.readlink(link) if os.path.islink(link) else ""
    return found == target or found.startswith(f"{target}/")


def _remove_log(path: str) -> None:
    """A container's log, with what was rotated away of it: it goes with the container, as kubelet's does."""
    for file in [path, *glob.glob(f"{glob.escape(path)}.*")]:
        with contextlib.suppress(OSError):
            os.unlink(file)
