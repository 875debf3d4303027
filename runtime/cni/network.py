"""The node's network by CNI plugins: every pod's attachment, and whether there is a network.

It offers the daemon what runtime.network.client.NetworkClient does for pods. Plugins run as children of the daemon, in
its network namespace; they enter the pods' namespaces by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from runtime.cni.calls import Plugins, Step, collects, no_step
from runtime.cni.conflist import Choice, Network, choose
from runtime.cni.exclusion import Exclusion
from runtime.cni.records import Record, Records
from runtime.cni.requests import Pod, PodFacts, values_of
from runtime.cni.results import addresses
from runtime.errors import NetworkError, NotFoundError
from runtime.identity import new_id
from runtime.network.plan import POD_IFNAME, UNLIMITED, Attachment, Bandwidth, PortMapping, Repair

log = logging.getLogger(__name__)

POLL = 5.0  # seconds between looks at the directory, and calls of STATUS
#: Kubernetes' words (containerd, pkg/cri; kubelet, pkg/kubelet/kubelet.go: "network plugin is not ready").
UNINITIALIZED = "network plugin is not ready: cni config uninitialized"


@dataclass(frozen=True, slots=True)
class CniConfig:
    """`directory`: of configurations; `paths`: directories of plugins; `records`: a directory of the node's own;
    `seconds`: the deadline of each call."""

    directory: str
    paths: tuple[str, ...]
    records: str
    seconds: float = 60.0


class CniNetwork:
    """`facts(uid)` says what plugins may ask of a pod. `step`: as for Plugins. `changed()` is called when the
    network becomes ready, or is no longer."""

    warnings: tuple[str, ...] = ()
    reattaches = False  # an attachment whose record is lost cannot be made again: its interface is there

    def __init__(
        self,
        config: CniConfig,
        facts: Callable[[str], PodFacts],
        *,
        step: Step = no_step,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self._facts = facts
        self._changed = changed
        self._plugins = Plugins(config.paths, config.seconds, step)
        self._records = Records(config.records)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = (
            WeakValueDictionary()
        )  # of pods with a call under way
        self._choice = Choice(None)
        self._files: Mapping[str, str] | None = None
        self._version = ""  # that the list's plugins speak
        self._looking = asyncio.Lock()
        self._calls = Exclusion()
        self._owed: set[str] = set()  # pods whose DEL failed
        self._unchecked = True
        self.not_ready = UNINITIALIZED  # why pods cannot be attached now; "" = they can

    # -- whether there is a network -------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read the configuration again, and ask the plugins for their status. Never raises NetworkError."""
        async with self._looking:
            files = await asyncio.to_thread(_files, self.config.directory)
            choice = self._choice if files == self._files else choose(files)
            if files != self._files:
                self._files = files
                for problem in choice.problems:
                    log.warning("CNI configuration passed over: %s/%s", self.config.directory, problem)
            version, not_ready = await self._status(choice)
            # A list and its version change together: an attachment begins with what is here.
            self._choice, self._version = choice, version
            before, self.not_ready = self.not_ready, not_ready
        if before != not_ready:
            (log.warning if not_ready else log.info)("%s", not_ready or self._words())
            self._changed()

    async def _status(self, choice: Choice) -> tuple[str, str]:
        """Return the version that the plugins speak, and why they cannot attach pods now ("" if they can)."""
        if (network := choice.network) is None:
            return "", "; ".join((UNINITIALIZED, *choice.problems))
        version = ""
        try:
            version = await self._plugins.version(network)
            await self._plugins.status(network, version)
        except NetworkError as error:
            return version, f"network plugin is not ready: {error}"
        return version, ""

    def _words(self) -> str:
        network = self._choice.network
        assert network is not None
        plugins = ", ".join(str(plugin["type"]) for plugin in network.plugins)
        about = f"{self._choice.file}, {network.name} ({plugins})"
        return f"pods get their network by CNI: {about}, version {self._version}"

    async def run(self) -> None:
        """Follow the configuration until this is cancelled."""
        while True:
            await asyncio.sleep(POLL)
            try:
                await self.look()
            except OSError as error:  # no process can be started now
                log.error("the CNI configuration cannot be looked at: %s", error)

    # -- pods -----------------------------------------------------------------------------------------------------

    async def add(
        self,
        uid: str,
        netns: str,
        ports: Sequence[PortMapping] = (),
        *,
        had: str = "",
        limit: Bandwidth = UNLIMITED,
    ) -> Attachment:
        """Attach a pod's network namespace ("/proc/<pid>/ns/net"). What an earlier attachment left is removed first.
        `had` is ignored: addresses are the plugins'. Raises NetworkError; then nothing of the pod is left, or delete()
        removes it."""
        async with self._lock(uid), self._calls.beside():
            if self.not_ready:
                await self.look()
            if not self.not_ready:
                await self._delete(uid)
            network = self._choice.network
            if self.not_ready or network is None:
                raise NetworkError(self.not_ready or UNINITIALIZED)
            facts = self._facts(uid)
            _check_ports(network, ports)
            pod = Pod(
                uid, new_id(), netns, POD_IFNAME, facts.namespace, facts.name, values_of(facts, ports, limit)
            )
            record = Record(pod, network, self._version, _namespace(netns))
            self._records.put(record)
            try:
                result = await self._plugins.add(record)
                record = replace(record, result=result)
                found = _attachment(record)
                self._records.put(record)
            except NetworkError:
                await self._undo(uid)
                raise
            return replace(found, ports=tuple(ports), warnings=_ignored(network, facts, limit))

    async def _undo(self, uid: str) -> None:
        """The specification, section 4: after a failed ADD, the runtime calls DEL."""
        try:
            await self._delete(uid)
        except NetworkError as error:
            log.warning("a failed attachment cannot be undone yet: %s", error, extra={"uid": uid})

    async def limit(self, uid: str, bandwidth: Bandwidth) -> list[str]:
        """Plugins limit a pod when it is attached, and never again. Returns that as a warning."""
        return ["a CNI network limits the bandwidth of a pod at its start alone: recreate the pod"]

    async def delete(self, uid: str) -> None:
        """Detach a pod. Does nothing if it is not attached. Raises NetworkError; then repair() tries again."""
        async with self._lock(uid), self._calls.beside():
            await self._delete(uid)

    async def _delete(self, uid: str) -> None:
        record = await asyncio.to_thread(self._records.get, uid)
        if record is not None:
            self._owed.add(uid)
            await self._plugins.delete(record, _living(record))
            self._records.remove(uid)
        self._owed.discard(uid)

    async def check(self, uid: str) -> list[str]:
        """The problems of a pod's attachment, as sentences. Raises NotFoundError if it has none."""
        if (found := await self._problems(uid)) is None:
            raise NotFoundError(f"pod {uid} is not attached to the network")
        return found

    async def _problems(self, uid: str) -> list[str] | None:
        """The problems of a pod's attachment; None if it has none."""
        async with self._lock(uid):
            try:
                if (record := await asyncio.to_thread(self._records.get, uid)) is None:
                    return None
                await self._plugins.check(record)
            except NetworkError as error:
                return [f"pod {uid}: {error}"]
        return []

    # -- the node -------------------------------------------------------------------------------------------------

    async def collect(self) -> None:
        """Have the plugins remove what belongs to no attachment of this node (GC). Errors are logged."""
        network, version = self._choice.network, self._version
        if network is None or self.not_ready or not collects(network, version):
            return
        async with self._calls.alone():
            found = await asyncio.to_thread(self._records.all)
            if len(found) < len(await asyncio.to_thread(self._records.uids)):
                log.error("CNI: nothing is collected, since a record of an attachment cannot be read")
                return
            valid = [record.pod for record in found.values()]
            for sentence in await self._plugins.collect(network, version, valid):
                log.warning("CNI: %s", sentence)

    async def audit(self) -> list[str]:
        """CHECK of every attachment, and why the network is not ready, as sentences."""
        return [*filter(None, [self.not_ready]), *await self._all_problems()]

    async def _all_problems(self) -> list[str]:
        records = await asyncio.to_thread(self._records.all)
        return [problem for uid in records for problem in await self._problems(uid) or ()]

    async def repair(self, *, inside: int | None = None) -> Repair:
        """Detach what could not be detached earlier. The first call, and each with `inside` None, also has the plugins
        check every attachment: a process for each plugin of each pod, which is too much for every round."""
        repaired, failures = [], []
        for uid in sorted(self._owed):
            try:
                await self.delete(uid)
                repaired.append(f"pod {uid}: detached from its CNI network")
            except NetworkError as error:
                failures.append(f"pod {uid}: {error}")
        left: list[str] = []
        if self._unchecked or inside is None:
            self._unchecked = False
            left = await self._all_problems()
        return Repair(repaired, left, failures)

    async def teardown(self) -> None:
        """Detach every pod. Raises NetworkError, which names all that cannot be detached, when all have been tried."""
        failed = []
        for uid in await asyncio.to_thread(self._records.uids):
            try:
                await self.delete(uid)
            except NetworkError as error:
                failed.append(f"pod {uid}: {error}")
        if failed:
            raise NetworkError("; ".join(failed))

    async def close(self) -> None:
        """The network stays as it is."""

    async def list(self) -> list[Attachment]:
        """Every attachment, also those whose ADD has not finished."""
        records = await asyncio.to_thread(self._records.all)
        return [_attachment(record, partial=True) for record in records.values()]

    def _lock(self, uid: str) -> asyncio.Lock:
        if (lock := self._locks.get(uid)) is None:
            lock = self._locks[uid] = asyncio.Lock()
        return lock


def _files(directory: str) -> dict[str, str]:
    """The configurations of a directory, by name. One that cannot be read is an empty text, which is invalid."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return {}
    found = {}
    for name in names:
        if name.endswith((".conf", ".conflist", ".json")):
            try:
                with open(f"{directory}/{name}", encoding="utf-8") as file:
                    found[name] = file.read()
            except (OSError, UnicodeDecodeError):
                found[name] = ""
    return found


def _namespace(netns: str) -> str:
    try:
        return _identity(netns)
    except OSError as error:
        raise NetworkError(f"network namespace {netns}: {error.strerror}") from error


def _identity(netns: str) -> str:
    found = os.stat(netns)
    return f"{found.st_dev}:{found.st_ino}"


def _living(record: Record) -> str:
    """The path of a pod's namespace, or "" if it is gone. The number of its process may be that of another one now,
    whose interface a plugin must not remove."""
    try:
        return record.pod.netns if _identity(record.pod.netns) == record.netns_id else ""
    except OSError:
        return ""


def _attachment(record: Record, *, partial: bool = False) -> Attachment:
    """What the plugins have given a pod. Raises NetworkError if it has no address, unless `partial`."""
    found = None
    if record.result is not None:
        found = addresses(record.result, record.pod.ifname)
    if found is None:
        if not partial:
            raise NetworkError(
                f"network {record.network.name} has given the pod no address on {record.pod.ifname}"
            )
        return Attachment(record.pod.uid, "", 0, "", "", "", record.pod.netns)
    ip = found.ip
    return Attachment(
        record.pod.uid, ip, found.prefix, found.gateway, found.mac, "", record.pod.netns, ip6=found.ip6
    )


def _check_ports(network: Network, ports: Sequence[PortMapping]) -> None:
    if ports and "portMappings" not in network.capabilities:
        raise NetworkError(
            f"host port {ports[0].describe()} cannot be published: no plugin of network {network.name} has the "
            "capability portMappings, as the plugin portmap has",
            reason="HostPortNotSupported",
        )


def _ignored(network: Network, facts: PodFacts, limit: Bandwidth) -> tuple[str, ...]:
    wanted = {"bandwidth": bool(limit), "ips": bool(facts.ips), "mac": bool(facts.mac)}
    return tuple(
        f"network {network.name} ignores what the pod says of {name}: no plugin of it has the capability {name}"
        for name, given in wanted.items()
        if given and name not in network.capabilities
    )
