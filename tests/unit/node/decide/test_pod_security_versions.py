"""The versions of Pod Security's checks (Kubernetes pod-security-admission: MinimumVersion in policy/check_*.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kubelite.kube.pod_security import Labels, Level, Levels, PodSecurity, Policy
from kubelite.node.decide.pod_security.admission import forbidden, violations, warning
from kubelite.node.decide.pod_security.standards import BASELINE, RESTRICTED, checks
from manifests.types.core import Pod
from tests.unit.node.decide.test_pod_security import DEFAULT, UNCONFINED, hosts, make, secured

PSA = "pod-security.kubernetes.io/"
P, B, R = Level
STRICT = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "seccompProfile": DEFAULT}


def good(**spec: Any) -> Pod:
    """A pod that meets every version of `restricted`, but for `spec`."""
    return make(**{"securityContext": {"runAsNonRoot": True}, "containers": secured("c", **STRICT), **spec})


def but(**fields: Any) -> Pod:
    """The same with other fields in its container's security context; None leaves one out."""
    context = {key: value for key, value in {**STRICT, **fields}.items() if value is not None}
    return good(containers=secured("c", **context))


def sysctl(name: str) -> Pod:
    return good(securityContext={"runAsNonRoot": True, "sysctls": [{"name": name, "value": "1"}]})


def probed() -> Pod:
    container = {**secured("c", **STRICT)["c"], "livenessProbe": hosts(http="other")}
    return good(containers={"c": container})


UNMASKED = good(hostUsers=False, containers=secured("c", **STRICT, procMount="Unmasked"))
SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
# a pod, a level, and the minor versions from which and before which the pod violates it
CASES: list[tuple[str, Pod, Level, int, int | None]] = [
    ("good", good(), R, 99, None),
    ("escalation", but(allowPrivilegeEscalation=None), R, 8, None),
    ("escalation-windows", make(os={"name": "windows"}, securityContext={"runAsNonRoot": True},
        containers=secured("c", capabilities=STRICT["capabilities"], seccompProfile=DEFAULT)), R, 8, 25),
    ("capabilities", but(capabilities=None), R, 22, None),
    ("capabilities-windows", make(os={"name": "windows"}, securityContext={"runAsNonRoot": True},
        containers=secured("c", allowPrivilegeEscalation=False, seccompProfile=DEFAULT)), R, 22, 25),
    ("no-profile", but(seccompProfile=None), R, 19, None),
    ("no-profile-windows", make(os={"name": "windows"}, securityContext={"runAsNonRoot": True},
        containers=secured("c", allowPrivilegeEscalation=False, capabilities=STRICT["capabilities"])), R, 19, 25),
    ("unconfined", but(seccompProfile=UNCONFINED), B, 19, None),
    ("annotation", make({SECCOMP: "unconfined"}, containers=secured("c", **STRICT)), B, 0, 19),
    ("annotation-of-container", make({"container.seccomp.security.alpha.kubernetes.io/c": "unconfined"},
        containers=secured("c", **STRICT)), B, 0, 19),
    ("annotation-of-another", make({"container.seccomp.security.alpha.kubernetes.io/d": "unconfined"},
        containers=secured("c", **STRICT)), B, 99, None),
    ("annotation-allowed", make({SECCOMP: "docker/default"}, containers=secured("c", **STRICT)), B, 99, None),
    ("run-as-root", but(runAsUser=0), R, 23, None),
    ("run-as-root-in-user-namespace", good(hostUsers=False, containers=secured("c", **STRICT, runAsUser=0)), R, 23, 35),
    ("root", make(containers=secured("c", **STRICT)), R, 0, None),
    ("root-in-user-namespace", make(hostUsers=False, containers=secured("c", **STRICT)), R, 0, 35),
    ("proc", but(procMount="Unmasked"), B, 0, None),
    ("proc-in-user-namespace", UNMASKED, B, 0, 35),
    ("proc-restricted", UNMASKED, R, 0, None),
    ("selinux-engine", but(seLinuxOptions={"type": "container_engine_t"}), B, 0, 31),
    ("probe", probed(), B, 34, None),
    ("syncookies", sysctl("net.ipv4.tcp_syncookies"), B, 99, None),
    ("reserved-ports", sysctl("net.ipv4.ip_local_reserved_ports"), B, 0, 27),
    ("keepalive", sysctl("net.ipv4.tcp_keepalive_time"), B, 0, 29),
    ("rmem", sysctl("net.ipv4.tcp_rmem"), B, 0, 32),
    ("unsafe", sysctl("kernel.sem"), B, 0, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pod", "level", "since", "until"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_versions(pod: Pod, level: Level, since: int, until: int | None) -> None:
    found = [minor for minor in range(41) if violations(pod, Policy(level, minor))]
    assert found == list(range(since, 41 if until is None else until))
    latest = violations(pod, Policy(level))
    assert bool(latest) is (40 in found), "versions of the future are the latest"


def test_every_version_of_a_check_has_a_case() -> None:
    """Each minor version that changes a check is where some case changes."""
    changes = {one.minor for every in (BASELINE | RESTRICTED).values() for one in every} - {0}
    assert changes == {edge for *_, since, until in CASES for edge in (since, until) if edge} - {99}
    assert {
        name
        for name, every in (BASELINE | RESTRICTED).items()
        if [s.minor for s in every] != sorted({s.minor for s in every})
    } == set()
    assert checks(Policy(P)) == () and len(checks(Policy(R, 0))) < len(checks(Policy(R)))


def labels(**given: str) -> PodSecurity:
    declared: dict[str, Mapping[str, str]] = {
        "default": {f"{PSA}{key.replace('_', '-')}": value for key, value in given.items()}
    }
    return PodSecurity(declared=declared)


def test_a_label_names_the_version() -> None:
    pod = make(containers={"c": {}})
    said = forbidden(pod, labels(enforce="restricted", enforce_version="v1.7"))
    assert said == (
        'pods "web" is forbidden: violates PodSecurity "restricted:v1.7": runAsNonRoot != true (pod or container "c" '
        "must set securityContext.runAsNonRoot=true)"
    )
    assert warning(pod, labels(warn="restricted", warn_version="v1.7")).startswith(
        'would violate PodSecurity "restricted:v1.7": runAsNonRoot'
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"enforce": "baseline"}, Policy(B)),
        ({"enforce": "baseline", "enforce_version": "v1.20"}, Policy(B, 20)),
        ({"enforce": "baseline", "enforce_version": "v1.20", "warn_version": "v1.30"}, Policy(B, 30)),
        ({"enforce": "baseline", "warn": "privileged"}, Policy(P)),
        ({"enforce": "baseline", "warn": "restricted"}, Policy(R)),
        ({"enforce": "unknown"}, Policy(P)),
    ],
)
def test_a_level_to_enforce_is_warned_of(given: dict[str, str], expected: Policy) -> None:
    """PolicyToEvaluate: a workload whose pods would be refused is warned of without a label `warn`."""
    assert labels(**given).levels("default").warn == expected


def test_an_older_version_is_not_laxer_than_the_settings() -> None:
    """`Restrict`: v1.0 of `restricted` lacks checks that the latest version of `baseline` has."""
    security = replace(labels(enforce="restricted", enforce_version="v1.0"), labels=Labels.RESTRICT)
    assert security.levels("default") == Levels.of(R, R)


def test_the_labels_that_a_namespace_shows() -> None:
    security = labels(enforce="baseline", enforce_version="v1.20")
    given = security.declared["default"]
    assert security.levels("default").labels(given) == dict(given), (
        "without the level to warn of that it implies"
    )
    restricted = replace(security, labels=Labels.RESTRICT)
    assert restricted.levels("default").labels(given)[f"{PSA}enforce-version"] == "latest"
