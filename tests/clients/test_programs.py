"""Programs that are built on clients: an operator of kopf, Prometheus' discovery of targets, Helm, Ansible."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients import results
from tests.clients.calls.harness import NAMESPACE
from tests.clients.conftest import PLACE, Served, needed
from tests.clients.test_operations import CALLS
from tests.e2e.node import IMAGE, PATIENCE
from tests.programs import missing


def output(served: Served, *words: str, cwd: Path = CALLS) -> str:
    done = subprocess.run(
        served.node.in_netns(*words), env=served.environ("programs"), cwd=cwd, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=90 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"{' '.join(words)}: {done.stdout}{done.stderr}\n-- daemon:\n{served.node.tail()}"
    )
    return done.stdout


def version_of(*words: str) -> str:
    """The first version in the output of a command, without its last number."""
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"([0-9]+\.[0-9]+)\.[0-9]+", said)
    assert found, said
    return found[1]


def test_an_operator(served: Served) -> None:
    """The handlers of a kopf operator are called for what happens to ConfigMaps and pods."""
    python = needed(PLACE / "bin/python")
    called: Sequence[str] = json.loads(output(served, python, "with_kopf.py").splitlines()[-1])
    assert called == ["on.create", "on.event", "on.event of a pod", "on.update", "timer"]
    version = version_of(python, "-c", "import importlib.metadata as m; print(m.version('kopf'))")
    results.check("kopf", version, called)


def test_ansible(served: Served) -> None:
    """Modules of the collection kubernetes.core, in a playbook that checks what they answer."""
    if missing("ansible-playbook"):
        pytest.skip("needs ansible-playbook")
    python = needed(PLACE / "bin/python")
    node = json.loads(served.node.ask("/api/v1/nodes")[1])["items"][0]["metadata"]["name"]
    given = ("-e", f"python={python}", "-e", f"node={node}")
    environ = {"K8S_AUTH_KUBECONFIG": str(served.kubeconfig), "ANSIBLE_NOCOLOR": "1"}
    set_variables = ("env", *(f"{name}={value}" for name, value in environ.items()))
    said = output(served, *set_variables, "ansible-playbook", *given, "with_ansible.yml")
    assert re.search(r"ok=([0-9]+) .* failed=0 ", said), said
    modules = re.findall(r"kubernetes\.core\.(k8s\w*)", (CALLS / "with_ansible.yml").read_text())
    listed = json.loads(
        output(served, "ansible-galaxy", "collection", "list", "kubernetes.core", "--format=json")
    )
    versions = {one["version"] for found in listed.values() for one in found.values()}
    results.check("kubernetes.core", max(versions), [*dict.fromkeys(modules)])


PROMETHEUS = """\
scrape_configs:
- job_name: {role}
  kubernetes_sd_configs:
  - {{role: {role}, kubeconfig_file: {kubeconfig}, namespaces: {{names: [{namespace}]}}}}
"""
#: Roles of Prometheus' kubernetes_sd_configs, and an address that it finds (of a pod: 10.77.…)
ROLES = {
    "pod": r"10\.77\.[0-9.]+:8080",
    "service": rf"web\.{NAMESPACE}\.svc:80",
    "endpointslice": r"10\.77\.[0-9.]+:8080",
    "endpoints": r"10\.77\.[0-9.]+:8080",
    "node": r".*",
    "ingress": r"web\.example",
}
INGRESS = f"""\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  rules:
  - host: web.example
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}
"""


def test_prometheus_finds_targets(served: Served, tmp_path: Path) -> None:
    if missing("promtool"):
        pytest.skip("needs promtool")
    served.node.apply("ingress.yaml", INGRESS)
    for role, address in ROLES.items():
        config = tmp_path / f"{role}.yml"
        own = {"role": role, "kubeconfig": served.kubeconfig, "namespace": NAMESPACE}
        config.write_text(PROMETHEUS.format(**own))
        words = ("promtool", "check", "service-discovery", "--timeout=3s", str(config), role)
        found: list[str] = []

        def discovered(
            words: Sequence[str] = words, found: list[str] = found, address: str = address
        ) -> bool:
            found[:] = re.findall(r'"__address__": "([^"]*)"', output(served, *words))
            return any(re.fullmatch(address, one) for one in found)

        served.node.wait(discovered, f"a target of the role {role}")
    results.check("Prometheus", version_of("promtool", "--version"), [*ROLES])


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: little\nversion: 0.1.0\n",
    "values.yaml": "word: one\n",
    "templates/all.yaml": f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: "{{{{ .Release.Name }}}}-conf"}}
data: {{word: "{{{{ .Values.word }}}}"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: "{{{{ .Release.Name }}}}"}}
spec:
  selector: {{matchLabels: {{release: "{{{{ .Release.Name }}}}"}}}}
  template:
    metadata: {{labels: {{release: "{{{{ .Release.Name }}}}"}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: main, image: {IMAGE}, imagePullPolicy: Never, command: [sleep, "3600"]}}
""",
}
_WAIT = "--wait --timeout 60s"
#: Commands of Helm, in this order, and a part of what each answers.
HELM = (
    (f"install tiny CHART {_WAIT}", "STATUS: deployed"),
    ("list", "deployed"),
    ("status tiny", "STATUS: deployed"),
    (f"upgrade tiny CHART --set word=two {_WAIT}", "has been upgraded"),
    ("history tiny", "superseded"),
    ("get values tiny", "word: two"),
    (f"rollback tiny 1 {_WAIT}", "Rollback was a success"),
    ("get manifest tiny", 'word: "one"'),
    (f"uninstall tiny {_WAIT}", "uninstalled"),
)


def test_helm(served: Served, tmp_path: Path) -> None:
    helm = needed(PLACE / "bin/helm")
    for name, text in CHART.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for command, says in HELM:
        words = [str(tmp_path) if word == "CHART" else word for word in command.split()]
        said = output(served, helm, "--namespace", NAMESPACE, *words)
        assert says in said, f"helm {command}: {said}"
    names = [command.partition(" tiny")[0] for command, _ in HELM]
    results.check("Helm", version_of(helm, "version"), names)
