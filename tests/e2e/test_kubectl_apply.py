"""Server-side apply by the real kubectl: managers, conflicts, removals, comments, a restart of the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.manifests import SLEEP
from tests.e2e.node import IMAGE, Finished, Node
from tests.e2e.test_kubeconfig import Kubectl
from tests.programs import missing

pytestmark = pytest.mark.skipif(bool(missing("kubectl")), reason="needs kubectl")

DEPLOYMENT = f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
  labels: {{app: NAME}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: NAME}}}}
  template:
    metadata: {{labels: {{app: NAME}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: {IMAGE}
        imagePullPolicy: Never
        command: [sh, -c, {json.dumps(SLEEP)}]
        env:
        - {{name: A, value: "1"}}
        - {{name: B, value: "1"}}
"""
BY_HAND = """\
# the settings of the shop
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}   # as the pods name it
data:
  colour: red   # not blue
  size: "3"
"""


@pytest.fixture(scope="module")
def kubectl(builder: Node) -> Iterator[Kubectl]:
    yield Kubectl(builder, "apply")


def apply(kubectl: Kubectl, text: str, *words: str) -> Finished:
    return kubectl("apply", "--server-side", "-f", "-", *words, stdin=text)


def shown(kubectl: Kubectl, *what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", *what, "-o", "json", "--show-managed-fields").out)
    return found


def managers(doc: dict[str, Any]) -> list[str]:
    return [f"{one['manager']} {one['operation']}" for one in doc["metadata"].get("managedFields", [])]


def env(doc: dict[str, Any]) -> dict[str, str]:
    (container,) = doc["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container.get("env", [])}


def test_an_object_is_created_changed_and_loses_what_is_not_applied_any_more(kubectl: Kubectl) -> None:
    text = DEPLOYMENT.replace("NAME", "life")
    made = apply(kubectl, text)
    assert (made.code, made.out) == (0, "deployment.apps/life serverside-applied\n"), made
    again = apply(kubectl, text)
    assert again.code == 0
    doc = shown(kubectl, "deployment", "life")
    assert managers(doc) == ["kubectl Apply"]
    assert "managedFields" not in kubectl("get", "deployment", "life", "-o", "yaml").out
    fewer = apply(kubectl, text.replace('        - {name: B, value: "1"}\n', ""))
    assert fewer.code == 0, fewer
    assert env(shown(kubectl, "deployment", "life")) == {"A": "1"}
    file = kubectl.node.manifests / "kubectl/default/deployment-life.yaml"
    assert "name: B" not in file.read_text() and "managedFields" not in file.read_text()
    assert kubectl("rollout", "status", "deployment/life", "--timeout=60s").code == 0


def test_two_managers_and_a_conflict(kubectl: Kubectl) -> None:
    text = DEPLOYMENT.replace("NAME", "shared")
    assert apply(kubectl, text).code == 0
    assert kubectl("scale", "deployment", "shared", "--replicas=2").code == 0
    refused = apply(kubectl, text)
    assert refused.code == 1
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in refused.err
    assert shown(kubectl, "deployment", "shared")["spec"]["replicas"] == 2
    assert apply(kubectl, text.replace("  replicas: 1\n", "")).code == 0  # leaves it to the other one
    assert shown(kubectl, "deployment", "shared")["spec"]["replicas"] == 2
    partly = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shared}
spec:
  template:
    spec:
      containers:
      - name: main
        env: [{name: C, value: "3"}]
"""
    assert apply(kubectl, partly, "--field-manager=other").code == 0
    doc = shown(kubectl, "deployment", "shared")
    assert env(doc) == {"A": "1", "B": "1", "C": "3"}
    assert managers(doc) == ["kubectl Apply", "other Apply", "kubectl Update"]
    mine = partly.replace("name: C", "name: A")
    two = apply(kubectl, mine, "--field-manager=third")
    assert (
        two.code == 1
        and 'conflict with "kubectl": .spec.template.spec.containers[name="main"].env' in two.err
    )
    assert apply(kubectl, mine, "--field-manager=third", "--force-conflicts").code == 0
    assert env(shown(kubectl, "deployment", "shared"))["A"] == "3"


def test_a_diff_and_a_dry_run_change_nothing(kubectl: Kubectl) -> None:
    text = DEPLOYMENT.replace("NAME", "asked")
    dry = apply(kubectl, text, "--dry-run=server")
    assert dry.out == "deployment.apps/asked serverside-applied (server dry run)\n"
    assert kubectl("get", "deployment", "asked").code == 1
    assert apply(kubectl, text).code == 0
    before = shown(kubectl, "deployment", "asked")
    same = kubectl("diff", "--server-side", "-f", "-", stdin=text)
    assert (same.code, same.out) == (0, "")
    other = kubectl("diff", "--server-side", "-f", "-", stdin=text.replace("replicas: 1", "replicas: 3"))
    assert other.code == 1
    changes = [line[:1] + line[1:].strip() for line in other.out.splitlines() if line[:1] in "+-"]
    assert [line for line in changes if not line.startswith(("+++", "---"))] == [
        "-replicas: 1",
        "+replicas: 3",
    ]
    assert shown(kubectl, "deployment", "asked")["spec"] == before["spec"]


def test_a_file_by_hand_keeps_its_comments(kubectl: Kubectl) -> None:
    node = kubectl.node
    node.apply("shop.yaml", BY_HAND)
    node.wait(lambda: kubectl("get", "cm", "shop").code == 0, "the file to be read")
    assert managers(shown(kubectl, "cm", "shop")) == []
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\ndata: {colour: green, weight: '5'}\n"
    refused = apply(kubectl, text)
    assert 'conflict with "kubelite-directory" using v1: .data.colour' in refused.err
    assert apply(kubectl, text, "--force-conflicts").code == 0
    wanted = BY_HAND.replace("colour: red ", "colour: green ")
    more = wanted.replace("data:\n", 'data:\n  weight: "5"\n')
    assert (node.manifests / "shop.yaml").read_text() == more
    doc = shown(kubectl, "cm", "shop")
    assert managers(doc) == ["kubectl Apply", "kubelite-directory Update"]
    assert apply(kubectl, text.replace(", weight: '5'", "")).code == 0
    assert (node.manifests / "shop.yaml").read_text() == wanted


def test_kubectl_goes_on_with_what_it_applied_itself(kubectl: Kubectl) -> None:
    text = DEPLOYMENT.replace("NAME", "upgraded")
    assert kubectl("apply", "-f", "-", stdin=text).code == 0
    assert managers(shown(kubectl, "deployment", "upgraded")) == ["kubectl-client-side-apply Update"]
    changed = text.replace('name: A, value: "1"', 'name: A, value: "2"').replace(
        '        - {name: B, value: "1"}\n', ""
    )
    done = apply(kubectl, changed)
    assert done.code == 0, done
    doc = shown(kubectl, "deployment", "upgraded")
    assert "kubectl-client-side-apply Update" not in managers(doc)
    assert apply(kubectl, changed).code == 0
    assert env(shown(kubectl, "deployment", "upgraded")) == {"A": "2"}
    assert kubectl("apply", "-f", "-", stdin=text).code == 0  # and back
    assert env(shown(kubectl, "deployment", "upgraded")) == {"A": "1", "B": "1"}


def test_managers_survive_a_restart(kubectl: Kubectl) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: lasting}\ndata: {a: '1', b: '1'}\n"
    assert apply(kubectl, text, "--field-manager=first").code == 0
    before = shown(kubectl, "cm", "lasting")["metadata"]["managedFields"]
    file = kubectl.node.manifests / "kubectl/default/configmap-lasting.yaml"
    kubectl.node.stop()
    file.write_text(file.read_text().replace("b: '1'", "b: '2'").replace('b: "1"', "b: '2'"))
    kubectl.node.start()
    kubectl.node.wait(lambda: kubectl("get", "cm", "lasting").code == 0, "the API")
    doc = shown(kubectl, "cm", "lasting")
    assert doc["data"] == {"a": "1", "b": "2"}
    assert managers(doc) == ["first Apply", "kubelite-directory Update"]
    assert doc["metadata"]["managedFields"][0]["time"] == before[0]["time"]
    refused = apply(kubectl, text, "--field-manager=first")
    assert 'conflict with "kubelite-directory" using v1: .data.b' in refused.err


def test_what_an_apply_cannot_be(kubectl: Kubectl) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {a: '1'}\n"
    strict = apply(kubectl, text + "extra: 1\n")
    assert strict.code == 1 and 'unknown field "extra"' in strict.err
    loose = apply(kubectl, text + "extra: 1\n", "--validate=warn")
    assert loose.code == 1 and ".extra: field not declared in schema" in loose.err
    assert kubectl("get", "cm", "bad").code == 1


KINDS = f"""\
apiVersion: v1
kind: Namespace
metadata: {{name: kinds, labels: {{a: b}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: one, namespace: kinds}}
data: {{a: "1"}}
binaryData: {{b: AAEC}}
---
apiVersion: v1
kind: Secret
metadata: {{name: one, namespace: kinds}}
data: {{a: MQ==}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: one, namespace: kinds}}
---
apiVersion: v1
kind: Pod
metadata: {{name: one, namespace: kinds, labels: {{app: one}}}}
spec:
  serviceAccountName: one
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: {IMAGE}, imagePullPolicy: Never, command: [sh, -c, {json.dumps(SLEEP)}],
     ports: [{{containerPort: 80}}], resources: {{limits: {{cpu: 500m, memory: 32Mi}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: one, namespace: kinds}}
spec:
  selector: {{app: one}}
  ports: [{{port: 80}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: one, namespace: kinds}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: one, namespace: kinds}}
spec:
  serviceName: one
  replicas: 0
  selector: {{matchLabels: {{app: set}}}}
  template:
    metadata: {{labels: {{app: set}}}}
    spec: {{containers: [{{name: main, image: {IMAGE}}}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {{name: one, namespace: kinds}}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      template:
        spec: {{restartPolicy: Never, containers: [{{name: main, image: {IMAGE}}}]}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: one, namespace: kinds}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: StatefulSet, name: one}}
  maxReplicas: 2
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: one, namespace: kinds}}
spec: {{podSelector: {{matchLabels: {{app: one}}}}, ingress: [{{ports: [{{port: 80}}]}}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: one, namespace: kinds}}
rules: [{{apiGroups: [""], resources: [pods], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: one, namespace: kinds}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: one}}
subjects: [{{kind: ServiceAccount, namespace: kinds, name: one}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: one, namespace: kinds}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: one}}}}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {{name: one, namespace: kinds}}
spec: {{hard: {{configmaps: "9"}}}}
"""


def test_objects_of_all_kinds_are_applied_and_an_equal_apply_writes_no_file(kubectl: Kubectl) -> None:
    first = apply(kubectl, KINDS)
    assert first.code == 0 and first.out.count("serverside-applied") == KINDS.count("kind: ") - 3, first
    folder = kubectl.node.manifests / "kubectl"
    files = {path: path.read_text() for path in folder.rglob("*.yaml")}
    again = apply(kubectl, KINDS)
    assert again.code == 0, again
    assert {path: path.read_text() for path in folder.rglob("*.yaml")} == files
    labelled = apply(
        kubectl,
        KINDS.replace("name: one, namespace: kinds", "name: one, namespace: kinds, annotations: {note: x}"),
    )
    assert labelled.code == 0, labelled
    for kind in ("pod", "service", "pvc", "statefulset", "hpa", "networkpolicy", "role", "quota"):
        doc = shown(kubectl, kind, "one", "-n", "kinds")
        assert doc["metadata"]["annotations"]["note"] == "x", kind
        assert managers(doc) == ["kubectl Apply"], (kind, managers(doc))
    kubectl.node.wait(
        lambda: (
            kubectl("get", "pod", "one", "-n", "kinds", "-o", "jsonpath={.status.phase}").out == "Running"
        ),
        "the pod that was applied",
    )
    assert kubectl("delete", "namespace", "kinds", "--wait=false").code == 0


def test_a_changed_job_is_replaced_and_keeps_its_manager(kubectl: Kubectl) -> None:
    text = f"""\
apiVersion: batch/v1
kind: Job
metadata: {{name: once}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, command: [echo, one]}}]
"""
    assert apply(kubectl, text).code == 0
    before = shown(kubectl, "job", "once")
    done = apply(kubectl, text.replace("echo, one", "echo, two"))
    assert done.code == 0, done
    kubectl.node.wait(
        lambda: shown(kubectl, "job", "once")["metadata"]["uid"] != before["metadata"]["uid"], "the new Job"
    )
    doc = shown(kubectl, "job", "once")
    assert doc["spec"]["template"]["spec"]["containers"][0]["command"] == ["echo", "two"]
    assert managers(doc) == ["kubectl Apply"]
