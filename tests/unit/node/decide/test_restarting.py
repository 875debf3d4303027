"""Restarts for other reasons than a container's exit: the rule RestartAllContainers, changed content, annotations. Also
sysctls and env files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.decide.back_off import crash_back_off
from kubelite.node.decide.pod_rules import RESTART_ON_CHANGE, rule_for, should_restart
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.decide.sysctls import forbidden, normal
from kubelite.node.decide.unsupported import blocked_containers, unsupported_fields
from kubelite.node.model.actions import Facts, Hook
from kubelite.node.model.cri import ObservedPod
from kubelite.node.model.node_config import BackOff
from kubelite.node.spec import lsm
from kubelite.node.spec.env import content_hash, env_file
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, make_pod
from tests.unit.node.decide.test_pod_actions import (
    EXITED,
    NONE,
    NOW,
    decide,
    instance,
    sandbox,
    starts,
    waits,
)


def rule(action: str, *codes: int, operator: str = "In") -> dict[str, Any]:
    return {"action": action, "exitCodes": {"operator": operator, "values": list(codes)}}


ALL = {"restartPolicy": "Never", "restartPolicyRules": [rule("Restart", 3), rule("RestartAllContainers", 88)]}


def test_the_first_matching_rule_decides() -> None:
    pod = make_pod(container("a", **ALL), restartPolicy="Never")
    (one,) = pod.spec.containers
    assert [rule_for(one, code) for code in (3, 88, 1)] == ["Restart", "RestartAllContainers", ""]
    assert [should_restart(pod, one, code) for code in (3, 88, 1, 0)] == [True, True, False, False]


def test_restart_all_kills_and_removes_all_containers_and_starts_over() -> None:
    pod = make_pod(container("a", **ALL), "b", initContainers=[container("i")], restartPolicy="Never")
    done = instance(pod, "i", EXITED)
    trigger = instance(pod, "a", EXITED, exit_code=88)
    beside = instance(pod, "b")
    actions = decide(pod, done, trigger, beside)
    assert [(s.name, s.signal, s.grace, s.pre_stop) for s in actions.stop] == [("b", 9, 0.0, 0.0)]
    assert not actions.start
    assert not actions.remove
    killed = replace(beside, state=EXITED, exit_code=137, stop_deadline=NOW, finished_at=NOW)
    actions = decide(pod, done, trigger, killed)
    assert {r.name for r in actions.remove} == {"i", "a", "b"}
    assert not actions.kill_sandbox
    status = compute_pod_status(
        pod, ObservedPod(UID, sandbox(pod), (done, trigger, killed)), actions, Facts(NOW), CONFIG
    )
    assert status.phase == "Running"
    pod = pod.model_copy(update={"status": status})
    actions = decide(pod)
    assert starts(actions) == [("i", 1)], "init containers run again, under the next number"
    again = instance(pod, "i", EXITED, attempt=1)
    assert starts(decide(pod, again)) == [("a", 1), ("b", 1)]


def test_restart_all_backs_off() -> None:
    pod = make_pod(container("a", **ALL), "b", restartPolicy="Never")
    actions = decide(pod, instance(pod, "a", EXITED, attempt=2, exit_code=88), instance(pod, "b", attempt=2))
    assert waits(actions)["a"] == "CrashLoopBackOff"
    assert not actions.stop
    assert actions.next_look == NOW + CONFIG.crash_back_off.wait(2)


def annotated(pod: Pod, **annotations: str) -> Pod:
    found = pod.model_copy(deep=True)
    found.metadata.annotations |= {
        f"kubelite.io/{key.replace('_', '-')}": v for key, v in annotations.items()
    }
    return found


@pytest.mark.parametrize(
    ("annotations", "found", "said"),
    [
        ({}, BackOff(10, 300), 0),
        ({"crash_back_off_initial": "1s"}, BackOff(1, 300), 0),
        ({"crash_back_off_max": "1m30s"}, BackOff(10, 90), 0),
        ({"crash_back_off_initial": "2", "crash_back_off_max": "8s"}, BackOff(2, 8), 0),
        ({"crash_back_off_max": "soon"}, BackOff(10, 300), 1),
        ({"crash_back_off_max": "0s"}, BackOff(10, 300), 1),
    ],
)
def test_annotations_set_a_pods_back_off(annotations: dict[str, str], found: BackOff, said: int) -> None:
    pod = annotated(make_pod("a"), **annotations)
    assert crash_back_off(pod, BackOff(10, 300)) == found
    assert len(unsupported_fields(pod)) == said


def test_changed_content_restarts_containers_of_annotated_pods() -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]
    pod = annotated(make_pod(container("a", env=env), "b"), restart_on_change="true")
    assert RESTART_ON_CHANGE in pod.metadata.annotations
    stale = replace(instance(pod, "a"), content_hash="old")
    fresh = replace(instance(pod, "b"), content_hash="same")
    now = {"a": "new", "b": "same"}
    assert [s.name for s in decide(pod, stale, fresh, content=now).stop] == ["a"]
    assert not decide(pod, instance(pod, "a"), fresh, content=now).stop, "it was started before anybody asked"
    assert not decide(pod, stale, fresh).stop


def test_the_content_hash_covers_what_the_container_uses() -> None:
    volumes = [
        {"name": "v", "secret": {"secretName": "s"}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "in-p"}}]}},
        {"name": "other", "configMap": {"name": "not-mounted"}},
    ]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("v", "p")]
    sources = [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "t"}}]
    pod = make_pod(container("a", volumeMounts=mounts, envFrom=sources), volumes=volumes)
    content: dict[str, str] = {}

    def find(kind: str, _namespace: str, name: str) -> dict[str, Any] | None:
        return {"data": {"k": content[name]}} if name in content else None

    seen = {content_hash(pod, pod.spec.containers[0], find)}
    for name in ("s", "in-p", "c", "t"):
        content[name] = "x"
        digest = content_hash(pod, pod.spec.containers[0], find)
        assert digest not in seen
        seen.add(digest)
    content["not-mounted"] = "x"
    assert content_hash(pod, pod.spec.containers[0], find) in seen


@pytest.mark.parametrize(
    ("names", "allowed", "bad"),
    [
        (["net.ipv4.tcp_syncookies", "kernel.shm_rmid_forced"], (), ""),
        (["net/ipv4/tcp_syncookies"], (), ""),
        (["net.core.somaxconn"], (), "net.core.somaxconn"),
        (["net.core.somaxconn"], ("net.core.somaxconn",), ""),
        (["kernel.msgmax", "kernel.sem"], ("kernel.msg*",), "kernel.sem"),
        (["net.ipv4.conf.eth0/1.forwarding"], ("net.ipv4.conf.*",), ""),
    ],
)
def test_safe_and_allowed_sysctls(names: list[str], allowed: tuple[str, ...], bad: str) -> None:
    pod = make_pod("a", securityContext={"sysctls": [{"name": name, "value": "1"} for name in names]})
    assert forbidden(pod, allowed) == (
        f'Pod is rejected: forbidden sysctl: "{bad}" not allowlisted' if bad else ""
    )


def test_a_forbidden_sysctl_rejects_the_pod_at_its_admission_only() -> None:
    pod = make_pod("a", securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})
    failed = decide(pod, box=NONE).failed
    assert failed is not None
    assert failed.reason == "SysctlForbidden"
    assert decide(pod, instance(pod, "a")).failed is None, "what runs already is left"
    assert normal("kernel/shm_rmid_forced") == "kernel.shm_rmid_forced"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A='1'\n\n# no\n  B = 'two words' # more\nA='3'", {"A": "3", "B": "two words"}),
        ("A='first\nsecond'\nB=''", {"A": "first\nsecond", "B": ""}),
        ("A='$B \\n'", {"A": "$B \\n"}),
    ],
)
def test_env_files(text: str, found: dict[str, str]) -> None:
    assert env_file(text) == found


@pytest.mark.parametrize("text", ["A=1", "='x'", "A='1", "A='1' 2", "just words"])
def test_invalid_env_files(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        env_file(text)


def test_stop_signal_of_the_manifest_wins() -> None:
    pod = make_pod(container("a", lifecycle={"stopSignal": "SIGUSR1"}), os={"name": "linux"})
    edited = replace(instance(pod, "a"), spec_hash="other")
    assert [s.signal for s in decide(pod, edited).stop] == [10]
    assert Hook.PRE_STOP  # no hook: the signal is sent at once


@pytest.mark.parametrize(
    ("source", "blocks"),
    [
        ({"podCertificate": {"keyType": "ED25519", "signerName": "a/b"}}, True),
    ],
)
def test_fields_that_need_a_cluster_are_reported(source: dict[str, Any], blocks: bool) -> None:
    volume = {"name": "v", "projected": {"sources": [source]}}
    pod = make_pod(container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=[volume])
    (found,) = unsupported_fields(pod)
    assert found.path == f"spec.volumes[0].projected.sources[0].{next(iter(source))}"
    assert found.blocks is blocks
    assert bool(blocked_containers(pod)) is blocks


def test_security_modules_are_used_if_the_kernel_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"},
        "seLinuxOptions": {"type": "spc_t", "level": "s0:c1"},
    }
    for there in (False, True):
        pod = make_pod(container("a", securityContext=own))
        monkeypatch.setattr(lsm, "apparmor", lambda there=there: there)
        monkeypatch.setattr(lsm, "selinux", lambda there=there: there)
        labels = {"apparmorProfile": "mine", "selinuxLabel": "system_u:system_r:spc_t:s0:c1"} if there else {}
        assert lsm.process_labels(pod, pod.spec.containers[0], privileged=False) == labels
        assert bool(blocked_containers(pod)) is not there
        assert any(f.path.endswith("seLinuxOptions") for f in unsupported_fields(pod))


@pytest.mark.parametrize(
    ("of_pod", "of_container", "privileged", "expected"),
    [
        ("", "", False, "kubelite-default"),
        ("RuntimeDefault", "", False, "kubelite-default"),
        ("", "RuntimeDefault", False, "kubelite-default"),
        ("Unconfined", "", False, "unconfined"),
        ("Unconfined", "RuntimeDefault", False, "kubelite-default"),
        ("RuntimeDefault", "Unconfined", False, "unconfined"),
        ("Localhost", "", False, "mine"),
        ("Localhost", "", True, "mine"),
        ("", "", True, None),
        ("", "RuntimeDefault", True, None),
    ],
)
def test_the_apparmor_profile_of_a_container(
    of_pod: str, of_container: str, privileged: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """containerd's rules (generateApparmorSpecOpts); the container's field replaces the pod's."""

    def context(kind: str) -> dict[str, Any]:
        named = {"localhostProfile": "mine"} if kind == "Localhost" else {}
        return {"appArmorProfile": {"type": kind, **named}} if kind else {}

    own = {**context(of_container), "privileged": privileged}
    pod = make_pod(container("a", securityContext=own), securityContext=context(of_pod))
    monkeypatch.setattr(lsm, "apparmor", lambda: True)
    for loaded in (lsm.DEFAULT_PROFILE, ""):
        monkeypatch.setattr(lsm, "default_profile", lambda loaded=loaded: loaded)
        there = expected if loaded or expected != lsm.DEFAULT_PROFILE else None
        labels = lsm.process_labels(pod, pod.spec.containers[0], privileged=privileged)
        assert labels == ({"apparmorProfile": there} if there else {})
    monkeypatch.setattr(lsm, "apparmor", lambda: False)
    assert lsm.process_labels(pod, pod.spec.containers[0], privileged=privileged) == {}


def test_a_container_waits_for_a_default_profile_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = make_pod(
        container("a", securityContext={"appArmorProfile": {"type": "RuntimeDefault"}}), container("b")
    )
    monkeypatch.setattr(lsm, "apparmor", lambda: True)
    monkeypatch.setattr(lsm, "default_profile", lambda: "")
    path = "spec.containers[0].securityContext.appArmorProfile"
    assert blocked_containers(pod) == {
        "a": f"{path}: the default AppArmor profile is not loaded; kubelite doctor says why"
    }
