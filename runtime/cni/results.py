"""What plugins answer: results, versions, and errors in libcni's words. Pure.

Results of the versions 0.3.0 to 1.1.0 differ in little (the specification, section 5): addresses of 0.x have a field
`version`, interfaces of 1.1 have more fields.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import NetworkError

SHOWN = 400  # characters of a plugin's unexpected output in a message


@dataclass(frozen=True, slots=True)
class Addresses:
    """A pod's addresses on one interface. `ip` is the first; `ip6` the first one of the other family, or ""."""

    ip: str
    prefix: int
    gateway: str
    mac: str
    ip6: str = ""


def addresses(result: Mapping[str, Any], ifname: str) -> Addresses | None:
    """The addresses of the interface in a final result; None if it has none. An address that names no interface
    belongs to it, as in containerd (go-cni, result.go, createResult). Raises NetworkError for a malformed result."""
    try:
        interfaces = result.get("interfaces") or []
        own = [
            number
            for number, one in enumerate(interfaces)
            if one.get("name") == ifname and one.get("sandbox")
        ]
        found = [
            (ipaddress.ip_interface(one["address"]), str(one.get("gateway") or ""))
            for one in result.get("ips") or []
            if one.get("interface") is None or one["interface"] in own
        ]
        mac = next((str(interfaces[number].get("mac") or "") for number in own), "")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NetworkError(
            f"the result of the CNI plugins is malformed: {error!r}: {shown(result)}"
        ) from error
    if not found:
        return None
    first, gateway = found[0]
    second = next((str(one.ip) for one, _ in found if one.version != first.version), "")
    return Addresses(str(first.ip), first.network.prefixlen, gateway, mac, second)


def parse_result(output: bytes, version: str) -> dict[str, Any]:
    """A plugin's answer to ADD. Raises ValueError."""
    found = _read(output)
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object: {shown(found)}")
    if found.get("cniVersion", version) != version:
        raise ValueError(f"version {found['cniVersion']!r} instead of {version!r}")
    return found


def parse_versions(output: bytes) -> frozenset[str]:
    """A plugin's answer to VERSION. Raises ValueError."""
    found = _read(output)
    listed = found.get("supportedVersions") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError(f"no supportedVersions: {shown(found)}")
    return frozenset(str(version) for version in listed)


def failure(code: int, output: bytes, errors: bytes) -> tuple[str, int]:
    """Why a plugin failed, and the specification's number of the error, or 0 (libcni, pkg/invoke/raw_exec.go,
    pluginErr). `code`: its exit code, negative for a signal."""
    if not output.strip():
        if said := errors.decode(errors="replace").strip():
            return f"netplugin failed: {said[-SHOWN:]}", 0
        return f"netplugin failed with no error message: {ending(code)}", 0
    try:
        found = _read(output)
        words, details = str(found["msg"]), str(found.get("details") or "")
        return (f"{words}; {details}" if details else words), int(found.get("code") or 0)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        said = output.decode(errors="replace")[:SHOWN]
        return f'netplugin failed but error parsing its diagnostic message "{said}": {error!r}', 0


def _read(output: bytes) -> Any:
    """Raises ValueError, also for what is nested too deeply to be read."""
    try:
        return json.loads(output)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:SHOWN]
