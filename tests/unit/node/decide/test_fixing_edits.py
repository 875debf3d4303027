"""A back-off ends with the edit that mends its cause, and a debug container's image is not pulled for ever."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.model.actions import PullPhase, PullStatus
from kubelite.node.model.probe_results import Kind
from kubelite.node.spec import hashes
from tests.unit.node.decide.pod_worlds import container, edited, make_pod
from tests.unit.node.decide.test_pod_actions import EXITED, NOW, decide, instance, starts, waits

WRONG, RIGHT = {"tcpSocket": {"port": 81}}, {"tcpSocket": {"port": 80}}


@pytest.mark.parametrize(
    ("field", "killed_for", "wrong", "right"),
    [
        ("livenessProbe", Kind.LIVENESS, WRONG, RIGHT),
        ("livenessProbe", Kind.LIVENESS, WRONG, None),
        ("startupProbe", Kind.STARTUP, WRONG, RIGHT),
        (
            "lifecycle",
            "postStart",
            {"postStart": {"exec": {"command": ["false"]}}},
            {"postStart": {"exec": {"command": ["true"]}}},
        ),
    ],
)
def test_an_edit_of_what_killed_it_ends_the_back_off(
    field: str, killed_for: str, wrong: dict[str, Any], right: dict[str, Any] | None
) -> None:
    pod = make_pod(container("a", **{field: wrong}))
    known = hashes.checks_hash(pod.spec.containers[0])
    more: dict[str, Any] = {"attempt": 3, "exit_code": 137, "started_at": NOW - 5, "finished_at": NOW - 2}
    dead = instance(
        pod, "a", EXITED, stop_deadline=NOW, killed_for=killed_for, crash_count=3, checks_hash=known, **more
    )
    assert waits(decide(pod, dead)) == {"a": "CrashLoopBackOff"}
    mended = edited(pod, {"containers": [container("a", **({field: right} if right else {}))]})
    assert starts(decide(mended, dead)) == [("a", 4)]
    by_older = instance(pod, "a", EXITED, stop_deadline=NOW, killed_for=killed_for, crash_count=3, **more)
    assert waits(decide(mended, by_older)) == {"a": "CrashLoopBackOff"}, "an older version recorded no hash"
    by_itself = instance(pod, "a", EXITED, crash_count=3, checks_hash=known, **more)
    assert waits(decide(mended, by_itself)) == {"a": "CrashLoopBackOff"}, "no probe ended it"


def test_a_debug_container_s_image_is_pulled_three_times() -> None:
    pod = make_pod("a", ephemeralContainers=[{"name": "debug", "image": "gone:1"}])

    def after(failures: int, *, at: float = NOW - 60) -> Any:
        pull = PullStatus(PullPhase.FAILED, "ErrImagePull", "no such image", at, at + 10, failures)
        return decide(pod, instance(pod, "a"), pulls={("debug", 0): pull})

    assert [pull.reference for pull in after(2).pull] == ["gone:1"]
    ended = after(3)
    assert not ended.pull
    assert ended.next_look is None, "nothing happens any more"
    assert waits(ended) == {"debug": "ErrImagePull"}
    assert ended.waiting["debug"].message == (
        "no such image; no longer pulled after 3 attempts: add another debug container"
    )
    main = make_pod(container("b", image="gone:1"))
    pull = PullStatus(PullPhase.FAILED, "ErrImagePull", "no such image", NOW - 60, NOW - 50, 9)
    assert decide(main, pulls={("b", 0): pull}).pull, "any other container is pulled for as long as it takes"
