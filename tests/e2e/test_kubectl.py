"""The real kubectl against a whole node. kubelite's own commands print the same."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from manifests.types.core import Pod
from manifests.yaml.loader import load_file
from tests.e2e.kubectl import Kubectl, forwarded, one_by_one
from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import Finished, Node
from tests.e2e.terminal import on_terminal
from tests.unit.manifests.test_corpus import CORPUS, without_empties

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl (kubernetes-client)")


@pytest.fixture
def kubectl(node: Node) -> Iterator[Kubectl]:
    with forwarded(node) as found:
        yield found


def ageless(text: str) -> str:
    """The two commands run within two seconds of each other, so ages and the widths of their columns may differ."""
    text = re.sub(r"\b(\d+m)?\d+s\b", "AGE", text)
    text = re.sub(r"(\d+/(?:TCP|UDP)) \([\w-]+\)", r"\1", text)  # kubectl after 1.32 names ports too
    return re.sub(r" {2,}", "  ", text)


KINDS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, labels: {app: web}, annotations: {note: "a: b"}}
data: {text: "one\\ntwo\\n"}
binaryData: {bytes: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: hunter2, user: me}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce, ReadOnlyMany]
  storageClassName: manual
  local: {path: /srv/none}
  nodeAffinity:
    required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [linux]}]}]}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: share}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: far
  nfs: {server: none.test, path: /x}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: far}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: other-far
  resources: {requests: {storage: 1Gi}}
  volumeName: nix
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: manual}
provisioner: kubernetes.io/no-provisioner
allowVolumeExpansion: true
mountOptions: [ro, noatime]
parameters: {a: b}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
description: of weight
"""


def prepare(node: Node) -> None:
    node.apply("kinds.yaml", KINDS)
    crash = container(script="echo boom; exit 3")
    limits = {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}}
    web = container(
        resources=limits,
        ports=[{"name": "http", "containerPort": 80}],
        env=[{"name": "A", "value": "b"}, {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )  # fmt: skip
    volumes = [{"name": "data", "emptyDir": {}}]
    node.apply("web.yaml", pod("web", web, container("side"), labels={"app": "web"}, volumes=volumes))
    node.apply("crash.yaml", pod("crash", crash))
    node.apply("done.yaml", pod("done", container(script="echo done"), restartPolicy="Never"))
    init = container("first", "exit 0")
    node.apply("init.yaml", pod("with-init", container(), initContainers=[init], namespace="prod"))
    node.apply("no.yaml", pod("no-image", {**container(), "image": "localhost/none:1"}))
    node.wait_status("web", "Running")
    node.wait_status("crash", "CrashLoopBackOff")
    node.wait_status("done", "Completed")
    node.wait_status("no-image", "ErrImageNeverPull")
    node.wait(
        lambda: " Running " in node.cli("get", "pods", "-n", "prod", "--no-headers").out, "the one in prod"
    )


SHOWN = (
    ("get", "pods"),
    ("get", "pods", "-A", "-o", "wide"),
    ("get", "pod", "web", "--no-headers"),
    ("get", "pods", "-l", "app=web", "-o", "name"),
    ("get", "pods", "--show-labels"),
    ("get", "pod", "web", "-o", "yaml"),
    ("get", "pods", "-o", "json"),
    ("get", "pods", "-n", "empty"),
    ("get", "pod", "nix"),
    ("get", "events", "--field-selector", "involvedObject.name=web"),
    ("get", "nodes", "-o", "wide"),
    ("get", "namespaces"),
    ("describe", "pod", "web"),
    ("describe", "pod", "crash"),
    ("describe", "pod", "with-init", "-n", "prod"),
    ("describe", "pod", "no-image"),
    ("describe", "cm/conf", "secret/login"),
    ("describe", "secrets"),
    ("describe", "pv,pvc"),
    ("describe", "sc", "manual"),
    ("describe", "pc"),
    ("describe", "ns", "prod"),
    ("describe", "cm", "nix"),
    ("describe", "events", "-l", "none=none"),
    ("describe", "pods", "web", "--show-events=false"),
    ("logs", "done"),
    ("logs", "-p", "crash"),
    ("logs", "web", "-c", "side"),
    ("logs", "web", "-c", "nix"),
    ("exec", "web", "-c", "side", "--", "sh", "-c", "echo out; echo err >&2; exit 5"),
    ("exec", "done", "--", "true"),
    ("exec", "web", "-c", "nix", "--", "true"),
    ("exec", "nix", "--", "true"),
    ("exec", "web", "-c", "side", "--", "no-such-program"),
    ("logs", "web", "--all-containers", "--prefix"),
    ("logs", "web", "--tail", "1"),
    ("logs", "no-image"),
    ("logs", "-p", "done"),
    ("events", "--for", "pod/web"),
    ("get", "pods/web", "pods/done"),
    ("get", "po,ns"),
    ("get", "all"),
    ("get", "pods", "-L", "app,none/x"),
    ("get", "pods", "--show-kind", "--no-headers"),
    ("get", "pods", "nix", "web"),
    ("get", "cm", "conf", "nix", "--ignore-not-found"),
    ("get", "pods", "-o", "jsonpath-as-json={.items[*].metadata.labels}"),
    ("get", "--raw", "/api/v1/namespaces/default/configmaps"),
    ("get", "pods", "--field-selector", "status.phase=Running"),
    ("delete", "pod", "nix"),
    ("api-resources",),
    ("api-resources", "-o", "name", "--namespaced=false"),
    ("get", "pc", "-o", "name"),
    ("get", "pc,ns"),
)
WAITED = (
    ("wait", "--for=condition=Ready", "pod/web"),
    ("wait", "--for=condition=ready=true", "pods", "web", "--timeout=2m"),
    ("wait", "--for=condition=Ready", "pod/done", "--timeout=0"),
    ("wait", "--for=condition=Ready", "pods", "-l", "app in (web)", "--timeout=1s"),
    ("wait", "--for=condition=Ready", "pod/nix"),
    ("wait", "--for=condition=Ready", "pods", "-l", "app=none"),
    ("wait", "--for=condition=Ready", "pods"),
    ("wait", "--for=condition=Ready", "nodes", "--all"),
    ("wait", "--for=condition=Ready=false", "nodes", "--all", "--timeout=1s"),
    ("wait", "--for=jsonpath={.status.phase}=Running", "pod/web"),
    ("wait", "--for=jsonpath={.status.podIP}", "pod/web"),
    ("wait", "--for=jsonpath={.status}=x", "pod/web"),
    ("wait", "--for=jsonpath={.spec.containers[*].name}=web", "pod/web"),
    ("wait", "--for=delete", "pod/nix"),
    ("wait", "--for=delete", "pod/web", "--timeout=1s"),
    ("wait", "--for=delete", "pod/web", "--timeout=0"),
    ("wait", "--for=create", "pod/web"),
    ("wait", "--for=Ready", "pod/web"),
    ("wait", "pod/web"),
    ("wait", "--for=create", "pc/system-node-critical", "--timeout=1s"),
    ("logs", "-l", "app=web", "--prefix"),
    ("logs", "-l", "app=none"),
    ("logs", "-l", "app=web", "--all-containers", "--tail=1"),
    ("logs", "-f", "-l", "app=web", "--all-containers", "--max-log-requests=1"),
)


def difference(kubectl: Kubectl, arguments: tuple[str, ...]) -> str:
    """The difference of the two outputs. A pod may restart in between: then kubectl's own output changes, too, and both
    commands are repeated. An output of kubectl that stays the same must be kubelite's, too."""

    def asked() -> Finished:
        answer = kubectl(*arguments)
        if arguments[0] == "events":  # kubectl's own tables have the kind in its original spelling
            answer.out = answer.out.replace("Pod/", "pod/")
        answer.out = comparable(answer.out)
        return answer

    def comparable(text: str) -> str:
        if "--all-containers" in arguments:  # kubectl keeps the sources in a map, so their order is random
            text = "".join(sorted(text.splitlines(keepends=True)))
        return ageless(text)

    theirs = asked()
    while True:
        ours = kubectl.node.cli(*arguments, check=False)
        ours.out = comparable(ours.out)
        if ours == theirs:
            return ""
        before, theirs = theirs, asked()
        if theirs == before:
            return f"{' '.join(arguments)}:\n  kubectl  {theirs}\n  kubelite {ours}"


@pytest.mark.parametrize("commands", [SHOWN, WAITED], ids=["shown", "waited"])
def test_kubectl_and_kubelite_print_the_same(kubectl: Kubectl, commands: tuple[tuple[str, ...], ...]) -> None:
    node = kubectl.node
    prepare(node)
    different = [said for arguments in commands if (said := difference(kubectl, arguments))]
    assert not different, "\n".join(different)
    happened = [line.split()[1] for line in kubectl("describe", "pod", "done").out.splitlines()[-3:]]
    assert happened == ["Pulled", "Created", "Started"], "in the order in which it happened"
    # byte for byte where no age changes the width of a column: every row without its last column
    theirs, ours = kubectl("get", "pods", "-l", "app=web"), node.cli("get", "pods", "-l", "app=web")
    cut = [text.out.rindex("AGE") for text in (theirs, ours)]
    for index, text in enumerate((theirs, ours)):
        text.out = "\n".join(line[: cut[index]] for line in text.out.splitlines())
    assert ours.out == theirs.out


def test_kubectl_and_kubelite_describe_the_node_alike(kubectl: Kubectl) -> None:
    node = kubectl.node
    node.cli("node", "taint", "fire=1:NoSchedule")
    limits = {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}}
    node.apply("a.yaml", pod("a", container(resources=limits), tolerations=[{"operator": "Exists"}]))
    node.apply(
        "b.yaml", pod("b", container(), initContainers=[container("first", "exit 0", resources=limits)])
    )
    node.wait_status("a", "Running")
    node.wait_status("b", "Pending")
    theirs = kubectl("describe", "node")
    lines = [line for line in theirs.out.splitlines(keepends=True) if not line.startswith("Lease:")]
    assert len(lines) == len(theirs.out.splitlines()) - 1, "there are no Leases here"
    ours = node.cli("describe", "node", node.name)
    assert ageless(ours.out) == ageless("".join(lines))
    assert "fire=1:NoSchedule" in ours.out and re.search(r" a +100m \(\d+%\) +500m ", ours.out), ours.out


def test_kubectl_controls_pods(kubectl: Kubectl) -> None:
    node = kubectl.node
    node.apply("a.yaml", pod("a", container(script="echo hello; " + SLEEP)))
    node.wait_status("a", "Running")
    node.wait(lambda: kubectl("logs", "a").out == "hello\nstarted\n", "the log")
    assert kubectl("wait", "--for=condition=Ready", "pod/a", "--timeout=10s").code == 0
    piped = subprocess.run(
        kubectl.command("exec", "-i", "a", "--", "sh", "-c", "wc -c; exit 4"),
        env=kubectl.environ(), input=bytes(range(256)) * 1000, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (piped.returncode, piped.stdout.split()) == (4, [b"256000"])

    command = kubectl.command("exec", "-it", "a", "--", "sh")
    with on_terminal(command, kubectl.environ(), columns=100, lines=30) as terminal:
        terminal.expect(r"# ")
        # kubectl sends the terminal size after the start
        terminal.type("until stty size | grep '30 100'; do sleep 0.05; done\r")
        terminal.expect("\n30 100")
        terminal.resize(120, 40)
        terminal.type("sleep 0.3; stty size\r")
        terminal.expect(r"40 120")
        terminal.type("sleep 1000\r")
        node.wait(lambda: " sleep 1000" in node.cli("exec", "a", "--", "ps").out, "the sleep")
        terminal.expect(r"sleep 1000\r\n")
        terminal.type("\x03")
        terminal.expect(r"# ")
        terminal.type("exit 7\r")
        assert terminal.wait() == 7

    follower = subprocess.Popen(
        kubectl.command("logs", "-f", "a"), env=kubectl.environ(), stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None and follower.stdout.readline() == "hello\n"
    file = node.manifests / "a.yaml"
    text = file.read_text()
    assert kubectl("delete", "pod", "a").out.startswith('pod "a" deleted')
    assert not file.exists(), "the deletion is one of the manifest"
    assert follower.wait(10) == 0
    follower.stdout.close()
    file.write_text(text)
    node.wait_status("a", "Running")  # kubectl asks the node for nothing before
    assert kubectl("run", "x", "--image=busybox").out == "pod/x created\n"
    assert (node.manifests / "kubectl/default/pod-x.yaml").exists()
    assert "kubelite" in kubectl("version").out
    served = [line.split()[0] for line in kubectl("api-resources", "--no-headers").out.splitlines()]
    expected = {"secrets", "deployments", "cronjobs", "rolebindings", "clustertrustbundles", "storageclasses"}
    assert expected <= set(served)


def test_kubectl_reads_the_node(node: Node, kubectl: Kubectl) -> None:
    name = node.name
    assert kubectl("label", "node", name, "disk=ssd").out == f"node/{name} labeled\n"
    assert "already has a value (ssd)" in kubectl("label", "node", name, "disk=hdd").err
    assert kubectl("annotate", "node", name, "note=mine").out == f"node/{name} annotated\n"
    tainted = kubectl("taint", "node", name, "team=blue:NoSchedule", "--validate=false")
    assert tainted.out == f"node/{name} tainted\n", tainted.err
    assert kubectl("cordon", name).out == f"node/{name} cordoned\n"
    found = json.loads(kubectl("get", "node", name, "-o", "json").out)
    assert found["metadata"]["labels"]["disk"] == "ssd" and found["metadata"]["annotations"] == {
        "note": "mine"
    }
    assert found["spec"]["unschedulable"] is True
    assert [t["key"] for t in found["spec"]["taints"]] == ["team", "node.kubernetes.io/unschedulable"]
    assert kubectl("uncordon", name).out == f"node/{name} uncordoned\n"
    assert kubectl("taint", "node", name, "team-").out == f"node/{name} untainted\n"
    refused = kubectl("patch", "node", name, "-p", '{"spec":{"podCIDR":"10.0.0.0/8"}}')
    assert refused.code == 1 and "spec.podCIDR is set by the node" in refused.err


def test_kubectl_reads_what_kubelite_prints(node: Node, kubectl: Kubectl) -> None:
    """`get -o yaml`, parsed and printed by kubectl: nothing is lost, renamed or formatted differently."""
    rich = container(
        resources={"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi", "ephemeral-storage": "1Gi"}},
        livenessProbe={"exec": {"command": ["true"]}, "periodSeconds": 5},
        lifecycle={"preStop": {"sleep": {"seconds": 1}}},
        env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        ports=[{"containerPort": 80, "name": "web"}],
        securityContext={"capabilities": {"drop": ["ALL"]}, "runAsUser": 1000},
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    spec: dict[str, Any] = {
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "labelSelector": {"matchLabels": {"app": "none"}},
                        "topologyKey": "kubernetes.io/hostname",
                    }
                ]
            }
        },
        "tolerations": [{"operator": "Exists", "tolerationSeconds": 5, "effect": "NoExecute"}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "10Mi"}}],
        "initContainers": [container("first", "true")],
    }
    crashed = pod("crashed", container(script="exit 3"), restartPolicy="Never")
    waiting = pod("waiting", nodeSelector={"nowhere": "true"})
    node.apply("pods.yaml", "---\n".join([pod("rich", rich, labels={"a": "b"}, **spec), crashed, waiting]))
    node.wait_status("rich", "Running")
    node.wait_status("crashed", "Error")
    for name in ("rich", "crashed", "waiting"):
        printed = node.base / f"{name}.yaml"
        printed.write_text(node.cli("get", "pod", name, "-o", "yaml").out)
        ours = json.loads(node.cli("get", "pod", name, "-o", "json").out)
        done = kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", str(printed))
        assert done.code == 0, done.err
        theirs = json.loads(done.out)
        if name == "rich":
            (main,) = ours["status"]["containerStatuses"]
            assert main["user"]["linux"]["uid"] == 1000 and main["stopSignal"] == "SIGTERM"
            assert main["volumeMounts"] == [{"name": "v", "mountPath": "/v"}]
        assert theirs["spec"] == ours["spec"]
        assert theirs["metadata"] == ours["metadata"]
        told = {**theirs["status"], "conditions": None, "containerStatuses": None}
        assert told == {**ours["status"], "conditions": None, "containerStatuses": None}
        for kind in ("conditions", "containerStatuses"):
            assert len(theirs["status"].get(kind, [])) == len(ours["status"].get(kind, []))


def test_kubectl_reads_every_field_of_public_manifests_as_kubelite_does(node: Node, kubectl: Kubectl) -> None:
    """Every Pod of the public manifests that kubelite accepts, parsed and printed by kubectl."""
    ours: dict[str, dict[str, Any]] = {}
    for name in (CORPUS / "one-node.tsv").read_text().split("\n"):
        file, _, fate = name.partition("\t")
        found = load_file(CORPUS / file).documents if fate == "loaded" else []
        for document in found:
            if isinstance(document.obj, Pod):
                doc = document.obj.to_json()
                doc["metadata"]["name"] = f"p{len(ours)}"
                ours[doc["metadata"]["name"]] = doc
    assert len(ours) > 100
    printed = node.base / "all.json"
    printed.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(ours.values())}))
    done = kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", str(printed))
    assert done.code == 0, done.err
    wrong = []
    for theirs in one_by_one(done.out):
        doc = ours[theirs["metadata"]["name"]]
        wrong += [(doc["metadata"]["name"], doc["spec"], theirs["spec"])] * (
            without_empties(doc["spec"]) != without_empties(theirs["spec"])
        )
    assert not wrong
