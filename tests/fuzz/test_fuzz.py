"""A few hundred cases from a fixed seed, and a test for each problem that longer runs have found."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import devices
from runtime.errors import SpecError, StateError
from runtime.oci.cli import lifecycle, store
from runtime.oci.config import shape
from runtime.oci.config import spec as oci
from tests.fuzz import api, cases, decide, foreign
from tests.fuzz.run import Ground
from tests.programs import BUSYBOX

SEED = 20
DECIDED, REAL, STATE, FOREIGN, API = 1000, 25, 10, 300, 1001


def config(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(cases.real()[0]))
    for key, value in changes.items():
        *way, last = key.split("__")
        holder = made
        for step in way:
            holder = holder[step]
        holder[last] = value
    return made


def test_each_case_is_decided_cleanly(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    containers = 0
    for number in range(DECIDED):
        file.write_bytes(cases.placed(cases.config(SEED, number), source=tmp_path, cgroup="/kubelite-fuzz/c"))
        try:
            containers += decide.decide(file) == decide.CONTAINER
        except decide.Unclean as error:
            pytest.fail(f"case {number} of seed {SEED}: {error}")
    assert DECIDED // 10 < containers < DECIDED * 9 // 10  # otherwise the grammar is useless


@pytest.mark.parametrize("name", foreign.PARSERS)
def test_foreign_bytes_end_in_a_value_or_in_the_parsers_error(tmp_path: Path, name: str) -> None:
    parser = foreign.PARSERS[name]
    for sample in parser.samples():
        assert foreign.attempt(name, sample, tmp_path), f"the sample is no good: {sample[:200]!r}"
    sound = sum(
        foreign.attempt(name, foreign.case(parser, SEED, number), tmp_path) for number in range(FOREIGN)
    )
    assert sound > 0
    assert sound < FOREIGN or not parser.allowed


def _on_ground(base: Path) -> None:
    ground = Ground(base)
    try:
        for number in range(REAL):
            ground.try_config(SEED, number)
        for number in range(STATE):
            ground.try_state(SEED, number)
    finally:
        ground.close()


@pytest.mark.kernel
def test_each_case_ends_in_a_container_or_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not BUSYBOX:
        pytest.skip("needs busybox")
    child = multiprocessing.get_context("spawn").Process(target=_on_ground, args=(tmp_path,))
    child.start()  # it changes its namespaces
    child.join()
    assert child.exitcode == 0


# --- what was found ---


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"linux__resources": {"memory": {"limit": "64m"}}}, "linux.resources.memory.limit"),
        ({"linux__resources": {"memory": []}}, "linux.resources.memory"),
        ({"linux__resources": {"pids": {"limit": 1 << 70}}}, "linux.resources.pids.limit"),
        ({"linux__resources": {"hugepageLimits": [{"limit": 1}]}}, "linux.resources.hugepageLimits[0].pageSize"),
        ({"linux__resources": {"blockIO": {"weightDevice": [{"weight": 5}]}}}, "linux.resources.blockIO.weightDevice"),
        ({"linux__resources": {"unified": {"memory.high": 1}}}, "linux.resources.unified.memory.high"),
        ({"linux__resources": {"rdma": {"mlx5_0": None}}}, "linux.resources.rdma.mlx5_0"),
        ({"linux__seccomp": {"syscalls": []}}, "linux.seccomp.defaultAction"),
        ({"linux__seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["x"]}}, "linux.seccomp.syscalls[0]"),
        ({"linux__uidMappings": [{"hostID": 1}]}, "linux.uidMappings[0].containerID"),
        ({"process__scheduler": {"policy": 1}}, "process.scheduler.policy"),
        ({"process__env": ["A=\ud800"]}, "process.env[0]"),
        ({"annotations": {"a": 1}}, "annotations.a"),
        ({"hostname": "\ud800"}, "hostname"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        oci.validate(config(**changes))
    assert str(caught.value).startswith(field)


def test_null_is_as_good_as_absent() -> None:
    raw = json.dumps(
        config(linux__cgroupsPath=None, linux__resources=None, hostname=None, hooks=None)
    ).encode()
    made = oci.validate(shape.parse(raw, "config.json"))
    assert "cgroupsPath" not in made["linux"]
    assert "hostname" not in made


def test_json_nested_without_end_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"config.json is not JSON"):
        shape.parse(b"[" * 1_000_000, "config.json")


def test_a_device_rule_without_allow_denies() -> None:
    assert devices.resolve([{"access": "rwm"}]) == devices.resolve([{"allow": False, "access": "rwm"}])


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"{}", b'{"pid": 1}', b'{"id": 5}', b"[" * 100_000, b"\xff\xfe"]
)
def test_a_damaged_state_file_is_told_and_removed_by_force(tmp_path: Path, raw: bytes) -> None:
    entry = store.make(str(tmp_path), "c")
    entry.save()
    (tmp_path / "c/state.json").write_bytes(raw)
    with pytest.raises(StateError, match=r"state.json is damaged.*delete --force"):
        store.load(str(tmp_path), "c")
    lifecycle._remove_damaged(str(tmp_path), "c")
    assert not (tmp_path / "c").exists()


def test_a_damaged_config_of_a_container_is_told(tmp_path: Path) -> None:
    entry = store.make(str(tmp_path), "c")
    entry.write("config.json", b'{"process": 1}')
    with pytest.raises(StateError, match=r"config.json is damaged"):
        entry.spec()


def test_each_request_to_the_api_ends_in_an_answer_or_in_one_error(tmp_path: Path) -> None:
    target = api.Api(tmp_path / "api")
    try:
        good = sum(target.attempt(SEED, number) for number in range(API))
    except decide.Unclean as error:
        pytest.fail(str(error))
    finally:
        target.close()
    assert API // 10 < good < API * 9 // 10
