"""The rules of environment, images and security in docs/explanation/pod-semantics.md, a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kubelite.kube.expansion import expand
from kubelite.node.model.actions import PodActions, PullPhase, PullStatus
from kubelite.node.model.cri import ObservedImage
from kubelite.node.model.errors import ConfigError
from kubelite.node.spec.container_spec import (
    Prepared,
    container_spec,
    namespaces,
    process_args,
    seccomp_wanted,
)
from kubelite.node.spec.env import Sources, container_env
from kubelite.node.spec.users import ResolvedUser
from kubelite.settings import Settings
from manifests.types.defaults import default_pull_policy
from runtime.security.capability_names import DEFAULT_CAPS
from runtime.security.paths import READONLY_PATHS, masked_paths
from runtime.security.seccomp import default_profile
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, make_pod
from tests.unit.node.decide.test_pod_actions import NOW, decide
from tests.unit.node.semantics.pod_rows import SANDBOX, Row

# -- environment --------------------------------------------------------------------------------------------------


def _env(*entries: dict[str, Any], find: Mapping[str, Any] | None = None, **more: Any) -> dict[str, str]:
    pod = make_pod(container("app", env=list(entries), **more))
    sources = Sources(lambda *_: find, CONFIG, ("10.88.0.2",))
    return container_env(pod, pod.spec.containers[0], sources)


def _field(path: str) -> str:
    pod = make_pod(container("app", env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]))
    pod.metadata.labels, pod.metadata.annotations = {"a": "of label"}, {"a": "of annotation"}
    return container_env(
        pod, pod.spec.containers[0], Sources(lambda *_: None, CONFIG, ("10.88.0.2", "fd00::2"))
    )["A"]


def _resource(name: str, divisor: str) -> str:
    ref = {"resourceFieldRef": {"resource": name, "divisor": divisor}}
    return _env({"name": "A", "valueFrom": ref}, resources={"limits": {"memory": "1025Ki", PAGES: "4Mi"}})[
        "A"
    ]


def _key(**more: Any) -> dict[str, Any]:
    return {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", **more}}}


def _fault(entry: dict[str, Any], find: Mapping[str, Any] | None = None) -> str:
    try:
        return str(_env(entry, find=find))
    except ConfigError as error:
        return str(error)


PAGES = "hugepages-2Mi"
FIELDS = (
    "metadata.labels['a']",
    "metadata.annotations['a']",
    "metadata.uid",
    "spec.serviceAccountName",
    "status.podIPs",
    "status.hostIPs",
)
CONFIG_MAP = {"metadata": {"name": "c"}, "data": {"A": "map", "B": "map"}}
ENVIRONMENT = [
    Row(
        "environment",
        "$(VAR), $$, unknown, unterminated",
        lambda: [expand(t, {"A": "1"}) for t in ("$(A)", "$$(A)", "$(B)", "$(A", "$$$$A")],
        ["1", "$(A)", "$(B)", "$(A", "$$A"],
    ),
    Row("environment", "one pass", lambda: expand("$(A)", {"A": "$(B)", "B": "2"}), "$(B)"),
    Row(
        "environment",
        "earlier entries can be named, later win",
        lambda: _env(
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "A", "value": "2"}
        ),
        {"A": "2", "B": "1$(C)"},
    ),
    Row(
        "environment",
        "env overrides envFrom, prefixes",
        lambda: _env(
            {"name": "A", "value": "own"},
            find=CONFIG_MAP,
            envFrom=[{"configMapRef": {"name": "c"}}, {"prefix": "P_", "configMapRef": {"name": "c"}}],
        ),
        {"A": "own", "B": "map", "P_A": "map", "P_B": "map"},
    ),
    Row(
        "environment",
        "fieldRef",
        lambda: [
            _field(p)
            for p in ("metadata.name", "metadata.namespace", "spec.nodeName", "status.podIP", "status.hostIP")
        ],
        ["web", "default", "node", "10.88.0.2", "192.0.2.1"],
    ),
    Row("environment", "resourceFieldRef rounds up", lambda: _resource("limits.memory", "1Mi"), "2"),
    Row(
        "environment",
        "a limit that is not there is the node's allocatable",
        lambda: _resource("limits.cpu", "1"),
        "4",
    ),
    Row(
        "environment",
        "resourceFieldRef: disk and huge pages too",
        lambda: [
            _resource(f"{k}.{n}", "1Mi") for k in ("limits", "requests") for n in ("ephemeral-storage", PAGES)
        ],
        ["1048576", "4", "0", "4"],
    ),
    Row(
        "environment",
        "fieldRef: labels, annotations, uid, account and all addresses",
        lambda: [_field(path) for path in FIELDS],
        ["of label", "of annotation", UID, "default", "10.88.0.2,fd00::2", "192.0.2.1"],
    ),
    Row("environment", "what is optional and missing is left out", lambda: _env(_key(optional=True)), {}),
    Row(
        "environment",
        "what is missing is named",
        lambda: [_fault(_key()), _fault(_key(), CONFIG_MAP)],
        ['configmap "c" not found', "couldn't find key none in ConfigMap default/c"],
    ),
    Row(
        "environment",
        "command and args have the final environment",
        lambda: process_args(
            make_pod(container("app", command=["$(A)"], args=["$(B)", "$$(A)"])).spec.containers[0],
            ObservedImage("sha256:1", "app"),
            {"A": "1"},
        ),
        ["1", "$(B)", "$(A)"],
    ),
    Row("environment", "ours: no variables of services: this node has none", _env, {}),
]

# -- images, security ---------------------------------------------------------------------------------------------


CONDITIONAL = ("", "CAP_BPF", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT")


def _seccomp(cap: str) -> list[str]:
    """The system calls that the default profile allows with this capability."""
    rules = default_profile(frozenset([cap] if cap else []))["syscalls"]
    return [name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]]


MASKED = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
DOCKERS = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
]


def _pull_of(*, retry_at: float) -> PodActions:
    failed = PullStatus(PullPhase.FAILED, "ErrImagePull", "no", NOW - 9, retry_at)
    return decide(make_pod("a"), images={"app:1": None}, pulls={("a", 0): failed})


def _process(**security: Any) -> dict[str, Any]:
    pod = make_pod(container("app", securityContext=security))
    prepared = Prepared(ObservedImage("sha256:1", "app", config={"Cmd": ["x"]}), SANDBOX, "c", ResolvedUser())
    made = container_spec(
        pod, pod.spec.containers[0], replace(prepared, masked_paths=tuple(masked_paths())), CONFIG
    )
    return {**made["process"], **made["linux"]}


def _seccomp_of(number: int) -> list[str]:
    """The system calls that the default profile rejects if their first argument is this number."""
    rules = default_profile(frozenset())["syscalls"]
    return sorted(
        {
            name
            for rule in rules
            for one in rule.get("args", ())
            if one["value"] == number
            for name in rule["names"]
        }
    )


IMAGES = [
    Row(
        "images",
        "pull policies",
        lambda: [default_pull_policy(i) for i in ("a", "a:latest", "a:1", f"a@sha256:{0:064}")],
        ["Always", "Always", "IfNotPresent", "IfNotPresent"],
    ),
    Row(
        "images",
        "10 s, doubled, at most 300 s",
        lambda: (Settings().pull_backoff_initial, Settings().pull_backoff_max),
        (10.0, 300.0),
    ),
    Row(
        "images",
        "Always asks the registry though the image is here; IfNotPresent does not",
        lambda: [
            bool(decide(make_pod(container("a", imagePullPolicy=p))).pull) for p in ("Always", "IfNotPresent")
        ],
        [True, False],
    ),
    Row(
        "images",
        "the next try is not before its time, and is then made",
        lambda: [bool(_pull_of(retry_at=NOW + wait).pull) for wait in (1, 0)],
        [False, True],
    ),
]
SECURITY = [
    Row(
        "security",
        "the fourteen capabilities",
        lambda: sorted(c.removeprefix("CAP_") for c in DEFAULT_CAPS),
        DOCKERS,
    ),
    Row(
        "security",
        "masked paths",
        lambda: sorted(path for path in masked_paths() if not path.endswith("/thermal_throttle")),
        [
            *(f"/proc/{name}" for name in MASKED),
            "/sys/devices/virtual/powercap",
            "/sys/firmware",
        ],
    ),
    Row(
        "security",
        "read-only paths",
        lambda: sorted(READONLY_PATHS),
        ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    ),
    Row(
        "security",
        "seccomp: EPERM for the rest",
        lambda: default_profile(frozenset())["defaultErrnoRet"],
        errno.EPERM,
    ),
    Row(
        "security",
        "some names go with a capability",
        lambda: [
            [cap for cap in CONDITIONAL if name in _seccomp(cap)]
            for name in ("mount", "bpf", "chroot", "setns")
        ],
        [["CAP_SYS_ADMIN"], ["CAP_BPF", "CAP_SYS_ADMIN"], ["CAP_SYS_CHROOT"], ["CAP_SYS_ADMIN"]],
    ),
    Row(
        "security",
        "no sockets of AF_ALG and AF_VSOCK",
        lambda: [_seccomp_of(n) for n in (38, 40)],
        [["socket"]] * 2,
    ),
    Row(
        "security", "no new namespaces by clone without SYS_ADMIN", lambda: _seccomp_of(0x7E020000), ["clone"]
    ),
    Row(
        "security",
        "clone3 is ENOSYS without SYS_ADMIN, so that clone is tried",
        lambda: [
            rule.get("errnoRet")
            for rule in default_profile(frozenset())["syscalls"]
            if rule["names"] == ["clone3"] and rule["action"] == "SCMP_ACT_ERRNO"
        ],
        [errno.ENOSYS],
    ),
    Row(
        "security",
        "no_new_privs by allowPrivilegeEscalation: false alone",
        lambda: [_process(**s)["noNewPrivileges"] for s in ({}, {"allowPrivilegeEscalation": False})],
        [False, True],
    ),
    Row(
        "security",
        "procMount Unmasked clears both lists",
        lambda: [
            (bool(made.get("maskedPaths")), bool(made.get("readonlyPaths")))
            for made in (_process(), _process(procMount="Unmasked"))
        ],
        [(True, True), (False, False)],
    ),
    Row(
        "security",
        "RuntimeDefault without being asked, none for Unconfined and privileged",
        lambda: [
            seccomp_wanted(pod, pod.spec.containers[0]) is not None
            for security in ({}, {"seccompProfile": {"type": "Unconfined"}}, {"privileged": True})
            for pod in [make_pod(container("app", securityContext=security))]
        ],
        [True, False, False],
    ),
    Row(
        "security",
        "a namespace of its own for all but what is shared",
        lambda: sorted(
            n["type"] for n in namespaces(make_pod("app", hostNetwork=True, hostPID=True), SANDBOX)
        ),
        ["cgroup", "ipc", "mount"],
    ),
]

ROWS = [*ENVIRONMENT, *IMAGES, *SECURITY]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted


def test_every_rule_has_a_row() -> None:
    assert list(dict.fromkeys(row.rule for row in ROWS)) == ["environment", "images", "security"]
