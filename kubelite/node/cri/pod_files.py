"""Create and remove a pod's files: bundles, logs, and the links that log shippers follow.

The functions block: call slow ones (removals) in a thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from kubelite.node.model.node_config import NAME_MAX
from runtime.removal import remove_tree
from runtime.tree import directory_of, make_directories

if TYPE_CHECKING:
    from runtime.shim.protocol import SandboxRecord

log = logging.getLogger(__name__)

MESSAGE_BYTES = 4096  # of a termination message; the rest is ignored


def link_log(log_dir: str, log_path: str, name: str, identity: str) -> None:
    """Create /var/log/containers/<pod>_<ns>_<ctr>-<id>.log, where log shippers look. A failure is only logged, as in
    kubelet (Kubernetes kuberuntime_container.go): the container still writes its log, and the daemon's next start
    retries."""
    try:
        link = _log_link(log_dir, log_path, name, identity)
        make_directories(os.path.dirname(link))
        with contextlib.suppress(FileExistsError):
            os.symlink(log_path, link)
    except OSError as error:
        log.error("no link to the log %s: %s", log_path, error)


def link_logs(log_dir: str, sandboxes: Iterable[SandboxRecord]) -> None:
    """Create the links that a killed daemon did not create."""
    for container in (c for sandbox in sandboxes for c in sandbox.containers):
        if os.path.exists(container["log_path"]):
            link_log(log_dir, container["log_path"], container["name"], container["id"])


def unlink_log(log_dir: str, log_path: str, name: str, identity: str) -> None:
    if log_path:
        with contextlib.suppress(OSError):
            os.unlink(_log_link(log_dir, log_path, name, identity))


def _log_link(log_dir: str, log_path: str, name: str, identity: str) -> str:
    """Return the link's path, cut to the maximum length of a file name as kubelet does (Kubernetes
    kuberuntime/legacy.go)."""
    pod_dir = os.path.basename(os.path.dirname(os.path.dirname(log_path)))
    namespace, _, rest = pod_dir.partition("_")
    pod = rest.rpartition("_")[0]
    link = f"{pod}_{namespace}_{name}-{identity}"[: NAME_MAX - len(".log")]
    return f"{log_dir}/containers/{link}.log"


def logged_attempts(directory: str) -> dict[str, int]:
    """Return the newest attempt of each container that has a log in a pod's log directory."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            logs = (entry.partition(".log")[0] for entry in os.listdir(f"{directory}/{name}"))
            found[name] = max((int(number) for number in logs if number.isdigit()), default=-1)
    return {name: attempt for name, attempt in found.items() if attempt >= 0}


def termination_message(path: str) -> str:
    """Return the end of a container's termination message file, at most `MESSAGE_BYTES`. The container controls the
    path, so symbolic links are not followed and FIFOs do not block."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            file.seek(max(0, os.fstat(descriptor).st_size - MESSAGE_BYTES))
            return file.read(MESSAGE_BYTES).decode(errors="replace")
    return ""


def remove_pod(uid: str, directory: str, logs: Iterable[str], log_dir: str) -> None:
    """Remove all files of a pod, also logs that were never recorded because the shim or the daemon died, and the links
    to logs. Call it in a thread: it may wait for the disk."""
    found = dict.fromkeys(logs)
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(f"{log_dir}/pods") if name.endswith(f"_{uid}")]
        found.update(dict.fromkeys(f"{log_dir}/pods/{name}" for name in names))
    for path in found:
        remove_links(f"{log_dir}/containers", path)
    if remove_trees(found):
        remove_trees([directory])
    else:  # because of the empty directory, remove_orphans (daemon/relist.py) tries to remove the logs again
        remove_trees(f"{directory}/{name}" for name in _names(directory))
        with contextlib.suppress(OSError):
            os.makedirs(directory, mode=0o750, exist_ok=True)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def remove_trees(paths: Iterable[str]) -> bool:
    """Return whether all of them were removed. A failure is logged."""
    done = True
    for path in paths:
        try:
            remove_tree(path)
        except OSError as error:
            log.error("could not remove %s: %s", path, error)
            done = False
    return done


def remove_links(directory: str, target: str) -> None:
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


def forget_log(path: str, used: Collection[str], *, earlier: bool) -> None:
    """Remove a container's log or, with `earlier`, the logs of its earlier instances. Logs in `used` are retained."""
    for gone in earlier_logs(path) if earlier else [path]:
        if gone and gone not in used:
            remove_log(gone)


def earlier_logs(path: str) -> list[str]:
    """Return the logs of the instances before the one that writes `path` (<directory>/<attempt>.log)."""
    directory, name = os.path.split(path)
    number = name.removesuffix(".log")
    if not number.isdigit():
        return []
    with contextlib.suppress(OSError):
        found = [entry.removesuffix(".log") for entry in os.listdir(directory) if entry.endswith(".log")]
        return [f"{directory}/{n}.log" for n in found if n.isdigit() and int(n) < int(number)]
    return []


def remove_log(path: str) -> None:
    """Remove a container's log and its rotated files, as kubelet does when it removes a container."""
    name = os.path.basename(path)
    with contextlib.suppress(OSError), directory_of(path) as directory:
        for file in os.listdir(directory):
            if file == name or file.startswith(f"{name}."):
                with contextlib.suppress(OSError):
                    os.unlink(file, dir_fd=directory)
