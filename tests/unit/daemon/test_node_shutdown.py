"""Node shutdown: the order of the pods, what logind is asked for, and the status of the pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.daemon.shutdown import logind as module
from kubelite.daemon.shutdown.logind import Logind, requested_delay, withdraw_delay
from kubelite.daemon.shutdown.node_shutdown import terminated_by_shutdown
from kubelite.kube.objects import CLUSTER
from kubelite.node.decide.shutdown_order import MESSAGE, group_pods, shutdown_groups
from kubelite.node.model.cri import ContainerState
from kubelite.node.model.priority import CRITICAL
from kubelite.settings import Settings, SettingsError
from manifests.types.core import Pod
from runtime.errors import RuntimeFault
from tests.logind_peer import LogindPeer
from tests.unit.node.decide.pod_worlds import UID, make_pod
from tests.unit.node.decide.test_pod_actions import NOW, decide, instance
from tests.unit.node.worker.worker_kit import Node, Run
from tests.waiting import until


def ranked(name: str, priority: int) -> Pod:
    return Pod.parse({"metadata": {"name": name}, "spec": {"containers": [], "priority": priority}})


@pytest.mark.parametrize(
    ("seconds", "critical", "groups"),
    [
        (0, 0, []),
        (30, 10, [(0, 20, ["low", "web", "almost"]), (CRITICAL, 10, ["dns", "node"])]),
        (30, 0, [(0, 30, ["low", "web", "almost"]), (CRITICAL, 0, ["dns", "node"])]),
        (30, 30, [(0, 0, ["low", "web", "almost"]), (CRITICAL, 30, ["dns", "node"])]),
    ],
)
def test_pods_are_grouped_by_priority(seconds: float, critical: float, groups: list[Any]) -> None:
    pods = [
        ranked("node", CRITICAL + 1000),
        ranked("low", -5),
        ranked("dns", CRITICAL),
        ranked("web", 0),
        ranked("almost", CRITICAL - 1),
    ]
    if not (found := shutdown_groups(seconds, critical)):
        assert groups == []
        return
    said = [
        (g.priority, g.seconds, sorted(p.metadata.name or "" for p in g.pods))
        for g in group_pods(found, pods)
    ]
    assert said == [(p, s, sorted(names)) for p, s, names in groups]
    assert [g.priority for g in group_pods(found, pods[:1])] == [CRITICAL], "a group of nobody takes no time"


def test_each_priority_has_its_grace_period() -> None:
    """Pods below the lowest priority belong to the lowest group (Kubernetes
    pkg/kubelet/nodeshutdown/nodeshutdown_manager_linux_test.go, Test_groupByPriority)."""
    found = shutdown_groups(0, 0, {100_000: 10.0, 0: 60.0, 10_000: 180.0})
    pods = [ranked(name, number) for name, number in PRIORITIES.items()]
    said = [
        (g.priority, g.seconds, sorted(p.metadata.name or "" for p in g.pods))
        for g in group_pods(found, pods)
    ]
    assert said == [
        (0, 60.0, ["below", "mid", "zero"]),
        (10_000, 180.0, ["at"]),
        (100_000, 10.0, ["above"]),
    ]


PRIORITIES = {"below": -5, "zero": 0, "mid": 9_999, "at": 10_000, "above": 2_000_000_000}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0=60s,2000000000=10s", {0: 60.0, 2_000_000_000: 10.0}),
        (
            [
                {"priority": 0, "shutdownGracePeriodSeconds": 60},
                {"priority": 100, "shutdownGracePeriodSeconds": 5},
            ],
            {0: 60.0, 100: 5.0},
        ),
    ],
)
def test_the_setting_by_priority_is_read(given: Any, wanted: dict[int, float]) -> None:
    found = Settings.model_validate({"shutdown_grace_period_by_pod_priority": given})
    assert found.shutdown_grace_period_by_pod_priority == wanted


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("KUBELITE_SHUTDOWN_GRACE_PERIOD", "cannot be set together with shutdown_grace_period:"),
        ("", "shutdown-grace-period-by-pod-priority"),
    ],
)
def test_the_setting_by_priority_excludes_the_other_two(other: str, words: str) -> None:
    given = {"KUBELITE_SHUTDOWN_GRACE_PERIOD_BY_POD_PRIORITY": "0=60s" if other else "0=long"}
    if other:
        given[other] = "30s"
    with pytest.raises(SettingsError, match=words):
        Settings.load({}, given)


def test_the_critical_pods_time_is_a_part_of_the_whole() -> None:
    given = {"KUBELITE_SHUTDOWN_GRACE_PERIOD": "30s", "KUBELITE_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS": "10s"}
    found = Settings.load({}, given)
    assert (found.shutdown_grace_period, found.shutdown_grace_period_critical_pods) == (30.0, 10.0)
    with pytest.raises(SettingsError, match="shutdown-grace-period-critical-pods"):
        Settings.load({}, {**given, "KUBELITE_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS": "31s"})


@pytest.mark.parametrize(("own", "has", "grace"), [(30, 10.0, 10.0), (5, 10.0, 5.0), (30, 0.0, 1.0)])
def test_a_pod_has_the_shorter_grace_period(own: int, has: float, grace: float) -> None:
    pod = make_pod("app", terminationGracePeriodSeconds=own)
    actions = decide(pod, instance(pod, "app"), shutdown=has)
    assert [(stop.name, stop.grace) for stop in actions.stop] == [("app", grace)]
    assert actions.failed is not None
    assert (actions.failed.reason, actions.failed.message) == ("Terminated", MESSAGE)
    dead = instance(pod, "app", ContainerState.EXITED, exit_code=143, started_at=NOW - 9, finished_at=NOW)
    assert not decide(pod, dead, shutdown=has).start, "it is not started again"


def test_the_status_of_a_pod_that_a_shutdown_terminated(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        node.worker.shutting_down = True
        node.worker.terminate_for_shutdown(UID, 5.0)
        await node.settle()
        assert (node.status["phase"], node.status["reason"]) == ("Failed", "Terminated")
        assert node.status["message"] == MESSAGE
        found = {c["type"]: c for c in node.status["conditions"]}
        assert found["DisruptionTarget"]["reason"] == "TerminationByKubelet"
        doc: dict[str, Any] = {"metadata": {}, "status": node.status}
        assert terminated_by_shutdown({**doc, "spec": {"restartPolicy": "Always"}})
        assert not terminated_by_shutdown({**doc, "spec": {"restartPolicy": "Never"}})
        bound = {"annotations": {CLUSTER: "https://127.0.0.1:6443"}}
        assert not terminated_by_shutdown({**doc, "metadata": bound, "spec": {"restartPolicy": "Always"}})

    run(story)


def test_new_pods_are_rejected_during_node_shutdown(run: Run) -> None:
    async def story(node: Node) -> None:
        node.worker.shutting_down = True
        await node.put()
        await node.settle()
        assert (node.status["phase"], node.status["reason"]) == ("Failed", "NodeShutdown")
        assert node.status["message"] == "Pod was rejected as the node is shutting down."
        assert not node.fake.containers

    run(story)


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogindPeer]:
    found = LogindPeer(tmp_path / "bus", raised=60.0)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", found.address)
    monkeypatch.setattr(module, "OVERRIDE", str(tmp_path / "logind.conf.d" / "99-kubelite.conf"))
    found.start()
    yield found
    found.close()


def test_logind_is_asked_for_a_delay_lock(peer: LogindPeer, tmp_path: Path) -> None:
    logind = Logind()
    assert logind.longest_delay() == 5.0
    logind.request_delay(30.0, "/node")
    written = (tmp_path / "logind.conf.d" / "99-kubelite.conf").read_text()
    assert written.splitlines()[1:] == ["[Login]", "InhibitDelayMaxSec=30"]
    assert ("KillUnit", ["systemd-logind.service", "all", 1]) in peer.calls
    assert logind.longest_delay() == 60.0
    assert not peer.held()
    logind.hold()
    assert peer.held()
    asked = next(body for member, body in peer.calls if member == "Inhibit")
    assert asked == ["shutdown", "kubelite", "pods terminate before the machine shuts down", "delay"]
    assert not logind.shutting_down()
    peer.prepare_for_shutdown(True)
    assert logind.take() == [True]
    peer.prepare_for_shutdown(False)
    assert logind.take() == [False]
    peer.prepare_for_shutdown(True)
    assert logind.shutting_down(), "a signal that comes before an answer is kept"
    assert logind.take() == [True]
    logind.release()
    until(lambda: not peer.held(), "the lock to be let go")
    logind.hold()
    logind.close()
    until(lambda: not peer.held(), "the second lock to be let go")


def test_a_node_withdraws_only_its_own_delay(peer: LogindPeer, tmp_path: Path) -> None:
    file = tmp_path / "logind.conf.d" / "99-kubelite.conf"
    withdraw_delay("/node")  # nothing was requested
    logind = Logind()
    logind.request_delay(30.0, "/node")
    logind.close()
    assert (requested_delay("/node"), requested_delay("/other")) == (30, None)
    withdraw_delay("/other")
    assert file.exists(), "another node of this machine has asked"
    before = len([member for member, _ in peer.calls if member == "KillUnit"])
    withdraw_delay("/node")
    assert not file.exists()
    assert len([member for member, _ in peer.calls if member == "KillUnit"]) == before + 1, (
        "logind reads again"
    )
    file.write_text("[Login]\nInhibitDelayMaxSec=90\n")
    withdraw_delay("/node")
    assert file.exists(), "a person's"


def test_the_delay_is_withdrawn_without_logind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "99-kubelite.conf"
    file.write_text("# kubelite: shutdown_grace_period of /node\n[Login]\nInhibitDelayMaxSec=30\n")
    monkeypatch.setattr(module, "OVERRIDE", str(file))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(RuntimeFault, match="No such file"):
        withdraw_delay("/node")
    assert not file.exists()


def test_a_missing_logind_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(RuntimeFault, match="No such file"):
        Logind()
