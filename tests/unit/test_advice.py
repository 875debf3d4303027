"""Each reason that keeps a pod from running has words on what to do next, with the pod's own names in them."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.telemetry.advice import CONTAINER, POD, advice


def pod(state: dict[str, Any], last: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    container = {"name": "app", "state": state, "lastState": last or {}}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "nginx:1"}]},
        "status": {"containerStatuses": [container], **status},
    }


@pytest.mark.parametrize("reason", sorted(CONTAINER))
def test_every_reason_of_a_container(reason: str) -> None:
    kind = "terminated" if reason in ("OOMKilled", "Error", "StartError", "Unknown") else "waiting"
    (sentence,) = advice(pod({kind: {"reason": reason}}))
    assert sentence.startswith("app: ")
    assert "{" not in sentence
    words = ("kubelite ", "imagePullPolicy", "spec.", "resources.", "command", "network", "nothing to do")
    assert any(word in sentence for word in words)


@pytest.mark.parametrize("reason", sorted(POD))
def test_every_reason_of_a_pod(reason: str) -> None:
    assert advice(pod({"running": {}}, reason=reason)) == [POD[reason]]


@pytest.mark.parametrize(
    "reason",
    (
        *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"),
        *("RegistryUnavailable", "SignatureValidationFailed", "PreCreateHookError", "PreStartHookError"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
        *(
            "PostStartHookError",
            "CrashLoopBackOff",
            "OOMKilled",
            "Error",
            "StartError",
            "ContainerStatusUnknown",
        ),
    ),
)
def test_kubelets_reasons_are_known(reason: str) -> None:
    assert reason in CONTAINER


def test_a_crash_loop_says_why_it_ended_too() -> None:
    found = advice(pod({"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"reason": "OOMKilled"}}))
    assert found[0] == "app: it keeps ending: kubelite logs web -c app --previous"
    assert "resources.limits.memory" in found[1]


def test_another_namespace_is_in_the_command() -> None:
    doc = pod({"waiting": {"reason": "CrashLoopBackOff"}})
    doc["metadata"]["namespace"] = "shop"
    assert advice(doc) == ["app: it keeps ending: kubelite logs web -n shop -c app --previous"]


@pytest.mark.parametrize(
    "state",
    (
        {"running": {}},
        {"waiting": {"reason": "ContainerCreating"}},
        {"terminated": {"reason": "Completed"}},
        {},
    ),
)
def test_a_pod_that_is_well_needs_none(state: dict[str, Any]) -> None:
    assert advice(pod(state, {"terminated": {"reason": "Error"}})) == []


def test_an_unknown_reason_is_not_kept_quiet() -> None:
    assert advice(pod({"waiting": {"reason": "Odd"}})) == ["app: Odd: kubelite describe pod web"]
