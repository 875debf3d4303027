"""Scheduling on a whole node: labels, taints, resources, host ports, preemption, pressure and eviction."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node


def scheduled(node: Node, name: str) -> dict[str, Any]:
    conditions = node.pod(name)["status"].get("conditions", [])
    return next((c for c in conditions if c["type"] == "PodScheduled"), {})


@pytest.mark.either_cgroup
def test_a_pod_waits_for_labels_of_its_node(node: Node) -> None:
    node.apply("pods.yaml", "---\n".join([
        pod("picky", nodeSelector={"disk": "ssd"}),
        pod("gated", schedulingGates=[{"name": "example.com/later"}]),
    ]))  # fmt: skip
    node.wait(lambda: scheduled(node, "picky"), "the pod to be told")
    status = node.pod("picky")["status"]
    assert status["phase"] == "Pending" and "containerStatuses" not in status and "startTime" not in status
    assert scheduled(node, "picky")["reason"] == "Unschedulable"
    words = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
    assert scheduled(node, "picky")["message"].startswith(words)
    told = [e["message"] for e in node.events("FailedScheduling") if e["involvedObject"]["name"] == "picky"]
    assert [message.startswith(words) for message in told] == [True]
    assert node.status_of("picky") == "Pending" and node.status_of("gated") == "SchedulingGated"
    assert "didn't match" in node.cli("why", "picky").out

    assert node.cli("node", "label", "disk=ssd").out == f"node/{node.name} labeled\n"
    node.wait_status("picky", "Running")
    node.cli("node", "label", "disk-")
    node.kill()  # the labels and taints of the node persist, and scheduled pods stay
    node.start()
    labels = node.json("get", "nodes")["items"][0]["metadata"]["labels"]
    assert "disk" not in labels and labels["kubernetes.io/hostname"] == node.name
    assert node.status_of("picky") == "Running"
    refused = node.cli("node", "label", "kubernetes.io/os=plan9", check=False)
    assert refused.code == 1 and "--overwrite is false" in refused.err


@pytest.mark.either_cgroup
def test_a_taint_rejects_new_pods_and_evicts_others(node: Node) -> None:
    tolerant = [{"key": "fire", "operator": "Exists"}]
    node.apply("pods.yaml", "---\n".join([pod("calm", tolerations=tolerant), pod("timid")]))
    node.wait_status("calm", "Running")
    node.wait_status("timid", "Running")
    before = node.pod("timid")["metadata"]["uid"]
    assert node.cli("node", "taint", "fire=high:NoExecute").out == f"node/{node.name} tainted\n"
    node.wait(lambda: node.pod("timid")["metadata"]["uid"] != before, "the pod to be driven away")
    node.wait(  # its manifest still exists: a new pod waits
        lambda: "untolerated taint(s)" in scheduled(node, "timid").get("message", ""),
        "the reason of the wait",
    )
    assert node.status_of("timid") == "Pending"
    assert [e["involvedObject"]["name"] for e in node.events("TaintManagerEviction")] == ["timid"]
    assert node.status_of("calm") == "Running"
    node.cli("node", "taint", "fire:NoExecute-")
    node.wait_status("timid", "Running")
    node.cli("node", "cordon")
    node.apply("late.yaml", pod("late"))
    node.wait(
        lambda: "were unschedulable" in scheduled(node, "late").get("message", ""), "the cordon to hold"
    )
    assert "SchedulingDisabled" in node.cli("get", "nodes").out
    node.cli("node", "uncordon")
    node.wait_status("late", "Running")


@pytest.mark.either_cgroup
def test_a_pod_that_never_fits_is_rejected_and_a_used_port_is_named(tmp_path: Path, images: Path) -> None:
    with running_node(tmp_path, images, max_pods="2", system_reserved="memory=512Mi") as node:
        allocatable = node.json("get", "nodes")["items"][0]["status"]["allocatable"]
        capacity = node.json("get", "nodes")["items"][0]["status"]["capacity"]
        assert int(capacity["memory"][:-2]) - int(allocatable["memory"][:-2]) == 512 * 1024
        much = container(resources={"requests": {"cpu": "4096"}})
        node.apply("greedy.yaml", pod("greedy", much))
        node.wait_status("greedy", "OutOfcpu")
        status = node.pod("greedy")["status"]
        assert status["phase"] == "Failed" and "requested: 4096000, used: 0, capacity: " in status["message"]
        assert node.events("OutOfcpu")[0]["message"] == status["message"]

        ports = [{"containerPort": 80, "hostPort": 18080}]
        node.apply("a.yaml", pod("a", container(ports=ports)))
        node.wait_status("a", "Running")
        node.apply("b.yaml", pod("b", container(ports=ports)))
        node.wait(lambda: scheduled(node, "b").get("status") == "False", "the port to be refused")
        message = scheduled(node, "b")["message"]
        assert "node(s) didn't have free ports for the requested pod ports" in message
        assert message.endswith("hostPort 18080/TCP is taken by pod default/a.")
        (node.manifests / "a.yaml").unlink()
        node.wait_status("b", "Running")
        node.apply("c.yaml", pod("c"))
        node.wait_status("c", "Running")
        node.apply("d.yaml", pod("d"))
        node.wait(lambda: "Too many pods" in scheduled(node, "d").get("message", ""), "it to be told")
        assert node.status_of("d") == "Pending"
        node.restart()
        assert node.pod("greedy")["status"] == status and node.status_of("d") == "Pending"
        (node.manifests / "c.yaml").unlink()
        node.wait_status("d", "Running")


def test_pods_beyond_the_capacity_run_one_after_another(tmp_path: Path, images: Path) -> None:
    """All in one file. No pod fails for lack of resources, and each pod that ends lets the next one start."""
    with running_node(tmp_path, images, max_pods="3") as node:
        once = container(script="sleep 0.1")
        pods = [pod(f"job-{n}", once, restartPolicy="Never") for n in range(12)]
        node.apply("pods.yaml", "---\n".join(pods))
        for n in range(12):
            node.wait_status(f"job-{n}", "Completed")
        assert not node.events("OutOfpods")


@pytest.mark.either_cgroup
def test_a_terminating_pod_keeps_its_host_port(node: Node) -> None:
    """The pod has exceeded activeDeadlineSeconds and takes long to terminate. The daemon is killed meanwhile."""
    ports = [{"containerPort": 80, "hostPort": 18080}]
    (node.base / "v").mkdir()
    waits = "trap 'while [ ! -e /v/go ]; do sleep 0.1; done; exit 0' TERM; echo started; while :; do sleep 0.1; done"
    slow = container(script=waits, ports=ports, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    spec: dict[str, Any] = {"volumes": [{"name": "v", "hostPath": {"path": str(node.base / "v")}}]}
    spec["terminationGracePeriodSeconds"] = 600
    node.apply("slow.yaml", pod("slow", slow, **spec))
    node.wait_status("slow", "Running")
    node.apply("slow.yaml", pod("slow", slow, activeDeadlineSeconds=1, **spec))
    node.wait_status("slow", "DeadlineExceeded")
    node.apply("next.yaml", pod("next", container(ports=ports)))
    node.wait(lambda: scheduled(node, "next").get("reason") == "Unschedulable", "the next one to wait")
    node.restart(9)
    assert node.pod("slow")["status"]["phase"] == "Running"
    (node.base / "v" / "go").touch()
    node.wait(lambda: node.pod("slow")["status"]["phase"] == "Failed", "the slow one to have ended")
    node.wait_status("next", "Running")
    assert not node.events("FailedCreatePodSandBox")


@pytest.mark.either_cgroup
def test_a_pod_of_higher_priority_preempts_another(tmp_path: Path, images: Path) -> None:
    """The preempted pod terminates gracefully, waits, and comes back. A ReadWriteOncePod claim is used by one pod at a
    time."""
    with running_node(tmp_path, images, max_pods="1", priority_classes="high=1000") as node:
        node.apply("low.yaml", pod("low"))
        node.wait_status("low", "Running")
        before = node.pod("low")["metadata"]["uid"]
        node.apply("high.yaml", pod("high", priorityClassName="high"))
        node.wait_status("high", "Running")
        assert node.pod("high")["spec"]["priority"] == 1000
        node.wait(lambda: scheduled(node, "low").get("status") == "False", "the other to wait")
        low = node.pod("low")
        assert low["metadata"]["uid"] != before and low["status"]["phase"] == "Pending"
        assert scheduled(node, "low")["message"].startswith("0/1 nodes are available: 1 Too many pods. ")
        (event,) = node.events("Preempted")
        assert event["involvedObject"]["uid"] == before
        assert event["message"].endswith(": default/high has priority 1000")
        (node.manifests / "high.yaml").unlink()
        node.wait_status("low", "Running")


ONE_POD = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOncePod]
  resources: {requests: {storage: 1Mi}}
"""


@pytest.mark.either_cgroup
def test_a_read_write_once_pod_claim_keeps_the_second_pod_waiting(node: Node) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    mounting = container(volumeMounts=[{"name": "v", "mountPath": "/data"}])
    node.apply("a.yaml", f"{ONE_POD}---\n{pod('a', mounting, volumes=volumes)}")
    node.wait_status("a", "Running")
    node.apply("b.yaml", pod("b", mounting, volumes=volumes))
    words = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    node.wait(lambda: words in scheduled(node, "b").get("message", ""), "the second to be told")
    assert node.status_of("b") == "Pending"
    node.apply("a.yaml", ONE_POD)
    node.wait_status("b", "Running")


def test_memory_pressure_evicts_pods_and_rejects_new_ones(tmp_path: Path, images: Path) -> None:
    """The threshold is higher than the memory of any machine, so the node is under memory pressure."""
    quick = {"eviction_monitoring_period": "0.2", "eviction_pressure_transition_period": "1s"}
    with running_node(tmp_path, images, **quick) as node:
        node.apply("pods.yaml", "---\n".join([pod("cheap"), pod("dear", priority=1000)]))
        node.wait_status("cheap", "Running")
        node.wait_status("dear", "Running")
        node.settings["EVICTION_HARD"] = "memory.available<100%"
        node.restart()
        node.wait(lambda: node.pod("cheap")["status"]["phase"] == "Failed", "the cheap one to go")
        status = node.pod("cheap")["status"]
        assert status["reason"] == "Evicted"
        assert status["message"].startswith("The node was low on resource: memory. Threshold quantity: ")
        reasons = {c["type"]: c.get("reason") for c in status["conditions"]}
        assert reasons["DisruptionTarget"] == "TerminationByKubelet"
        node.apply("late.yaml", pod("late"))
        node.wait(
            lambda: "untolerated taint" in scheduled(node, "late").get("message", ""), "it to be kept away"
        )
        found = node.json("get", "nodes")["items"][0]
        conditions = {c["type"]: c["reason"] for c in found["status"]["conditions"]}
        assert conditions["MemoryPressure"] == "KubeletHasInsufficientMemory"
        assert "node.kubernetes.io/memory-pressure" in [t["key"] for t in found["spec"]["taints"]]
        node.settings["EVICTION_HARD"] = "none"
        node.restart()
        node.wait_status("late", "Running")
        assert node.pod("cheap")["status"]["reason"] == "Evicted"


def test_only_the_pod_that_exceeds_its_requests_is_evicted(tmp_path: Path, images: Path) -> None:
    """The files of the evicted pod are removed although its manifest exists: otherwise the other pods would be evicted,
    too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "kubelite-test", disk], check=True)
    try:
        quick = {"eviction_hard": "nodefs.available<10%", "eviction_monitoring_period": "0.2"}
        with running_node(disk / "node", images, **quick) as node:
            data = container(
                script="echo mine > /data/file; echo mine > /layer; exec sleep 1000",
                volumeMounts=[{"name": "data", "mountPath": "/data"}],
            )
            volumes = [{"name": "data", "emptyDir": {}}]
            innocent = [pod(f"innocent-{n}", data, volumes=volumes) for n in range(3)]
            node.apply("pods.yaml", "---\n".join(innocent))
            for n in range(3):
                node.wait_status(f"innocent-{n}", "Running")
            filling = "dd if=/dev/zero of=/data/big bs=1M count=108 2>/dev/null; exec sleep 1000"
            node.apply("hog.yaml", pod("hog", {**data, "command": ["sh", "-c", filling]}, volumes=volumes))
            node.wait(lambda: node.pod("hog")["status"].get("reason") == "Evicted", "the hog to be evicted")
            node.wait(lambda: _free(disk) > 0.8, "its volume to be removed")
            time.sleep(1.0)  # five observations
            for n in range(3):
                assert node.status_of(f"innocent-{n}") == "Running"
                assert (
                    node.cli("exec", f"innocent-{n}", "--", "cat", "/data/file", "/layer").out == "mine\n" * 2
                )
            assert node.pod("hog")["status"]["reason"] == "Evicted"
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def _free(directory: Path) -> float:
    disk = os.statvfs(directory)
    return disk.f_bavail / disk.f_blocks


def test_a_container_beyond_its_ephemeral_storage_limit_is_evicted(node: Node) -> None:
    script = "dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; exec sleep 1000"
    limited = container(script=script, resources={"limits": {"ephemeral-storage": "1Mi"}})
    node.apply("big.yaml", pod("big", limited, container("other")))
    node.wait(lambda: node.pod("big")["status"].get("reason") == "Evicted", "it to be evicted", timeout=40)
    assert node.pod("big")["status"]["message"] == (
        'Container main exceeded its local ephemeral storage limit "1Mi". '
    )


def test_writes_to_mounted_files_count(node: Node) -> None:
    """CVE-2020-8557: these files are on the node's disk, outside the container's writable layer."""
    files = {
        "hosts": "/etc/hosts",
        "name": "/etc/hostname",
        "dns": "/etc/resolv.conf",
        "end": "/dev/termination-log",
    }
    for name, path in files.items():
        script = f"dd if=/dev/zero of={path} bs=1M count=3 2>/dev/null; exec sleep 1000"
        limited = container(script=script, resources={"limits": {"ephemeral-storage": "2Mi"}})
        node.apply(f"{name}.yaml", pod(name, limited))
    for name in files:

        def evicted(one: str = name) -> bool:
            return bool(node.pod(one)["status"].get("reason") == "Evicted")

        node.wait(evicted, f"{name} to be evicted", timeout=40)
        assert node.pod(name)["status"]["message"] == (
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "
        )


def shares(node: Node, qos: str) -> str:
    """cpu.shares of a QoS cgroup on v1, cpu.weight on v2."""
    for place in ("cpu,cpuacct", "cpu", ""):
        group = Path("/sys/fs/cgroup") / place / node.cgroup_parent / qos
        for file in ("cpu.shares", "cpu.weight"):
            if (group / file).exists():
                return (group / file).read_text().strip()
    return ""


def allowed(node: Node, name: str) -> str:
    status = Path(f"/proc/{node.pid(name)}/status").read_text()
    return next(line.split()[1] for line in status.splitlines() if line.startswith("Cpus_allowed_list"))


def test_qos_cgroups_and_exclusive_processors(tmp_path: Path, images: Path) -> None:
    """The static CPU policy with one reserved processor, on any number of processors; a restart keeps the
    assignment."""
    online = os.cpu_count() or 1
    if online < 2:
        pytest.skip("needs a second processor")
    settings = {"cpu_manager_policy": "static", "reserved_cpus": "0", "pod_pids_limit": "40"}
    with running_node(tmp_path, images, **settings) as node:
        own = container(resources={"limits": {"cpu": "1", "memory": "32Mi"}})
        some = container(resources={"requests": {"cpu": "250m"}})
        node.apply("pods.yaml", "---\n".join([pod("own", own), pod("some", some), pod("none")]))
        for name in ("own", "some", "none"):
            node.wait_status(name, "Running")
        assert allowed(node, "own") == "1"
        rest = "0" if online == 2 else f"0,2-{online - 1}" if online > 3 else "0,2"
        node.wait(
            lambda: allowed(node, "some") == allowed(node, "none") == rest, "the others to have the rest"
        )
        node.wait(
            lambda: shares(node, "burstable") in ("256", "35"),
            "the QoS cgroup to have the shares of its pods",
        )
        node.wait(lambda: shares(node, "besteffort") in ("2", "1"), "the least weight there is")
        found = [*Path("/sys/fs/cgroup").glob(f"pids/{node.cgroup_parent}/besteffort/pod*/pids.max")]
        found += Path("/sys/fs/cgroup").glob(f"{node.cgroup_parent}/besteffort/pod*/pids.max")
        assert [file.read_text().strip() for file in found] == ["40"]
        node.kill()
        node.start()
        assert allowed(node, "own") == "1" and node.status_of("own") == "Running"
        (node.manifests / "pods.yaml").write_text("---\n".join([pod("some", some), pod("none")]))
        node.wait_gone("own")
        everything = f"0-{online - 1}"
        node.wait(lambda: allowed(node, "some") == everything, "the processor to be given back")


def test_memory_qos(tmp_path: Path, images: Path) -> None:
    """memory.high and memory.low of a container, of its pod and of its QoS cgroup."""
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("needs cgroup v2: this machine has v1 controllers")
    settings = {"memory_qos": "true", "memory_reservation_policy": "TieredReservation"}
    with running_node(tmp_path, images, **settings) as node:
        amounts = {"requests": {"memory": "16Mi"}, "limits": {"memory": "32Mi"}}
        node.apply("web.yaml", pod("web", container(resources=amounts)))
        node.wait_status("web", "Running")
        group = Path(f"/proc/{node.pid('web')}/cgroup").read_text().partition("::")[2].strip()
        container_dir = Path(f"/sys/fs/cgroup{group}")

        def amount(place: Path, file: str) -> str:
            return (place / file).read_text().strip()

        high = (16 << 20) + int(0.9 * (16 << 20)) // 4096 * 4096
        assert abs(int(amount(container_dir, "memory.high")) - high) <= 4096
        assert (
            amount(container_dir, "memory.low") == amount(container_dir.parent, "memory.low") == str(16 << 20)
        )
        qos_cgroup = container_dir.parent.parent
        node.wait(
            lambda: amount(qos_cgroup, "memory.low") == str(16 << 20),
            "the QoS cgroup to protect its pods",
        )


def test_an_oom_kill_names_the_process_and_the_limit(node: Node) -> None:
    """A child process exceeds the memory limit of the container, then that of the pod, which is lower."""
    eat = "head -c 64m /dev/zero | tail > /dev/null; echo survived; exec sleep 1000"
    limited = {"limits": {"memory": "16Mi"}}
    roomy = container(
        "other", resources={"limits": {"memory": "256Mi"}}
    )  # so that the pod's limit is not reached
    node.apply("own.yaml", pod("own", container(script=eat, resources=limited), roomy))
    whole = {"limits": {"memory": "24Mi"}}
    node.apply("whole.yaml", pod("whole", container(script=eat), container("other"), resources=whole))

    def told(name: str) -> str:
        found = [e["message"] for e in node.events("OOMKilling") if e["involvedObject"]["name"] == name]
        return found[0] if found else ""

    node.wait(lambda: told("own"), "the kernel's word on the first")
    assert re.fullmatch(
        r"Process tail \(pid \d+\) of container main was killed: the container's memory limit was reached",
        told("own"),
    )
    node.wait(lambda: told("whole"), "the kernel's word on the second")
    assert told("whole").endswith("of container main was killed: the pod's memory limit was reached")
