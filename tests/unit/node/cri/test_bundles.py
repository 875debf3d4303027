"""The request to a shim for a sandbox: every field of the node's request that concerns the shim is in it. And a
container's bundle on the disk."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.cri.bundles import prepare, sandbox_config
from kubelite.node.model.cri import ContainerRequest, HostPort, ObservedImage, SandboxRequest
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


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_bundle_has_its_files_with_their_modes(tmp_path: Path, umask: int) -> None:
    bundle, spec = tmp_path / "0", {"ociVersion": "1.2.0"}
    (bundle / "upper").mkdir(parents=True)
    (bundle / "upper" / "old").touch()  # of a daemon that was killed at this point
    message, log = str(bundle / "termination-log"), str(tmp_path / "pods/p/a/0.log")
    request = ContainerRequest(
        "u1", "c1", "a", 0, ObservedImage("i", "i", layers=("/layers/1",)), "i", spec, "s1", "r1", log, 0,
        files=((message, ""),), termination_message_path=message,
    )  # fmt: skip
    before = os.umask(umask)
    try:
        prepare(request, str(bundle), Settings())
    finally:
        os.umask(before)
    modes = {path.name: f"{path.stat().st_mode & 0o777:o}" for path in (bundle, *bundle.iterdir())}
    merged = modes.pop("merged")  # a mount point
    assert merged in ("755", "700")
    work = modes.pop("work")
    assert work in ("755", "700")
    assert modes == {"0": "700", "upper": "755", "termination-log": "666", "config.json": "600"}
    assert not list((bundle / "upper").iterdir())
    assert json.loads((bundle / "config.json").read_text()) == spec
