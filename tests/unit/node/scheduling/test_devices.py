"""Which devices of plugins a container gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.node.devices.model import Device
from kubelite.node.model.resources import pod_requests
from kubelite.node.scheduling.cpu_policy import NotEnough
from kubelite.node.scheduling.devices import DeviceBook, Question, assignment_of
from manifests.types.core import Pod

GPU, NIC = "example.com/gpu", "example.com/nic"


def pod(uid: str, *containers: dict[str, int], init: list[dict[str, Any]] | None = None) -> Pod:
    def one(name: str, asked: dict[str, Any]) -> dict[str, Any]:
        asked = dict(asked)
        always = {"restartPolicy": "Always"} if asked.pop("sidecar", False) else {}
        amounts = {key: str(count) for key, count in asked.items()}
        return {"name": name, "image": "i", "resources": {"limits": amounts, "requests": amounts}, **always}

    spec = {
        "containers": [one(f"c{index}", asked) for index, asked in enumerate(containers)],
        "initContainers": [one(f"i{index}", asked) for index, asked in enumerate(init or [])],
    }
    return Pod.parse({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": uid, "uid": uid}, "spec": spec})


def book(**offered: str) -> DeviceBook:
    """A book with devices by letter; capital letters are unhealthy."""
    made = DeviceBook()
    for name, letters in offered.items():
        made.offer(f"example.com/{name}", [Device(one.lower(), one.islower()) for one in letters])
    return made


def test_each_container_gets_devices_of_its_own() -> None:
    made = book(gpu="abc", nic="x")
    assert made.assign(pod("1", {GPU: 1}, {GPU: 1, NIC: 1}))
    assert made.of("1") == {"c0": {GPU: ("a",)}, "c1": {GPU: ("b",), NIC: ("x",)}}
    assert made.assign(pod("2", {GPU: 1}))
    assert made.of("2") == {"c0": {GPU: ("c",)}}
    assert made.release("1") and not made.release("1")
    assert made.assign(pod("3", {GPU: 2}))
    assert made.of("3") == {"c0": {GPU: ("a", "b")}}


def test_a_pod_keeps_its_devices() -> None:
    made = book(gpu="ab")
    made.assign(pod("1", {GPU: 1}))
    assert not made.assign(pod("1", {GPU: 2}))
    made.spoil(GPU)
    assert made.of("1") == {"c0": {GPU: ("a",)}}
    assert (made.capacity(), made.allocatable()) == ({GPU: 2}, {GPU: 0})


def test_unhealthy_devices_are_not_assigned() -> None:
    made = book(gpu="Ab")
    made.assign(pod("1", {GPU: 1}))
    assert made.of("1") == {"c0": {GPU: ("b",)}}
    assert (made.capacity(), made.allocatable()) == ({GPU: 2}, {GPU: 1})


@pytest.mark.parametrize(
    "offered, words",
    [
        ("AB", "no healthy devices present; cannot allocate unhealthy devices example.com/gpu"),
        ("", "no healthy devices present; cannot allocate unhealthy devices example.com/gpu"),
        ("aB", "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1"),
    ],
)
def test_too_few_devices_are_refused_as_by_kubelet(offered: str, words: str) -> None:
    made = book(gpu=offered, nic="x")
    with pytest.raises(NotEnough) as error:
        made.assign(pod("1", {NIC: 1}, {GPU: 2}))
    assert str(error.value) == words
    assert made.of("1") == {} and made.assign(pod("2", {NIC: 1})), "nothing is held"


def test_resources_without_a_plugin_are_none_of_its_business() -> None:
    made = book(gpu="a")
    assert not made.assign(pod("1", {NIC: 1, "cpu": 1}))


def test_containers_reuse_the_devices_of_init_containers_but_not_of_sidecars() -> None:
    made = book(gpu="abcdef")
    made.assign(pod("1", {GPU: 2}, {GPU: 1}, init=[{GPU: 1}, {GPU: 1, "sidecar": 1}, {GPU: 2}]))
    assert made.of("1") == {
        "i0": {GPU: ("a",)},
        "i1": {GPU: ("a",)},  # the sidecar has got the device of the init container, and keeps it
        "i2": {GPU: ("b", "c")},
        "c0": {GPU: ("b", "c")},
        "c1": {GPU: ("d",)},
    }


def test_preferred_devices_come_first_if_they_are_free() -> None:
    made = book(gpu="abcDe")
    made.assign(pod("1", {GPU: 1}))
    made.wish("2", {("c0", GPU): ("d", "a", "e")})
    made.assign(pod("2", {GPU: 2}))
    assert made.of("2") == {"c0": {GPU: ("e", "b")}}


def test_plugins_are_asked_where_there_is_a_choice() -> None:
    made = book(gpu="abcdE", nic="xy")
    made.assign(pod("1", {GPU: 1}))
    choice = made.choose(pod("2", {GPU: 2}, {NIC: 2}, init=[{GPU: 1}]))
    assert next(choice) == Question("i0", GPU, ("b", "c", "d"), (), 1)
    assert choice.send(("d",)) == Question("c0", GPU, ("d", "b", "c"), ("d",), 2)
    with pytest.raises(StopIteration) as end:  # two of two network cards are no choice
        choice.send(("c", "d"))
    assert end.value.value == {"i0": {GPU: ("d",)}, "c0": {GPU: ("d", "c")}, "c1": {NIC: ("x", "y")}}


def test_a_record_says_who_has_what() -> None:
    doc = {"metadata": {"name": "1"}, "entries": {"c0": {GPU: {"ids": ["a"], "response": ""}}}}
    made = book(gpu="ab")
    made.load("1", assignment_of(doc))
    made.assign(pod("2", {GPU: 1}))
    assert made.of("2") == {"c0": {GPU: ("b",)}}


ASKED = st.fixed_dictionaries({GPU: st.integers(0, 3), NIC: st.integers(0, 2)})
INIT = st.fixed_dictionaries({GPU: st.integers(0, 3), "sidecar": st.booleans()})


@given(st.lists(st.tuples(st.lists(ASKED, min_size=1, max_size=3), st.lists(INIT, max_size=3)), max_size=4))
def test_pods_that_fit_by_number_always_get_devices(pods: list[Any]) -> None:
    """What scheduling counts is enough: it reserves pod_requests, and the devices of no two running containers meet."""
    made, room = book(gpu="abcdefgh", nic="xyz"), {GPU: 8, NIC: 3}
    for index, (containers, init) in enumerate(pods):
        one = pod(str(index), *containers, init=init)
        wanted = {name: pod_requests(one).get(name, 0) for name in room}
        if any(wanted[name] > room[name] for name in room):
            continue
        made.assign(one)
        room = {name: room[name] - wanted[name] for name in room}
        sidecars = [f"i{number}" for number, asked in enumerate(init) if asked["sidecar"]]
        running = [made.of(one.metadata.uid or "").get(name, {}) for name in
                   [*sidecars, *(f"c{number}" for number in range(len(containers)))]]  # fmt: skip
        held = [(name, device) for found in running for name, ids in found.items() for device in ids]
        assert len(held) == len(set(held))
    of_pods = [
        {(name, device) for found in held.values() for name, ids in found.items() for device in ids}
        for held in made.holders().values()
    ]
    assert sum(map(len, of_pods)) == len(set().union(*of_pods))
