"""The kernel's tables of sockets, in which `load_balancers.process_holders` looks for ports that are taken."""

from __future__ import annotations

from pathlib import Path

_TABLES = (("TCP", "tcp"), ("TCP", "tcp6"), ("UDP", "udp"), ("UDP", "udp6"))


def tables() -> list[tuple[str, str]]:
    """Return protocol and text of each table (proc(5))."""
    return [(protocol, _table(name)) for protocol, name in _TABLES]


def _table(name: str) -> str:
    try:
        return Path(f"/proc/net/{name}").read_text(encoding="ascii")
    except FileNotFoundError:  # a kernel without IPv6
        return ""
