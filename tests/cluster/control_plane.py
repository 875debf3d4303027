"""Kubernetes' own control plane for tests: etcd, kube-apiserver, kube-controller-manager and kube-scheduler run as
processes in a node's network namespace. They are set up as kubeadm does it: authorizers Node and RBAC, NodeRestriction,
and a bootstrap token whose certificate requests are approved.

The programs are found in the directories that KUBELITE_CONTROL_PLANE names, or in PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.cluster.fake_api import TOKEN, TOKEN_ID, TOKEN_SECRET, Authority
from tests.waiting import until

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
PORT, ETCD = 16443, 12379
SERVER = f"https://127.0.0.1:{PORT}"
START = 90.0  # seconds
_NODES = "system:bootstrappers:kubeadm:default-node-token"
_RBAC = "rbac.authorization.k8s.io"


def program(name: str) -> str:
    """Return the path of a program of the control plane, "" if this machine lacks it."""
    given = os.environ.get("KUBELITE_CONTROL_PLANE", "")
    return shutil.which(name, path=f"{given}:{os.environ.get('PATH', '')}") or ""


def missing() -> str:
    """Return the first program that this machine lacks, or ""."""
    return next((name for name in PROGRAMS if not program(name)), "")


class ControlPlane:
    """`inside` returns a command that runs another one in the network namespace."""

    def __init__(self, directory: Path, inside: Callable[..., list[str]]) -> None:
        self.directory = directory
        self._inside = inside
        self._authority = Authority(directory)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._write_keys()

    def _write_keys(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        for file, owner in (("ca.key", self._authority.key), ("accounts.key", key)):
            secret = owner.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            self._at(file).write_bytes(secret)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._at("accounts.pub").write_bytes(public)
        self._authority.login("server.pem", "kube-apiserver", address="127.0.0.1")
        self._authority.login("to-nodes.pem", "kube-apiserver-kubelet-client", "system:masters")
        for name, user, *groups in (
            ("admin", "kubernetes-admin", "system:masters"),
            ("controllers", "system:kube-controller-manager"),
            ("scheduler", "system:kube-scheduler"),
        ):
            self._write_kubeconfig(name, self._authority.login(f"{name}.pem", user, *groups))

    def _write_kubeconfig(self, name: str, login: Path) -> None:
        cluster = {"server": SERVER, "certificate-authority": str(self._at("ca.crt"))}
        user = {"client-certificate": str(login), "client-key": str(login)}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        self._at(f"{name}.conf").write_text(json.dumps(document))

    def _at(self, file: str) -> Path:
        return self.directory / file

    @property
    def line(self) -> str:
        what = f"--token {TOKEN} --discovery-token-ca-cert-hash {self._authority.hash}"
        return f"kubeadm join 127.0.0.1:{PORT} {what}"

    # -- processes --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and return when a node can join."""
        client, peer = f"http://127.0.0.1:{ETCD}", f"http://127.0.0.1:{ETCD + 1}"
        self._run(
            "etcd", "--data-dir", str(self._at("etcd")), "--unsafe-no-fsync",
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        )  # fmt: skip
        self.start_server()
        at = self._at
        self._run(
            "kube-controller-manager", f"--kubeconfig={at('controllers.conf')}", "--leader-elect=false",
            f"--cluster-signing-cert-file={at('ca.crt')}", f"--cluster-signing-key-file={at('ca.key')}",
            f"--service-account-private-key-file={at('accounts.key')}", f"--root-ca-file={at('ca.crt')}",
            "--use-service-account-credentials", "--controllers=*,bootstrapsigner,tokencleaner",
        )  # fmt: skip
        self._run("kube-scheduler", f"--kubeconfig={at('scheduler.conf')}", "--leader-elect=false")
        self.kubectl("apply", "-f", "-", given=json.dumps(_bootstrap(self._authority.pem)))

    def start_server(self) -> None:
        """Start the API server, and return when it is ready."""
        at = self._at
        self._run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{ETCD}", f"--secure-port={PORT}",
            "--bind-address=127.0.0.1", "--advertise-address=192.0.2.1", "--service-cluster-ip-range=10.96.0.0/16",
            f"--tls-cert-file={at('server.pem')}", f"--tls-private-key-file={at('server.pem')}",
            f"--client-ca-file={at('ca.crt')}", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth",
            f"--service-account-key-file={at('accounts.pub')}",
            f"--service-account-signing-key-file={at('accounts.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--kubelet-client-certificate={at('to-nodes.pem')}", f"--kubelet-client-key={at('to-nodes.pem')}",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        until(self._is_ready, "the API server to be ready", START)

    def _is_ready(self) -> bool:
        ended = [name for name, one in self._running.items() if one.poll() is not None]
        assert not ended, f"{ended[0]} has ended: {self._at(f'{ended[0]}.log').read_text()[-2000:]}"
        return self.kubectl("get", "--raw", "/readyz", check=False) == "ok"

    def stop_server(self) -> None:
        self._stop("kube-apiserver")

    def close(self) -> None:
        for name in reversed(list(self._running)):
            self._stop(name)

    def _run(self, name: str, *arguments: str) -> None:
        with self._at(f"{name}.log").open("ab") as log:
            command = self._inside(program(name), *arguments)
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    # -- an administrator -------------------------------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        return self._inside("kubectl", f"--kubeconfig={self._at('admin.conf')}", *arguments)

    def kubectl(self, *arguments: str, given: str = "", check: bool = True) -> str:
        done = subprocess.run(
            self.command(*arguments), input=given, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *what: str) -> Any:
        """Return the JSON of an object or a list; {} if it does not exist."""
        return json.loads(self.kubectl("get", *what, "-o", "json", check=False) or "{}")


def _bootstrap(authority: str) -> dict[str, Any]:
    """What `kubeadm init` creates so that nodes can join (phases bootstrap-token and upload-config)."""
    import base64

    data = base64.b64encode(authority.encode()).decode()
    clusters = [{"name": "", "cluster": {"server": SERVER, "certificate-authority-data": data}}]
    info = json.dumps({"apiVersion": "v1", "kind": "Config", "clusters": clusters})
    token = {
        "token-id": TOKEN_ID, "token-secret": TOKEN_SECRET, "auth-extra-groups": _NODES,
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
    }  # fmt: skip
    signing = "system:certificates.k8s.io:certificatesigningrequests"
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ConfigMap",
         "metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"kubeconfig": info}},
        {"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "stringData": token,
         "metadata": {"name": f"bootstrap-token-{TOKEN_ID}", "namespace": "kube-system"}},
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role",
         "metadata": {"name": "cluster-info", "namespace": "kube-public"},
         "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"],
                    "verbs": ["get"]}]},
        {"apiVersion": f"{_RBAC}/v1", "kind": "RoleBinding",
         "metadata": {"name": "cluster-info", "namespace": "kube-public"},
         "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": "cluster-info"},
         "subjects": [{"kind": "User", "name": "system:anonymous", "apiGroup": _RBAC}]},
        *(_bound(role, group) for role, group in (
            ("system:node-bootstrapper", _NODES),
            (f"{signing}:nodeclient", _NODES),
            (f"{signing}:selfnodeclient", "system:nodes"),
        )),
    ]  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _bound(role: str, group: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": f"test:{role.rpartition(':')[2]}"},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "Group", "name": group, "apiGroup": _RBAC}],
    }  # fmt: skip
