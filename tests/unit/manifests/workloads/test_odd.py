"""Workloads with odd values put in at random: they load or have clean errors, and are written as they are read."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from manifests.types.meta import Object
from manifests.types.workloads.kinds import workload
from manifests.validation.workloads.kinds import workload_update_problems
from manifests.yaml import loader
from tests.unit.manifests.services import test_ingress as ingresses
from tests.unit.manifests.services import test_network_policies as network_policies
from tests.unit.manifests.services import test_services as services
from tests.unit.manifests.test_odd import mutated
from tests.unit.manifests.workloads import test_autoscaler as hpas
from tests.unit.manifests.workloads import test_jobs as jobs
from tests.unit.manifests.workloads import test_policies as policies
from tests.unit.manifests.workloads import test_replicas as replicas
from tests.unit.manifests.workloads import test_sets as sets
from tests.unit.manifests.workloads.kit import Doc, document, read
from tests.unit.manifests.workloads.test_kinds import NAMES, everything

CASES = 60  # of each document
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}
TERMS = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}
DOCUMENTS: list[Doc] = [
    replicas.deployment(
        **{"spec.strategy": ROLLING, "spec.selector": TERMS, "spec.progressDeadlineSeconds": 700}
    ),
    document("ReplicaSet", replicas.SPEC, **{"spec.minReadySeconds": 1}),
    document("ReplicationController", replicas.RC, **{"spec.selector": {"app": "web"}}),
    jobs.job(**jobs.success({"succeededCount": 1, "succeededIndexes": "0,2-4"})),
    jobs.job(**jobs.failure(jobs.codes(1, 2), {"action": "Count", "onPodConditions": [jobs.CONDITION]})),
    jobs.job(**{"spec.manualSelector": True, "spec.selector": TERMS, "spec.managedBy": "a.b/c"}),
    jobs.cron(**{"spec.timeZone": "UTC", "spec.schedule": "*/5 1-3,7 * jan mon-fri"}),
    jobs.cron(**{"spec.schedule": "@every 1h30m"}),
    sets.stateful(**sets.CLAIMS, **sets.MOUNTS, **sets.rolling(partition=1, maxUnavailable="10%")),
    sets.daemon(**sets.rolling(maxUnavailable=0, maxSurge="100%")),
    {**document("ControllerRevision", None), "data": {"a": [1]}, "revision": 1},
    document("Namespace", {"finalizers": ["kubernetes"]}),
    document("ServiceAccount", None, imagePullSecrets=[{"name": "x"}], secrets=[{"name": "y"}]),
    policies.limits(
        {
            "type": "Container",
            "max": {"cpu": "2"},
            "min": {"cpu": "1"},
            "maxLimitRequestRatio": {"cpu": "2"},
            "default": {"a.b/gpu": "1"},
        }
    ),
    policies.quota(
        hard={"pods": "1", "cpu": "1"},
        scopes=["Terminating"],
        scopeSelector={
            "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]
        },
    ),
    policies.budget(selector=TERMS, unhealthyPodEvictionPolicy="AlwaysAllow"),
    document("Role", None, rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
    document("ClusterRole", None, rules=[{"nonResourceURLs": ["/x"], "verbs": ["get"]}], aggregationRule={}),
    policies.binding(),
    policies.binding("ClusterRoleBinding"),
    hpas.hpa(**hpas.behavior(tolerance="0.1", stabilizationWindowSeconds=1)),
    hpas.hpa(**hpas.metric(type="Pods", pods={"metric": hpas.NAMED, "target": hpas.AVERAGE})),
    services.service(
        type="LoadBalancer",
        clusterIP="10.89.0.9",
        sessionAffinity="ClientIP",
        externalIPs=["203.0.113.1"],
        loadBalancerSourceRanges=["192.0.2.0/24"],
        ports=[{"port": 80, "name": "http", "targetPort": "web", "nodePort": 30080}],
    ),
    services.service(clusterIP="None", selector=None, ports=[]),
    services.endpoints({"addresses": [services.ADDRESS], "ports": [{"port": 80}]}),
    services.endpoint_slice({"addresses": ["192.0.2.1"], "conditions": {"ready": False}, "hostname": "a"}),
    network_policies.network_policy(
        ingress=[
            {
                "from": [{"podSelector": TERMS, "namespaceSelector": {}}],
                "ports": [{"port": 1, "endPort": 9}],
            },
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25"]}}]},
        ],
        egress=[{"ports": [{"port": "web", "protocol": "UDP"}]}, {"to": [{"podSelector": {}}]}],
    ),
    ingresses.ingress(
        ingresses.path("/a", "Prefix"),
        **{
            "spec.tls": [{"hosts": ["a.example"], "secretName": "a"}],
            "spec.defaultBackend": ingresses.BACKEND,
        },
    ),
    ingresses.ingress_class(parameters={"name": "a", "kind": "K", "scope": "Namespace", "namespace": "b"}),
    hpas.v1(**{"spec.targetCPUUtilizationPercentage": 50}),
]


def test_every_kind_is_tried() -> None:
    assert {doc["kind"] for doc in DOCUMENTS} == set(NAMES)


@pytest.mark.parametrize("number", range(len(DOCUMENTS)), ids=lambda number: str(DOCUMENTS[number]["kind"]))
def test_odd_values_are_objects_or_clean_errors(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "KINDS", everything())
    given, _ = read(DOCUMENTS[number])
    for case in range(CASES):
        dice = random.Random(f"{number}:{case}")
        loaded = loader.load_text(mutated(dice, DOCUMENTS[number]), file="odd.yaml")
        assert all(str(error).startswith("odd.yaml") for error in loaded.errors), case
        for found in loaded.documents:
            written = json.loads(json.dumps(found.obj.to_json(), allow_nan=False))
            assert again(written) == written, case
            if given is not None and found.kind == given.kind:
                assert all(str(problem) for problem in workload_update_problems(given, found.obj)), case


def again(written: dict[str, Any]) -> dict[str, Any]:
    """What is written when an object is read again: the same, and defaults do not change it."""
    kind: type[Object] = workload((written["apiVersion"], written["kind"]))
    found = kind.parse(written)
    found.set_defaults()
    return found.to_json()
