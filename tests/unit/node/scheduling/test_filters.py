"""Whether a pod is scheduled on this node: a row for each filter of the scheduler and each rejection of kubelet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.model.schedule import SCHEDULED, NodeFacts, Port, Reservation, Taint
from kubelite.node.scheduling.filters import evicted_at, matches_node, schedule_pod, taint_text, tolerates
from kubelite.node.scheduling.ledger import Ledger, reservation_of
from manifests.types.core import Pod, Toleration

NODE = NodeFacts(
    "here",
    labels={"kubernetes.io/hostname": "here", "disk": "ssd", "cores": "8"},
    allocatable={
        "cpu": 4000,
        "memory": 8 << 30,
        "ephemeral-storage": 100 << 30,
        "pods": 10,
        "hugepages-2Mi": 0,
    },
)
HELPLESS = ". preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
NO_VICTIMS = ". preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."


def pod(name: str = "web", *, labels: dict[str, str] | None = None, **spec: Any) -> Pod:
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": labels or {"app": name}}
    return Pod.parse({"metadata": meta, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}})


def asking(name: str = "web", **requests: str) -> Pod:
    named = {key.replace("_", "-"): value for key, value in requests.items()}
    return pod(name, containers=[{"name": "c", "image": "i", "resources": {"requests": named}}])


def with_port(name: str, number: int, **port: Any) -> Pod:
    ports = [{"containerPort": 80, "hostPort": number, **port}]
    return pod(name, containers=[{"name": "c", "image": "i", "ports": ports}])


def ledger(*pods: Pod) -> Ledger:
    made = Ledger()
    for one in pods:
        made.add(reservation_of(one))
    return made


def said(one: Pod, node: NodeFacts = NODE, *others: Pod) -> str:
    found = schedule_pod(one, reservation_of(one), node, ledger(*others))
    assert not found.rejected
    return found.message.removeprefix("0/1 nodes are available: 1 ")


def node_terms(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = [{"matchExpressions": [e]} for e in expressions]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"nodeAffinity": required}


def term(app: str, key: str = "kubernetes.io/hostname", **more: Any) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def near(*terms: dict[str, Any], kind: str = "podAffinity") -> dict[str, Any]:
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


SELECTOR = f"node(s) didn't match Pod's node affinity/selector{HELPLESS}"
SPREAD = "node(s) didn't match pod topology spread constraints"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, ""),
        ({"nodeSelector": {"disk": "ssd"}}, ""),
        ({"nodeSelector": {"disk": "hdd"}}, SELECTOR),
        ({"nodeName": "there"}, f"node(s) didn't match the requested node name{HELPLESS}"),
        ({"nodeName": "here"}, ""),
        ({"affinity": node_terms({"key": "disk", "operator": "In", "values": ["hdd", "ssd"]})}, ""),
        ({"affinity": node_terms({"key": "disk", "operator": "NotIn", "values": ["ssd"]})}, SELECTOR),
        ({"affinity": node_terms({"key": "gpu", "operator": "Exists"})}, SELECTOR),
        ({"affinity": node_terms({"key": "gpu", "operator": "DoesNotExist"})}, ""),
        ({"affinity": node_terms({"key": "cores", "operator": "Gt", "values": ["4"]})}, ""),
        ({"affinity": node_terms({"key": "cores", "operator": "Lt", "values": ["4"]})}, SELECTOR),
        (  # terms are alternatives
            {
                "affinity": node_terms(
                    {"key": "gpu", "operator": "Exists"}, {"key": "disk", "operator": "Exists"}
                )
            },
            "",
        ),
        ({"affinity": near(term("db"))}, f"node(s) didn't match pod affinity rules{HELPLESS}"),
        ({"affinity": near(term("web"))}, ""),  # the first pod of its own group
        ({"affinity": near(term("web", "zone"))}, f"node(s) didn't match pod affinity rules{HELPLESS}"),
        ({"affinity": near(term("db"), kind="podAntiAffinity")}, ""),
        (
            {
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
                ]
            },
            f"{SPREAD} (missing required label){HELPLESS}",
        ),
        (
            {
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
                ]
            },
            "",
        ),
        ({"schedulingGates": [{"name": "later"}]}, "Scheduling is blocked due to non-empty scheduling gates"),
    ],
)
def test_messages_are_the_schedulers(spec: dict[str, Any], words: str) -> None:
    assert said(pod(**spec)) == words


def test_preferences_never_reject_a_pod() -> None:
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    wish = {"weight": 1, "preference": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}}
    other = {"weight": 1, "podAffinityTerm": term("db")}
    affinity = {"nodeAffinity": {preferred: [wish]}, "podAffinity": {preferred: [other]}}
    assert said(pod(affinity=affinity)) == ""


def test_affinity_to_the_nodes_name() -> None:
    fields = [{"key": "metadata.name", "operator": "In", "values": ["there"]}]
    required = {"nodeSelectorTerms": [{"matchFields": fields}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    assert not matches_node(pod(affinity=affinity), NODE)
    assert matches_node(pod(affinity=affinity), replace(NODE, name="there"))


def test_pod_affinity_and_anti_affinity() -> None:
    db, other = pod("db"), pod("other")
    wants = pod(affinity=near(term("db")))
    assert said(wants, NODE, db) == ""
    assert said(wants, NODE, other) == f"node(s) didn't match pod affinity rules{HELPLESS}"
    hates = pod(affinity=near(term("db"), kind="podAntiAffinity"))
    assert said(hates, NODE, db) == f"node(s) didn't match pod anti-affinity rules{NO_VICTIMS}"
    assert said(hates, NODE, other) == ""
    assert said(db, NODE, hates) == f"node(s) didn't satisfy existing pods anti-affinity rules{NO_VICTIMS}"
    elsewhere = pod(affinity=near(term("db", namespaces=["prod"]), kind="podAntiAffinity"))
    assert said(elsewhere, NODE, db) == ""
    named = term("db", namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "default"}})
    assert said(pod(affinity=near(named)), NODE, db) == ""
    keyed = near(term("db", matchLabelKeys=["version"]), kind="podAntiAffinity")
    labels = {"app": "web", "version": "2"}
    assert said(pod(labels=labels, affinity=keyed), NODE, db) == ""
    assert (
        said(pod(labels=labels, affinity=keyed), NODE, pod("db", labels={"app": "db", "version": "2"})) != ""
    )


def test_missing_topology_domains_count_as_empty() -> None:
    constraint = {
        "maxSkew": 1,
        "minDomains": 2,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    first, second = (
        pod(name, labels={"app": "web"}, topologySpreadConstraints=[constraint]) for name in ("a", "b")
    )
    assert said(first) == ""
    assert said(second, NODE, first) == f"{SPREAD}{NO_VICTIMS}"


@pytest.mark.parametrize(
    ("toleration", "taint", "tolerated"),
    [
        ({"operator": "Exists"}, Taint("a", "b", "NoExecute"), True),
        ({"key": "a", "operator": "Exists"}, Taint("a", "b"), True),
        ({"key": "a", "operator": "Exists", "effect": "NoExecute"}, Taint("a", "b"), False),
        ({"key": "a", "value": "b"}, Taint("a", "b"), True),
        ({"key": "a", "value": "c"}, Taint("a", "b"), False),
        ({"key": "x", "value": "b"}, Taint("a", "b"), False),
        ({"key": "a", "operator": "Gt", "value": "5"}, Taint("a", "9"), True),
        ({"key": "a", "operator": "Lt", "value": "5"}, Taint("a", "9"), False),
        ({"key": "a", "operator": "Gt", "value": "5"}, Taint("a", "many"), False),
    ],
)
def test_tolerations(toleration: dict[str, Any], taint: Taint, *, tolerated: bool) -> None:
    assert tolerates(Toleration.parse(toleration), taint) is tolerated


def test_taints_reject_pods() -> None:
    tainted = replace(NODE, taints=(Taint("team", "blue"),))
    words = f"node(s) had untolerated taint(s){HELPLESS} The taint is team=blue:NoSchedule."
    assert said(pod(), tainted) == words
    assert said(pod(tolerations=[{"key": "team", "operator": "Exists"}]), tainted) == ""
    assert said(pod(), replace(NODE, taints=(Taint("team", "blue", "PreferNoSchedule"),))) == ""
    cordoned = replace(NODE, unschedulable=True)
    assert said(pod(), cordoned) == f"node(s) were unschedulable{HELPLESS}"
    everything = [{"operator": "Exists"}]
    assert said(pod(tolerations=everything), cordoned) == ""
    assert taint_text(Taint("a", "", "NoExecute")) == "a:NoExecute"


def test_pods_that_a_taint_evicts() -> None:
    taint = Taint("fire", "", "NoExecute", added=100.0)
    patient = {"key": "fire", "operator": "Exists", "effect": "NoExecute"}
    assert evicted_at(pod(), [taint]) == (100.0, taint)
    assert evicted_at(pod(), [Taint("fire", "", "NoSchedule")]) is None
    assert evicted_at(pod(tolerations=[patient]), [taint]) is None
    assert evicted_at(pod(tolerations=[{**patient, "tolerationSeconds": 30}]), [taint]) == (130.0, taint)
    both = [{**patient, "tolerationSeconds": 30}, {**patient, "tolerationSeconds": 5}]
    assert evicted_at(pod(tolerations=both), [taint]) == (105.0, taint)


# -- room ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "reason", "numbers"),
    [
        ({"cpu": "5"}, "OutOfcpu", "cpu, requested: 5000, used: 0, capacity: 4000"),
        (
            {"memory": "9Gi"},
            "OutOfmemory",
            f"memory, requested: {9 << 30}, used: 0, capacity: {8 << 30}",
        ),
        (
            {"ephemeral_storage": "101Gi"},
            "OutOfephemeral-storage",
            f"ephemeral-storage, requested: {101 << 30}, used: 0, capacity: {100 << 30}",
        ),
        (
            {"hugepages_2Mi": "2Mi"},
            "OutOfhugepages-2Mi",
            f"hugepages-2Mi, requested: {2 << 20}, used: 0, capacity: 0",
        ),
    ],
)
def test_what_the_empty_node_lacks_is_rejected_with_numbers(
    requests: dict[str, str], reason: str, numbers: str
) -> None:
    one, other = asking(**requests), asking("db", cpu="2", memory="2Gi")
    found = schedule_pod(one, reservation_of(one), NODE, ledger(other))
    assert (found.reason, found.rejected) == (reason, True)
    assert found.message == f"Pod was rejected: Node didn't have enough resource: {numbers}"


def test_what_others_use_is_waited_for() -> None:
    one, other = asking(cpu="3"), asking("db", cpu="2")
    found = schedule_pod(one, reservation_of(one), NODE, ledger(other))
    assert (found.reason, found.rejected) == ("Unschedulable", False)
    assert found.message.startswith("0/1 nodes are available: 1 Insufficient cpu. preemption: ")
    assert found.message.endswith(" Pods use the resource; this one starts when they leave enough.")


def test_too_many_pods() -> None:
    others = [pod(f"p{n}") for n in range(10)]
    found = schedule_pod(pod(), reservation_of(pod()), NODE, ledger(*others))
    assert found.message.startswith("0/1 nodes are available: 1 Too many pods. ") and not found.rejected
    none = replace(NODE, allocatable={**NODE.allocatable, "pods": 0})
    refused = schedule_pod(pod(), reservation_of(pod()), none, ledger())
    assert refused.message.endswith("pods, requested: 1, used: 0, capacity: 0")
    assert (refused.reason, refused.rejected) == ("OutOfpods", True)


def test_extended_resources_are_waited_for() -> None:
    """A pod waits for an extended resource, which kubelet does not reject: the node does not offer it, the request is
    too large, or other pods use it."""
    one, two = asking(**{"example.com/gpu": "1"}), asking("two", **{"example.com/gpu": "2"})
    assert said(one) == f"Insufficient example.com/gpu{NO_VICTIMS}"
    node = replace(NODE, allocatable={**NODE.allocatable, "example.com/gpu": 2})
    assert schedule_pod(one, reservation_of(one), node, ledger()) == SCHEDULED
    for held, wanted in (([one], two), ([two], one), ([], asking("x", **{"example.com/gpu": "3"}))):
        found = schedule_pod(wanted, reservation_of(wanted), node, ledger(*held))
        assert not found.rejected and found.reason == "Unschedulable"
        assert "Insufficient example.com/gpu" in found.message


@pytest.mark.parametrize(
    "total, healthy, words",
    [
        (3, 3, "No preemption victims found for incoming pod."),
        (3, 2, " 1 of 3 devices of example.com/gpu is unhealthy."),
        (3, 0, " 3 of 3 devices of example.com/gpu are unhealthy."),
        (0, 0, " No device plugin of example.com/gpu is registered."),
    ],
)
def test_a_pod_that_waits_for_devices_is_told_why_there_are_so_few(
    total: int, healthy: int, words: str
) -> None:
    allocatable = {**NODE.allocatable, "example.com/gpu": healthy}
    node = replace(NODE, allocatable=allocatable, devices={"example.com/gpu": total})
    one = asking(**{"example.com/gpu": "4"})
    found = schedule_pod(one, reservation_of(one), node, ledger())
    assert "1 Insufficient example.com/gpu. " in found.message and found.message.endswith(words)


def test_resource_requests_that_fit() -> None:
    other = asking("db", cpu="2", memory="2Gi")
    for one in (asking(cpu="2", memory="6Gi"), pod()):
        assert schedule_pod(one, reservation_of(one), NODE, ledger(other)) == SCHEDULED
    missing = asking(hugepages_1Gi="1Gi")
    assert said(missing) == f"Insufficient hugepages-1Gi{NO_VICTIMS}"


def test_a_pod_waits_for_terminating_pods() -> None:
    """The replacement of a pod is not rejected for the room that the old pod uses until it has ended."""
    one, other = asking(cpu="3"), asking("db", cpu="2")
    leaving = replace(reservation_of(other), terminating=True)
    book = Ledger()
    book.add(leaving)
    found = schedule_pod(one, reservation_of(one), NODE, book)
    assert not found.rejected and "Insufficient cpu" in found.message
    assert found.message.endswith("The pod will fit when the terminating pods are gone.")
    assert book.remove(leaving.uid) and schedule_pod(one, reservation_of(one), NODE, book) == SCHEDULED


def test_total_requests_of_a_pod() -> None:
    def c(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}, **more}

    inits = [c("side", "1", restartPolicy="Always"), c("big", "3")]
    assert reservation_of(pod(containers=[c("a", "1"), c("b", "1")], initContainers=inits)).requests == {
        "cpu": 4000
    }
    overhead = pod(containers=[c("a", "1")], overhead={"cpu": "250m", "memory": "10Mi"})
    assert reservation_of(overhead).requests == {"cpu": 1250, "memory": 10 << 20}
    whole = pod(containers=[c("a", "1")], resources={"requests": {"cpu": "2"}})
    assert reservation_of(whole).requests == {"cpu": 2000}
    limited = pod(containers=[{"name": "a", "image": "i", "resources": {"limits": {"memory": "1Gi"}}}])
    assert reservation_of(limited).requests == {"memory": 1 << 30}


# -- ports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "conflict"),
    [
        ({}, {}, True),
        ({"protocol": "UDP"}, {}, False),
        ({"hostIP": "127.0.0.1"}, {}, True),
        ({"hostIP": "127.0.0.1"}, {"hostIP": "0.0.0.0"}, True),
        ({"hostIP": "127.0.0.1"}, {"hostIP": "127.0.0.2"}, False),
        ({"hostIP": "127.0.0.1"}, {"hostIP": "127.0.0.1"}, True),
        ({"hostIP": "127.0.0.1"}, {"hostIP": "::"}, False),
        ({"hostIP": "0.0.0.0"}, {"hostIP": "::"}, True),  # as kube-scheduler has it
        ({"hostIP": "::1"}, {"hostIP": "::"}, True),
        ({"hostIP": "::1"}, {"hostIP": "::2"}, False),
        ({"hostIP": "::"}, {}, True),
    ],
)
def test_host_ports(mine: dict[str, Any], theirs: dict[str, Any], *, conflict: bool) -> None:
    one, other = with_port("web", 8080, **mine), with_port("db", 8080, **theirs)
    words = said(one, NODE, other)
    assert ("node(s) didn't have free ports for the requested pod ports" in words) is conflict
    assert ("is taken by pod default/db" in words) is conflict


@pytest.mark.parametrize(
    ("address", "shown"), [("127.0.0.1", "127.0.0.1:8080/TCP"), ("fd00::2", "[fd00::2]:8080/TCP")]
)
def test_the_message_shows_the_address_of_a_host_port(address: str, shown: str) -> None:
    one, other = with_port("web", 8080, hostIP=address), with_port("db", 8080, hostIP=address)
    assert f" hostPort {shown} is taken by pod default/db." in said(one, NODE, other)


def test_a_host_network_pod_reserves_its_container_ports() -> None:
    one = pod(hostNetwork=True, containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}])
    assert reservation_of(one).ports == (Port(80),)


def test_the_sums_of_the_ledger_stay_correct() -> None:
    book, one = Ledger(), reservation_of(with_port("web", 80))
    book.add(replace(one, requests={"cpu": 5}))
    book.add(replace(one, requests={"cpu": 7}, terminating=True))
    assert book.used("cpu") == book.used("cpu", terminating=True) == 7
    assert book.used("cpu", but=one.uid) == book.used("pods", but=one.uid) == 0
    assert book.holder(Port(80)) is not None and book.holder(Port(80), but=one.uid) is None
    assert book.remove(one.uid) and not book.remove(one.uid)
    assert (book.used("cpu"), book.used("pods"), book.holder(Port(80))) == (0, 0, None)


def test_a_pod_without_requests_counts_as_a_pod() -> None:
    book = Ledger()
    book.add(Reservation("u", "default", "web"))
    assert book.used("pods") == 1
