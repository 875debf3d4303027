"""What the forkserver and the network helper import. Shims are forks of the forkserver, and the helper lives as long as
the daemon, so these lists and numbers grow only on purpose: import what is needed rarely where it is used."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import {}; print(*sys.modules)"
# Modules of ours that each imports, at most.
FORKSERVER, HELPER = 67, 23
ROOMS = {
    "runtime", "runtime.cgroups", "runtime.errors", "runtime.files", "runtime.oci", "runtime.security", "runtime.shim",
    "runtime.syscalls", "runtime.tree",
}  # fmt: skip
# Much of the standard library comes with each of these, and OpenSSL with the second.
HEAVY = {"asyncio", "hashlib", "logging", "multiprocessing", "subprocess", "tempfile", "urllib.parse"}
PYROUTE2 = "pyroute2.netlink.rtnl"  # the only part of it that the helper uses


def _imported(module: str) -> list[str]:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM.format(module), json.dumps(sys.path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def _ours(loaded: list[str]) -> list[str]:
    return sorted(
        name for name in loaded if name.partition(".")[0] in ("kubelite", "runtime", "state", "manifests")
    )


def test_the_forkserver_imports_no_more_than_it_did() -> None:
    loaded = _imported("runtime.shim.warm.forkserver")
    assert len(_ours(loaded)) <= FORKSERVER, _ours(loaded)
    assert HEAVY & {*loaded} == set()
    assert {".".join(name.split(".")[:2]) for name in _ours(loaded)} <= ROOMS


def test_the_network_helper_imports_no_more_than_it_did() -> None:
    loaded = _imported("runtime.network.helper")
    assert len(_ours(loaded)) <= HELPER, _ours(loaded)
    foreign = {name for name in loaded if name.startswith("pyroute2.") and name.count(".") >= 2}
    assert {name for name in foreign if not name.startswith(PYROUTE2)} <= {"pyroute2.netlink.exceptions"}
    assert {"pyroute2", "pyroute2.iproute", "asyncio", "subprocess", "ssl"} & {*loaded} == set()
    assert [
        name for name in loaded if name.startswith(("runtime.network.services", "runtime.network.policies"))
    ] == []
