"""What the API server fills in."""

from typing import Any

import pytest

from manifests.types.annotations import APPARMOR
from manifests.types.core import Pod, Secret
from manifests.types.defaults import (
    aggregate_requests,
    default_parsed,
    default_pod,
    default_pull_policy,
    default_secret,
)
from manifests.validation.objects import validate_pod


def pod(*, container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    containers = [{"name": "c", "image": "nginx", **(container or {})}]
    return Pod.parse(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": containers, **spec},
        }
    )


def test_a_parsed_pod_gets_the_same_defaults_without_a_copy() -> None:
    parsed = pod(container={"ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}})
    copied = default_pod(parsed)
    assert parsed.spec.restart_policy is None
    assert default_parsed(parsed) is parsed
    assert parsed == copied


def test_a_bare_pod() -> None:
    """Field by field the result of `kubectl apply --dry-run=server`, except for what admission adds."""
    assert default_pod(pod()).to_json() == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "nginx",
                    "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    }


def test_what_is_written_stays() -> None:
    given = pod(
        container={"imagePullPolicy": "Never", "terminationMessagePath": "/t"},
        restartPolicy="Never",
        terminationGracePeriodSeconds=0,
        enableServiceLinks=False,
        dnsPolicy="Default",
    )
    done = default_pod(given).to_json()["spec"]
    for name, value in given.to_json()["spec"].items():
        if name != "containers":
            assert done[name] == value
    assert done["containers"][0]["imagePullPolicy"] == "Never"


def test_the_given_pod_is_not_changed_and_twice_is_as_once() -> None:
    given = pod(volumes=[{"name": "v"}], container={"ports": [{"containerPort": 80}]})
    before = given.to_json()
    once = default_pod(given)
    assert given.to_json() == before
    assert default_pod(once).to_json() == once.to_json()


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
        ("nginx:latest@sha256:" + "0" * 64, "Always"),
        ("nginx:1.27@sha256:" + "0" * 64, "IfNotPresent"),
        ("", "Always"),
        (None, "Always"),
    ],
)
def test_pull_policy(image: str | None, policy: str) -> None:
    assert default_pull_policy(image) == policy


def test_requests_default_to_limits_and_amounts_round_up() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1.5Gi"}, "requests": {"cpu": "0.0001"}}
    done = default_pod(pod(container={"resources": resources})).spec.containers[0].resources
    assert done is not None
    assert done.to_json() == {
        "limits": {"cpu": "1", "memory": "1536Mi"},
        "requests": {"cpu": "1m", "memory": "1536Mi"},
    }


def test_ports_on_the_hosts_network_are_its_own() -> None:
    ports = [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]
    done = default_pod(pod(hostNetwork=True, container={"ports": ports})).spec.containers[0].ports
    assert [(port.host_port, port.protocol) for port in done] == [(80, "TCP"), (53, "UDP")]
    done = default_pod(pod(container={"ports": ports})).spec.containers[0].ports
    assert [port.host_port for port in done] == [None, None]


def test_probes() -> None:
    container = {
        "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 3},
        "lifecycle": {"preStop": {"httpGet": {"port": "x", "path": "/stop"}}},
    }
    done = default_pod(pod(container=container)).spec.containers[0].to_json()
    assert done["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 3,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert done["lifecycle"]["preStop"]["httpGet"] == {"port": "x", "path": "/stop", "scheme": "HTTP"}


def test_volumes() -> None:
    volumes = [
        {"name": "nothing"},
        {"name": "cm", "configMap": {"name": "x"}},
        {"name": "s", "secret": {"secretName": "x", "defaultMode": 0}},
        {"name": "h", "hostPath": {"path": "/"}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"name": "d", "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    done = {
        volume["name"]: volume for volume in default_pod(pod(volumes=volumes)).to_json()["spec"]["volumes"]
    }
    assert done["nothing"] == {"name": "nothing", "emptyDir": {}}
    assert done["cm"]["configMap"]["defaultMode"] == 0o644
    assert done["s"]["secret"]["defaultMode"] == 0
    assert done["h"]["hostPath"] == {"path": "/", "type": ""}
    assert done["p"]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
    assert done["d"]["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"] == "v1"


def test_the_pods_own_resources() -> None:
    asked = {"resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}
    done = default_pod(pod(container=asked, resources={"limits": {"cpu": "1"}}))
    assert done.spec.resources is not None
    assert done.spec.resources.to_json() == {
        "limits": {"cpu": "1"},
        "requests": {"cpu": "100m", "memory": "1Mi"},
    }
    assert default_pod(pod(container=asked)).spec.resources is None
    assert not validate_pod(done)


def test_what_containers_ask_for_together() -> None:
    def init(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}, **more}

    asked = {"resources": {"requests": {"cpu": "300m"}}}
    inits = [init("a", "1"), init("side", "200m", restartPolicy="Always"), init("b", "500m")]
    assert str(aggregate_requests(pod(container=asked, initContainers=inits).spec)["cpu"]) == "1"
    inits[0] = init("a", "100m")
    assert str(aggregate_requests(pod(container=asked, initContainers=inits).spec)["cpu"]) == "700m"
    assert str(aggregate_requests(pod(container=asked, initContainers=inits[:2]).spec)["cpu"]) == "500m"


def test_service_account_names_are_one() -> None:
    assert default_pod(pod(serviceAccount="a")).spec.service_account_name == "a"
    assert default_pod(pod(serviceAccountName="b")).spec.service_account == "b"


def test_plain_text_wins_over_data_in_a_secret() -> None:
    given = Secret.parse(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "data": {"a": "eA=="},
            "stringData": {"a": "hi"},
        }
    )
    done = default_secret(given)
    assert done.to_json()["data"] == {"a": "aGk="}
    assert "stringData" not in done.to_json()
    assert given.string_data == {"a": "hi"}


@pytest.mark.parametrize(
    ("annotation", "field", "wanted"),
    [
        ("localhost/mine", None, {"type": "Localhost", "localhostProfile": "mine"}),
        ("runtime/default", None, {"type": "RuntimeDefault"}),
        ("unconfined", None, {"type": "Unconfined"}),
        ("", None, None),
        ("localhost/", None, None),
        ("unconfined", {"type": "RuntimeDefault"}, {"type": "RuntimeDefault"}),
    ],
)
def test_an_annotation_of_apparmor_is_the_field_where_that_says_nothing(
    annotation: str, field: Any, wanted: Any
) -> None:
    given = pod(container={"securityContext": {"appArmorProfile": field}} if field else {})
    given.metadata.annotations = {f"{APPARMOR}c": annotation, f"{APPARMOR}i": "unconfined"}
    given.spec.init_containers = [given.spec.containers[0].model_copy(update={"name": "i"}, deep=True)]
    spec = default_pod(given).to_json()["spec"]
    (first,), (main,) = spec["initContainers"], spec["containers"]
    assert main.get("securityContext", {}).get("appArmorProfile") == wanted
    assert first["securityContext"]["appArmorProfile"] == (field or {"type": "Unconfined"})
