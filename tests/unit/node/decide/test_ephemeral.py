"""Ephemeral containers: validation, decision and status."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from kubelite.api.kube.ephemeral import by_name
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.model.actions import Facts
from kubelite.node.model.cri import ContainerState, ObservedPod
from kubelite.node.model.ephemeral import changed, ephemeral_containers, target_of
from kubelite.sources.plan import merged
from manifests.problems import InvalidObject
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, make_pod
from tests.unit.node.decide.test_pod_actions import NOW, decide, instance, sandbox, starts


def doc(*added: dict[str, Any]) -> dict[str, Any]:
    found = make_pod(container("app"), container("side")).to_json()
    found["spec"]["ephemeralContainers"] = list(added)
    return found


DEBUG = {"name": "debug", "image": "app:1", "targetContainerName": "app"}


def test_an_ephemeral_container_is_added_with_defaults_and_a_new_generation() -> None:
    found = changed(doc(), [DEBUG])
    added = found["spec"]["ephemeralContainers"][0]
    assert added["imagePullPolicy"] == "IfNotPresent"
    assert added["terminationMessagePath"] == "/dev/termination-log"
    assert found["metadata"]["generation"] == doc()["metadata"].get("generation", 1) + 1
    again = changed(found, found["spec"]["ephemeralContainers"])
    assert again["metadata"]["generation"] == found["metadata"]["generation"]
    pod = Pod.parse(found)
    assert [c.name for c in ephemeral_containers(pod)] == ["debug"]
    assert target_of(pod, "debug") == "app"
    assert target_of(pod, "app") == ""


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([{"name": "app", "image": "b"}], 'ephemeralContainers[0].name: Duplicate value: "app"'),
        ([{"name": "d", "image": "b"}, {"name": "d", "image": "b"}], "[1].name: Duplicate value"),
        ([{"name": "d"}], "[0].image: Required value"),
        ([{"name": "D_", "image": "b"}], "[0].name: Invalid value"),
        ([{"name": "d", "image": "b", "ports": [{"containerPort": 1}]}], "[0].ports: Forbidden"),
        ([{"name": "d", "image": "b", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}], "lifecycle: Forbidden"),
        ([{"name": "d", "image": "b", "resources": {"limits": {"cpu": "1"}}}], "[0].resources: Forbidden"),
        ([{"name": "d", "image": "b", "targetContainerName": "no"}], "targetContainerName: Not found"),
    ],
)  # fmt: skip
def test_invalid_fields_of_ephemeral_containers(wanted: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InvalidObject, match=re.escape(said)):
        changed(doc(), wanted)


def test_existing_ephemeral_containers_cannot_change() -> None:
    before = changed(doc(), [DEBUG])
    there = before["spec"]["ephemeralContainers"][0]
    with pytest.raises(InvalidObject, match="may not be removed"):
        changed(before, [])
    with pytest.raises(InvalidObject, match="may not be changed"):
        changed(before, [{**there, "image": "other"}])
    with_default = [{**there, "resources": {}}]  # as the API returns it
    assert changed(before, with_default)["spec"] == before["spec"]
    stored = {**before, "spec": {**before["spec"], "ephemeralContainers": with_default}}
    assert [
        c["name"]
        for c in changed(stored, [*with_default, {**DEBUG, "name": "b"}])["spec"]["ephemeralContainers"]
    ] == [
        "debug",
        "b",
    ]
    edited = merged(before, {**doc(), "metadata": {"name": "web"}}, "f.yaml")
    assert edited is not None
    assert edited["spec"]["ephemeralContainers"] == [there], "an edit of the manifest leaves it"


def test_a_strategic_merge_patch_merges_by_name() -> None:
    assert by_name([{"name": "a", "image": "x"}], [{"name": "b"}, {"name": "a", "tty": True}]) == [
        {"name": "a", "image": "x", "tty": True},
        {"name": "b"},
    ]
    assert by_name([{"name": "a"}], [{"name": "a", "$patch": "delete"}]) == []


def test_an_ephemeral_container_is_started_once() -> None:
    pod = Pod.parse(changed(doc(), [DEBUG]))
    app, side = instance(pod, "app"), instance(pod, "side")
    actions = decide(pod, app, side)
    assert starts(actions) == [("debug", 0)]
    assert not actions.stop
    ended = replace(app, id="d", name="debug", state=ContainerState.EXITED, exit_code=3, finished_at=NOW)
    observed = ObservedPod(UID, sandbox(pod), (app, side, ended))
    actions = decide(pod, app, side, ended)
    assert not actions.effects
    status = compute_pod_status(pod, observed, actions, Facts(NOW), CONFIG)
    (said,) = status.ephemeral_container_statuses
    assert said.state is not None
    assert said.state.terminated is not None
    assert said.state.terminated.exit_code == 3
    assert status.phase == "Running"


def test_an_ephemeral_container_waits_for_its_target() -> None:
    pod = Pod.parse(changed(doc(), [DEBUG]))
    actions = decide(pod, instance(pod, "side"))
    assert "debug" not in dict(starts(actions))
    assert actions.waiting["debug"].message == "its target app is not running"
