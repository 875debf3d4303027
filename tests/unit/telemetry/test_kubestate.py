"""kube_*: the metrics that kube-state-metrics has for the same objects."""

from __future__ import annotations

from typing import Any

from kubelite.telemetry.metrics.exposition import Page, render
from kubelite.telemetry.metrics.kubestate.claims import write_claims
from kubelite.telemetry.metrics.kubestate.page import MOST, key_labels, write_node, write_objects
from kubelite.telemetry.metrics.kubestate.pods import write_pods
from kubelite.telemetry.metrics.kubestate.volumes import write_persistent_volumes

AT = "2026-01-02T03:04:05Z"
UNIX = 1767323045


def pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "u-1",
            "creationTimestamp": AT,
            "labels": {"app.kubernetes.io/name": "web", "app.kubernetes.io.name": "other"},
        },
        "spec": {
            "initContainers": [{"name": "init", "image": "busybox", "restartPolicy": "Always"}],
            "containers": [
                {
                    "name": "app",
                    "image": "nginx",
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi", "ephemeral-storage": "1Gi"}},
                }
            ],
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}],
            "nodeSelector": {"disk/type": "ssd"},
        },
        "status": status,
    }


def page_of(*pods: dict[str, Any]) -> set[str]:
    text = render(lambda page: write_pods(page, pods, "node-1"), openmetrics=False, compressed=False).decode()
    return {line for line in text.splitlines() if not line.startswith("#")}


POD = 'namespace="shop",pod="web",uid="u-1"'


def test_identity() -> None:
    found = page_of(
        pod(hostIP="10.0.0.1", podIP="10.88.0.2", podIPs=[{"ip": "10.88.0.2"}, {"ip": "fd00::2"}])
    )
    assert (
        f'kube_pod_info{{{POD},host_ip="10.0.0.1",pod_ip="10.88.0.2",node="node-1",created_by_kind="",'
        'created_by_name="",priority_class="",host_network="false"} 1'
    ) in found
    assert f'kube_pod_owner{{{POD},owner_kind="",owner_name="",owner_is_controller=""}} 1' in found
    assert f'kube_pod_ips{{{POD},ip="fd00::2",ip_family="6"}} 1' in found
    assert f"kube_pod_created{{{POD}}} {UNIX}" in found
    (labels,) = [line for line in found if line.startswith("kube_pod_labels")]
    name = "label_app_kubernetes_io_name"
    assert labels == f'kube_pod_labels{{{POD},{name}_conflict1="other",{name}_conflict2="web"}} 1'


def test_labels_are_named_as_kube_state_metrics_names_them() -> None:
    mapping = {"appName": "a", "1st": "b", "x/y-z": "c", "a.b": "d", "a-b": "e", "a-b_conflict2": "f"}
    wanted = ',l_1st="b",l_a_b_conflict2="f",l_app_name="a",l_x_y_z="c",l_a_b_conflict1="e"'
    assert key_labels("l", mapping) == wanted


def test_labels_and_series_are_limited() -> None:
    doc = pod()
    many = range(10 * MOST)
    doc["metadata"]["labels"] = {f"k{n}": "v" for n in many}
    doc["spec"]["nodeSelector"] = {f"k{n}": "v" for n in many}
    doc["spec"]["tolerations"] = [{"key": f"k{n}", "operator": "Exists"} for n in many]
    doc["spec"]["containers"][0]["resources"] = {"limits": {f"example.com/r{n}": "1" for n in many}}
    found = page_of(doc)
    (labels,) = [line for line in found if line.startswith("kube_pod_labels")]
    (selectors,) = [line for line in found if line.startswith("kube_pod_nodeselectors")]
    assert (labels.count("label_"), selectors.count("nodeselector_")) == (MOST, MOST)
    for family in (
        "kube_pod_tolerations",
        "kube_pod_container_resource_limits",
        "kube_pod_container_resource_requests",
    ):
        assert sum(line.startswith(family + "{") for line in found) == MOST


def test_duplicate_series_are_removed() -> None:
    doc = pod()
    doc["spec"]["tolerations"] = [{"key": "k"}, {"key": "k", "operator": "Equal"}]
    doc["spec"]["containers"][0]["resources"] = {"limits": {"example.com/a-b": "1", "example.com/a_b": "2"}}
    found = page_of(doc)
    assert sum(line.startswith("kube_pod_tolerations{") for line in found) == 1
    (limit,) = [line for line in found if line.startswith("kube_pod_container_resource_limits{")]
    assert limit.endswith(" 1")


def test_an_owner() -> None:
    doc = pod()
    doc["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "web-1", "controller": True}]
    found = page_of(doc)
    assert (
        f'kube_pod_owner{{{POD},owner_kind="ReplicaSet",owner_name="web-1",owner_is_controller="true"}} 1'
        in found
    )
    assert any('created_by_kind="ReplicaSet",created_by_name="web-1"' in line for line in found)


def test_every_phase_and_condition_status_has_a_series() -> None:
    found = page_of(
        pod(
            phase="Running",
            qosClass="Burstable",
            conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": AT}],
        )
    )
    for phase in ("Pending", "Succeeded", "Failed", "Unknown", "Running"):
        assert f'kube_pod_status_phase{{{POD},phase="{phase}"}} {int(phase == "Running")}' in found
    for value in ("true", "false", "unknown"):
        assert f'kube_pod_status_ready{{{POD},condition="{value}"}} {int(value == "true")}' in found
    assert f'kube_pod_status_qos_class{{{POD},qos_class="Burstable"}} 1' in found
    assert f"kube_pod_status_ready_time{{{POD}}} {UNIX}" in found


def test_a_pod_without_status_is_pending_and_not_ready() -> None:
    found = page_of(pod())
    assert f'kube_pod_status_phase{{{POD},phase="Pending"}} 1' in found
    assert f'kube_pod_status_ready{{{POD},condition="false"}} 1' in found


def test_resources_in_their_units() -> None:
    found = page_of(pod())
    head = f'{{container="app",{POD},node="node-1",resource='
    for kind in ("limits", "requests"):  # a limit without a request is also the request
        name = f"kube_pod_container_resource_{kind}"
        assert f'{name}{head}"cpu",unit="core"}} 0.5' in found
        assert f'{name}{head}"memory",unit="byte"}} 67108864' in found
        assert f'{name}{head}"ephemeral_storage",unit="byte"}} 1073741824' in found


def test_reasons_exist_only_while_they_apply() -> None:
    waiting = {
        "name": "app",
        "restartCount": 3,
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    }
    waiting["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": AT}}
    found = page_of(pod(phase="Running", containerStatuses=[waiting]))
    row = f'container="app",{POD}'
    assert f'kube_pod_container_status_waiting_reason{{{row},reason="CrashLoopBackOff"}} 1' in found
    assert f'kube_pod_container_status_last_terminated_reason{{{row},reason="OOMKilled"}} 1' in found
    assert f"kube_pod_container_status_last_terminated_exitcode{{{row}}} 137" in found
    assert f"kube_pod_container_status_last_terminated_timestamp{{{row}}} {UNIX}" in found
    assert f"kube_pod_container_status_restarts_total{{{row}}} 3" in found
    assert f"kube_pod_container_status_waiting{{{row}}} 1" in found
    assert f"kube_pod_container_status_running{{{row}}} 0" in found
    running = {"name": "app", "ready": True, "state": {"running": {"startedAt": AT}}}
    found = page_of(pod(phase="Running", containerStatuses=[running]))
    assert not any("_reason{" in line for line in found)
    assert f"kube_pod_container_state_started{{{row}}} {UNIX}" in found


def test_init_containers() -> None:
    ended = {"name": "init", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
    found = page_of(pod(initContainerStatuses=[ended]))
    row = f'container="init",{POD}'
    assert f'kube_pod_init_container_status_terminated_reason{{{row},reason="Completed"}} 1' in found
    info = next(line for line in found if line.startswith("kube_pod_init_container_info"))
    assert 'restart_policy="Always"' in info
    assert not any(line.startswith('kube_pod_container_status_running{container="init"') for line in found)


def test_a_finished_pod_has_its_completion_time() -> None:
    ended = {"name": "app", "state": {"terminated": {"reason": "Completed", "finishedAt": AT}}}
    assert f"kube_pod_completion_time{{{POD}}} {UNIX}" in page_of(
        pod(phase="Succeeded", containerStatuses=[ended])
    )
    assert not any("completion" in x for x in page_of(pod(phase="Running", containerStatuses=[ended])))


def lines(write: Any) -> set[str]:
    text = render(write, openmetrics=False, compressed=False).decode()
    return {line for line in text.splitlines() if not line.startswith("#")}


def test_the_node() -> None:
    doc = {
        "metadata": {"name": "n", "creationTimestamp": AT, "labels": {"node-role.kubernetes.io/worker": ""}},
        "spec": {
            "podCIDR": "10.0.0.0/24",
            "podCIDRs": ["10.0.0.0/24"],
            "taints": [{"key": "a", "effect": "NoExecute"}],
        },
        "status": {
            "capacity": {"cpu": "2", "memory": "1024Ki", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "DiskPressure", "status": "Unknown"},
            ],
            "nodeInfo": {"kernelVersion": "6.18"},
        },
    }
    found = lines(lambda page: write_node(page, doc))
    assert any(x.startswith('kube_node_info{node="n",kernel_version="6.18"') for x in found)
    assert 'kube_node_status_capacity{node="n",resource="cpu",unit="core"} 2' in found
    assert 'kube_node_status_capacity{node="n",resource="memory",unit="byte"} 1048576' in found
    assert 'kube_node_status_capacity{node="n",resource="pods",unit="integer"} 110' in found
    assert 'kube_node_status_condition{node="n",condition="Ready",status="true"} 1' in found
    assert 'kube_node_status_condition{node="n",condition="DiskPressure",status="unknown"} 1' in found
    assert 'kube_node_role{node="n",role="worker"} 1' in found
    assert 'kube_node_spec_taint{node="n",key="a",value="",effect="NoExecute"} 1' in found


def test_secrets_show_no_values() -> None:
    secret = {
        "metadata": {"name": "s", "namespace": "d", "creationTimestamp": AT, "resourceVersion": "7"},
        "type": "Opaque",
        "data": {"password": "aHVudGVyMg=="},
    }
    namespace = {"metadata": {"name": "d", "creationTimestamp": AT}, "status": {"phase": "Active"}}

    def write(page: Page) -> None:
        write_objects(page, [namespace], [], [secret])

    found = lines(write)
    assert 'kube_secret_info{namespace="d",secret="s"} 1' in found
    assert 'kube_secret_type{namespace="d",secret="s",type="Opaque"} 1' in found
    assert 'kube_secret_metadata_resource_version{namespace="d",secret="s"} 7' in found
    owner = 'owner_kind="",owner_name="",owner_is_controller=""'
    assert f'kube_secret_owner{{namespace="d",secret="s",{owner}}} 1' in found
    assert 'kube_namespace_status_phase{namespace="d",phase="Active"} 1' in found
    assert not any("password" in line or "aHVudGVyMg" in line for line in found)


def test_claims_and_what_pods_mount_of_them() -> None:
    claim = {
        "metadata": {"name": "data", "namespace": "shop", "creationTimestamp": AT, "labels": {"a": "b"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "kubelite",
            "volumeName": "pvc-1",
        },
        "status": {"phase": "Bound"},
    }
    new = {"metadata": {"name": "new", "namespace": "shop"}, "spec": {}}
    mounting = pod()
    mounting["spec"]["volumes"] = [
        {"name": "d", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        {"name": "scratch", "ephemeral": {}},
        {"name": "e", "emptyDir": {}},
    ]
    text = render(
        lambda page: write_claims(page, [claim, new], [mounting]), openmetrics=False, compressed=False
    )
    info = "kube_persistentvolumeclaim_info"
    lines = {line for line in text.decode().splitlines() if not line.startswith("#")}
    head = 'namespace="shop",persistentvolumeclaim="data"'
    other = 'namespace="shop",persistentvolumeclaim="new"'
    where = f"kube_pod_spec_volumes_persistentvolumeclaims_info{{{POD},volume="
    assert lines == {
        f'{info}{{{head},storageclass="kubelite",volumename="pvc-1",volumemode="Filesystem"}} 1',
        f'{info}{{{other},storageclass="",volumename="",volumemode="Filesystem"}} 1',
        f'kube_persistentvolumeclaim_labels{{{head},label_a="b"}} 1',
        f"kube_persistentvolumeclaim_labels{{{other}}} 1",
        f'kube_persistentvolumeclaim_access_mode{{{head},access_mode="ReadWriteOnce"}} 1',
        f'kube_persistentvolumeclaim_status_phase{{{head},phase="Lost"}} 0',
        f'kube_persistentvolumeclaim_status_phase{{{head},phase="Bound"}} 1',
        f'kube_persistentvolumeclaim_status_phase{{{head},phase="Pending"}} 0',
        f'kube_persistentvolumeclaim_status_phase{{{other},phase="Lost"}} 0',
        f'kube_persistentvolumeclaim_status_phase{{{other},phase="Bound"}} 0',
        f'kube_persistentvolumeclaim_status_phase{{{other},phase="Pending"}} 1',
        f"kube_persistentvolumeclaim_resource_requests_storage_bytes{{{head}}} {1 << 30}",
        f"kube_persistentvolumeclaim_created{{{head}}} {UNIX}",
        f'{where}"d",persistentvolumeclaim="data"}} 1',
        f'{where}"scratch",persistentvolumeclaim="web-scratch",ephemeral="true"}} 1',
        f'kube_pod_spec_volumes_persistentvolumeclaims_readonly{{{POD},volume="d",persistentvolumeclaim="data"}} 1',
    }


def test_volumes_and_classes() -> None:
    spec = {
        "capacity": {"storage": "1Gi"},
        "storageClassName": "manual",
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": "/srv/a"},
        "claimRef": {"namespace": "shop", "name": "data"},
    }
    volume = {"metadata": {"name": "a", "creationTimestamp": AT}, "spec": spec, "status": {"phase": "Bound"}}
    free = {"metadata": {"name": "b"}, "spec": {"hostPath": {"path": "/srv/b"}}}
    kind = {"metadata": {"name": "manual"}, "provisioner": "kubernetes.io/no-provisioner"}
    text = render(
        lambda page: write_persistent_volumes(page, [volume, free], [kind]),
        openmetrics=False,
        compressed=False,
    )
    lines = {line for line in text.decode().splitlines() if not line.startswith("#")}
    assert {
        'kube_persistentvolume_claim_ref{persistentvolume="a",name="data",claim_namespace="shop"} 1',
        'kube_persistentvolume_status_phase{persistentvolume="a",phase="Bound"} 1',
        'kube_persistentvolume_status_phase{persistentvolume="a",phase="Failed"} 0',
        f'kube_persistentvolume_capacity_bytes{{persistentvolume="a"}} {1 << 30}',
        f'kube_persistentvolume_created{{persistentvolume="a"}} {UNIX}',
        'kube_persistentvolume_volume_mode{persistentvolume="b",volumemode="Filesystem"} 1',
        'kube_storageclass_info{storageclass="manual",provisioner="kubernetes.io/no-provisioner",'
        'reclaim_policy="Delete",volume_binding_mode="Immediate"} 1',
    } <= lines
    assert not any("claim_ref" in line and '"b"' in line for line in lines)
    (found,) = (line for line in lines if line.startswith('kube_persistentvolume_info{persistentvolume="a"'))
    assert 'storageclass="manual"' in found and 'local_path="/srv/a"' in found and 'ebs_volume_id=""' in found


def test_overhead() -> None:
    doc = pod()
    assert not any("overhead" in line for line in page_of(doc))
    doc["spec"]["overhead"] = {"cpu": "250m", "memory": "120Mi", "ephemeral-storage": "1Gi"}
    found = page_of(doc)
    assert f"kube_pod_overhead_cpu_cores{{{POD}}} 0.25" in found
    assert f"kube_pod_overhead_memory_bytes{{{POD}}} {120 << 20}" in found
    assert sum("overhead" in line for line in found) == 2
