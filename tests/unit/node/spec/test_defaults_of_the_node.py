"""What the node's settings make of fields that a pod does not set: no_new_privs, user namespaces, the limit of pids."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.daemon.node_config import node_config
from kubelite.node.spec.container_spec import no_new_privileges
from kubelite.node.spec.users import with_own_users
from kubelite.settings import Settings
from manifests.types.core import Container, Pod


@pytest.mark.parametrize(
    ("security", "default", "found"),
    [
        (None, False, False),
        (None, True, True),
        ({}, True, True),
        ({"allowPrivilegeEscalation": True}, True, False),
        ({"allowPrivilegeEscalation": False}, False, True),
        ({"privileged": True}, True, False),
        ({"capabilities": {"add": ["SYS_ADMIN"]}}, True, False),
        ({"capabilities": {"add": ["NET_ADMIN"]}}, True, True),
    ],
)
def test_no_new_privileges(security: dict[str, Any] | None, default: bool, found: bool) -> None:
    fields = {} if security is None else {"securityContext": security}
    container = Container.parse({"name": "c", "image": "i", **fields})
    assert no_new_privileges(container, default=default) is found


CONTAINER = {"name": "c", "image": "i"}


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({}, False),
        ({"hostUsers": True}, True),
        ({"hostUsers": False}, False),
        ({"hostNetwork": True}, None),
        ({"hostPID": True}, None),
        ({"hostIPC": True}, None),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}, None),
        ({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}, None),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, False),
        ({"containers": [{**CONTAINER, "volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]}]}, None),
        ({"containers": [{**CONTAINER, "securityContext": {"privileged": True}}]}, None),
        ({"initContainers": [{**CONTAINER, "securityContext": {"privileged": True}}]}, None),
        ({"containers": [{**CONTAINER, "securityContext": {"runAsUser": 0}}]}, False),
    ],
)
def test_user_namespaces(spec: dict[str, Any], found: bool | None) -> None:
    pod = Pod.parse({"metadata": {"name": "web"}, "spec": {"containers": [CONTAINER], **spec}})
    assert with_own_users(pod).spec.host_users is found


def test_socketcall_is_allowed_unless_the_setting_refuses_it() -> None:
    assert node_config(Settings(node_name="n")).socketcall
    assert not node_config(Settings(node_name="n", socketcall=False)).socketcall


def test_the_limit_of_pids_is_finite_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubelite.daemon.node_config._has_pids_controller", lambda: True)
    assert node_config(Settings(node_name="n")).pod_pids_limit == 4096
    assert node_config(Settings(node_name="n", pod_pids_limit=-1)).pod_pids_limit == 0
    monkeypatch.setattr("kubelite.daemon.node_config._has_pids_controller", lambda: False)
    assert node_config(Settings(node_name="n")).pod_pids_limit == 0
    assert node_config(Settings(node_name="n", pod_pids_limit=4096)).pod_pids_limit == 4096, (
        "it was asked for"
    )
