"""Reads the files of the Container Device Interface, and completes their device nodes from the host's."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Sequence

from kubelite.kube.json import Json
from kubelite.node.devices.cdi import CdiFile, resolve
from kubelite.node.model.errors import CreateError

log = logging.getLogger(__name__)


def cdi_edits(names: Sequence[str], directories: Iterable[str]) -> tuple[Json, ...]:
    """Return what the devices (`vendor.com/class=name`) change in config.json. A later directory has precedence. Raises
    CreateError."""
    files = [
        found
        for priority, directory in enumerate(directories)
        for path in _paths(directory)
        if (found := _read(path, priority)) is not None
    ]
    try:
        return tuple(_complete(one) for one in resolve(names, files))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CreateError(
            f"a CDI file that defines one of {', '.join(names)} is invalid: {error!r}"
        ) from error


def _paths(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith((".json", ".yaml"))]


def _read(path: str, priority: int) -> CdiFile | None:
    """Return the file, or None if it cannot be read: it must not keep the devices of others from being used."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            doc = yaml.safe_load(file)  # JSON is YAML
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: a date, or UTF-8
        log.warning("CDI file %s cannot be read: %s", path, error)
        return None
    if not isinstance(doc, dict) or not isinstance(doc.get("devices"), list):
        log.warning("CDI file %s is invalid: it has no list of devices", path)
        return None
    return CdiFile(path, priority, doc)


def _complete(edits: Json) -> Json:
    nodes = [_complete_node(node) for node in edits.get("deviceNodes") or ()]
    return {**edits, "deviceNodes": nodes} if nodes else edits


def _complete_node(node: Json) -> Json:
    """Add type, numbers and mode of the host's device. A device that the file describes in full need not exist."""
    made = {**node, "hostPath": node.get("hostPath") or node["path"]}
    described = bool(node.get("type")) and (bool(node.get("major")) or node["type"] == "p")
    try:
        found = os.lstat(made["hostPath"])
    except OSError as error:
        if described:
            return made
        raise CreateError(f"CDI device {made['hostPath']}: {error.strerror}") from error
    made.setdefault("fileMode", stat.S_IMODE(found.st_mode))
    if described:
        return made
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}.get(stat.S_IFMT(found.st_mode), "")
    if not kind or node.get("type", kind) != kind:
        raise CreateError(f"CDI device {made['hostPath']} is no device of the type that its file says")
    return {**made, "type": kind, "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
