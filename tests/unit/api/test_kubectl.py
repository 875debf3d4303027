"""The real kubectl against the API. kubelite's own commands print the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.kube.json import Json
from tests.unit.api.fake_node import event_doc, pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl (kubernetes-client)")

RICH: Json = {
    "serviceAccountName": "default",
    "priority": 0,
    "nodeSelector": {"disk": "ssd", "arch": "amd64"},
    "tolerations": [
        {"operator": "Exists", "effect": "NoExecute"},
        {"key": "a", "value": "b", "effect": "NoSchedule"},
    ],
    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    "initContainers": [
        {"name": "init", "image": "busybox", "command": ["sh", "-c", "echo a\necho b"], "args": ["x"]}
    ],
    "containers": [
        {
            "name": "app",
            "image": "nginx:1.27",
            "ports": [
                {"name": "http", "containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
                {"containerPort": 53, "protocol": "UDP"},
            ],
            "resources": {
                "limits": {"memory": "64Mi", "cpu": "1"},
                "requests": {"cpu": "100m", "memory": "32Mi"},
            },
            "livenessProbe": {
                "httpGet": {"path": "/live", "port": "http", "scheme": "HTTP"},
                "initialDelaySeconds": 3,
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
            "readinessProbe": {
                "exec": {"command": ["cat", "/ok"]},
                "timeoutSeconds": 1,
                "periodSeconds": 5,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
            "startupProbe": {
                "tcpSocket": {"port": 80},
                "timeoutSeconds": 1,
                "periodSeconds": 5,
                "successThreshold": 1,
                "failureThreshold": 30,
            },
            "env": [
                {"name": "PLAIN", "value": "x"},
                {"name": "LINES", "value": "a\nb"},
                {
                    "name": "FROM_CM",
                    "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k", "optional": True}},
                },
                {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {
                    "name": "NAME",
                    "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
                },
                {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
            ],
            "envFrom": [
                {"configMapRef": {"name": "cm"}},
                {"prefix": "P_", "secretRef": {"name": "s", "optional": True}},
            ],
            "volumeMounts": [
                {"name": "data", "mountPath": "/data", "subPath": "a/b"},
                {"name": "conf", "mountPath": "/conf", "readOnly": True},
            ],
        },
        {"name": "side", "image": "busybox"},
    ],
    "volumes": [
        {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "conf", "configMap": {"name": "cm"}},
        {"name": "secret", "secret": {"secretName": "s", "optional": True}},
        {"name": "host", "hostPath": {"path": "/srv", "type": "Directory"}},
        {
            "name": "down",
            "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]},
        },
    ],
}


def rich_pod() -> Json:
    doc = pod_doc(
        "rich", **{k: v for k, v in RICH.items() if k != "containers"}, containers=RICH["containers"]
    )
    doc["metadata"]["annotations"] = {"short": "a", "long": "x" * 200, "lines": "one\ntwo"}
    doc["metadata"]["labels"] = {"b": "2", "a": "1"}
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "message": "it broke",
        "startedAt": "2026-11-24T14:00:00Z",
        "finishedAt": "2026-11-24T14:01:00Z",
    }
    statuses = doc["status"]["containerStatuses"]
    statuses[0] |= {"restartCount": 2, "lastState": {"terminated": ended}}
    statuses[1] |= {
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
    }
    init = {"name": "init", "ready": True, "restartCount": 0, "image": "busybox", "imageID": "sha256:1"}
    doc["status"]["initContainerStatuses"] = [
        {
            **init,
            "containerID": "kubelite://b",
            "state": {"terminated": {**ended, "exitCode": 0, "reason": "Completed"}},
        }
    ]
    doc["status"] |= {"hostIP": "192.0.2.1", "qosClass": "Burstable", "message": "a message"}
    return doc


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served.at(tmp_path) as served:
        create = served.node.store.create
        served.run(create("Pod", pod_doc("web")))
        served.run(create("Pod", rich_pod()))
        served.run(create("Pod", pod_doc("api", namespace="prod")))
        served.run(create("Event", event_doc("e1", "web", "Started", "Started container app")))
        many = event_doc("e2", "rich", "BackOff", "Back-off restarting failed container side", kind="Warning")
        served.run(create("Event", many | {"count": 5}))
        served.run(create("Event", event_doc("e3", "rich", "Started", "Started container app")))
        yield served


def kubectl(server: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = {**os.environ, "KUBECONFIG": "/dev/null", "HOME": str(server.root)}
    command = ["kubectl", "-s", f"http://127.0.0.1:{server.port}", *arguments]
    return subprocess.run(command, env=home, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "pods"),
        ("get", "po", "-A", "-o", "wide"),
        ("get", "pod", "web", "-o", "yaml"),
        ("get", "pods", "-l", "app=web", "-o", "name"),
        ("get", "pods", "web", "nix"),
        ("get", "events", "-o", "wide"),
        ("get", "configmaps"),
        ("get", "namespaces"),
        ("get", "nodes", "-o", "wide"),
        ("events",),
        ("describe", "pod", "web"),
        ("describe", "pod", "rich"),
        ("describe", "pod", "api", "-n", "prod"),
        ("describe", "namespaces"),
        ("describe", "pods", "nix"),
    ],
)
def test_same_output(server: Served, arguments: tuple[str, ...]) -> None:
    for _ in range(3):  # a new minute may begin between the two commands
        theirs, ours = kubectl(server, *arguments), kubelite(server, *arguments)
        if arguments == ("events",):  # kubectl's own tables have the kind in its original spelling
            theirs.stdout = theirs.stdout.replace("Pod/", "pod/")
        if _ageless(ours.stdout) == _ageless(theirs.stdout):
            break
    assert _ageless(ours.stdout) == _ageless(theirs.stdout)
    assert (ours.stderr, ours.returncode) == (theirs.stderr, theirs.returncode)


def _ageless(text: str) -> str:
    """The two commands run within two seconds of each other, so their ages may differ, and with them the column's
    width."""
    text = re.sub(r"\b(?:\d+m)?\d+s(?=[ )]|$)( {2,})?", _aged, text, flags=re.MULTILINE)
    return re.sub(r"(\d+/(?:TCP|UDP)) \([\w-]+\)", r"\1", text)  # kubectl after 1.32 names ports too


def _aged(match: re.Match[str]) -> str:
    return "Ns".ljust(len(match[0])) if match[1] else "Ns"


def test_logs_exec_and_delete(server: Served) -> None:
    directory = Path(server.node.container_log_dir(pod_doc("web"), "app"))
    directory.mkdir(parents=True)
    (directory / "0.log").write_text("2026-11-24T14:33:01.0Z stdout F a\n2026-11-24T14:33:02.0Z stdout F b\n")
    assert kubectl(server, "logs", "web", "--tail", "1").stdout == "b\n"
    done = kubectl(server, "exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (done.returncode, done.stdout) == (5, "out\n")
    assert done.stderr == "err\ncommand terminated with exit code 5\n"
    assert "executable file not found" in kubectl(server, "exec", "web", "--", "nix").stderr
    assert kubectl(server, "delete", "pod", "web").stdout.startswith('pod "web" deleted')
    assert kubectl(server, "run", "x", "--image=busybox").stdout == "pod/x created\n"
    assert (Path(server.node.manifests_dir) / "kubectl/default/pod-x.yaml").exists()
