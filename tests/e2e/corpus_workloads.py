"""The workloads of tests/corpus: read from its data, and compared with the result.

How many pods a workload has is counted by the kernel: those whose cgroup has a process of a container. What a run says
about a container is compared for each of its pods (corpus_runs.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from kubelite.kube.json import Json
from manifests.types.meta import Quantity
from tests.e2e.corpus_runs import CORPUS, api, image_names, loaded, needed, wrong
from tests.e2e.node import Node

APPS, BATCH, CORE = "/apis/apps/v1", "/apis/batch/v1", "/api/v1"
PATHS = {
    "Deployment": f"{APPS}/namespaces/{{}}/deployments",
    "ReplicaSet": f"{APPS}/namespaces/{{}}/replicasets",
    "StatefulSet": f"{APPS}/namespaces/{{}}/statefulsets",
    "DaemonSet": f"{APPS}/namespaces/{{}}/daemonsets",
    "ReplicationController": f"{CORE}/namespaces/{{}}/replicationcontrollers",
    "Job": f"{BATCH}/namespaces/{{}}/jobs",
    "CronJob": f"{BATCH}/namespaces/{{}}/cronjobs",
}
#: Where a kind's status counts the ready pods.
READY = {"DaemonSet": "numberReady", "Job": "ready"}
GRACE = 2  # seconds


def workload_runs() -> list[Json]:
    return [run for run in all_workload_runs() if "left_out" not in run]


def all_workload_runs() -> list[Json]:
    """Also those that are loaded and not run here, with the reason in `left_out`."""
    found: list[Json] = yaml.safe_load((CORPUS / "runs-workloads.yaml").read_text())
    return found


# -- what is run ------------------------------------------------------------------------------------------------------


def documents(run: Json, file: str, namespace: str, machine: Path) -> list[Json]:
    """Return the objects of the manifest and those it needs, in one namespace. Directories of the machine are those
    below `machine`."""
    beside = [doc for other in run.get("beside", ()) for doc in loaded(other)]
    found = [*needed(run), *beside, *loaded(file)]
    for doc in found:
        if doc["kind"] not in ("PersistentVolume", "StorageClass"):
            doc["metadata"]["namespace"] = namespace
        if spec := pod_spec(doc):
            for one in [*spec.get("initContainers", []), *spec["containers"]]:
                one["imagePullPolicy"] = "IfNotPresent"
            spec["terminationGracePeriodSeconds"] = GRACE
            for volume in spec.get("volumes", ()):
                if "hostPath" in volume:
                    volume["hostPath"]["path"] = f"{machine}{volume['hostPath']['path']}"
    return found


def pod_spec(doc: Json) -> Json:
    """The pod spec of a workload's template, {} of another object."""
    spec = doc.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return template["spec"] if template else {}


def images_of(run: Json) -> set[str]:
    files = [run["file"], *([run["then"]] if "then" in run else [])]
    specs = [pod_spec(doc) for file in files for doc in loaded(file)]
    return {name for spec in specs if spec for name in image_names({"kind": "Pod", "spec": spec})}


def need(run: Json) -> tuple[int, float]:
    """How many pods the run has at once, and how many processors they ask for."""
    pods, processors = 0, 0.0
    for doc in loaded(run["file"]):
        if not (spec := pod_spec(doc)):
            continue
        own = doc["spec"].get("replicas", doc["spec"].get("parallelism", 1))
        asked = [one.get("resources", {}) for one in spec["containers"]]
        amounts = [(one.get("requests") or one.get("limits") or {}).get("cpu", "0") for one in asked]
        pods += own
        processors += own * sum(float(Quantity(amount).milli()) / 1000 for amount in amounts)
    return pods, processors


# -- what became of it ------------------------------------------------------------------------------------------------


def busy_pods(node: Node) -> set[str]:
    """The uids of the pods of which a container has a process, by /proc."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue
        if node.cgroup_parent in groups and (match := CONTAINER.search(groups)):
            found.add(match[1])
    return found


CONTAINER = re.compile(r"/pod([0-9a-f-]{36})/(?!sandbox)[^/\n]+")


class Outcome:
    """What became of a run's objects, and `problems`: where that differs from its data."""

    def __init__(self, node: Node, run: Json, namespace: str) -> None:
        self.node, self.run, self.namespace = node, run, namespace
        self.problems: list[str] = []
        self.pods = self._list(f"{CORE}/namespaces/{{}}/pods")
        self._owners = {
            one["metadata"]["uid"]: (kind, one) for kind, path in PATHS.items() for one in self._list(path)
        }

    def _list(self, path: str) -> list[Json]:
        found: list[Json] = api(self.node).get(path.format(self.namespace))["items"]
        return found

    def check(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self.problems.append(f"{what}: {got!r}, not {wanted!r}")

    def roots(self, doc: Json) -> str:
        """Kind/name of the object of the manifest that the pod comes from."""
        name = ""
        while owner := next(
            (one for one in doc["metadata"].get("ownerReferences", ()) if one.get("controller")), None
        ):
            name = f"{owner['kind']}/{owner['name']}"
            if owner["uid"] not in self._owners:
                break
            _, doc = self._owners[owner["uid"]]
        return name

    def object(self, name: str) -> Json:
        kind, _, own = name.partition("/")
        known = [doc for of, doc in self._owners.values() if of == kind and doc["metadata"]["name"] == own]
        if not known:
            self.problems.append(f"no {name}")
        return known[0] if known else {"metadata": {}, "status": {}}

    def look(self) -> list[str]:
        busy = busy_pods(self.node)
        for name, count in self.run.get("pods", {}).items():
            self._running(name, count, busy)
        for name, words in self.run.get("jobs", {}).items():
            self._finished(name, *words.split())
        for name, count in self.run.get("fires", {}).items():
            done = [
                doc
                for kind, doc in self._owners.values()
                if kind == "Job" and self.roots(doc) == name and held(doc, "Complete")
            ]
            if len(done) < count:
                self.problems.append(f"{name}: {len(done)} completed jobs")
        if "waiting" in self.run:
            self._waiting(*self.run["waiting"])
        if not self.problems:
            self._each(busy)
        return self.problems

    def _running(self, name: str, count: int, busy: set[str]) -> None:
        own = [pod["metadata"]["uid"] for pod in self.pods if self.roots(pod) == name]
        self.check(f"pods of {name} with processes", len(busy & {*own}), count)
        if "waiting" not in self.run:
            self.check(f"pods of {name}", len(own), count)
        kind, doc = name.partition("/")[0], self.object(name)
        status = doc.get("status", {})
        ready = status.get(READY.get(kind, "readyReplicas"), 0)
        self.check(f"ready pods of {name}", ready, self.run.get("ready", count))
        if kind != "Job":  # it has no generations
            self.check("observed", status.get("observedGeneration"), doc["metadata"].get("generation"))

    def _finished(self, name: str, condition: str, reason: str = "") -> None:
        doc = self.object(f"Job/{name}")
        status = doc.get("status", {})
        found = held(doc, condition)
        if not found or (reason and found.get("reason") != reason):
            self.problems.append(f"job {name} is not {condition} {reason}: {status}")
        if "succeeded" in self.run:
            self.check("succeeded", status.get("succeeded", 0), self.run["succeeded"])
        if "failed" in self.run and status.get("failed", 0) not in self.run["failed"]:
            self.problems.append(f"failed: {status.get('failed', 0)}, not {self.run['failed']}")
        if "indexes" in self.run:
            got = [status.get("completedIndexes", ""), status.get("failedIndexes", "")]
            self.check("indexes", got, self.run["indexes"])

    def _waiting(self, count: int, reasons: str) -> None:
        """So many pods wait, for one of these reasons."""
        known = []
        for pod in self.pods:
            status = pod.get("status", {})
            every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
            found = {one["state"].get("waiting", {}).get("reason") for one in every}
            found |= {one.get("reason") for one in status.get("conditions", [])}
            known.append(bool(found & set(reasons.split("|"))))
        self.check(f"pods that wait for {reasons}", known.count(True), count)

    def _each(self, busy: set[str]) -> None:
        """Compare each of the pods with what the run says about their containers."""
        names = [pod["metadata"]["name"] for pod in self.pods]
        if "names" in self.run:
            self.check("names", sorted(names), self.run["names"])
        if "images" in self.run:
            used = {one["image"] for pod in self.pods for one in pod["spec"]["containers"]}
            self.check("images", sorted(used), self.run["images"])
        for pod in self.pods:
            runs = pod["metadata"]["uid"] in busy
            phase = pod["status"].get("phase")
            if runs or (phase == "Succeeded" and "log" in self.run):
                wanted: dict[str, Any] = {**self.run, "phase": phase, "conditions": {}}
                wanted.pop("ready", None)
                self.problems += wrong(self.node, wanted, pod["metadata"]["name"], self.namespace)


def held(doc: Json, condition: str) -> Json:
    """The condition, if it is true."""
    every = doc.get("status", {}).get("conditions", [])
    return next((one for one in every if (one["type"], one["status"]) == (condition, "True")), {})
