"""What the node keeps of the cluster's pods, and what it tells of them and of itself."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cluster.decide import node_status, pods, references
from kubelite.cluster.decide.pod_status import final, refusal, status_patch
from kubelite.kube.json import Json
from kubelite.kube.objects import CLUSTER, SOURCE
from kubelite.node.spec.cluster_objects import TokenAsked
from manifests.problems import InvalidObject

AROUND = pods.Surroundings("https://a:1", ("10.96.0.10",))


def pod(**spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "u1",
            "resourceVersion": "7",
            "labels": {"app": "web"},
            "annotations": {SOURCE: "/etc/kubelite/manifests/other.yaml", "mine": "1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "o"}],
            "finalizers": ["example.com/wait"],
            "managedFields": [{"manager": "x"}],
        },
        "spec": {"containers": [{"name": "a", "image": "i"}], "nodeName": "here", **spec},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
    }


def test_a_pod_of_the_cluster_passes_for_none_of_the_directory() -> None:
    kept = pods.stored(pod(), AROUND).doc
    assert kept["metadata"]["annotations"] == {"mine": "1", CLUSTER: "https://a:1"}
    assert not {"ownerReferences", "finalizers", "managedFields", "resourceVersion"} & kept["metadata"].keys()
    assert kept["metadata"]["uid"] == "u1"
    assert kept["status"] == {"phase": "Pending"}
    assert pods.kept(kept)


def test_conditions_of_others_come_along_and_follow() -> None:
    given = pod()
    given["status"]["conditions"].append({"type": "example.com/lb", "status": "False"})
    kept = pods.stored(given, AROUND).doc
    assert [one["type"] for one in kept["status"]["conditions"]] == ["example.com/lb"]
    running = {**kept, "status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "False"}, *kept["status"]["conditions"]]}}  # fmt: skip
    given["status"]["conditions"][1] = {"type": "example.com/lb", "status": "True"}
    after = pods.updated(running, pods.stored(given, AROUND).doc)
    assert after is not None
    assert after["status"]["phase"] == "Running"
    assert {one["type"]: one["status"] for one in after["status"]["conditions"]} == {
        "Ready": "False",
        "example.com/lb": "True",
    }


def test_unknown_fields_are_dropped_and_named() -> None:
    given = pod(newField={"a": 1}, containers=[{"name": "a", "image": "i", "newest": [1]}])
    found = pods.stored(given, AROUND)
    assert sorted(found.dropped) == ["spec.containers[0].newest", "spec.newField"]
    assert found.doc["spec"]["containers"] == [{"name": "a", "image": "i"}]


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ({}, "None"),
        ({"dnsPolicy": "ClusterFirst", "hostNetwork": True}, "ClusterFirst"),
        ({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, "None"),
        ({"dnsPolicy": "Default"}, "Default"),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}, "None"),
    ],
)
def test_the_dns_policy_is_written_out(spec: Json, policy: str) -> None:
    kept = pods.stored(pod(**spec), AROUND).doc["spec"]
    assert kept.get("dnsPolicy", "ClusterFirst") == policy
    through = policy == "None" and spec.get("dnsPolicy") != "None"
    if through:
        assert kept["dnsConfig"] == {
            "nameservers": ["10.96.0.10"],
            "searches": ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"],
            "options": [{"name": "ndots", "value": "5"}],
        }


def test_a_cluster_without_dns_leaves_the_hosts() -> None:
    assert pods.stored(pod(), pods.Surroundings("https://a:1")).doc["spec"]["dnsPolicy"] == "Default"


def test_a_deletion_is_never_taken_back() -> None:
    given = pod()
    kept = pods.stored(given, AROUND).doc
    going = {**kept, "metadata": {**kept["metadata"], "deletionTimestamp": "2026-01-01T00:00:05Z",
                                  "deletionGracePeriodSeconds": 5}}  # fmt: skip
    assert pods.updated(going, pods.stored(given, AROUND).doc) is None
    given["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:01Z", "deletionGracePeriodSeconds": 1}
    sooner = pods.updated(going, pods.stored(given, AROUND).doc)
    assert sooner is not None
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 1


def test_an_edit_that_is_refused_does_not_keep_a_deletion_away() -> None:
    given = pod()
    kept = pods.stored(given, AROUND).doc
    given["spec"]["containers"][0]["name"] = "../b"
    given["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:01Z", "deletionGracePeriodSeconds": 1}
    going = pods.updated(kept, pods.with_deletion(kept, given))
    assert going is not None and going["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:01Z"
    assert going["spec"] is kept["spec"]


def test_what_a_pod_refers_to() -> None:
    given = pod(
        imagePullSecrets=[{"name": "pull"}],
        initContainers=[{"name": "i", "image": "i", "envFrom": [{"configMapRef": {"name": "init"}}]}],
        containers=[
            {
                "name": "a",
                "image": "i",
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                    {"name": "B", "value": "plain"},
                ],
            }
        ],
        volumes=[
            {"name": "c", "configMap": {"name": "files"}},
            {"name": "s", "secret": {"secretName": "hidden"}},
            {
                "name": "p",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                        {"serviceAccountToken": {"path": "vault", "audience": "vault"}},
                        {"configMap": {"name": "kube-root-ca.crt"}},
                    ]
                },
            },
            {"name": "d", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {}}},
        ],
    )
    found = {(one.kind, one.name) for one in references.content(given)}
    assert found == {
        ("Secret", "pull"), ("ConfigMap", "init"), ("Secret", "key"), ("ConfigMap", "files"), ("Secret", "hidden"),
        ("ConfigMap", "kube-root-ca.crt"),
    }  # fmt: skip
    assert references.tokens(given) == {TokenAsked("", 3607), TokenAsked("vault", 3600)}
    assert references.claims(given) == {"d": ("data", True), "e": ("web-e", False)}


@pytest.mark.parametrize(
    ("volume", "made"),
    [
        ({"hostPath": {"path": "/d"}}, {"hostPath": {"path": "/d", "type": ""}}),
        ({"local": {"path": "/d"}}, {"hostPath": {"path": "/d", "type": "Directory"}}),
        ({"nfs": {"server": "s", "path": "/p"}}, {"nfs": {"server": "s", "path": "/p"}}),
        (
            {"csi": {"driver": "x"}, "capacity": {}},
            "claim data: volumes of kind csi are not supported on this node",
        ),
    ],
)
def test_the_volume_of_a_claim(volume: Json, made: Json | str) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {}}
    assert references.volume_of(claim, {"spec": volume}, read_only=False) == made


def test_a_status_is_told_once() -> None:
    there = pod()
    status = {"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
              "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "t"}]}  # fmt: skip
    patch = status_patch(there, status)
    assert patch is not None
    assert patch["metadata"] == {"uid": "u1"}
    assert patch["status"]["phase"] == "Running"
    assert patch["status"]["podIPs"][0] == {"$patch": "replace"}
    assert {"$patch": "delete", "type": "PodScheduled"} in patch["status"]["conditions"]
    assert status_patch({**there, "status": status}, status) is None


def test_a_field_that_is_gone_is_null_and_a_terminal_phase_stays() -> None:
    there = {**pod(), "status": {"phase": "Failed", "reason": "Evicted", "message": "m"}}
    patch = status_patch(there, {"phase": "Running", "message": "m"})
    assert patch is not None
    assert patch["status"] == {"reason": None}


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (1, "Failed"), (None, "Failed")])
def test_the_last_status_is_terminal(code: int | None, phase: str) -> None:
    state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
    status = {"phase": "Running", "containerStatuses": [{"name": "a", "ready": True, "state": state}],
              "conditions": [{"type": "Ready", "status": "True"}]}  # fmt: skip
    last = final(status, 0.0)
    assert last["phase"] == phase
    assert "terminated" in last["containerStatuses"][0]["state"]
    assert last["conditions"][0]["status"] == "False"


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"uid": "../../etc"}},
        {"metadata": {"uid": ""}},
        {"metadata": {"namespace": "a/../../b"}},
        {"metadata": {"name": "..", "uid": "u"}},
        {"metadata": {"name": "a\nb"}},
        {"spec": {"containers": [{"name": "../x", "image": "i"}]}},
        {"spec": {"volumes": [{"name": "a/b", "emptyDir": {}}]}},
        {"spec": {"initContainers": [{"name": "", "image": "i"}]}},
    ],
)
def test_no_name_of_a_pod_leads_out_of_the_nodes_directories(change: dict[str, Json]) -> None:
    given = pod()
    for part, fields in change.items():
        given[part] = {**given[part], **fields}
    with pytest.raises(InvalidObject):
        pods.stored(given, AROUND)


def test_no_key_of_a_secret_leads_out_of_its_volume() -> None:
    keys = ("../../etc/cron.d/x", "a/b", "..", ".", "..data", "", "a\n", "x" * 254)
    found = references.safe(
        {"kind": "Secret", "data": {**dict.fromkeys(keys, ""), "tls.crt": "", ".dockercfg": ""}}
    )
    assert set(found["data"]) == {"tls.crt", ".dockercfg"}
    plain = {"kind": "ConfigMap", "data": {"a": "1"}}
    assert references.safe(plain) is plain


def test_a_refusal_is_a_failure_with_words() -> None:
    said = refusal({"qosClass": "Burstable"}, "NameConflict", "words", 0.0)
    assert (said["phase"], said["reason"], said["message"]) == ("Failed", "NameConflict", "words")


NODE = {
    "metadata": {
        "name": "here",
        "labels": {
            "kubernetes.io/hostname": "here",
            "node-role.kubernetes.io/worker": "",
            "disk": "ssd",
            "node.kubernetes.io/instance-type": "x",
            "topology.kubernetes.io/zone": "z",
        },
    },
    "spec": {"taints": [{"key": "k", "effect": "NoExecute", "timeAdded": "t"}]},
    "status": {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"kubeletVersion": "v0"},
        "capacity": {"pods": "110"},
    },
}


def test_a_node_registers_with_what_it_may_say() -> None:
    made = node_status.node_object(NODE, port=10250, version="1.2.3", now=0.0)
    assert made["metadata"]["labels"] == {
        "kubernetes.io/hostname": "here", "disk": "ssd", "node.kubernetes.io/instance-type": "x",
    }  # fmt: skip
    assert made["spec"] == {"taints": [{"key": "k", "effect": "NoExecute"}]}
    assert made["status"]["nodeInfo"]["kubeletVersion"] == "v1.36.0+kubelite1.2.3"
    assert made["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}


def test_a_status_without_a_change_is_sent_every_five_minutes() -> None:
    first = node_status.node_status(NODE, port=1, version="1", now=0.0)
    later = node_status.node_status(NODE, port=1, version="1", now=20.0)
    assert node_status.status_patch(None, first, sent=0.0, now=0.0) is not None
    assert node_status.status_patch(first, later, sent=0.0, now=20.0) is None
    assert node_status.status_patch(first, later, sent=0.0, now=301.0) is not None
    cordoned = {**later, "conditions": [{"type": "Ready", "status": "False"}]}
    assert node_status.status_patch(first, cordoned, sent=0.0, now=20.0) is not None


def test_a_node_that_comes_back_is_not_cordoned_for_having_left() -> None:
    made = node_status.node_object(NODE, port=1, version="1", now=0.0)
    found = {"metadata": {"annotations": {node_status.LEFT: "t"}}, "spec": {"unschedulable": True}}
    assert node_status.takeover(found, made)["spec"] == {"unschedulable": None}
    assert "spec" not in node_status.takeover({"metadata": {}, "spec": {"unschedulable": True}}, made)


def test_a_lease_belongs_to_the_node_and_is_renewed() -> None:
    node = {"metadata": {"name": "here", "uid": "n"}}
    first = node_status.lease(node, None, 1.0)
    assert first["metadata"]["ownerReferences"][0]["uid"] == "n"
    assert first["spec"]["leaseDurationSeconds"] == 40
    old = {**first, "metadata": {**first["metadata"], "resourceVersion": "5"}}
    again = node_status.lease(node, old, 11.0)
    assert again["metadata"]["resourceVersion"] == "5"
    assert again["spec"]["renewTime"] > first["spec"]["renewTime"]
