"""The real kubectl over TLS, with the kubeconfig that `kubelite kubeconfig` prints."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import PATIENCE, Finished, Node
from tests.programs import missing

pytestmark = pytest.mark.skipif(bool(missing("kubectl")), reason="needs kubectl")


class Kubectl:
    """kubectl with a kubeconfig of the node."""

    def __init__(self, node: Node, name: str, *options: str) -> None:
        self.node, self.file = node, node.base / f"{name}.kubeconfig"
        node.cli("kubeconfig", "--file", str(self.file), *options)

    def __call__(self, *arguments: str, stdin: str = "") -> Finished:
        done = subprocess.run(
            self.node.in_netns("kubectl", *arguments),
            env={**os.environ, "KUBECONFIG": str(self.file), "HOME": str(self.node.base)},
            input=stdin, capture_output=True, text=True, timeout=30 * PATIENCE, check=False,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def admin(builder: Node) -> Iterator[Kubectl]:
    builder.apply("web.yaml", pod("web", container()))
    builder.wait_status("web", "Running")
    yield Kubectl(builder, "admin")


def test_a_node_listens_on_no_tcp_port_of_the_api_until_it_is_asked(node: Node) -> None:
    shown = ["grep", "-c", ":192B ", "/proc/net/tcp"]  # 6443
    assert subprocess.run(node.in_netns(*shown), capture_output=True, text=True, check=False).stdout == "0\n"
    assert not (node.root / "pki").exists()
    kubectl = Kubectl(node, "first")
    assert kubectl("get", "pods").code == 0
    node.restart()
    node.wait(lambda: kubectl("get", "pods").code == 0, "the port to be open after a restart")


def test_a_kubeconfig_without_a_secret_opens_the_port_when_kubectl_uses_it(node: Node) -> None:
    kubectl = Kubectl(node, "later", "--on-demand")
    shown = ["grep", "-c", ":192B ", "/proc/net/tcp"]  # 6443
    assert subprocess.run(node.in_netns(*shown), capture_output=True, text=True, check=False).stdout == "0\n"
    node.restart()
    assert subprocess.run(node.in_netns(*shown), capture_output=True, text=True, check=False).stdout == "0\n"
    text = kubectl.file.read_text()
    assert "kubeconfig" in text and "client-key" not in text and kubectl.file.stat().st_mode & 0o777 == 0o600
    assert "kubelite-admin" in kubectl("auth", "whoami").out
    assert subprocess.run(node.in_netns(*shown), capture_output=True, text=True, check=False).stdout != "0\n"


def test_kubectl_reads_and_runs_programs(admin: Kubectl) -> None:
    assert "web    1/1     Running" in admin("get", "pods").out
    assert admin("exec", "-i", "web", "--", "cat", stdin="through\n").out == "through\n"
    assert admin("get", "--raw", "/readyz").out == "ok"
    last = json.loads((admin.node.log_dir / "kubelite-audit.log").read_text().splitlines()[-1])
    assert (last["user"]["username"], last["objectRef"]["subresource"]) == ("kubelite-admin", "exec")


def test_a_reader_may_not_change_run_or_read_secrets(admin: Kubectl) -> None:
    reader = Kubectl(admin.node, "reader", "--read-only")
    assert reader("get", "pods", "-o", "name").out == "pod/web\n"
    for words in (("get", "secrets"), ("delete", "pod", "web"), ("exec", "web", "--", "true")):
        said = reader(*words)
        assert (said.code, "Error from server (Forbidden)" in said.err) == (1, True), said


def test_a_user_may_do_what_a_binding_allows(admin: Kubectl) -> None:
    jane = Kubectl(admin.node, "jane", "--user", "jane", "--group", "dev")
    assert "jane" in jane("auth", "whoami").out
    assert jane("auth", "can-i", "list", "pods").out == "no\n" and jane("get", "pods").code == 1
    bind = ("create", "rolebinding", "dev", "--clusterrole=view", "--group=dev")
    assert admin(*bind).out == "rolebinding.rbac.authorization.k8s.io/dev created\n"
    assert jane("auth", "can-i", "list", "pods").out == "yes\n"
    assert "deployments.apps" in jane("auth", "can-i", "--list").out
    assert jane("get", "pods", "-o", "name").out == "pod/web\n"
    said = 'User "jane" cannot delete resource "pods" in API group "" in the namespace "default"'
    assert f'pods "web" is forbidden: {said}' in jane("delete", "pod", "web").err


def test_a_token_of_a_service_account_may_do_what_a_binding_allows(admin: Kubectl) -> None:
    node = admin.node
    assert admin("create", "serviceaccount", "ci").out == "serviceaccount/ci created\n"
    bind = ("create", "rolebinding", "ci", "--clusterrole=view", "--serviceaccount=default:ci")
    assert admin(*bind).code == 0
    token = admin("create", "token", "ci", "--duration=10m").out.strip()
    cluster = json.loads(admin("config", "view", "--raw", "-o", "json").out)["clusters"]
    bare = {"apiVersion": "v1", "kind": "Config", "clusters": cluster, "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": cluster[0]["name"], "user": ""}}]}  # fmt: skip
    config = node.base / "bare.kubeconfig"
    config.write_text(json.dumps(bare))
    ci = ("--kubeconfig", str(config), "--token", token)
    assert "system:serviceaccount:default:ci" in admin("auth", "whoami", *ci).out
    assert admin("get", "pods", "-o", "name", *ci).out == "pod/web\n"
    said = 'User "system:serviceaccount:default:ci" cannot list resource "secrets" in API group ""'
    assert said in admin("get", "secrets", *ci).err
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", "web")
    of_pod = admin("create", "token", "default", *bound).out.strip()
    default = ("--kubeconfig", str(config), "--token", of_pod)
    assert "authentication.kubernetes.io/pod-name" in admin("auth", "whoami", *default).out
    assert admin("delete", "sa", "ci").code == 0
    said = admin("get", "pods", *ci).err
    assert "You must be logged in to the server (Unauthorized: the token is unknown or has expired" in said
    assert (node.root / "pki/sa.key").stat().st_mode & 0o777 == 0o600


DEPLOYMENT = """\
# by hand
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  replicas: 1   # enough
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: localhost/kubelite/busybox:latest, imagePullPolicy: Never, command: [sleep, "3600"]}
"""
#: Commands, in this order, and what the last line of their output says.
WRITES = (
    ("scale deploy shop --replicas=2", "deployment.apps/shop scaled"),
    ("set env deploy/shop A=b", "deployment.apps/shop env updated"),
    ("label deploy shop tier=front", "deployment.apps/shop labeled"),
    ("annotate deploy shop note=hi", "deployment.apps/shop annotated"),
    ("rollout restart deploy shop", "deployment.apps/shop restarted"),
    ("rollout status deploy shop --timeout=60s", 'deployment "shop" successfully rolled out'),
    ("rollout undo deploy shop", "deployment.apps/shop rolled back"),
    ("expose deploy shop --port=80", "service/shop exposed"),
    (
        "run one --image=localhost/kubelite/busybox:latest --image-pull-policy=Never -- sleep 60",
        "pod/one created",
    ),
    ("wait --for=condition=Ready pod/one --timeout=60s", "pod/one condition met"),
    ("delete pod one --now", 'pod "one" deleted'),
    ("create deployment two --image=localhost/kubelite/busybox:latest", "deployment.apps/two created"),
    ("create configmap conf --from-literal=a=b", "configmap/conf created"),
    ("create secret generic s --from-literal=a=b", "secret/s created"),
    ("create job j --image=localhost/kubelite/busybox:latest -- true", "job.batch/j created"),
    ("create cronjob cj --image=busybox --schedule=@daily -- true", "cronjob.batch/cj created"),
    ("create namespace prod", "namespace/prod created"),
    ("create serviceaccount bot", "serviceaccount/bot created"),
    ("create role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r created"),
    (
        "create rolebinding b --role=r --serviceaccount=default:bot",
        "rolebinding.rbac.authorization.k8s.io/b created",
    ),
    ("create clusterrole c --verb=get --resource=pods", "clusterrole.rbac.authorization.k8s.io/c created"),
    (
        "create poddisruptionbudget p --selector=app=shop --min-available=1",
        "poddisruptionbudget.policy/p created",
    ),
    ("create priorityclass high --value=10", "priorityclass.scheduling.k8s.io/high created"),
    ("create service clusterip svc --tcp=80:80", "service/svc created"),
    ("autoscale deploy two --max=3 --cpu-percent=50", "horizontalpodautoscaler.autoscaling/two autoscaled"),
    ("delete deploy two --cascade=background", 'deployment.apps "two" deleted'),
)


def test_kubectl_writes_are_edits_of_the_directory(admin: Kubectl) -> None:
    file = admin.node.manifests / "shop.yaml"
    file.write_text(DEPLOYMENT)
    admin.node.wait(lambda: admin("get", "deploy", "shop").code == 0, "the deployment")
    for command, said in WRITES:
        done = admin(*command.split())
        assert (done.code, done.out.splitlines()[-1:]) == (0, [said]), (command, done)
    text = file.read_text()
    assert text.startswith("# by hand\n") and "replicas: 2   # enough" in text and "tier: front" in text
    ours = admin.node.manifests / "kubectl"
    assert {"cronjob-cj.yaml", "horizontalpodautoscaler-two.yaml"} <= {
        path.name for path in (ours / "default").iterdir()
    }
    assert not (ours / "default/deployment-two.yaml").exists() and (ours / "namespace-prod.yaml").exists()


def test_apply_explain_and_diff(admin: Kubectl) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: %s}\n"
    assert admin("apply", "-f", "-", stdin=text % "one").out == "configmap/applied created\n"
    assert admin("apply", "-f", "-", stdin=text % "one").out == "configmap/applied unchanged\n"
    assert "+  a: two" in admin("diff", "-f", "-", stdin=text % "two").out
    assert admin("apply", "-f", "-", stdin=text % "two").out == "configmap/applied configured\n"
    wrong = text.replace("\ndata:", "\ndaten:") % "one"
    said = admin("apply", "-f", "-", stdin=wrong)
    assert said.code == 1 and 'strict decoding error: unknown field "daten"' in said.err
    said = admin("apply", "--validate=warn", "-f", "-", stdin=wrong)
    assert said.code == 0 and 'Warning: unknown field "daten"' in said.err
    assert admin("delete", "cm", "applied").out == 'configmap "applied" deleted\n'
    shown = admin("explain", "deployment.spec.strategy").out
    assert (
        shown.startswith("GROUP:      apps\nKIND:       Deployment")
        and "rollingUpdate\t<RollingUpdate" in shown
    )


def test_access_is_given_without_kubectl(admin: Kubectl) -> None:
    """`kubelite create` writes account, role and binding into the manifest directory, and prints a token."""
    cli = admin.node.cli
    cli("create", "serviceaccount", "reader")
    cli("create", "role", "reader", "--verb=get,list", "--resource=pods")
    cli("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")
    cli("create", "clusterrolebinding", "reader", "--clusterrole=view", "--group=nobody")
    token = cli("create", "token", "reader", "--duration=10m").out.strip()
    server = ("--kubeconfig", "/dev/null", "--server", "https://127.0.0.1:6443", "--insecure-skip-tls-verify")
    as_reader = (*server, "--token", token)
    admin.node.wait(lambda: admin("get", "pods", *as_reader).code == 0, "the binding to count")
    assert "web " in admin("get", "pods", *as_reader).out
    assert 'cannot list resource "secrets"' in admin("get", "secrets", *as_reader).err
    bound = ("--bound-object-kind=Pod", "--bound-object-name=gone")
    refused = cli("create", "token", "reader", *bound, check=False)
    assert refused.code == 1 and "gone" in refused.err
