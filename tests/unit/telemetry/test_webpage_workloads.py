"""The web page's section of workloads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from kubelite.telemetry.web.facts import Question
from tests.unit.api.fake_node import pod_doc
from tests.unit.telemetry.test_webpage import EVIL, Checker, Records, node_html

Json = dict[str, Any]


def workload(kind: str, name: str, spec: Json, status: Json, **meta: Any) -> Json:
    metadata = {"name": name, "namespace": "default", "uid": f"{kind}-{name}", **meta}
    return {"kind": kind, "metadata": metadata, "spec": spec, "status": status}


def controlled(by: Json) -> list[Json]:
    return [{"uid": by["metadata"]["uid"], "controller": True}]


def shop() -> Records:
    template = {"spec": {"containers": [{"name": "app", "image": "registry.example/acme/web:2"}]}}
    counts = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    web = workload("Deployment", "web", {"replicas": 1, "template": template}, counts)
    newest = workload("ReplicaSet", "web-1", {"replicas": 1}, {}, ownerReferences=controlled(web))
    why = "Job has reached the specified backoff limit, see /var/lib/secret"
    ended = {"conditions": [{"type": "Failed", "status": "True", "message": why}]}
    pod = pod_doc("web-1-x")
    pod["metadata"]["ownerReferences"] = controlled(newest)
    records = Records()
    for kind, doc in (
        ("Deployment", web),
        ("ReplicaSet", newest),
        ("Job", workload("Job", "load", {}, ended)),
        ("Pod", pod),
    ):
        records.add(kind, doc)
    return records


def test_workloads_come_with_their_pods_and_the_failed_ones_first() -> None:
    html = node_html(shop())
    section = html.partition('id="workloads"')[2].partition("</section>")[0]
    assert section.index("<b>load</b>") < section.index("<b>web</b>")
    assert "web-1</b>" not in section, "a ReplicaSet of a Deployment has no row of its own"
    assert '<a href="/pods/default/web-1-x">web-1-x</a>' in section
    assert "Available" in section and "1/1" in section and "web:2" in section


def test_pods_of_a_workload_with_the_same_problem_have_one_card_and_are_found_by_it() -> None:
    records = shop()
    (newest,) = (one.doc for one in records.list("ReplicaSet"))
    for name in "ab":
        pod = pod_doc(f"web-1-{name}")
        pod["metadata"]["ownerReferences"] = controlled(newest)
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        pod["status"]["containerStatuses"] = [{"name": "app", "ready": False, "state": waiting}]
        records.add("Pod", pod)
    html = node_html(records)
    cards = html.partition('id="attention"')[2].partition("</section>")[0]
    assert cards.count("CrashLoopBackOff") == 1 and "and 1 more pod of deployment/web" in cards
    assert "2 pods are failing" not in cards, "the pods say it themselves"
    found = (
        node_html(records, Question("deployment/web")).partition('id="pods"')[2].partition("</section>")[0]
    )
    assert found.count("<tr") == 1 + 3


def test_a_failed_workload_has_a_card_without_paths() -> None:
    html = node_html(shop())
    cards = html.partition('id="attention"')[2].partition("</section>")[0]
    assert (
        "Job has reached the specified backoff limit" in cards
        and "<code>kubelite why job/load</code>" in cards
    )
    assert "/var/lib" not in html


def test_nothing_of_a_workload_becomes_markup() -> None:
    records = Records()
    spec = {
        "schedule": EVIL,
        "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": EVIL}]}}}},
    }
    records.add("CronJob", workload("CronJob", EVIL, spec, {}))
    html = node_html(records)
    assert EVIL not in html and Checker(html).words.count(EVIL) == 2


def test_a_node_without_workloads_has_no_such_section() -> None:
    records = Records()
    records.add("Pod", pod_doc("web"))
    assert 'id="workloads"' not in node_html(records)
    code = (
        "import sys, kubelite.telemetry.web.answers; print('kubelite.telemetry.web.workloads' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
