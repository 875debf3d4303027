"""Binds each PersistentVolumeClaim to a volume from a manifest (node/scheduling/volume_binding.py), or else to a
directory on this node's disk, as soon as the claim exists.

    <root>/claims/<namespace>/<name>/data         what pods mount
    <root>/claims/<namespace>/<name>/claim.json   the owner and reclaim policy, or the volume that the claim is bound to

When a claim is deleted, its directory stays for the next claim of that name (Retain) or is removed as soon as no pod
uses it (Delete). The policy comes from the annotation `kubelite.io/reclaim-policy`, else from the node's setting. The
size is enforced by a project quota if the file system has them (ext4 and xfs, mounted with prjquota); otherwise an
event says that the size is not enforced.

The claim of a pod's ephemeral volume is created before the pod's first start (`provide`) and deleted with the pod,
always with its directory. claim.json contains the owner's uid, so that leftovers of a pod are never used by another
pod. A directory is renamed (`.gone-…`) before it is removed, so that a partly removed one is never used for a claim.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kubelite.kube.errors import Forbidden
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES, reference
from kubelite.kube.times import rfc3339
from kubelite.node.model.claim_names import KIND, claim_names, followed, own_claims, own_volume, owner_of
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.scheduling.scheduler import is_scheduled
from kubelite.node.scheduling.volume_binding import CLASS_KIND, Doc, Shelf, bind, class_of
from kubelite.node.scheduling.volume_binding import KIND as VOLUME
from kubelite.node.storage import block_devices, quota
from kubelite.node.storage.container_volumes import let_go
from kubelite.node.storage.protection import is_terminating, protected
from kubelite.node.storage.volume_objects import Volumes
from manifests.types.core import Pod
from manifests.types.meta import Quantity
from runtime.errors import RuntimeFault, StateError
from runtime.removal import remove_tree
from state.errors import AlreadyExists, StoreError
from state.store import Record, Store

log = logging.getLogger(__name__)
RECLAIM = "kubelite.io/reclaim-policy"
AGAIN = 60.0  # seconds after which failed operations are retried
GONE = ".gone-"  # prefix of directories that are being removed; no claim's name begins with a dot


def policy_of(doc: Mapping[str, Any], default: str) -> str:
    """Pure: Retain or Delete. A pod's own claim always has Delete."""
    if owner_of(doc):
        return "Delete"
    wanted = (doc["metadata"].get("annotations") or {}).get(RECLAIM, "")
    return wanted if wanted in ("Retain", "Delete") else default


def bound(doc: Json, classes: Mapping[str, Doc]) -> Json:
    """Pure: the claim's object once it has its directory."""
    spec = doc["spec"]
    wanted = (spec.get("resources") or {}).get("requests") or {}
    status = {
        "phase": "Bound",
        "accessModes": list(spec.get("accessModes") or ()),
        "capacity": {"storage": wanted.get("storage", "0")},
    }
    named = {"storageClassName": class_of(doc, classes), **spec, "volumeName": own_volume(doc)}
    return {**doc, "spec": named, "status": status}


def is_block(doc: Mapping[str, Any]) -> bool:
    """Pure: whether the claim is a block device rather than a directory."""
    return bool(doc["spec"].get("volumeMode") == "Block")


def without(doc: Json, phase: str) -> Json:
    """Pure: the claim's object while it has no volume."""
    return {**doc, "status": {"phase": phase}}


class Claims:
    """Binds claims and removes what is no longer used. Each change checks all claims, because there are few."""

    def __init__(
        self,
        store: Store,
        config: NodeConfig,
        events: EventRecorder,
        volumes: Volumes,
        policy: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._config, self._events, self._policy = store, config, events, policy
        self._volumes = volumes
        self._blocks = True  # there may be loop devices from before the daemon's start
        self._shelf: Shelf | None = None  # the volumes and classes, while the lock is held
        self._clock = clock
        self._said: set[tuple[str, str]] = set()
        #: uids of the claims provisioned since the daemon started: before that, mount options may have differed
        self._provided: set[str] = set()
        self._lock = asyncio.Lock()  # one look(), or the claims of one pod, at a time

    async def run(self) -> None:
        await self._volumes.keep_class(self._policy)
        async with contextlib.AsyncExitStack() as stack:
            kinds = (KIND, VOLUME, CLASS_KIND, "Pod")
            watches = {kind: await stack.enter_async_context(self._store.watch(kind)) for kind in kinds}

            def news(kind: str) -> asyncio.Future[object]:
                watch = watches[kind]
                return asyncio.ensure_future(_end_of_one(watch) if kind == "Pod" else anext(watch))

            await self._try_to_look()
            waiting = {news(kind): kind for kind in kinds}
            try:
                while True:
                    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=AGAIN)
                    for task in done:
                        kind = waiting.pop(task)
                        task.result()
                        while kind != "Pod" and await watches[kind].next(0) is not None:
                            pass  # one look() covers all changes
                        waiting[news(kind)] = kind
                    await self._try_to_look()
            finally:
                for task in waiting:
                    task.cancel()

    async def _try_to_look(self) -> None:
        """Look once. A failure, as on a full disk, is logged: the next change looks again, or `AGAIN`."""
        try:
            await self.look()
        except (OSError, RuntimeFault, StoreError) as error:
            log.error("cannot keep the claims and volumes up to date: %s", error)

    async def look(self) -> None:
        """Bind unbound claims, and remove what is no longer used."""
        none = not self._store.list(KIND) and not self._store.list(VOLUME)
        if (
            none
            and not _names(f"{self._config.root}/claims")
            and not block_devices.mounted(self._config.root)
        ):
            return
        async with self._lock:
            await self._orphans()
            await self._finish(KIND)
            self._shelf = None
            for record in self._store.list(KIND):
                await self._try_to_bind(record)
            gone = self._set_aside()
            left = {key: about for key, about in self._found() if "volume" not in about}
            await self._volumes.settle(self._used(), left)
            await self._finish(VOLUME)
            await self._let_devices_go()
            await self._let_disks_go()
        for directory in gone:
            await asyncio.to_thread(_remove, directory)

    async def _let_devices_go(self) -> None:
        """Detach loop devices over files of claims that no pod uses, as long as there may be any."""
        blocks = [record for record in self._store.list(KIND) if is_block(record.doc)]
        if not blocks and not self._blocks:
            return
        used, files = self._used(), set()
        for record in blocks:
            held = self._store.get(VOLUME, "", record.doc["spec"].get("volumeName") or "")
            local = (held.doc["spec"].get("local") or {}) if held is not None else {}
            if (record.namespace, record.name) in used or (owner_of(record.doc) and self._lives(record)):
                own = f"{self._config.claim_dir(record.namespace, record.name)}/block"
                files.add(os.path.realpath(local.get("path") or own))
        for path in await asyncio.to_thread(let_go, self._config.root, files):
            log.info("detached the loop device of %s", path)
        self._blocks = bool(blocks)

    async def _let_disks_go(self) -> None:
        """Unmount the devices of volumes whose claims no pod uses."""
        used = self._used()
        held = {
            str(record.doc["spec"].get("volumeName") or "")
            for record in self._store.list(KIND)
            if (record.namespace, record.name) in used or (owner_of(record.doc) and self._lives(record))
        }
        try:
            gone = await asyncio.to_thread(block_devices.let_go, self._config.root, held)
        except (OSError, RuntimeFault) as error:
            log.warning("cannot unmount a volume: %s", error)
            return
        for name in gone:
            log.info("unmounted volume %s", name)

    async def provide(self, pod: Pod) -> None:
        """Create the claims of the pod's ephemeral volumes, update them from its templates, and bind all claims of the
        pod. A claim of the same name that is not the pod's stays unchanged. Raises StoreError."""
        names = claim_names(pod)
        if not names:
            return
        async with self._lock:
            self._shelf = None
            for claim in own_claims(pod):
                await self._provide(pod, claim)
            for name in names:
                record = self._store.get(KIND, pod.metadata.namespace or "default", name)
                if record is not None and (record.doc.get("status") or {}).get("phase") != "Bound":
                    await self._try_to_bind(record)

    async def _provide(self, pod: Pod, wanted: Json) -> None:
        metadata = wanted["metadata"]
        key = (KIND, metadata["namespace"], metadata["name"])
        record = self._store.get(*key)
        if record is not None and not self._lives(record) and not self._mounted(record):
            await self._store.delete(record.uid)  # left by an earlier pod of this name
            record = None
        if record is None:
            own = {"uid": str(uuid.uuid4()), "creationTimestamp": rfc3339(self._clock())}
            doc = {**wanted, "metadata": protected(KIND, {**metadata, **own})}
            try:
                record = await self._store.create(KIND, doc)
            except AlreadyExists:
                record = self._store.get(*key)
            except Forbidden as error:  # a quota; the pod is tried again
                if (user := self._store.get_uid(pod.metadata.uid or "")) is not None:
                    self._say(user, "Warning", "FailedCreate", f"create PVC {metadata['name']}: {error}")
                return
        if record is None or owner_of(record.doc) != pod.metadata.uid:
            return  # reported when a container starts that needs it
        record = await self._store.modify(record.uid, lambda doc: followed(doc, wanted))
        if record is not None:
            await self._try_to_bind(record)

    def _lives(self, record: Record) -> bool:
        """Whether a claim has no owner, or its owner exists."""
        owner = owner_of(record.doc)
        return not owner or self._store.get_uid(owner) is not None

    def _mounted(self, record: Record) -> bool:
        """Whether a pod names the claim in its manifest. (An ephemeral volume's claim is not named, but owned.)"""
        return (record.namespace, record.name) in self._used()

    def _used(self) -> set[tuple[str, str]]:
        return {key for record in self._store.list("Pod") for key in _claims_of(record.doc)}

    async def _orphans(self) -> None:
        """Delete claims whose owner is gone, unless another pod uses them."""
        for record in self._store.list(KIND):
            if not self._lives(record) and not self._mounted(record):
                await self._store.delete(record.uid)

    async def _finish(self, kind: str) -> None:
        """Delete the terminating objects that are no longer used. For the others, record an event with the reason why
        they stay."""
        for record in self._store.list(kind):
            if not is_terminating(record.doc):
                continue
            user = self._user(record) if kind == KIND else self._holder(record)
            if user:
                self._say(
                    record,
                    "Normal",
                    "Terminating",
                    f"its manifest was removed; it stays until {user} no longer uses it",
                )
            else:
                await self._store.delete(record.uid)

    def _user(self, claim: Record) -> str:
        """A pod on this node that uses the claim. A pod that is not scheduled does not count."""
        for pod in self._store.list("Pod"):
            status = pod.doc.get("status") or {}
            if (is_scheduled(status) or status.get("phase") in TERMINAL_PHASES) and (
                (claim.namespace, claim.name) in _claims_of(pod.doc) or owner_of(claim.doc) == pod.uid
            ):
                return f"pod {pod.namespace}/{pod.name}"
        return ""

    def _holder(self, volume: Record) -> str:
        """The claim that is bound to a volume."""
        ref = volume.doc["spec"].get("claimRef") or {}
        claim = self._store.get(KIND, ref.get("namespace") or "", ref.get("name") or "")
        held = claim is not None and claim.doc["spec"].get("volumeName") == volume.name
        return f"claim {ref['namespace']}/{ref['name']}" if held else ""

    def _set_aside(self) -> list[str]:
        """Rename the directories to remove. Return all renamed ones, including those of a daemon that died."""
        used = self._used()
        kept = {(record.namespace, record.name) for record in self._store.list(KIND)}
        volumes = {record.name for record in self._store.list(VOLUME)}
        for key, about in list(self._found()):
            forgotten = "volume" in about and about["volume"] not in volumes
            if key not in used and key not in kept and (about.get("policy") == "Delete" or forgotten):
                self._aside(*key)
                log.info("removing the directory of claim %s/%s", *key)
        root = f"{self._config.root}/claims"
        return [
            f"{root}/{namespace}/{name}"
            for namespace in _names(root)
            for name in _names(f"{root}/{namespace}")
            if name.startswith(GONE)
        ]

    def _aside(self, namespace: str, name: str) -> None:
        directory = self._config.claim_dir(namespace, name)
        os.rename(directory, f"{os.path.dirname(directory)}/{GONE}{uuid.uuid4()}")

    async def _try_to_bind(self, record: Record) -> None:
        try:
            await self._bind(record)
        except (OSError, RuntimeFault, StoreError) as error:
            self._say(record, "Warning", "ProvisioningFailed", f"failed to provision volume: {error}")

    async def _bind(self, record: Record) -> None:
        directory = self._config.claim_dir(record.namespace, record.name)
        remembered = str(_read(f"{directory}/claim.json").get("volume", ""))
        shelf = self._shelf = self._shelf or self._volumes.shelf()

        def used() -> bool:
            return bool(owner_of(record.doc)) or self._mounted(record)

        if is_terminating(record.doc) and (record.doc.get("status") or {}).get("phase") != "Bound":
            return
        verdict = bind(record.doc, shelf, used=used, remembered=remembered)
        if verdict.reason:
            self._say(record, verdict.type, verdict.reason, verdict.message)
        if verdict.phase != "Bound":
            await self._store.modify(record.uid, lambda doc: without(doc, verdict.phase))
        elif verdict.volume:
            if remembered != verdict.volume:
                await asyncio.to_thread(remember, directory, verdict.volume)
            await self._volumes.hold(verdict.volume, record)
            self._shelf = None
        else:
            await self._make(record, directory, shelf.classes)

    async def _make(self, record: Record, directory: str, classes: Mapping[str, Doc]) -> None:
        """Provision a directory for the claim."""
        owner = owner_of(record.doc)
        size = Quantity(
            (record.doc["spec"].get("resources") or {}).get("requests", {}).get("storage", "0")
        ).value()
        by_class = (classes.get(class_of(record.doc, classes)) or {}).get("reclaimPolicy")
        policy = policy_of(record.doc, by_class if by_class in ("Retain", "Delete") else self._policy)
        about = _read(f"{directory}/claim.json")
        if os.path.isdir(directory) and about.get("owner", "") != owner:
            if about.get("owner"):  # its pod no longer exists, and no other pod may see its content
                self._aside(record.namespace, record.name)
                about = {}
            elif owner and os.path.isdir(f"{directory}/data"):
                # retained for a later claim of this name, so an ephemeral volume must not use it
                raise StateError(f"{directory} belongs to an earlier claim: move or remove it")
        wanted = {"policy": policy, "size": size, **({"owner": owner} if owner else {})}
        if about != wanted or record.uid not in self._provided or not os.path.isdir(f"{directory}/data"):
            why = await asyncio.to_thread(provision, directory, wanted)  # disk I/O
            self._provided.add(record.uid)
            if why and not is_block(record.doc):
                name = record.doc["spec"]["resources"]["requests"]["storage"]
                message = f"the size limit of {name} is not enforced: {why}"
                self._say(record, "Warning", "SizeNotEnforced", message)
        if bound(record.doc, classes) != record.doc:
            found = await self._store.modify(record.uid, lambda doc: bound(doc, classes))
            record = found or record
        path = f"{directory}/{'block' if is_block(record.doc) else 'data'}"
        await self._volumes.made(record, path, policy)

    def _found(self) -> Iterator[tuple[tuple[str, str], Json]]:
        """The claim.json of each directory on disk, of existing and of deleted claims."""
        root = f"{self._config.root}/claims"
        for namespace in _names(root):
            for name in _names(f"{root}/{namespace}"):
                if name.startswith(GONE):
                    continue
                yield (namespace, name), _read(f"{root}/{namespace}/{name}/claim.json")

    def _say(self, record: Record, kind: str, reason: str, message: str) -> None:
        if (record.uid, message) not in self._said:
            self._said.add((record.uid, message))
            self._events.event(reference(record.doc), kind, reason, message)


async def _end_of_one(pods: Any) -> None:
    """Wait until a pod is deleted."""
    async for change in pods:
        if change.type == "DELETED":
            return


def _claims_of(pod: Json) -> list[tuple[str, str]]:
    namespace = pod["metadata"].get("namespace", "default")
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return [
        (namespace, v["persistentVolumeClaim"]["claimName"])
        for v in volumes
        if v.get("persistentVolumeClaim")
    ]


def provision(directory: str, about: Json) -> str:
    """Create or update the claim's directory. Return why its size is not enforced, "" if it is. Raises OSError."""
    data = f"{directory}/data"
    os.makedirs(directory, mode=0o750, exist_ok=True)
    if not os.path.isdir(data):
        if "owner" in about:  # recorded before any data exists
            _write(directory, {"policy": "Delete", "owner": about["owner"]})
        os.makedirs(new := f"{directory}/.data.new", exist_ok=True)
        os.chmod(new, 0o777)  # for any user of the pod, as with local provisioners
        os.rename(new, data)
    why = quota.set_quota(data, about["size"])
    _write(directory, about)
    return why


def _remove(directory: str) -> None:
    quota.lift(f"{directory}/data")
    with contextlib.suppress(OSError):
        remove_tree(directory)


def remember(directory: str, volume: str) -> None:
    """Record which volume a claim has, outside of the state file. If the state file is lost, claims that fit several
    volumes then get the same ones again. Raises OSError."""
    about = _read(f"{directory}/claim.json")
    os.makedirs(directory, mode=0o750, exist_ok=True)
    _write(directory, {**about, "volume": volume})


def _write(directory: str, about: Json) -> None:
    """Write claim.json durably before there is any data. If a power cut left it missing or empty, the directory would
    have no owner: no ephemeral volume could use it, and no policy would remove it."""
    temporary = f"{directory}/.claim.json.new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(about, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, f"{directory}/claim.json")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: str) -> Json:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
