"""Frees the disk space of ended pods whose manifests still exist: emptyDir volumes and containers' writable layers.

Under disk pressure these are removed before any image is removed or pod evicted, as in kubelet (container GC runs
first, and volumes of terminated pods are torn down). Otherwise an evicted pod would keep the disk full, and each
observation would evict one more. Logs, termination messages and claims stay.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator

from kubelite.node.model.node_config import NodeConfig
from kubelite.node.storage.mounts import unmount_below
from runtime.removal import remove_tree

log = logging.getLogger(__name__)


def free(config: NodeConfig, uid: str) -> bool:
    """Remove an ended pod's emptyDir volumes and writable layers. Return whether there were any."""
    directory = config.pod_dir(uid)
    places = list(_places(directory))
    if not places:
        return False
    unmount_below(directory)  # claims and volumes in memory; remove_tree crosses no mount that is left
    for place in places:
        try:
            remove_tree(place)
        except OSError as error:
            log.error("cannot remove %s of an ended pod: %s", place, error, extra={"uid": uid})
    log.warning("removed the emptyDir volumes and writable layers of an ended pod", extra={"uid": uid})
    return True


def _places(directory: str) -> Iterator[str]:
    base = glob.escape(directory)
    yield from glob.iglob(f"{base}/volumes/kubernetes.io~empty-dir/*")
    for part in ("upper", "work"):
        yield from glob.iglob(f"{base}/containers/*/*/{part}")
