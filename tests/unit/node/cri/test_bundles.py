"""The request to a shim for a sandbox: every field of the node's request that concerns the shim is in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kubelite.node.cri.bundles import sandbox_config
from kubelite.node.model.cri import HostPort, SandboxRequest
from kubelite.settings import Settings
from runtime.shim.protocol import SandboxConfig

NOT_THE_SHIMS = {"host_ports", "bandwidth", "runtime_class"}  # for the network, and for each container
OTHERWISE: dict[str, Any] = {
    "uid": "u2",
    "namespace": "team",
    "name": "db",
    "hostname": "db-0",
    "cgroup": "/k/podu2",
    "spec_hash": "s2",
    "host_network": True,
    "host_pid": True,
    "host_ipc": True,
    "share_pid": True,
    "id_base": 65536,
    "host_ports": (HostPort(80, 8080),),
    "bandwidth": (10_000_000, 0),
    "resources": {"pids": {"limit": 5}},
    "resources_hash": "r2",
    "sysctls": {"net.core.somaxconn": "1024"},
    "runtime_class": "gvisor",
}


def told(request: SandboxRequest) -> SandboxConfig:
    config = sandbox_config(request, "/run/u", Settings(cgroup_parent="k", node_name="here"))
    return dataclasses.replace(config, sandbox_id="")


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(SandboxRequest)])
def test_every_field_reaches_the_shim(name: str) -> None:
    plain = SandboxRequest("u1", "default", "web", "web", "/k/podu1", "s1")
    changed = dataclasses.replace(plain, **{name: OTHERWISE[name]})
    assert (told(changed) == told(plain)) == (name in NOT_THE_SHIMS)


def test_fields_keep_their_names() -> None:
    config = told(SandboxRequest(**OTHERWISE))
    shared = {f.name for f in dataclasses.fields(SandboxConfig)} & OTHERWISE.keys()
    assert {name: getattr(config, name) for name in shared} == {name: OTHERWISE[name] for name in shared}
    assert config.annotations == {
        "spec_hash": "s2", "resources_hash": "r2", "namespace": "team", "name": "db", "node": "here",
    }  # fmt: skip
    assert (config.run_dir, config.shim_cgroup) == ("/run/u", "/k/shims")


def test_every_sandbox_has_its_own_id() -> None:
    request = SandboxRequest("u1", "default", "web", "web", "/k/podu1", "s1")
    made = {sandbox_config(request, "/run/u", Settings()).sandbox_id for _ in range(3)}
    assert len(made) == 3 and all(len(one) == 64 for one in made)
