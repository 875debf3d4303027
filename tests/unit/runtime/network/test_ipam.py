"""Leases: no address for two pods, a freed address rests longest, and a crash loses nothing."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import NetworkError, SpecError
from runtime.network.ipam import LeaseStore
from runtime.network.plan import Lease, PortMapping, Subnet


def store(directory: Path, cidr: str = "10.1.0.0/29") -> LeaseStore:
    return LeaseStore(str(directory), Subnet.parse(cidr), "node")


def take(leases: LeaseStore, uid: str, *ports: PortMapping) -> Lease:
    return leases.allocate(uid, netns=f"/ns/{uid}", netns_id="4:1", ports=ports)


def test_the_pool_is_all_but_network_gateway_and_broadcast(tmp_path: Path) -> None:
    leases = store(tmp_path)
    assert [take(leases, f"p{n}").ip for n in range(5)] == [f"10.1.0.{n}" for n in range(2, 7)]
    with pytest.raises(NetworkError, match=r"10\.1\.0\.0/29: all 5 are in use") as full:
        take(leases, "p5")
    assert full.value.reason == "AddressPoolExhausted"
    assert leases.get("p5") is None and len(os.listdir(tmp_path / "leases")) == 5


def test_a_freed_address_is_reused_last(tmp_path: Path) -> None:
    leases = store(tmp_path)
    take(leases, "a")
    leases.remove("a")
    assert take(leases, "b").ip == "10.1.0.3"
    assert take(store(tmp_path), "c").ip == "10.1.0.4"  # the round-robin position persists
    fresh = store(tmp_path)
    fresh.remove("c")
    assert [take(fresh, uid).ip for uid in ("d", "e", "f")] == ["10.1.0.5", "10.1.0.6", "10.1.0.2"]


def test_leases_outlive_the_process(tmp_path: Path) -> None:
    first = store(tmp_path)
    made = first.mark_ready(take(first, "a", PortMapping(80, 8080, "UDP", "127.0.0.1")))
    take(first, "b")
    second = store(tmp_path)
    assert second.get("a") == made and made.ready
    assert sorted((lease.uid, lease.ready) for lease in second.all()) == [("a", True), ("b", False)]
    assert take(second, "c").ip == "10.1.0.4"


@pytest.mark.parametrize("change", [{"uid": {"x": None}}, {"ip": 7}, {"ip": "10.1.0.x"}, {"netns": None}])
def test_a_lease_with_values_of_other_types_is_set_aside(tmp_path: Path, change: dict[str, object]) -> None:
    first = store(tmp_path)
    first.mark_ready(take(first, "a"))
    path = tmp_path / "leases/a.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    leases = store(tmp_path)
    assert leases.all() == [] and "a.json is damaged" in leases.warnings[0]


def test_a_half_written_lease_is_ignored(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.mark_ready(take(first, "a"))
    (tmp_path / "leases" / "b.json.tmp").write_text("{")
    (tmp_path / "leases" / "torn.part").write_text('{"uid": "to')
    (tmp_path / "leases" / "b.json.tmp").write_text("{")
    (tmp_path / "leases" / "c.json").write_text("{}")
    (tmp_path / "last").write_text("nonsense")
    leases = store(tmp_path)
    assert [lease.uid for lease in leases.all()] == ["a"]
    assert "c.json is damaged" in leases.warnings[0]
    assert sorted(os.listdir(tmp_path / "leases")) == ["a.json", "c.json.damaged"]
    assert take(leases, "d").ip == "10.1.0.3"


def test_a_last_address_from_another_network_does_not_matter(tmp_path: Path) -> None:
    take(store(tmp_path, "192.168.7.0/24"), "a")
    assert take(store(tmp_path), "b").ip in {f"10.1.0.{n}" for n in range(2, 7)}


def test_an_unwritten_lease_frees_its_address(tmp_path: Path) -> None:
    leases = store(tmp_path)
    in_the_way = tmp_path / "leases" / "a.part"
    in_the_way.mkdir()
    with pytest.raises(IsADirectoryError):
        take(leases, "a")
    assert leases.get("a") is None
    in_the_way.rmdir()
    assert take(leases, "b").ip == "10.1.0.2", "its address was given to nobody"


def test_a_lease_without_a_file_can_be_released(tmp_path: Path) -> None:
    leases = store(tmp_path)
    lease = leases.mark_ready(take(leases, "a"))
    (tmp_path / "leases" / "a.json").unlink()
    leases.mark_pending(lease)
    leases.remove("a")
    assert leases.all() == []


def test_a_lease_with_newer_fields_is_read(tmp_path: Path) -> None:
    first = store(tmp_path)
    made = first.mark_ready(take(first, "a"))
    path = tmp_path / "leases" / "a.json"
    path.write_text(path.read_text().replace("{", '{"mtu": 1400, ', 1))
    later = store(tmp_path)
    assert later.get("a") == made and later.warnings == []


@pytest.mark.parametrize("uid", ["", "../up", "a/b", ".hidden", "x" * 201])
def test_a_uid_that_could_leave_the_directory_is_refused(tmp_path: Path, uid: str) -> None:
    with pytest.raises(SpecError, match="cannot be used as a file name"):
        take(store(tmp_path), uid)
    assert os.listdir(tmp_path / "leases") == []


def test_each_step_of_a_lease_is_one_file_and_outlives_the_process(tmp_path: Path) -> None:
    leases = store(tmp_path)
    begun = take(leases, "a", PortMapping(80, 8080))

    def seen() -> tuple[list[str], Lease | None]:
        return os.listdir(tmp_path / "leases"), store(tmp_path).get("a")

    assert seen() == (["a.part"], begun) and not begun.ready
    standing = leases.mark_ready(begun)
    assert seen() == (["a.json"], standing) and standing.ready
    changed = replace(standing, ports=(PortMapping(81, 8080),))
    leases.update(changed)
    assert seen() == (["a.json"], changed)
    leases.mark_pending(changed)
    held = leases.get("a")
    assert held is not None and held.ports == () and held.ip == begun.ip and not held.ready
    assert seen() == (["a.part"], replace(changed, ready=False))
    leases.mark_pending(held)  # a repeated delete
    leases.mark_ready(held)
    leases.write_pending(replace(held, netns="/ns/new"))  # a new sandbox: still one file per pod
    assert seen()[0] == ["a.part"]
    leases.remove("a")
    assert seen() == ([], None)


def test_clear_leaves_no_file(tmp_path: Path) -> None:
    leases = store(tmp_path)
    take(leases, "a")
    leases.clear()
    assert os.listdir(tmp_path) == [] and leases.all() == []


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["add", "del", "restart"]), st.integers(0, 9)), max_size=60))
def test_no_two_pods_ever_share_an_address(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    directory = tmp_path_factory.mktemp("ipam")
    leases = store(directory)
    held: dict[str, str] = {}
    pool = set(ipaddress.IPv4Network("10.1.0.0/29").hosts()) - {ipaddress.IPv4Address("10.1.0.1")}
    for what, number in steps:
        uid = f"p{number}"
        if what == "restart":
            leases = store(directory)
        elif what == "del":
            leases.remove(uid)
            held.pop(uid, None)
        elif uid not in held:
            if len(held) == len(pool):
                with pytest.raises(NetworkError):
                    take(leases, uid)
            else:
                held[uid] = take(leases, uid).ip
        assert {lease.uid: lease.ip for lease in leases.all()} == held
        assert len(set(held.values())) == len(held)
        assert {ipaddress.IPv4Address(ip) for ip in held.values()} <= pool
