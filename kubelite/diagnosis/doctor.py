"""`kubelite doctor`: checks the invariants of a node at rest against the kernel and the disk, not against the daemon's
memory.

Every process, mount, cgroup, interface, address, rule, directory and record belongs to a pod. Each pod has one shim,
each container at most one running instance. Tests run these checks after every scenario.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kubelite.node.spec import lsm
from kubelite.settings import Settings
from runtime.builder.run import leftovers
from runtime.cgroups import open_cgroup
from runtime.cgroups.layout import layout
from runtime.shim.client import read_state, shim_alive
from runtime.shim.protocol import SandboxRecord
from state.store import Store

SHARED_LOGS = "/var/log"
SHOWN = 5  # files that a finding names


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem. `level`: error (an invariant does not hold) or warning; `fix`: the next step, "" if there is none."""

    level: str
    check: str
    message: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value}


def examine(
    settings: Settings,
    store: Store,
    *,
    network: Iterable[str] = (),
    leases: Iterable[str] = (),
    helpers: Iterable[int] = (),
    images: Iterable[str] = (),
    rejected: tuple[int, Sequence[str]] = (0, ()),
) -> list[Finding]:
    """Run every check, in order. `network` and `images`: the findings of their own checks, as sentences; `leases`: the
    uids of pods that have an address; `helpers`: the pids of the daemon's helper processes; `rejected`: the number of
    all manifest files, and the paths of those with errors."""
    pods = {record.uid: record for record in store.list("Pod")}
    shims = dict(_shims(settings))
    findings: list[Finding] = []

    def error(check: str, message: str, fix: str = "") -> None:
        findings.append(Finding("error", check, message, fix))

    _check_disks(settings, error)
    _check_shims(pods, shims, error)
    _check_cgroups(settings, pods, shims, set(helpers), error)
    _check_mounts(settings, pods, error)
    _check_directories(settings, pods, error)
    findings.extend(_check_logs(settings, pods))
    for uid in leases:
        if uid not in shims:
            error("network", f"an address is leased for pod {uid}, which has no sandbox")
    for row_uid in store.pods_with_containers():
        if row_uid not in pods:
            error("state", f"containers are recorded for pod {row_uid}, which does not exist")
    for sentence in network:
        error("network", sentence)
    for sentence in images:
        error("images", sentence, "kubelite doctor --repair")
    findings.extend(_check_manifests(settings.manifests, *rejected))
    findings.extend(_check_apparmor())
    if store.set_aside:
        findings.append(
            Finding(
                "warning", "state", f"a damaged state file was set aside as {store.set_aside}", "remove it"
            )
        )
    return findings


def _shims(settings: Settings) -> Iterator[tuple[str, SandboxRecord | None]]:
    for uid in _names(f"{settings.run_dir}/shims"):
        yield uid, read_state(f"{settings.run_dir}/shims/{uid}")


_Error = Callable[..., None]


def _check_disks(settings: Settings, error: _Error) -> None:
    """Find directories on a file system that is read-only, as ext4 becomes after an error of its disk."""
    for path in dict.fromkeys((settings.root, settings.run_dir, settings.log_dir)):
        if os.path.isdir(path) and os.statvfs(path).f_flag & os.ST_RDONLY:
            error("disk", f"{path} is read-only", "look for the cause (dmesg), then mount -o remount,rw")
    # Linux, fs/overlayfs/params.c ovl_mount_dir_check: a file system with d_revalidate cannot hold an upper directory.
    if os.path.isdir(settings.root) and _file_system(settings.root) == "overlay":
        error(
            "disk",
            f"{settings.root} is on an overlay, which cannot hold the changes of containers: none can start",
            f"if the node runs in a container, give it a volume: podman run -v kubelite:{settings.root}",
        )


def _file_system(path: str) -> str:
    """Return the type of the file system that a directory is on, "" if it is in no mount that is seen from here."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            mount, _, kind = line.partition(" - ")
            if mount.split(" ")[2] == wanted:
                return kind.partition(" ")[0]
    return ""


def _check_shims(pods: dict[str, Any], shims: dict[str, SandboxRecord | None], error: _Error) -> None:
    for uid, record in shims.items():
        if record is None:
            error("shims", f"the run directory of pod {uid} has no state")
            continue
        if not shim_alive(record):
            error("shims", f"the shim of pod {uid} (pid {record.pid}) is dead and was not cleaned up")
        if uid not in pods:
            error("shims", f"a sandbox runs for pod {uid}, which does not exist")
        alive = Counter(c["name"] for c in record.containers if c["status"] in ("created", "running"))
        for name, count in alive.items():
            if count > 1:
                error("containers", f"{count} instances of container {name} of pod {uid} run at once")
        for container in record.containers:
            if container["status"] == "running" and not os.path.exists(f"/proc/{container['pid']}"):
                error(
                    "containers",
                    f"container {container['name']} of pod {uid} is recorded as running but does not run",
                )


def _check_cgroups(
    settings: Settings,
    pods: dict[str, Any],
    shims: dict[str, SandboxRecord | None],
    helpers: set[int],
    error: _Error,
) -> None:
    parent = f"/{settings.cgroup_parent}"
    _check_frozen(parent, error)
    for path in _pod_cgroups(parent):
        uid = path.rpartition("/pod")[2]
        if uid not in pods or uid not in shims:
            pids = open_cgroup(path).pids()
            error("cgroups", f"cgroup {path} belongs to no pod (processes: {pids or 'none'})")
    for path in leftovers.stale_cgroups(parent, f"{settings.root}/images"):
        pids = open_cgroup(path).pids()
        words = f"cgroup {path} belongs to a build that was killed (processes: {pids or 'none'})"
        error("cgroups", words, "the next `kubelite build` or the next start of kubelite removes it")
    known = helpers | {pid for record in shims.values() if record for pid in (record.pid, record.pause)}
    group = open_cgroup(f"{parent}/shims")
    for pid in group.pids() if group.exists() else ():
        if pid not in known:
            error(
                "processes",
                f"process {pid} is in the shims' cgroup but is not a pod's shim",
                f"kill -9 {pid}",
            )


def _check_frozen(parent: str, error: _Error) -> None:
    """Check the cgroups above those of the pods. Nobody but an administrator freezes them, so the node does not thaw
    them, not even to delete a pod."""
    freezer = layout().v1.get("freezer")
    for path in (parent, f"{parent}/burstable", f"{parent}/besteffort"):
        if not (group := open_cgroup(path)).exists() or not group.frozen():
            continue
        file, word = (
            (f"{freezer}{path}/freezer.state", "THAWED")
            if freezer
            else (f"{layout().unified}{path}/cgroup.freeze", "0")
        )
        words = f"cgroup {path} is frozen: no pod in it runs, starts or can be deleted"
        error("cgroups", words, f"echo {word} > {file}")
        return


def _pod_cgroups(parent: str) -> set[str]:
    """Return every pod cgroup below the parent, in any hierarchy."""
    found: set[str] = set()
    found_layout = layout()
    for root in (*found_layout.hierarchies, found_layout.unified):
        for qos in ("", "burstable/", "besteffort/") if root else ():
            names = _names(f"{root}{parent}/{qos}")
            found.update(f"{parent}/{qos}{name}" for name in names if name.startswith("pod"))
    return found


_NODE_MOUNTS = tuple(  # directories of volumes that are mounted in the node's mount namespace
    f"volumes/kubernetes.io~{plugin}/" for plugin in ("empty-dir", "image", "projected", "secret")
)


def _check_mounts(settings: Settings, pods: dict[str, Any], error: _Error) -> None:
    """Find mounts in the node's mount namespace that must not be there. It has only the in-memory file systems and
    images that containers of a pod share (see node/storage/mounts.py); all others are in the containers' namespaces."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            place = line.split()[4]
            if not place.startswith((f"{settings.root}/pods/", f"{settings.run_dir}/shims/")):
                continue
            uid, _, rest = place.removeprefix(f"{settings.root}/pods/").partition("/")
            shared = rest == "shm" or rest.startswith(_NODE_MOUNTS)
            if uid not in pods or not shared:
                error("mounts", f"{place} is mounted in the node's namespace", f"umount {place}")


def _check_directories(settings: Settings, pods: dict[str, Any], error: _Error) -> None:
    for uid in _names(f"{settings.root}/pods"):
        if uid not in pods:
            error("directories", f"{settings.root}/pods/{uid} belongs to no pod")


def _check_logs(settings: Settings, pods: dict[str, Any]) -> Iterator[Finding]:
    """Find logs of unknown pods, and dangling links. In the machine's own log directory they are only a warning,
    because a kubelet or other nodes may use it, too."""
    shared = settings.log_dir == SHARED_LOGS
    level, words = ("warning", "no pod of this node") if shared else ("error", "no pod")
    for name in _names(f"{settings.log_dir}/pods"):
        if name.rpartition("_")[2] not in pods:
            yield Finding(level, "directories", f"{settings.log_dir}/pods/{name} belongs to {words}")
    links = f"{settings.log_dir}/containers"
    for name in _names(links):
        target = os.path.join(links, name)
        if os.path.islink(target) and not os.path.exists(target):
            yield Finding(level, "directories", f"{target} is a dangling link", f"rm {target}")


def _check_manifests(directory: str, total: int, rejected: Sequence[str]) -> Iterator[Finding]:
    """Report manifests with errors as a warning: the user must correct them, and their last valid versions apply."""
    if rejected:
        some = ", ".join(os.path.relpath(file, directory) for file in rejected[:SHOWN])
        more = f" and {len(rejected) - SHOWN} more" if len(rejected) > SHOWN else ""
        be = "is" if len(rejected) == 1 else "are"
        words = f"{len(rejected)} of {total} manifests {be} not applied because of errors: {some}{more}"
        yield Finding("warning", "manifests", words, "kubelite get manifests shows the lines and fields")


def _check_apparmor() -> Iterator[Finding]:
    """Report an AppArmor without the default profile. The event of the daemon's start says why."""
    if lsm.apparmor() and not lsm.default_profile():
        words = (
            f"the kernel has AppArmor, but not the profile {lsm.DEFAULT_PROFILE}: containers run without it"
        )
        fix = "install apparmor_parser (Debian and Ubuntu: apt install apparmor), then restart kubelite"
        yield Finding("warning", "apparmor", words, fix)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
