"""Pure: what vendors' files of the Container Device Interface (`/etc/cdi/*.json`) change in a container's config.json
(https://github.com/cncf-tags/container-device-interface, SPEC.md, version 1.1.0)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kubelite.kube.json import Json
from kubelite.node.model.errors import CreateError

_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class CdiFile(NamedTuple):
    """A vendor's file. Files of a higher priority replace devices of the same name."""

    path: str
    priority: int
    doc: Json


def resolve(names: Iterable[str], files: Sequence[CdiFile]) -> list[Json]:
    """Return the containerEdits of devices (`vendor.com/class=name`) in the order in which they are made. The edits
    that a file has for all its devices come before those of its first device. Raises CreateError."""
    edits: list[Json] = []
    used: set[str] = set()
    for name in names:
        file, device = _find(name, files)
        if file.path not in used and file.doc.get("containerEdits"):
            edits.append(file.doc["containerEdits"])
        used.add(file.path)
        if device.get("containerEdits"):
            edits.append(device["containerEdits"])
    return edits


def _find(name: str, files: Sequence[CdiFile]) -> tuple[CdiFile, Json]:
    kind, _, short = name.partition("=")
    found = [
        (file, device)
        for file in files
        if file.doc.get("kind") == kind
        for device in file.doc.get("devices") or ()
        if device.get("name") == short
    ]
    if not found:
        raise CreateError(f"unresolvable CDI device {name}: no file of the node's CDI directories defines it")
    highest = max(file.priority for file, _ in found)
    first, *others = [one for one in found if one[0].priority == highest]
    if others:
        raise CreateError(f"conflicting CDI device {name}: {first[0].path} and {others[0][0].path} define it")
    return first


def edited(spec: Json, edits: Iterable[Json]) -> Json:
    """Return config.json after the edits. Device nodes must be complete: type, major and minor. Raises CreateError for
    a hook that OCI does not know."""
    for one in edits:
        spec = {
            **spec,
            "process": _process(spec["process"], one),
            "linux": _linux(spec["linux"], spec["process"]["user"], one),
            "mounts": _mounts(spec, one),
            **({"hooks": _hooks(spec.get("hooks") or {}, one)} if one.get("hooks") else {}),
        }
    return spec


def _process(process: Json, edits: Json) -> Json:
    """A variable replaces one of the same name."""
    new = {text.partition("=")[0] for text in edits.get("env") or ()}
    env = [text for text in process["env"] if text.partition("=")[0] not in new]
    groups = list(process["user"].get("additionalGids") or ())
    groups += [group for group in edits.get("additionalGids") or () if group and group not in groups]
    return {
        **process,
        "env": env + list(edits.get("env") or ()),
        "user": {**process["user"], "additionalGids": groups},
    }


def _linux(linux: Json, user: Json, edits: Json) -> Json:
    made = dict(linux)
    nodes = edits.get("deviceNodes") or ()
    if nodes:
        paths = {node["path"] for node in nodes}
        kept = [one for one in linux.get("devices") or () if one["path"] not in paths]
        made["devices"] = kept + [_device(node, user) for node in nodes if not _is_bound(node, linux)]
        resources = linux.get("resources") or {}
        rules = [*(resources.get("devices") or ()), *(_rule(node) for node in nodes if node["type"] != "p")]
        made["resources"] = {**resources, "devices": rules}
    if edits.get("intelRdt"):
        made["intelRdt"] = edits["intelRdt"]
    if interfaces := edits.get("netDevices"):
        moved = {one["hostInterfaceName"]: {"name": one["name"]} for one in interfaces}
        made["netDevices"] = {**(linux.get("netDevices") or {}), **moved}
    return made


def _is_bound(node: Json, linux: Json) -> bool:
    """Whether a device is a mount: in a user namespace, no device can be created, and the engine binds that of the same
    path."""
    return "uidMappings" in linux and node["hostPath"] != node["path"]


def _device(node: Json, user: Json) -> Json:
    """A user that is not root owns the devices for which the vendor names no owner."""
    found: Json = {
        name: node[name] for name in ("path", "type", "major", "minor", "fileMode") if name in node
    }
    for name in ("uid", "gid"):
        if (owner := node.get(name, user[name] or None)) is not None:
            found[name] = owner
    return found


def _rule(node: Json) -> Json:
    access = {"": "rwm", "none": ""}.get(node.get("permissions") or "", node.get("permissions"))
    numbers = {name: node[name] for name in ("type", "major", "minor")}
    return {"allow": True, **numbers, "access": access}


def _mounts(spec: Json, edits: Json) -> list[Json]:
    """A mount replaces one at the same path. Parents stand before children."""
    mapped = "uidMappings" in spec["linux"]
    bound = [node for node in edits.get("deviceNodes") or () if _is_bound(node, spec["linux"])]
    new = [_mount(one, mapped=mapped) for one in edits.get("mounts") or ()]
    new += [
        {
            "destination": one["path"],
            "type": "bind",
            "source": one["hostPath"],
            "options": ["bind", "rprivate"],
        }
        for one in bound
    ]
    paths = {one["destination"] for one in new}
    kept = [one for one in spec["mounts"] if one["destination"] not in paths]
    return sorted(
        [*kept, *new], key=lambda one: len([part for part in one["destination"].split("/") if part])
    )


def _mount(one: Json, *, mapped: bool) -> Json:
    kind, options = one.get("type") or "", list(one.get("options") or ())
    bind = bool({"bind", "rbind"} & set(options))
    if not bind and kind in ("", "none", "bind"):
        options, bind = ["bind", *options], True
    if bind and mapped:
        options.append("idmap")
    found: dict[str, Any] = {"destination": one["containerPath"], "type": "bind" if bind else kind}
    return {**found, "source": one["hostPath"], "options": options}


def _hooks(hooks: Json, edits: Json) -> Json:
    made = {kind: list(found) for kind, found in hooks.items()}
    for one in edits["hooks"]:
        kind = one["hookName"]
        if kind not in _HOOKS:
            raise CreateError(f"CDI hook {one['path']}: OCI has no hook {kind!r}")
        made.setdefault(kind, []).append(
            {name: one[name] for name in ("path", "args", "env", "timeout") if one.get(name)}
        )
    return made
