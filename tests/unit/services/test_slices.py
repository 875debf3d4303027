"""Pods as backends, EndpointSlices and Endpoints.

Rows follow Kubernetes 1.36: staging/src/k8s.io/endpointslice/{utils,reconciler}_test.go and
pkg/controller/endpoint/endpoints_controller_test.go.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from kubelite.services import slices
from kubelite.services.backends import Backend, Port, backend, selects
from kubelite.services.endpoints import endpoints_of, is_managed
from kubelite.services.slices import SliceChanges, mirrored, none_of, slices_of, wants_mirror
from tests.unit.services.docs import Doc, pod, service

HTTP: Doc = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}
WEB_PORT: Doc = {"name": "web", "containerPort": 8080}


def backends(doc: Doc, *pods: Doc) -> list[Backend]:
    return [found for one in pods if (found := backend(doc, one)) is not None]


@pytest.mark.parametrize(
    ("given", "conditions"),
    [
        (pod(1), (True, True, False)),
        (pod(1, ready=False), (False, False, False)),
        (pod(1, terminating=True), (False, True, True)),
        (pod(1, ready=False, terminating=True), (False, False, True)),
    ],
)
def test_conditions_of_a_backend(given: Doc, conditions: tuple[bool, bool, bool]) -> None:
    found = backend(service(), given)
    assert found is not None and (found.ready, found.serving, found.terminating) == conditions
    published = backend(service(publishNotReadyAddresses=True), given)
    assert published is not None and published.ready


@pytest.mark.parametrize("given", [pod(1, ip=""), pod(1, phase="Succeeded"), pod(1, phase="Failed")])
def test_a_pod_without_an_address_or_an_end_is_no_backend(given: Doc) -> None:
    assert backend(service(), given) is None


def dual(number: int, **changes: Any) -> Doc:
    """A pod with an address of each family."""
    found = pod(number, **changes)
    found["status"]["podIPs"] = [{"ip": f"10.88.0.{number}"}, {"ip": f"fd00:88::{number}"}]
    return found


BOTH: dict[str, Any] = {"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["10.96.0.7", "fd00:96::7"]}


@pytest.mark.parametrize(
    ("families", "addresses"),
    [
        (["IPv4"], ("10.88.0.9",)),
        (["IPv6"], ("fd00:88::9",)),
        (["IPv4", "IPv6"], ("10.88.0.9", "fd00:88::9")),
    ],
)
def test_addresses_of_other_families_are_passed_over(families: list[str], addresses: tuple[str, ...]) -> None:
    found = backend(service(ipFamilies=families), dual(9))
    assert found is not None and found.ips == addresses
    alone = backend(service(ipFamilies=["IPv6"]), pod(9))
    assert alone is None


def test_named_ports_are_those_of_each_pod() -> None:
    web = service("web", HTTP)
    first, second = backends(
        web, pod(1, ports=[WEB_PORT]), pod(2, ports=[{"name": "web", "containerPort": 9090}])
    )
    assert (first.ports, second.ports) == ((Port("http", 8080),), (Port("http", 9090),))
    sidecar = pod(3, initContainers=[{"name": "s", "restartPolicy": "Always", "ports": [WEB_PORT]}])
    init = pod(4, initContainers=[{"name": "s", "ports": [WEB_PORT]}])
    udp = pod(5, ports=[{**WEB_PORT, "protocol": "UDP"}])
    third, fourth, fifth = backends(web, sidecar, init, udp)
    assert third.ports == (Port("http", 8080),)
    assert (fourth.ports, fourth.missing, fifth.missing) == ((), ("web",), ("web",))


def test_a_hostname_counts_below_its_own_service() -> None:
    own, other = pod(1, hostname="a", subdomain="web"), pod(2, hostname="b", subdomain="else")
    assert [one.hostname for one in backends(service(), own, other)] == ["a", ""]


def test_a_service_without_a_selector_selects_nothing() -> None:
    assert selects(service(), pod(1)) and not selects(service(), pod(1, app="other"))
    assert not selects(service(selector=None), pod(1)) and not selects(service(selector={}), pod(1))


def decided(doc: Doc, pods: list[Doc], existing: list[Doc]) -> SliceChanges:
    return slices_of(doc, backends(doc, *pods), existing)


def endpoints_in(found: SliceChanges) -> list[str]:
    return sorted(one["targetRef"]["uid"] for each in found.slices for one in each["endpoints"])


def test_the_slice_of_a_service() -> None:
    web = service()
    web["metadata"]["labels"] = {"tier": "front", slices.SERVICE_NAME: "ignored"}
    done = decided(web, [pod(1)], [])
    (found,) = done.create
    assert found["metadata"]["name"].startswith("web-") and len(found["metadata"]["name"]) == len("web-12345")
    assert found["metadata"]["labels"] == {
        "tier": "front",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert found["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "name": "web",
            "uid": "uid-web",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert found["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    assert found["endpoints"] == [
        {
            "addresses": ["10.88.0.3"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-1", "uid": "web-0001"},
            "nodeName": "node",
        }
    ]


def test_a_slice_of_each_family() -> None:
    web = service(**BOTH)
    done = decided(web, [dual(1), dual(2), pod(3)], [])
    four, six = done.create
    assert (four["addressType"], six["addressType"]) == ("IPv4", "IPv6")
    assert [one["addresses"] for one in four["endpoints"]] == [["10.88.0.1"], ["10.88.0.2"], ["10.88.0.5"]]
    assert [one["addresses"] for one in six["endpoints"]] == [["fd00:88::1"], ["fd00:88::2"]]
    assert four["metadata"]["name"] != six["metadata"]["name"]
    again = decided(web, [dual(1), dual(2), pod(3)], list(done.slices))
    assert not again.create and not again.update and not again.delete
    downgraded = decided(service(), [dual(1), dual(2), pod(3)], list(done.slices))
    assert downgraded.delete == [six] and not downgraded.create and not downgraded.update
    assert [one["addressType"] for one in decided(web, [], []).create] == ["IPv4", "IPv6"], "empty ones"


def test_endpoints_are_of_the_first_family() -> None:
    for families, first in ((["IPv4", "IPv6"], "10.88.0.1"), (["IPv6", "IPv4"], "fd00:88::1")):
        web = service(ipFamilies=families)
        (subset,) = endpoints_of(web, backends(web, dual(1)), None)["subsets"]
        assert [one["ip"] for one in subset["addresses"]] == [first]


def test_deciding_twice_changes_nothing() -> None:
    web, pods = service(), [pod(number) for number in range(5)]
    first = decided(web, pods, [])
    again = decided(web, pods, list(first.slices))
    assert not again.create and not again.update and not again.delete


def test_no_pods_are_an_empty_slice_without_ports() -> None:
    done = decided(service(), [], [])
    (found,) = done.create
    assert found["endpoints"] == [] and "ports" not in found
    filled = decided(service(), [pod(1)], list(done.slices))
    assert len(filled.create) == 1 and len(filled.delete) == 1


def test_a_headless_service_says_so() -> None:
    done = decided(service(clusterIP="None"), [pod(1)], [])
    assert done.create[0]["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    portless = service(clusterIP="None")
    portless["spec"]["ports"] = []
    assert endpoints_in(decided(portless, [pod(1)], [])) == ["web-0001"]


def test_the_change_of_one_pod_of_many_changes_one_slice() -> None:
    web, pods = service(), [pod(number) for number in range(250)]
    first = decided(web, pods, [])
    assert sorted(len(one["endpoints"]) for one in first.slices) == [50, 100, 100]
    pods[120] = pod(120, ready=False)
    done = decided(web, pods, list(first.slices))
    assert (len(done.create), len(done.update), len(done.delete)) == (0, 1, 0)
    more = decided(web, [*pods, pod(300)], list(done.slices))
    assert (len(more.create), len(more.update), len(more.delete)) == (0, 1, 0)


def test_pods_with_different_ports_are_in_different_slices() -> None:
    web = service("web", HTTP)
    done = decided(
        web, [pod(1, ports=[WEB_PORT]), pod(2, ports=[{"name": "web", "containerPort": 1}]), pod(3)], []
    )
    assert [one.get("ports") for one in done.slices] == [
        None,
        [{"name": "http", "port": 1, "protocol": "TCP"}],
        [{"name": "http", "port": 8080, "protocol": "TCP"}],
    ]


@pytest.mark.parametrize("seed", range(40))
def test_slices_follow_any_history(seed: int) -> None:
    dice = random.Random(seed)
    web, existing = service("web", HTTP), list[Doc]()
    own = {"metadata": {"name": "own", "labels": {slices.SERVICE_NAME: "web"}}, "endpoints": []}
    existing.append(own)
    for _ in range(8):
        pods = [
            pod(number, ready=dice.random() < 0.8, ports=[{**WEB_PORT, "containerPort": dice.choice((1, 2))}])
            for number in dice.sample(range(400), dice.randrange(350))
        ]
        done = decided(web, pods, existing)
        existing = list(done.slices)
        assert endpoints_in(SliceChanges([one for one in existing if one is not own])) == sorted(
            one["metadata"]["uid"] for one in pods
        )
        assert own in existing and len({one["metadata"]["name"] for one in existing}) == len(existing)
        assert all(len(one["endpoints"]) <= slices.MOST for one in existing)
        assert not decided(web, pods, existing).update
    gone = none_of(existing)
    assert list(gone.slices) == [own] and len(gone.delete) == len(existing) - 1


def custom(*subsets: Doc, **metadata: object) -> Doc:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "web", "namespace": "default", "uid": "e", **metadata},
        "subsets": list(subsets),
    }


def test_endpoints_of_a_manifest_are_mirrored() -> None:
    own = custom(
        {
            "addresses": [{"ip": "192.0.2.1", "hostname": "a"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"port": 5432, "protocol": "TCP"}],
        },
        labels={"team": "db"},
    )
    done = mirrored(service(selector=None), own, [])
    found, six = done.create
    assert (found["addressType"], six["addressType"]) == ("IPv4", "IPv6")
    assert six["endpoints"] == [{"addresses": ["fd00::1"], "conditions": {"ready": True}}]
    assert found["metadata"]["labels"] == {
        "team": "db",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert found["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    assert found["endpoints"] == [
        {"addresses": ["192.0.2.1"], "conditions": {"ready": True}, "hostname": "a"},
        {"addresses": ["192.0.2.2"], "conditions": {"ready": False}},
    ]
    assert not mirrored(service(selector=None), own, list(done.slices)).update
    assert mirrored(service(selector=None), custom(), list(done.slices)).delete == [found, six]


def test_which_endpoints_are_not_mirrored() -> None:
    assert wants_mirror(custom())
    assert not wants_mirror(custom(labels={slices.SKIP_MIRROR: "true"}))
    assert not wants_mirror(custom(annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}))


def test_a_selector_that_comes_replaces_what_was_mirrored() -> None:
    own = custom({"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80, "protocol": "TCP"}]})
    before = mirrored(service(selector=None), own, [])
    after = decided(service(), [pod(1)], list(before.slices))
    assert len(after.delete) == 1 and endpoints_in(after) == ["web-0001"]


def test_the_endpoints_of_a_service() -> None:
    web = service()
    listed = backends(web, pod(2), pod(1, ready=False), pod(3, terminating=True))
    found = endpoints_of(web, listed, None)
    assert is_managed(found) and not wants_mirror(found)
    (subset,) = found["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == ["10.88.0.4"]
    assert [one["ip"] for one in subset["notReadyAddresses"]] == ["10.88.0.3"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert "subsets" not in endpoints_of(web, [], found)


def test_endpoints_name_at_most_a_thousand_addresses() -> None:
    web = service()
    many = backends(web, *(pod(number, ready=number >= 20) for number in range(1010)))
    found = endpoints_of(web, many, None)
    subset = found["subsets"][0]
    assert (len(subset["addresses"]), len(subset["notReadyAddresses"])) == (990, 10)
    assert found["metadata"]["annotations"] == {"endpoints.kubernetes.io/over-capacity": "truncated"}
    assert "annotations" not in endpoints_of(web, many[:5], found)["metadata"]
