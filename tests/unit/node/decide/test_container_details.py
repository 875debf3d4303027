"""Details in a container's status, a row for each field, and a failing resize."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.decide.container_details import mounts_of, signal_name, stop_signal, user_of, user_text
from kubelite.node.model.actions import Facts, signal_number
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedImage
from manifests.types.core import Container
from runtime.errors import RuntimeFault
from tests.unit.node.decide.pod_worlds import UID, container, make_pod
from tests.unit.node.worker.worker_kit import Node, Run

SEEN = ObservedContainer("c1", "a", 0, ContainerState.RUNNING, image="app:1")


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({"uid": 0, "gid": 0}, {"uid": 0, "gid": 0, "supplementalGroups": [0]}),
        (
            {"uid": 1000, "gid": 3000, "additionalGids": [4000, 10]},
            {"uid": 1000, "gid": 3000, "supplementalGroups": [10, 3000, 4000]},
        ),
    ],
)
def test_the_user_is_that_of_the_first_process(user: dict[str, Any], told: dict[str, Any]) -> None:
    found = user_of(replace(SEEN, user=user_text(user)))
    assert found is not None and found.to_json() == {"linux": told}
    assert user_of(SEEN) is None  # started by an older kubelite


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGRTMIN, "SIGRTMIN"),
        (signal.SIGRTMIN + 3, "SIGRTMIN+3"),
        (signal.SIGRTMAX - 2, "SIGRTMAX-2"),
        (signal.SIGRTMAX, "SIGRTMAX"),
    ],
)
def test_signals_have_kubernetes_names(number: int, name: str) -> None:
    assert signal_name(int(number)) == name and signal_number(name) == number


def test_the_stop_signal_is_the_one_that_is_sent() -> None:
    one = Container.parse({"name": "a", "image": "app:1"})
    image = ObservedImage("sha256:1", "app:1", config={"StopSignal": "SIGQUIT"})
    assert signal_name(stop_signal(one, SEEN, Facts(0.0))) == "SIGTERM"
    assert signal_name(stop_signal(one, SEEN, Facts(0.0, images={"app:1": image}))) == "SIGQUIT"
    own = Container.parse({"name": "a", "image": "app:1", "lifecycle": {"stopSignal": "SIGUSR1"}})
    assert signal_name(stop_signal(own, SEEN, Facts(0.0, images={"app:1": image}))) == "SIGUSR1"


def test_mounts_show_read_only_and_recursive_read_only() -> None:
    mounts = [
        {"name": "rw", "mountPath": "/rw"},
        {"name": "rw", "mountPath": "/ro", "readOnly": True},
        {"name": "rw", "mountPath": "/deep", "readOnly": True, "recursiveReadOnly": "IfPossible"},
        {"name": "cm", "mountPath": "/cm"},
        {"name": "im", "mountPath": "/im"},
    ]
    volumes = [
        {"name": "rw", "emptyDir": {}},
        {"name": "cm", "configMap": {"name": "c"}},
        {"name": "im", "image": {"reference": "data:1"}},
    ]
    pod = make_pod(container("a", volumeMounts=mounts), volumes=volumes)
    image = ObservedImage("sha256:2", "data:1", ("docker.io/library/data@sha256:3",))
    found = [
        m.to_json() for m in mounts_of(pod, pod.spec.containers[0], Facts(0.0, images={"data:1": image}))
    ]
    shallow = {"readOnly": True, "recursiveReadOnly": "Disabled"}
    assert found == [
        {"name": "rw", "mountPath": "/rw"},
        {"name": "rw", "mountPath": "/ro", **shallow},
        {"name": "rw", "mountPath": "/deep", "readOnly": True, "recursiveReadOnly": "Enabled"},
        {"name": "cm", "mountPath": "/cm", **shallow},
        {
            "name": "im",
            "mountPath": "/im",
            **shallow,
            "volumeStatus": {"image": {"imageRef": "docker.io/library/data@sha256:3"}},
        },
    ]


def test_a_failing_resize_is_reported_and_retried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(node: Node) -> None:
        small, big = ({"limits": {"memory": size}} for size in ("64Mi", "128Mi"))
        await node.put(container("app", resources=big), container("side"))
        await node.settle()
        state = node.state()
        assert state["user"]["linux"] == {"uid": 0, "gid": 0, "supplementalGroups": [0]}
        assert state["stopSignal"] == "SIGTERM"

        works = node.fake.update_container

        async def busy(*_: Any, **__: Any) -> None:
            raise RuntimeFault("memory.limit_in_bytes: Device or resource busy")

        monkeypatch.setattr(node.fake, "update_container", busy)
        await node.put(container("app", resources=small), container("side"))
        for _ in range(4):
            await node.worker.reconcile(UID)
        condition = next(c for c in node.status["conditions"] if c["type"] == "PodResizeInProgress")
        assert (condition["status"], condition["reason"]) == ("True", "Error")
        assert "resource busy" in condition["message"]
        assert node.state()["resources"]["limits"] == {"memory": "128Mi"}, "what its cgroup has"
        assert len(node.events.messages("ResizeError")) == 1
        assert "ResizeCompleted" not in node.events.reasons

        monkeypatch.setattr(node.fake, "update_container", works)
        await node.settle()
        assert "PodResizeInProgress" not in [c["type"] for c in node.status["conditions"]]
        assert node.state()["resources"]["limits"] == {"memory": "64Mi"}
        (message,) = node.events.messages("ResizeCompleted")
        assert message.startswith('Pod resize completed: {"containers":[{"name":"app","resources":')
        (message,) = node.events.messages("ResizeStarted")
        assert message.startswith('Pod resize started: {"containers":[{"name":"app","resources":')

    run(story)


def test_a_failing_resize_of_the_pod_delays_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(node: Node) -> None:
        small, big = ({"limits": {"memory": size}} for size in ("64Mi", "128Mi"))
        await node.put(container("app", resources=big))
        await node.settle()
        works = node.fake.update_sandbox

        async def used(*_: Any, **__: Any) -> None:
            raise RuntimeFault("attempting to set pod memory limit (67108864) below current usage (99614720)")

        monkeypatch.setattr(node.fake, "update_sandbox", used)
        await node.put(container("app", resources=small))
        for _ in range(4):
            await node.worker.reconcile(UID)
        assert [decided.what for decided in node.decided][-2:] == [
            "update the pod's limits in place; update the limits of container app in place",
            "update the pod's limits in place",
        ], "said once, tried each time"
        condition = next(c for c in node.status["conditions"] if c["type"] == "PodResizeInProgress")
        assert (condition["status"], condition["reason"]) == ("True", "Error")
        assert condition["message"].startswith("pod: attempting to set pod memory limit")
        assert len(node.events.messages("ResizeError")) == 1
        assert node.state()["resources"]["limits"] == {"memory": "64Mi"}, "the container's own took"

        monkeypatch.setattr(node.fake, "update_sandbox", works)
        await node.settle()
        assert "PodResizeInProgress" not in [c["type"] for c in node.status["conditions"]]

    run(story)
