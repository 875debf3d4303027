"""Slots of endpoints and elements of tables: what a change touches."""

import random

import pytest

from runtime.network.services import conntrack
from runtime.network.services.arrange import (
    AFFINITY,
    ENDPOINTS,
    EXTERNAL,
    FRONTS,
    MEMBERS,
    REFUSED,
    SERVICES,
    SOURCES,
    TAGS,
    Pick,
    arrange,
    difference,
    elements,
    picks,
    place,
    problem,
)
from runtime.network.services.conntrack import Flows
from runtime.network.services.plan import Endpoint, ServicePort
from runtime.network.services.rules import SET_IDS

A, B, C, D = (Endpoint(f"10.88.0.{n}", 8080) for n in (2, 3, 4, 5))


def port(*endpoints: Endpoint, protocol: str = "TCP", **more: object) -> ServicePort:
    more = {"external_endpoints": endpoints, **more}
    return ServicePort("ns/web:80/TCP", protocol, 80, ("10.96.0.10",), endpoints=endpoints, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ((), (A, B), (A, B)),
        ((A, B, C), (C, A), (A, C)),  # C takes B's slot
        ((A, B, C), (B, C), (C, B)),  # the last one takes the first slot
        ((A, B), (A, C), (A, C)),
        ((A, B), (D, C, B, A), (A, B, D, C)),
        ((A, B), (), ()),
        ((), (A, A, B), (A, B)),  # repeated
    ],
)
def test_endpoints_keep_their_slots(
    before: tuple[Endpoint, ...], wanted: tuple[Endpoint, ...], after: tuple[Endpoint, ...]
) -> None:
    assert arrange(before, wanted) == after


def test_any_change_keeps_slots_of_what_stays() -> None:
    """From any slots to any endpoints: all are there once, and as many move as go at most."""
    dice = random.Random(1)
    everyone = [Endpoint(f"10.88.1.{n}", 80) for n in range(12)]
    for _ in range(2000):
        before = tuple(dice.sample(everyone, dice.randrange(13)))
        wanted = dice.sample(everyone, dice.randrange(13))
        after = arrange(before, wanted)
        assert sorted(after, key=str) == sorted(wanted, key=str)
        moved = [one for one in after if one in before and before.index(one) != after.index(one)]
        assert len(moved) <= len(set(before) - set(wanted))


def test_one_endpoint_of_many_changes_few_elements() -> None:
    many = tuple(Endpoint(f"10.88.2.{n}", 80) for n in range(100))
    before = place(port(*many), None)
    gone, new = difference(elements(before), elements(place(port(*many[1:]), before)))
    assert sorted(name for name, _ in gone) == [
        ENDPOINTS,
        ENDPOINTS,
        SERVICES,
    ]  # the last slot, the first, the chain
    assert sorted(name for name, _ in new) == [ENDPOINTS, SERVICES]


def test_which_elements_a_port_needs() -> None:
    full = port(A, B, node_port=30080, external=("192.0.2.1",), affinity=60, sources=("192.0.2.0/24",))
    placed = place(full, None)
    count = dict.fromkeys(SET_IDS, 0)
    for name, _ in elements(placed):
        count[name] += 1
    assert {name: n for name, n in count.items() if n} == {
        SERVICES: 1, EXTERNAL: 2, FRONTS: 3, ENDPOINTS: 6, TAGS: 6, MEMBERS: 6, SOURCES: 1,
    }  # fmt: skip
    assert not count[AFFINITY]  # the kernel adds clients
    assert picks(placed) == [
        Pick(2, affinity=60), Pick(2, affinity=60, restricted=True), Pick(2, node=True, affinity=60),
    ]  # fmt: skip
    assert [pick.name for pick in picks(placed)] == [
        "pick-2-affinity-60", "pick-2-affinity-60-restricted", "node-2-affinity-60",
    ]  # fmt: skip


def test_a_port_without_endpoints_is_refused_at_its_external_addresses() -> None:
    """At a cluster IP, whatever is not served is refused by the network's rule."""
    listed = elements(place(port(node_port=30080, external=("192.0.2.1",)), None))
    assert [name for name, _ in listed] == [REFUSED, REFUSED]


def test_internal_and_external_endpoints_differ() -> None:
    placed = place(port(A, B, external_endpoints=(), node_port=30080), None)
    assert sorted({name for name, _ in elements(placed)}) == [ENDPOINTS, FRONTS, REFUSED, SERVICES]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (port(A, protocol="ICMP"), "protocol ICMP is not TCP, UDP or SCTP"),
        (port(Endpoint("fd00::1", 80)), "'fd00::1'"),
        (port(A, sources=("192.0.2.0/33",)), "'33'"),
        (port(A, external=("",)), "Address cannot be empty"),
    ],
)
def test_what_cannot_be_served_is_said(wrong: ServicePort, words: str) -> None:
    assert words in problem(wrong)
    assert not problem(port(A))


@pytest.mark.parametrize(
    ("before", "after", "flows"),
    [
        ((A, B), (A,), [Flows("10.96.0.10", 80, B)]),
        ((A,), (), [Flows("10.96.0.10", 80)]),
        ((), (A,), [Flows("10.96.0.10", 80)]),
        ((A,), (A, B), []),
        ((), (), []),
    ],
)
def test_which_flows_end(
    before: tuple[Endpoint, ...], after: tuple[Endpoint, ...], flows: list[Flows]
) -> None:
    old, new = (place(port(*listed, protocol="UDP"), None) for listed in (before, after))
    assert conntrack.stale([old], [new]) == flows
    assert conntrack.stale([old], []) == ([Flows("10.96.0.10", 80)] if before else [])
    tcp = place(port(*before), None)
    assert conntrack.stale([tcp], []) == []  # connections to an endpoint that goes are left alone
