"""The systemd cgroup manager: a container's cgroup is a scope, which systemd creates, tracks and delegates.

The request is decided first (`Scope`, `properties`: pure) and then sent over D-Bus (org.freedesktop.systemd1.Manager:
StartTransientUnit, SetUnitProperties, StopUnit). We also write the limit files ourselves; systemd gets the limits so
that it does not reset them. Names, defaults and conversions are runc's (opencontainers/cgroups).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from runtime import dbus
from runtime.cgroups import devices
from runtime.cgroups.files import read_or
from runtime.cgroups.resources_v2 import io_weight, swap_max, weight
from runtime.errors import CapabilityError, RuntimeFault, SpecError

_NAME: Final = "org.freedesktop.systemd1"
_OBJECT: Final = "/org/freedesktop/systemd1"
_MANAGER: Final = "org.freedesktop.systemd1.Manager"
_INFINITY: Final = (1 << 64) - 1
_NO_SUCH_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"
_UNIT_EXISTS: Final = "org.freedesktop.systemd1.UnitExists"
_ANNOTATION: Final = "org.systemd.property."

Property = tuple[str, tuple[str, Any]]  # name, (signature, value)


class Scope(NamedTuple):
    """A transient scope unit."""

    unit: str  # such as docker-abc.scope
    slice: str  # such as system.slice
    user: bool = False  # belongs to the user's own manager

    @property
    def path(self) -> str:
        """The cgroup path, relative to the manager's own cgroup."""
        return f"{expand(self.slice)}/{self.unit}"


def scope(wanted: str, container_id: str, *, user: bool) -> Scope:
    """The scope for linux.cgroupsPath, which has the form slice:prefix:name for this manager. The default is
    runc-<id>.scope in the manager's default slice. Raises SpecError."""
    default = "user.slice" if user else "system.slice"
    if not wanted:
        return Scope(f"runc-{container_id}.scope", default, user)
    parts = wanted.split(":")
    if len(parts) != 3:
        raise SpecError(
            f'linux.cgroupsPath: expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f'got "{wanted}" instead'
        )
    slice_, prefix, name = parts
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not name or "/" in unit or "\0" in unit:
        raise SpecError(f"linux.cgroupsPath: {unit!r} is not a valid systemd unit name")
    if name.endswith(".slice"):
        raise SpecError("linux.cgroupsPath: the name must be a scope, not a slice")
    expand(slice_ or default)
    return Scope(unit, slice_ or default, user)


def expand(slice_: str) -> str:
    """The cgroup path of a slice: `a-b.slice` → `/a.slice/a-b.slice` (systemd.slice(5)). "" for the root slice
    `-.slice`."""
    name = slice_.removesuffix(".slice")
    if name == slice_ or "/" in slice_:
        raise SpecError(f"linux.cgroupsPath: {slice_!r} is not a valid slice name")
    if name == "-":
        return ""
    parts = name.split("-")
    if "" in parts:
        raise SpecError(f"linux.cgroupsPath: {slice_!r} is not a valid slice name")
    return "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


# --- the request ---


def start_properties(
    wanted: Scope,
    container_id: str,
    pid: int,
    resources: Mapping[str, Any],
    annotations: Mapping[str, str],
    *,
    v2: bool,
) -> list[Property]:
    """The properties of a container's scope for StartTransientUnit, the same as runc's.

    `resources`: OCI linux.resources. `annotations` that begin with `org.systemd.property.` become properties; SpecError
    if one is invalid.
    """
    accounts = ("Memory", "CPU", "Tasks", "IO" if v2 else "BlockIO")
    return [
        ("Description", ("s", f"libcontainer container {container_id}")),
        ("Slice", ("s", wanted.slice)),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [pid])),
        *((f"{name}Accounting", ("b", True)) for name in accounts),
        ("DefaultDependencies", ("b", False)),
        *_devices(resources),
        *properties(resources, v2=v2),
        *annotated(annotations),
    ]


def properties(resources: Mapping[str, Any], *, v2: bool) -> list[Property]:
    """Translate linux.resources to the properties of systemd.resource-control(5)."""
    found = dict(_memory(resources.get("memory") or {}, v2=v2))
    found.update(_cpu(resources.get("cpu") or {}, v2=v2))
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        found["TasksMax"] = ("t", _INFINITY if limit < 0 else max(limit, 1))
    if block := (resources.get("blockIO") or {}).get("weight"):
        found["IOWeight" if v2 else "BlockIOWeight"] = ("t", io_weight(block) if v2 else block)
    found.update(_unified(resources.get("unified") or {}))
    return list(found.items())


def _limit(value: int) -> tuple[str, int]:
    return ("t", value if value > 0 else _INFINITY)


def _memory(memory: Mapping[str, Any], *, v2: bool) -> Iterator[Property]:
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        yield "MemoryMax" if v2 else "MemoryLimit", _limit(limit)
    if not v2:
        return
    if memory.get("reservation"):
        yield "MemoryLow", _limit(memory["reservation"])
    if (most := swap_max(limit, swap)) is not None:
        yield "MemorySwapMax", ("t", _INFINITY if most == "max" else int(most))


def _cpu(cpu: Mapping[str, Any], *, v2: bool) -> Iterator[Property]:
    if shares := cpu.get("shares"):
        yield ("CPUWeight", ("t", weight(shares))) if v2 else ("CPUShares", ("t", shares))
    if v2 and cpu.get("idle") == 1:
        yield "CPUWeight", ("t", 0)  # the idle weight, since systemd 252
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 100_000
    if cpu.get("period"):
        yield "CPUQuotaPeriodUSec", ("t", period)
    if quota > 0:  # systemd's resolution is 10 ms per second; round up
        yield "CPUQuotaPerSecUSec", ("t", -(-quota * 1_000_000 // period // 10_000) * 10_000)
    elif quota:
        yield "CPUQuotaPerSecUSec", ("t", _INFINITY)
    for key, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
        if v2 and cpu.get(key):
            yield name, ("ay", _bits(str(cpu[key])))


def _bits(text: str) -> list[int]:
    """The bit mask of a list such as `0-3,9`, lowest byte first."""
    from runtime.oci.config.spec_linux import number_set

    mask = sum(1 << number for number in number_set(text, "linux.resources.cpu"))
    return list(mask.to_bytes(max(1, -(-mask.bit_length() // 8)), "little"))


_UNIFIED: Final = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}


def _unified(unified: Mapping[str, str]) -> Iterator[Property]:
    """The unified settings that systemd has properties for. The others are only written to files."""
    for file, name in _UNIFIED.items():
        value = unified.get(file, "").strip()
        if value == "max" or value.isdigit():
            yield name, ("t", _INFINITY if value == "max" else int(value))
    for file, name in (("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")):
        if unified.get(file):
            yield name, ("ay", _bits(unified[file]))


def _devices(resources: Mapping[str, Any]) -> list[Property]:
    """The device access, so that a reload of systemd, which sets it again, does not change it."""
    if "devices" not in resources:
        return []
    access = devices.resolve(resources["devices"] or [])
    if access.allow:
        return [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]
    groups = _groups(read_or("/proc/devices"))
    allowed = []
    for node, letters in access.exceptions.items():
        kind = "char" if node.type == "c" else "block"
        if node.major is None:
            name = f"{kind}-*"
        elif node.minor is None:
            name = f"{kind}-{groups.get((kind, node.major), '')}"
        else:
            name = f"/dev/{kind}/{node.major}:{node.minor}"
        if not name.endswith("-"):  # the driver is not loaded: nothing to allow
            allowed.append((name, "".join(letter for letter in "rwm" if letter in letters)))
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", allowed))]


def _groups(text: str) -> dict[tuple[str, int], str]:
    """Parse /proc/devices: ("char", 136) → "pts"."""
    found, kind = {}, ""
    for line in text.splitlines():
        words = line.split()
        if line.endswith("devices:"):
            kind = "char" if words[0] == "Character" else "block"
        elif len(words) == 2:
            found[kind, int(words[0])] = words[1]
    return found


def annotated(annotations: Mapping[str, str]) -> list[Property]:
    """Additional properties from annotations with GVariant text, such as `org.systemd.property.TimeoutStopUSec: uint64
    1000000`.

    A numeric …Sec property in seconds becomes …USec, as in unit files. Raises SpecError.
    """
    found: list[Property] = []
    for key, text in annotations.items():
        if not key.startswith(_ANNOTATION):
            continue
        name = key.removeprefix(_ANNOTATION)
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise SpecError(f"annotations.{key}: {name!r} is not a valid property name")
        kind, value = _variant(text, key)
        if name.endswith("Sec") and name[-4].islower() and kind in "ynqiuxtd":
            name, kind, value = f"{name[:-3]}USec", "t", int(value * 1_000_000)
        found.append((name, (kind, value)))
    return found


_WORDS: Final = {
    "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t",
    "double": "d", "boolean": "b", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip


def _variant(text: str, key: str) -> tuple[str, Any]:
    """Parse GVariant text to (signature, value): a literal, optionally preceded by its type. Raises SpecError."""
    text = text.strip()
    word, _, rest = text.partition(" ")
    kind = _WORDS.get(word, "")
    literal = rest.strip() if kind else text
    try:
        if literal in ("true", "false"):
            return kind or "b", literal == "true"
        if len(literal) > 1 and literal[0] == literal[-1] and literal[0] in "'\"":
            return kind or "s", literal[1:-1]
        if literal.startswith("[") and literal.endswith("]"):
            items = [_variant(item, key) for item in literal[1:-1].split(",") if item.strip()]
            kinds = {item[0] for item in items} or {"s"}
            if len(kinds) == 1:
                return f"a{kinds.pop()}", [item[1] for item in items]
        if kind == "d" or (not kind and "." in literal):
            return "d", float(literal)
        return kind or "i", int(literal, 0)
    except ValueError:
        pass
    raise SpecError(f"annotations.{key}: {text!r} is not a valid D-Bus value")


# --- D-Bus calls ---


def available(*, user: bool) -> bool:
    return os.path.isdir("/run/systemd/system") or bool(_address(user=user)[0])


def _address(*, user: bool) -> tuple[str, bool]:
    """(the bus address from the environment or "", whether it is systemd's private socket)."""
    if not user:
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", ""), False
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    default = f"unix:path={own}/bus" if own and os.path.exists(f"{own}/bus") else ""
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS", default), False


@contextlib.contextmanager
def _manager(*, user: bool) -> Iterator[dbus.Bus]:
    """Connect to the bus from the environment, else to systemd's private socket (which needs no running bus), else to
    the system bus."""
    address, direct = _address(user=user)
    if not address and user:
        raise CapabilityError(
            "cannot find the bus of this user's systemd: set DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR"
        )
    if not address:
        direct = os.path.exists(dbus.socket_address(dbus.SYSTEMD_PRIVATE))
        address = dbus.SYSTEMD_PRIVATE if direct else dbus.SYSTEM_BUS
    bus = dbus.Bus(address, direct=direct)
    try:
        if not direct:
            rule = f"type='signal',interface='{_MANAGER}',member='JobRemoved'"
            bus.call(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", rule
            )
        yield bus
    finally:
        bus.close()


def _call(bus: dbus.Bus, member: str, signature: str = "", *args: Any) -> tuple[Any, ...]:
    return bus.call(_NAME, _OBJECT, _MANAGER, member, signature, *args)


def _finish(bus: dbus.Bus, job: str, what: str) -> None:
    """Wait for a job. RuntimeFault if its result is not `done`."""
    while True:
        _, path, _, result = bus.signal("JobRemoved")
        if path == job:
            break
    if result != "done":
        raise RuntimeFault(f"systemd: {what}: {result}")


def start(wanted: Scope, asked: list[Property]) -> None:
    """Start the scope with the process of its `PIDs`. If a failed unit has that name, reset it first. Raises
    RuntimeFault."""
    with _manager(user=wanted.user) as bus:
        _call(bus, "Subscribe")
        try:
            (job,) = _transient(bus, wanted, asked)
        except dbus.BusError as error:
            if error.name != _UNIT_EXISTS:
                raise
            with contextlib.suppress(dbus.BusError):
                _call(bus, "ResetFailedUnit", "s", wanted.unit)
            (job,) = _transient(bus, wanted, asked)
        _finish(bus, job, f"unit {wanted.unit} was not started")


def _transient(bus: dbus.Bus, wanted: Scope, asked: list[Property]) -> tuple[Any, ...]:
    return _call(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", wanted.unit, "replace", asked, [])


def stop(wanted: Scope) -> None:
    """Stop the scope. Do nothing if it no longer exists, which is the case once its last process has exited."""
    with _manager(user=wanted.user) as bus:
        try:
            _call(bus, "Subscribe")
            (job,) = _call(bus, "StopUnit", "ss", wanted.unit, "replace")
            _finish(bus, job, f"unit {wanted.unit} was not stopped")
        except dbus.BusError as error:
            if error.name != _NO_SUCH_UNIT:
                raise
        with contextlib.suppress(dbus.BusError):
            _call(bus, "ResetFailedUnit", "s", wanted.unit)


def update(wanted: Scope, asked: list[Property]) -> None:
    """Set new limits on a running scope, until it ends."""
    if not asked:
        return
    with _manager(user=wanted.user) as bus:
        _call(bus, "SetUnitProperties", "sba(sv)", wanted.unit, True, asked)


def own_cgroup(*, user: bool) -> str:
    """The manager's own cgroup, which contains those of its units; "" for the system manager."""
    if not user:
        return ""
    with _manager(user=True) as bus:
        answer = bus.call(
            _NAME, _OBJECT, "org.freedesktop.DBus.Properties", "Get", "ss", _MANAGER, "ControlGroup"
        )
    return str(answer[0][1]).rstrip("/")
