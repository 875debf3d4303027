"""Apply a PodActions in field order, through the Cri. Report failures, and send an event for each step.

Nothing is decided here. If a step fails, the steps that depend on it are skipped. The reason of a failed start or
sandbox, and the time of its retry, are facts of the next decision.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from kubelite.node.decide.pod_conditions import RESIZING
from kubelite.node.decide.pod_rules import RESTART_ON_CHANGE
from kubelite.node.devices.model import ContainerDevices, DeviceSource, NoDevices
from kubelite.node.model import resources
from kubelite.node.model.actions import Hook, PodActions, SandboxFailure, StartContainer, StartFailure
from kubelite.node.model.cri import (
    ContainerRequest,
    Cri,
    ObservedImage,
    ObservedPod,
    ObservedSandbox,
    SandboxRequest,
    host_ports,
)
from kubelite.node.model.ephemeral import target_of
from kubelite.node.model.errors import ConfigError, CreateError, MountError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.observer import Observer
from kubelite.node.model.recorder import NORMAL, WARNING, PodEvents, find_container
from kubelite.node.spec import container_spec, env, hashes, limits, netfiles, users, volume_plans
from kubelite.node.spec.bandwidth import pod_bandwidth
from kubelite.node.spec.cluster_objects import find_for
from kubelite.node.spec.tokens import NoTokens, TokenSource
from kubelite.node.storage import mounts
from kubelite.node.storage.container_volumes import (
    block_devices,
    container_volumes,
    missing_content,
    mount_slow,
)
from kubelite.node.storage.host_nodes import host_nodes
from kubelite.node.storage.slow_mounts import SlowMounts
from kubelite.node.worker import userns
from kubelite.node.worker.content import sources_of
from kubelite.node.worker.hooks import HookRun, Hooks, handler_of
from kubelite.node.worker.image_accounts import image_accounts
from kubelite.node.worker.netfiles_disk import dns_trouble, write_net_files
from kubelite.node.worker.puller import Puller
from kubelite.node.worker.traffic import Traffic
from manifests.types.core import Container, Pod
from runtime.errors import NotFoundError, RuntimeFault, StartError, StateError
from runtime.identity import new_id
from runtime.security.paths import masked_paths
from runtime.security.seccomp import default_profile

log = logging.getLogger(__name__)
RETRY_START = 10.0  # seconds until a start that failed because of its configuration is retried


@dataclass(slots=True)
class Results:
    """The outcome: the failure of each start (None = success) and of the sandbox, and whether the pod is removed."""

    starts: dict[str, StartFailure | None] = field(default_factory=dict)
    sandbox: str = ""  # why it failed
    volumes: str = ""  # why they cannot be mounted
    made_sandbox: ObservedSandbox | None = None
    finished: bool = False
    resize_error: str = ""  # why new limits could not be written


@dataclass(slots=True)
class Node:
    """The services and settings that the actions use."""

    cri: Cri
    config: NodeConfig
    puller: Puller
    hooks: Hooks
    find: env.Find
    clock: Callable[[], float]
    observer: Observer
    traffic: Traffic = field(default_factory=Traffic)
    every: Callable[[str], Iterable[Mapping[str, Any]]] = lambda _: ()
    tokens: TokenSource = field(default_factory=NoTokens)
    devices: DeviceSource = field(default_factory=NoDevices)
    slow: SlowMounts = field(default_factory=SlowMounts)
    net_files: dict[str, dict[str, str]] = field(default_factory=dict)  # uid → file → digest as written


async def sync_pod(
    node: Node, pod: Pod, observed: ObservedPod, actions: PodActions, events: PodEvents
) -> Results:
    """Apply the actions. Raises RuntimeFault or OSError if anything but the start of a container fails."""
    results, uid = Results(), pod.metadata.uid or ""
    if actions.withdraw:
        await node.traffic.withdraw(uid)
    await _stop(node, pod, observed, actions, events)
    actions = _without_volumes(node, pod, actions, results, events)
    for pull in actions.pull:
        node.puller.begin(pod, pull, events)
    if actions.kill_sandbox:
        if actions.create_sandbox:
            events.pod(NORMAL, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        await node.cri.stop_sandbox(uid)
    sandbox = observed.sandbox
    if actions.create_sandbox:
        sandbox = results.made_sandbox = await _create_sandbox(node, pod, actions, results, events)
    if actions.update_sandbox:
        await _resize_sandbox(node, pod, results)
    if actions.start and sandbox is not None:
        starts = [
            _start(
                _Starting(node, pod, container, start, sandbox, events, _target(pod, start, observed)),
                results,
            )
            for start in actions.start
            if (container := find_container(pod, start.name)) is not None
        ]
        await (asyncio.gather(*starts) if len(starts) > 1 else starts[0])
    for hook in actions.post_start:
        if (container := find_container(pod, hook.name)) is not None:
            ip = sandbox.ip if sandbox is not None else ""
            node.hooks.begin(HookRun(pod, container, hook.id, Hook.POST_START, ip, events))
    await _resize(node, pod, actions, results, events)
    if actions.limit is not None:
        await node.cri.limit_sandbox(uid, actions.limit)
    for removal in actions.remove:
        with contextlib.suppress(NotFoundError):
            await node.cri.remove_container(uid, removal.id, keep_log=removal.keep_log)
    if actions.finish:
        node.puller.forget(uid)
        node.net_files.pop(uid, None)
        await node.cri.remove_pod(uid)
        results.finished = True
    return results


def _without_volumes(
    node: Node, pod: Pod, actions: PodActions, results: Results, events: PodEvents
) -> PodActions:
    """Return the actions without those that need the pod's volumes, if a volume's content is missing."""
    if not (actions.create_sandbox or actions.start):
        return actions
    missing = missing_content(pod, sources_of(node, pod))
    if not missing:
        return actions
    for sentence in missing:
        events.pod(WARNING, "FailedMount", sentence)
    results.volumes = "; ".join(missing)
    return replace(actions, pull=(), create_sandbox="", start=())


async def _stop(node: Node, pod: Pod, observed: ObservedPod, actions: PodActions, events: PodEvents) -> None:
    uid = pod.metadata.uid or ""
    for stop in actions.stop:
        if stop.message:
            events.container(stop.name, NORMAL, "Killing", stop.message)
        with contextlib.suppress(NotFoundError):
            await node.cri.stop_container(
                uid, stop.id, signal=stop.signal, grace=stop.grace, killed_for=stop.killed_for
            )
        container = find_container(pod, stop.name)
        if stop.pre_stop and container is not None:
            ip = observed.sandbox.ip if observed.sandbox is not None else ""
            node.hooks.begin(HookRun(pod, container, stop.id, Hook.PRE_STOP, ip, events, stop.pre_stop))


async def _resize_sandbox(node: Node, pod: Pod, results: Results) -> None:
    """Write new limits into the pod's own cgroup. If that fails, it is retried; the pod keeps running."""
    wanted = limits.pod_limits(pod, node.config)
    try:
        await node.cri.update_sandbox(
            pod.metadata.uid or "", resources=wanted, resources_hash=hashes.resources_hash(wanted)
        )
    except NotFoundError:
        raise
    except RuntimeFault as error:
        results.resize_error = f"pod: {error}"


async def _resize(node: Node, pod: Pod, actions: PodActions, results: Results, events: PodEvents) -> None:
    """Write new limits for running containers. A failure (memory in use, say) is retried; the other containers are not
    affected (Kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go, doPodResizeAction)."""
    uid, done = pod.metadata.uid or "", False
    if actions.update and not any(c.type == RESIZING for c in pod.status.conditions):  # not on a retry
        events.resize(NORMAL, "ResizeStarted", "started")
    for update in actions.update:
        try:
            await node.cri.update_container(
                uid, update.id, resources=dict(update.resources), resources_hash=update.resources_hash
            )
            done = True
        except NotFoundError:
            raise
        except RuntimeFault as error:
            results.resize_error = results.resize_error or f"container {update.name}: {error}"
    if done:
        events.resize(NORMAL, "ResizeCompleted", "completed")


# -- the sandbox ------------------------------------------------------------------------------------------------


def sandbox_request(pod: Pod, config: NodeConfig, id_base: int = 0) -> SandboxRequest:
    """Return the request for the sandbox. `id_base`: the host uid of the pod's root (`hostUsers: false`). Pure."""
    spec, wanted = pod.spec, limits.pod_limits(pod, config)
    ports = () if spec.host_network else host_ports(pod)
    security = spec.security_context
    return SandboxRequest(
        uid=pod.metadata.uid or "",
        namespace=pod.metadata.namespace or "default",
        name=pod.metadata.name or "",
        hostname=netfiles.uts_hostname(pod, config),
        cgroup=resources.pod_cgroup(pod, config),
        spec_hash=hashes.sandbox_hash(pod),
        host_network=bool(spec.host_network),
        host_pid=bool(spec.host_pid),
        host_ipc=bool(spec.host_ipc),
        share_pid=bool(spec.share_process_namespace),
        id_base=id_base,
        host_ports=ports,
        bandwidth=pod_bandwidth(pod),
        resources=wanted,
        resources_hash=hashes.resources_hash(wanted),
        sysctls={sysctl.name: sysctl.value for sysctl in security.sysctls} if security is not None else {},
        runtime_class=spec.runtime_class_name or "",
    )


def _own_users(pod: Pod) -> bool:
    return pod.spec.host_users is False and not pod.spec.host_network


async def _create_sandbox(
    node: Node, pod: Pod, actions: PodActions, results: Results, events: PodEvents
) -> ObservedSandbox | None:
    """Create the sandbox. While the shim starts, fill the caches that the start of the containers reads."""
    try:
        id_base = userns.claim(node.config, pod.metadata.uid or "") if _own_users(pod) else 0
        request = sandbox_request(pod, node.config, id_base)
    except (CreateError, OSError) as error:
        results.sandbox = str(error)
        events.pod(WARNING, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        return None
    work = asyncio.ensure_future(node.cri.run_sandbox(request))
    await asyncio.sleep(0)  # send the request before doing anything else
    _warm(node, pod, actions)
    if trouble := dns_trouble(pod, node.config):
        events.pod(WARNING, "DNSConfigForming", trouble)
    try:
        return await work
    except asyncio.CancelledError:
        work.cancel()
        raise
    except RuntimeFault as error:
        results.sandbox = str(error)
        events.pod(WARNING, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        return None


def _warm(node: Node, pod: Pod, actions: PodActions) -> None:
    """Fill the caches that a start reads: the image's users, the seccomp profile, the masked paths, the network files
    that need no address. Ignore errors: the start meets them again and reports them."""
    with contextlib.suppress(OSError):
        write_net_files(pod, node.config, None, node.net_files)
    for start in actions.start:
        container = find_container(pod, start.name)
        image = node.cri.image(container.image or "") if container is not None else None
        if container is None or image is None:
            continue
        with contextlib.suppress(RuntimeFault, OSError):
            users.resolve_user(
                pod, container, image.config.get("User") or "", image_accounts(tuple(image.layers))
            )
            seccomp_profile(pod, container, node.config)
            default_masked_paths()


@lru_cache(maxsize=32)
def _profile(caps: tuple[str, ...], socketcall: bool) -> dict[str, Any]:
    return default_profile(frozenset(caps), socketcall=socketcall)


def seccomp_profile(pod: Pod, container: Container, config: NodeConfig) -> dict[str, Any] | None:
    """Return the profile as OCI's linux.seccomp. Raises CreateError if a Localhost profile cannot be read."""
    wanted = container_spec.seccomp_wanted(pod, container)
    if wanted is None:
        return None
    if wanted.type != "Localhost":
        return _profile(tuple(container_spec.capabilities(container)), config.socketcall)
    path = f"{config.seccomp_dir}/{wanted.localhost_profile}"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        raise CreateError(f"failed to load seccomp profile {path}: {error}") from error
    if not isinstance(found, dict) or "defaultAction" not in found:
        raise CreateError(f"failed to load seccomp profile {path}: it has no defaultAction")
    return found


@lru_cache(maxsize=1)
def default_masked_paths() -> tuple[str, ...]:
    return tuple(masked_paths())


def _target(pod: Pod, start: StartContainer, observed: ObservedPod) -> int:
    """Return the pid of the container whose processes an ephemeral container sees, or 0."""
    name = target_of(pod, start.name)
    found = observed.latest(name) if name else None
    return found.pid if found is not None else 0


# -- a container ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Starting:
    """A start and its inputs."""

    node: Node
    pod: Pod
    container: Container
    start: StartContainer
    sandbox: ObservedSandbox
    events: PodEvents
    target: int = 0  # pid of the container whose processes it shares

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid or ""


async def _start(one: _Starting, results: Results) -> None:
    """Prepare, create and start the container. A failure becomes a fact in `results`, not an exception."""
    name, reason, message, wait = one.container.name, "", "", RETRY_START
    failed = "CreateContainerError"
    try:
        if one.start.discard:
            await one.node.cri.remove_container(one.uid, one.start.discard)
        await mount_slow(one.pod, one.container, sources_of(one.node, one.pod), one.node.slow)
        request = _request(one, await one.node.devices.prepare(one.pod, one.container))
        _announce(one)
        failed = "RunContainerError"
        await one.node.cri.start_container(request)
    except MountError as error:
        reason = "PodInitializing" if one.pod.spec.init_containers else "ContainerCreating"
        wait = 0.0  # Memory.remember delays the retry
        one.events.pod(WARNING, "FailedMount", str(error))
    except StartError as error:  # its record stays: from now on it is a container that ended
        one.events.container(name, NORMAL, "Created", "Container created")
        one.events.container(name, WARNING, "Failed", f"Error: {error}")
    except RuntimeFault as error:
        if isinstance(error, NotFoundError | StateError):  # its sandbox is gone or terminating
            failed = "CreateContainerError"
        reason = error.reason if isinstance(error, ConfigError) else failed
        message, wait = str(error), 1.0 if error.retriable else RETRY_START
        one.events.container(name, WARNING, "Failed", f"Error: {error}")
    except OSError as error:
        reason, message = "CreateContainerError", str(error)
        one.events.container(name, WARNING, "Failed", f"Error: {error}")
    else:
        one.events.container(name, NORMAL, "Created", "Container created")
        one.events.container(name, NORMAL, "Started", "Container started")
    spec_hash = hashes.container_hash(one.pod, one.container)
    failure = StartFailure(reason, message, spec_hash, one.node.clock() + wait) if reason else None
    results.starts[name] = failure


def _announce(one: _Starting) -> None:
    """Send kubelet's event for an image that is already present. The puller sends the other image events."""
    name, image = one.container.name, one.container.image or ""
    if (name, one.start.attempt) not in one.node.puller.states(one.uid, {name: image}):
        text = f'Container image "{image}" already present on machine and can be accessed by the pod'
        one.events.container(name, NORMAL, "Pulled", text)


def _request(one: _Starting, devices: ContainerDevices) -> ContainerRequest:
    """Create everything that the start needs, and return its request."""
    config, pod, container = one.node.config, one.pod, one.container
    image = one.node.cri.image(container.image or "")
    if image is None:
        raise NotFoundError(f"image {container.image} is gone", retriable=True)
    prepared = _prepare(one, image, devices)
    spec = container_spec.container_spec(pod, container, prepared, config)
    if devices.cdi:
        from kubelite.node.devices import cdi  # few nodes have such devices
        from kubelite.node.storage.cdi_files import cdi_edits

        spec = cdi.edited(spec, cdi_edits(devices.cdi, config.cdi_dirs))
    namespace, pod_name = pod.metadata.namespace or "default", pod.metadata.name or ""
    return ContainerRequest(
        uid=one.uid,
        id=prepared.container_id,
        name=container.name,
        attempt=one.start.attempt,
        image=image,
        image_ref=container.image or "",
        spec=spec,
        spec_hash=hashes.container_hash(pod, container),
        resources_hash=hashes.resources_hash(prepared.limits),
        log_path=config.log_path(namespace, pod_name, one.uid, container.name, one.start.attempt),
        crash_count=one.start.crash_count,
        files=((prepared.termination_log, ""),),
        stdin=bool(container.stdin),
        tty=bool(container.tty),
        termination_message_path=prepared.termination_log,
        post_start=handler_of(container, Hook.POST_START) is not None,
        runtime_class=pod.spec.runtime_class_name or "",
        checks_hash=hashes.checks_hash(container),
        content_hash=env.content_hash(pod, container, find_for(pod, one.node.find))
        if pod.metadata.annotations.get(RESTART_ON_CHANGE) == "true"
        else "",
    )


def _prepare(one: _Starting, image: ObservedImage, given: ContainerDevices) -> container_spec.Prepared:
    config, pod, container = one.node.config, one.pod, one.container
    ips = tuple(pod_ips(pod, one.sandbox, config))
    sources = sources_of(one.node, pod, ips)
    variables = env.container_env(pod, container, sources)
    write_net_files(pod, config, ips, one.node.net_files)
    shm = volume_plans.shm_plan(pod, config)
    if shm is not None:
        mounts.set_up(shm)
    directory = config.pod_dir(one.uid)
    user = users.resolve_user(
        pod, container, image.config.get("User") or "", image_accounts(tuple(image.layers))
    )
    return container_spec.Prepared(
        image=image,
        sandbox=one.sandbox,
        container_id=new_id(),
        user=user,
        env={**given.env, **variables},
        volumes=container_volumes(
            pod,
            container,
            sandbox=one.sandbox,
            sources=sources,
            variables=variables,
            mounted=one.node.observer.mounted,
        ),
        block_devices=block_devices(pod, container, sources),
        plugin_mounts=given.mounts,
        plugin_devices=host_nodes(given.nodes, user) if given.nodes else (),
        plugin_annotations=given.annotations,
        hosts=f"{directory}/etc-hosts",
        hostname="" if pod.spec.host_network else f"{directory}/hostname",
        resolv_conf=f"{directory}/resolv.conf",
        shm=shm.path if shm is not None else "",
        limits=limits.container_limits(pod, container, config, one.start.cpus),
        termination_log=config.termination_log(one.uid, container.name, one.start.attempt),
        masked_paths=default_masked_paths(),
        target=one.target,
        id_base=userns.in_use(config, one.uid, one.sandbox.pause) if _own_users(pod) else 0,
        devices=mounts.host_devices() if container_spec.is_privileged(container) else (),
        seccomp=seccomp_profile(pod, container, config),
    )


def pod_ips(pod: Pod, sandbox: ObservedSandbox, config: NodeConfig) -> list[str]:
    return list(config.host_ips if pod.spec.host_network else sandbox.ips)


def refresh_files(node: Node, pod: Pod, sandbox: ObservedSandbox) -> None:
    """Update the files of a running pod that change without a restart: host aliases, DNS, and the content of configMap,
    secret and downwardAPI volumes. If a source is gone, its last content stays. If the pod's directory was removed,
    what a container's next start needs of it is created again."""
    ips = tuple(pod_ips(pod, sandbox, node.config))
    write_net_files(pod, node.config, ips, node.net_files)
    if _own_users(pod):
        userns.in_use(node.config, pod.metadata.uid or "", sandbox.pause)
    sources = sources_of(node, pod, ips)
    for volume in pod.spec.volumes:
        if not (volume.config_map or volume.secret or volume.downward_api or volume.projected):
            continue
        try:
            plan = volume_plans.plan_volume(pod, volume, sources)
            if os.path.isdir(plan.path):
                mounts.write_files(plan)
        except (RuntimeFault, OSError) as error:
            log.debug("volume %s is not refreshed: %s", volume.name, error, extra={"uid": pod.metadata.uid})


def sandbox_failure(pod: Pod, message: str, retry_at: float) -> SandboxFailure:
    return SandboxFailure(message, hashes.creation_hash(pod), retry_at)
