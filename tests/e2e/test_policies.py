"""A LimitRange, a ResourceQuota and an autoscaler on one node: what they make of pods, as the kernel shows it."""

from __future__ import annotations

import signal

import yaml

from tests.e2e.cgroups import memory_limit
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.e2e.test_workloads import items, node, pods, shared, template, workload

__all__ = ["node", "shared"]

MIB = 1 << 20


def limits(**item: dict[str, str]) -> str:
    spec = {"limits": [{"type": "Container", **item}]}
    doc = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": spec}
    return yaml.safe_dump(doc)


def limited(memory: str) -> dict[str, object]:
    return container(resources={"limits": {"memory": memory}})


def test_a_limit_range_limits_new_pods_and_refuses_large_ones(node: Node) -> None:
    node.apply("before.yaml", pod("before"))
    node.wait_status("before", "Running")
    node.apply("limits.yaml", limits(default={"memory": "48Mi"}, max={"memory": "64Mi"}))
    node.apply("after.yaml", pod("after"))
    node.apply("web.yaml", workload("Deployment", 1, "limited"))
    node.wait_status("after", "Running")
    node.wait(lambda: [one["status"]["phase"] for one in pods(node)] == ["Running"], "the deployment's pod")
    (replica,) = (one["metadata"]["name"] for one in pods(node))
    assert [memory_limit(node.pid(name)) for name in ("after", replica)] == [48 * MIB] * 2
    assert memory_limit(node.pid("before")) is None

    said = 'pods "large" is forbidden: maximum memory usage per Container is 64Mi, but limit is 128Mi'
    node.apply("large.yaml", pod("large", limited("128Mi")))
    line = f"{node.manifests}/large.yaml:"
    node.wait(lambda: said in node.cli("get", "manifests").out, "the refusal of the file")
    assert any(line in one and said in one for one in node.cli("get", "manifests").out.splitlines())
    refused = node.cli("apply", "-f", "-", stdin=pod("large", limited("128Mi")).encode(), check=False)
    assert refused.code == 1 and said in refused.err

    body = template("large")["spec"] | {"containers": [limited("1Gi")]}
    large = workload(
        "Deployment", 1, "large", template={"metadata": {"labels": {"app": "web"}}, "spec": body}
    )
    node.apply("web.yaml", large)
    node.wait(
        lambda: any("is forbidden" in one["message"] for one in node.events("FailedCreate")), "the event"
    )
    assert replica in [one["metadata"]["name"] for one in pods(node)]

    pids = {name: node.pid(name) for name in ("before", "after", replica)}
    node.restart()
    assert {name: node.pid(name) for name in pids} == pids
    shown = node.cli("describe", "limits").out.splitlines()[-1].split()
    assert shown == ["Container", "memory", "-", "64Mi", "48Mi", "48Mi", "-"]

    (node.manifests / "limits.yaml").unlink()
    node.wait_status("large", "Running")
    assert memory_limit(node.pid("large")) == 128 * MIB
    assert memory_limit(node.pid("after")) == 48 * MIB
    assert not items(node, "/api/v1/limitranges")


def quota(**hard: str) -> str:
    doc = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": hard}}
    return yaml.safe_dump(doc)


def test_a_quota_admits_as_many_pods_as_fit_and_more_when_one_goes(node: Node) -> None:
    node.apply("quota.yaml", quota(pods="2"))
    for name in ("first", "second", "third"):
        node.apply(f"{name}.yaml", pod(name))
    node.wait_status("first", "Running")
    node.wait_status("second", "Running")
    said = (
        'pods "third" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=2, limited: pods=2'
    )
    node.wait(lambda: said in node.cli("get", "manifests").out, "the refusal of the file")
    assert said in node.cli("why", "third", check=False).err
    node.apply("web.yaml", workload("Deployment", 2, "counted"))
    node.wait(
        lambda: any("exceeded quota" in one["message"] for one in node.events("FailedCreate")), "the event"
    )
    assert not pods(node)
    node.wait(lambda: "pods: 2/2" in node.cli("get", "quota").out, "the status")

    pids = {name: node.pid(name) for name in ("first", "second")}
    node.restart(signal.SIGKILL)
    assert {name: node.pid(name) for name in pids} == pids
    assert said in node.cli("get", "manifests").out

    (node.manifests / "first.yaml").unlink()
    node.wait(lambda: "pods: 2/2" in node.cli("get", "quota").out, "another one takes the place")
    (node.manifests / "second.yaml").unlink()
    (node.manifests / "third.yaml").unlink()
    node.wait(lambda: len(pods(node)) == 2, "the deployment's pods")
    (node.manifests / "quota.yaml").unlink()
    node.apply("third.yaml", pod("third"))
    node.wait_status("third", "Running")


def shop(name: str, replicas: int) -> str:
    """A namespace's objects: a Deployment, a claim, and a pod that takes its time to end."""
    slow = container(script="trap '' TERM; while :; do sleep 0.1; done")
    docs = [
        yaml.safe_load(workload("Deployment", replicas, "shop", name)),
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        },
        yaml.safe_load(pod("slow", slow, terminationGracePeriodSeconds=3)),
    ]
    for doc in docs:
        doc["metadata"]["namespace"] = "shop"
    return yaml.safe_dump_all(docs)


def of_shop(node: Node, plural: str, api: str = "/api/v1") -> list[str]:
    return [one["metadata"]["name"] for one in items(node, f"{api}/namespaces/shop/{plural}")]


def phases(node: Node) -> dict[str, str]:
    return {one["metadata"]["name"]: one["status"]["phase"] for one in items(node, "/api/v1/namespaces")}


NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"


def test_a_namespace_is_emptied_with_its_last_document_or_by_name(node: Node) -> None:
    def shows(count: int) -> None:
        def running() -> bool:
            found = items(node, "/api/v1/namespaces/shop/pods")
            return [one["status"]["phase"] for one in found] == ["Running"] * count

        node.wait(running, f"{count} pods of shop")

    node.apply("a-namespace.yaml", NAMESPACE)
    node.apply("shop.yaml", shop("web", 2))
    shows(3)
    stays = node.cli("delete", "-f", "-", stdin=NAMESPACE.encode())
    assert "namespace shop stays while manifests define objects in it: shop.yaml" in stays.err
    shows(3)
    assert phases(node)["shop"] == "Active"
    (node.manifests / "shop.yaml").unlink()
    node.wait(lambda: phases(node).get("shop") == "Terminating", "the phase")
    assert "SomeResourcesRemain" in node.cli("describe", "ns", "shop").out
    refused = node.cli("apply", "-n", "shop", "-f", "-", stdin=pod("late").encode(), check=False)
    said = "unable to create new content in namespace shop because it is being terminated"
    assert refused.code == 1 and said in refused.err
    node.restart(signal.SIGKILL)
    node.wait(lambda: "shop" not in phases(node), "the end of the namespace")
    assert not of_shop(node, "pods") and not of_shop(node, "persistentvolumeclaims")

    node.apply("a-namespace.yaml", NAMESPACE)
    file = node.apply("shop.yaml", shop("web", 2) + "---\n# stays\n" + pod("elsewhere"))
    shows(3)
    done = node.cli("delete", "namespace", "shop")
    assert done.out == 'namespace "shop" deleted\n'
    assert "removed from the manifests: shop.yaml (3)" in done.err
    assert "shop" not in phases(node) and not (node.manifests / "a-namespace.yaml").exists()
    assert "# stays" in file.read_text() and "namespace: shop" not in file.read_text()
    node.wait_status("elsewhere", "Running")
    refused = node.cli("delete", "ns", "default", check=False)
    assert 'namespaces "default" is forbidden: this namespace may not be deleted' in refused.err


AUTOSCALING = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"


def test_an_autoscaler_follows_the_cpu_and_leaves_the_file_alone(node: Node) -> None:
    busy = container(
        script="trap 'exit 0' TERM; while :; do :; done",
        resources={
            "requests": {"cpu": "20m"},
            "limits": {"cpu": "20m"},
        },  # so little that the machine is not loaded
    )
    body = template("busy")["spec"] | {"containers": [busy]}
    metadata = {"labels": {"app": "web"}}
    text = workload("Deployment", 1, "busy", template={"metadata": metadata, "spec": body})
    file = node.apply("web.yaml", text)
    node.wait(lambda: [one["status"]["phase"] for one in pods(node)] == ["Running"], "the first pod")
    said = node.cli("autoscale", "deployment/web", "--max=3", "--cpu=50%").out
    assert said == "horizontalpodautoscaler.autoscaling/web created\n"

    def scaled(count: int) -> bool:
        return len([one for one in pods(node) if one["status"]["phase"] == "Running"]) == count

    node.wait(lambda: scaled(3), "three pods", timeout=90)
    assert file.read_text() == text
    (hpa,) = items(node, AUTOSCALING)
    held = {one["type"]: (one["status"], one["reason"]) for one in hpa["status"]["conditions"]}
    assert held["ScalingActive"] == ("True", "ValidMetricFound")
    used = hpa["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"]
    assert 50 < used < 200
    row = node.cli("get", "hpa").out.splitlines()[1].split()
    assert row[:2] == ["web", "Deployment/web"] and row[2] == "cpu:" and row[3].endswith("%/50%")
    assert "New size: 3; reason: cpu resource utilization" in node.cli("describe", "hpa", "web").out
    why = node.cli("why", "hpa/web").out
    assert (
        "deployment/web has 3 replicas; its manifest says 1, which applies again without the autoscaler"
        in why
    )

    node.restart()
    assert scaled(3)
    node.cli("delete", "hpa", "web")
    node.wait(lambda: scaled(1), "the number of the file")
    assert file.read_text() == text
