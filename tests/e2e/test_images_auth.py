"""Logins end to end: kubelite login, and pods with imagePullSecrets, at a registry that requires a password."""

from __future__ import annotations

import base64
import json
import stat

import yaml

from tests.e2e.node import Node
from tests.e2e.registry import APP, HOST, Registry, needs_tools
from tests.e2e.test_images import image_pod, messages
from tests.kernel import images_support as support

pytestmark = needs_tools

ALICE = {"auth": base64.b64encode(b"alice:swordfish").decode()}


def locked(registry: Registry) -> Node:
    """The registry, restarted so that it requires alice's password."""
    registry.stop()
    registry.settings = support.htpasswd(registry.node.base / "passwords")
    registry.login = "alice:swordfish"
    registry.start()
    return registry.node


def secret(name: str, kind: str, key: str, document: object) -> str:
    value = base64.b64encode(json.dumps(document).encode()).decode()
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": kind,
            "data": {key: value},
        }
    )


def test_login_and_logout(registry: Registry) -> None:
    node = locked(registry)
    refused = node.cli("pull", APP, check=False)
    assert refused.code == 1 and "asks for a user name and password" in refused.err
    wrong = node.cli("login", HOST, "-u", "alice", "--password-stdin", stdin=b"sword\n", check=False)
    assert wrong.code == 1 and "alice" in wrong.err and "401" in wrong.err and "sword\n" not in wrong.err
    assert not (node.root / "auth.json").exists()
    blind = node.cli("login", HOST, "-u", "alice", check=False)
    assert blind.code == 1 and "--password-stdin" in blind.err

    said = node.cli("login", HOST, "-u", "alice", "--password-stdin", stdin=b"swordfish\n")
    assert said.out == "Login Succeeded!\n"
    assert stat.S_IMODE((node.root / "auth.json").stat().st_mode) == 0o600
    assert node.cli("pull", "-q", APP).out == f"Pulled {APP}\n"
    node.apply("app.yaml", image_pod("app", f"{HOST}/built:1"))
    node.wait_status("app", "Running")
    assert "swordfish" not in node.log.read_text()

    assert node.cli("logout", HOST).out == f"Removed login credentials for {HOST}\n"
    again = node.cli("logout", HOST, check=False)
    assert (again.code, again.err) == (1, f"error: not logged in to {HOST}\n")
    assert node.cli("pull", "-q", APP, check=False).code == 1


def test_image_pull_secrets(registry: Registry) -> None:
    node = locked(registry)
    pod = yaml.safe_load(image_pod("app", APP))
    pod["spec"]["imagePullSecrets"] = [{"name": "absent"}, {"name": "pull"}]
    node.apply("pull.json", secret("pull", "kubernetes.io/dockerconfigjson", ".dockerconfigjson",
                                   {"auths": {HOST: ALICE}}))  # fmt: skip
    node.apply("app.json", json.dumps(pod))
    node.wait_status("app", "Running")
    warned = (
        "Unable to retrieve some image pull secrets (absent (not found)); attempting to pull the image may not "
        "succeed."
    )
    node.wait(lambda: messages(node, "app", "FailedToRetrieveImagePullSecret") == [warned], "the warning")
    assert not any("imagePullSecrets" in e["message"] for e in node.events("Unsupported"))

    bare = yaml.safe_load(image_pod("bare", f"{HOST}/built:1"))
    node.apply("bare.json", json.dumps(bare))
    node.wait_status("bare", "ErrImagePull", "ImagePullBackOff")
    assert "asks for a user name and password" in node.container("bare")["state"]["waiting"]["message"]
    bare["spec"]["imagePullSecrets"] = [{"name": "old"}]
    node.apply("old.json", secret("old", "kubernetes.io/dockercfg", ".dockercfg", {HOST: ALICE}))
    (node.manifests / "bare.json").unlink()
    node.wait(lambda: node.cli("get", "pod", "bare", check=False).code != 0, "its end")
    node.apply("bare.json", json.dumps(bare))
    node.wait_status("bare", "Running")


def test_a_private_image_on_the_node_is_only_for_those_with_its_secret(registry: Registry) -> None:
    node = locked(registry)
    login = secret("pull", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", {"auths": {HOST: ALICE}})
    node.apply("pull.json", login)
    owner = yaml.safe_load(image_pod("owner", APP))
    owner["spec"]["imagePullSecrets"] = [{"name": "pull"}]
    node.apply("owner.json", json.dumps(owner))
    node.wait_status("owner", "Running")
    (record,) = (node.root / "image_manager/pulled").iterdir()
    assert "swordfish" not in record.read_text() and ALICE["auth"] not in record.read_text()
    assert list((node.root / "image_manager/pulling").iterdir()) == []

    thief = yaml.safe_load(image_pod("thief", APP))
    thief["metadata"]["namespace"] = "other"
    thief["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    never = yaml.safe_load(image_pod("never", APP))
    never["metadata"]["namespace"] = "other"
    never["spec"]["containers"][0]["imagePullPolicy"] = "Never"

    def reason(name: str) -> str:
        status = json.loads(node.cli("get", "pod", name, "-n", "other", "-o", "json").out).get("status", {})
        waiting = (status.get("containerStatuses") or [{}])[0].get("state", {}).get("waiting", {})
        return str(waiting.get("reason"))

    node.apply("thief.json", json.dumps(thief))
    node.apply("never.json", json.dumps(never))
    node.wait(lambda: reason("thief") in ("ErrImagePull", "ImagePullBackOff"), "the registry's refusal")
    node.wait(lambda: reason("never") == "ErrImageNeverPull", "no pull")
    node.restart()
    node.wait(lambda: reason("thief") in ("ErrImagePull", "ImagePullBackOff"), "the same after a restart")
    assert reason("never") == "ErrImageNeverPull"

    registry.stop()  # whoever has the Secret does not need the registry
    node.cli("delete", "pod", "owner")
    owner["metadata"]["name"] = "owner-2"
    owner["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    node.apply("owner-2.json", json.dumps(owner))
    node.wait_status("owner-2", "Running")
