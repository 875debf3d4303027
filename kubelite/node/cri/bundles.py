"""Build the requests to a pod's shim, for a sandbox or a container. Write the container's OCI bundle to disk."""

from __future__ import annotations

import contextlib
import json
import os

from kubelite.node.cri import pod_files
from kubelite.node.cri.engine_settings import EngineSettings
from kubelite.node.decide.container_details import user_text
from kubelite.node.model.cri import ContainerRequest, SandboxRequest
from kubelite.node.storage import quota
from runtime.errors import RuntimeFault
from runtime.files import write_new
from runtime.identity import new_id
from runtime.shim.protocol import CreateContainer, RootfsOverlay, SandboxConfig


def sandbox_config(request: SandboxRequest, run_dir: str, settings: EngineSettings) -> SandboxConfig:
    """Convert the node's request for a sandbox to the shim's. The shims' protocol must not change; the node's request
    may. The host ports are left out because the network publishes them, the runtime class because each container's
    request names it."""
    return SandboxConfig(
        uid=request.uid,
        sandbox_id=new_id(),
        run_dir=run_dir,
        cgroup=request.cgroup,
        shim_cgroup=f"/{settings.cgroup_parent}/shims",
        hostname=request.hostname,
        host_network=request.host_network,
        host_ipc=request.host_ipc,
        host_pid=request.host_pid,
        share_pid=request.share_pid,
        id_base=request.id_base,
        resources=request.resources,
        sysctls=request.sysctls,
        annotations={
            "spec_hash": request.spec_hash,
            "resources_hash": request.resources_hash,
            "namespace": request.namespace,
            "name": request.name,
            "node": settings.node_name,
        },
    )


def prepare(request: ContainerRequest, bundle: str, settings: EngineSettings) -> CreateContainer:
    """Create the bundle directory. Return the request to the shim, which creates the log's directory."""
    if os.path.isdir(bundle):  # left by a daemon killed at this point: the instance was never recorded
        pod_files.remove_links(f"{settings.log_dir}/containers", request.log_path)
        pod_files.remove_trees([bundle])
    os.makedirs(bundle, mode=0o700)
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{bundle}/{name}", 0o755)
    os.chmod(f"{bundle}/upper", 0o755)  # the mode of "/" in the container, whatever the umask
    with contextlib.suppress(OSError):  # without a quota, usage is measured by walking the directory
        quota.count(f"{bundle}/upper", f"{bundle}/work")
    for path, content in request.files:
        # the container writes its termination message, as whatever user it runs
        mode = 0o666 if path == request.termination_message_path else 0o644
        write_new(path, content.encode(), mode)
    write_new(f"{bundle}/config.json", json.dumps(request.spec, separators=(",", ":")).encode())
    overlay = RootfsOverlay(list(request.image.layers), f"{bundle}/upper", f"{bundle}/work")
    labels = {
        "image": request.image_ref,
        "image_id": request.image.id,
        "spec_hash": request.spec_hash,
        "resources_hash": request.resources_hash,
        "crash_count": str(request.crash_count),
        "user": user_text(request.spec.get("process", {}).get("user", {})),
    }
    if request.content_hash:
        labels["content_hash"] = request.content_hash
    if request.checks_hash:
        labels["checks_hash"] = request.checks_hash
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
        log_max_bytes=settings.log_max_size,
        log_max_files=settings.log_max_files,
        stdin=request.stdin,
        tty=request.tty,
        termination_message_path=request.termination_message_path,
        labels=labels,
        runtime=runtime_path(request.runtime_class, settings),
    )


def runtime_path(name: str, settings: EngineSettings) -> str:
    """Return the path of the OCI runtime for a pod's runtimeClassName; "" is the built-in engine. Raises RuntimeFault
    with kubelet's message if the settings do not have this class or its runtime does not exist."""
    if not name:
        return ""
    path = settings.runtime_classes.get(name)
    if path is None:
        known = ", ".join(sorted(settings.runtime_classes)) or "none"
        raise RuntimeFault(f'RuntimeClass "{name}" not found (runtime_classes of this node: {known})')
    if not os.access(path, os.X_OK):
        raise RuntimeFault(f'no runtime for "{name}" is configured: {path} cannot be executed')
    return path
