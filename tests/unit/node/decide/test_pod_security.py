"""The checks of Pod Security admission, with Kubernetes' own cases (pod-security-admission, policy/check_*_test.go)."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.decide.pod_security.standards import BASELINE, RESTRICTED
from manifests.types.core import Pod


def make(annotations: dict[str, str] | None = None, **spec: Any) -> Pod:
    """A pod, with containers given as name=fields."""
    containers = spec.pop("containers", {})
    every = [{"name": name, "image": "i", **fields} for name, fields in containers.items()]
    inits = [{"name": name, "image": "i", **fields} for name, fields in spec.pop("inits", {}).items()]
    metadata = {"name": "web", "namespace": "default", "annotations": annotations or {}}
    return Pod.parse({"metadata": metadata, "spec": {"containers": every, "initContainers": inits, **spec}})


def secured(*names: str, **fields: Any) -> dict[str, Any]:
    return {name: {"securityContext": fields} for name in names}


def hosts(*, http: str = "", tcp: str = "") -> dict[str, Any]:
    return {"httpGet": {"port": 1, "host": http}} if http else {"tcpSocket": {"port": 1, "host": tcp}}


ARMOR = "container.apparmor.security.beta.kubernetes.io/"
UNCONFINED = {"type": "Unconfined"}
DEFAULT = {"type": "RuntimeDefault"}
KINDS = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "rbd",
    "flexVolume", "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte", "azureDisk",
    "photonPersistentDisk", "portworxVolume", "scaleIO", "storageos",
)  # fmt: skip
SOURCES: dict[str, Any] = {
    "hostPath": {"path": "/x"}, "gcePersistentDisk": {"pdName": "x"}, "awsElasticBlockStore": {"volumeID": "x"},
    "gitRepo": {"repository": "x"}, "nfs": {"server": "x", "path": "/"},
    "iscsi": {"targetPortal": "x", "iqn": "x", "lun": 0}, "glusterfs": {"endpoints": "x", "path": "x"},
    "rbd": {"monitors": ["x"], "image": "x"}, "flexVolume": {"driver": "x"}, "cinder": {"volumeID": "x"},
    "cephfs": {"monitors": ["x"]}, "azureFile": {"secretName": "x", "shareName": "x"},
    "vsphereVolume": {"volumePath": "x"}, "quobyte": {"registry": "x", "volume": "x"},
    "azureDisk": {"diskName": "x", "diskURI": "x"}, "photonPersistentDisk": {"pdID": "x"},
    "portworxVolume": {"volumeID": "x"}, "scaleIO": {"gateway": "x", "system": "x", "secretRef": {"name": "x"}},
}  # fmt: skip
ALLOWED: dict[str, Any] = {
    "emptyDir": {}, "secret": {"secretName": "x"}, "persistentVolumeClaim": {"claimName": "x"},
    "downwardAPI": {"items": []}, "configMap": {"name": "x"}, "projected": {"sources": []},
    "csi": {"driver": "x"}, "ephemeral": {"volumeClaimTemplate": {"spec": {}}}, "image": {"reference": "x"},
}  # fmt: skip
VOLUMES = [
    *({"name": f"a{number}", kind: source} for number, (kind, source) in enumerate(ALLOWED.items(), 1)),
    *({"name": f"b{number}", kind: SOURCES.get(kind, {})} for number, kind in enumerate(KINDS, 1)),
    {"name": "c1"},
]

CASES: list[tuple[str, Pod, tuple[str, str] | None]] = [
    (
        "allowPrivilegeEscalation",
        make(
            containers={"a": {}, "b": {"securityContext": {}}}
            | secured("c", allowPrivilegeEscalation=True)
            | secured("d", allowPrivilegeEscalation=False)
        ),
        (
            "allowPrivilegeEscalation != false",
            'containers "a", "b", "c" must set securityContext.allowPrivilegeEscalation=false',
        ),
    ),
    ("appArmorProfile", make({f"{ARMOR}test": "runtime/default", "env": "prod"}), None),
    ("appArmorProfile", make({f"{ARMOR}test": "localhost/sec-profile01"}), None),
    ("appArmorProfile", make(securityContext={"appArmorProfile": DEFAULT}), None),
    ("appArmorProfile", make(containers=secured("foo", appArmorProfile=DEFAULT)), None),
    (
        "appArmorProfile",
        make(securityContext={"appArmorProfile": UNCONFINED}),
        ("forbidden AppArmor profile", 'pod must not set AppArmor profile type to "Unconfined"'),
    ),
    (
        "appArmorProfile",
        make(containers=secured("foo", appArmorProfile=UNCONFINED)),
        ("forbidden AppArmor profile", 'container "foo" must not set AppArmor profile type to "Unconfined"'),
    ),
    (
        "appArmorProfile",
        make(containers={"foo": {}}, inits=secured("bar", appArmorProfile=UNCONFINED)),
        ("forbidden AppArmor profile", 'container "bar" must not set AppArmor profile type to "Unconfined"'),
    ),
    (
        "appArmorProfile",
        make(
            {
                ARMOR: "bogus", f"{ARMOR}a": "", f"{ARMOR}b": "runtime/default", f"{ARMOR}c": "localhost/",
                f"{ARMOR}d": "localhost/foo", f"{ARMOR}e": "unconfined", f"{ARMOR}f": "unknown",
            }
        ),
        (
            "forbidden AppArmor profiles",
            "annotations must not set AppArmor profile type to "
            f'"{ARMOR}="bogus"", "{ARMOR}e="unconfined"", "{ARMOR}f="unknown""',
        ),
    ),
    (
        "capabilities_baseline",
        make(
            containers=secured("a", capabilities={"add": ["FOO", "BAR"]})
            | secured("b", capabilities={"add": ["BAR", "BAZ"]})
        ),
        (
            "non-default capabilities",
            'containers "a", "b" must not include "BAR", "BAZ", "FOO" in securityContext.capabilities.add',
        ),
    ),
    (
        "capabilities_restricted",
        make(
            containers=secured("a", capabilities={"add": ["FOO", "BAR"]})
            | secured("b", capabilities={"add": ["BAR", "BAZ"]})
            | secured("c", capabilities={"add": ["NET_BIND_SERVICE", "CHOWN"], "drop": ["ALL", "FOO"]})
        ),
        (
            "unrestricted capabilities",
            'containers "a", "b" must set securityContext.capabilities.drop=["ALL"]; containers "a", "b", "c" must not '
            'include "BAR", "BAZ", "CHOWN", "FOO" in securityContext.capabilities.add',
        ),
    ),
    (
        "hostNamespaces",
        make(hostNetwork=True, hostIPC=True, hostPID=True),
        ("host namespaces", "hostNetwork=true, hostPID=true, hostIPC=true"),
    ),
    (
        "hostPathVolumes",
        make(
            volumes=[
                {"name": "a", "hostPath": {"path": "/a"}},
                {"name": "b", "hostPath": {"path": "/b"}},
                {"name": "c", "emptyDir": {}},
            ]
        ),
        ("hostPath volumes", 'volumes "a", "b"'),
    ),
    (
        "hostPorts",
        make(
            containers={
                "a": {"ports": [{"containerPort": 1, "hostPort": 0}]},
                "b": {"ports": [{"containerPort": 1, "hostPort": 0}, {"containerPort": 2, "hostPort": 20}]},
            }
        ),
        ("hostPort", 'container "b" uses hostPort 20'),
    ),
    (
        "hostPorts",
        make(
            containers={
                "a": {"ports": [{"containerPort": 1, "hostPort": 0}]},
                "b": {"ports": [{"containerPort": 1, "hostPort": p} for p in (0, 10, 20)]},
                "c": {"ports": [{"containerPort": 1, "hostPort": p} for p in (0, 10, 30)]},
            }
        ),
        ("hostPort", 'containers "b", "c" use hostPorts 10, 20, 30'),
    ),
    ("hostProbesAndHostLifecycle", make(containers={"a": {"livenessProbe": {"httpGet": {"port": 1}}}}), None),
    *[
        (
            "hostProbesAndHostLifecycle",
            make(containers={name: fields}),
            ("probe or lifecycle host", f'container "{name}" uses probe or lifecycle host "{host}"'),
        )
        for name, host, fields in (
            ("a", "invalid.host", {"livenessProbe": hosts(http="invalid.host")}),
            ("b", "invalid.host", {"readinessProbe": hosts(tcp="invalid.host")}),
            ("c", "invalid.host", {"startupProbe": hosts(http="invalid.host")}),
            ("d", "invalid.host", {"lifecycle": {"postStart": hosts(tcp="invalid.host")}}),
            ("e", "another.invalid.host", {"lifecycle": {"preStop": hosts(http="another.invalid.host")}}),
            ("f", "8.8.8.8", {"livenessProbe": hosts(http="8.8.8.8")}),
            ("g", "2001:4860:4860::8888", {"livenessProbe": hosts(tcp="2001:4860:4860::8888")}),
        )
    ],
    (
        "hostProbesAndHostLifecycle",
        make(
            containers={
                "valid": {},
                "invalid1": {"livenessProbe": hosts(http="a.com")},
                "invalid2": {"lifecycle": {"preStop": hosts(tcp="b.com")}, "startupProbe": hosts(http="a.com")},
            }
        ),
        (
            "probe or lifecycle host",
            'containers "invalid1", "invalid2" use probe or lifecycle hosts "a.com", "b.com"',
        ),
    ),
    (
        "privileged",
        make(
            containers={"a": {}, "b": {"securityContext": {}}}
            | secured("c", privileged=False)
            | secured("d", "e", privileged=True)
        ),
        ("privileged", 'containers "d", "e" must not set securityContext.privileged=true'),
    ),
    (
        "runAsNonRoot",
        make(containers={"a": {}}),
        ("runAsNonRoot != true", 'pod or container "a" must set securityContext.runAsNonRoot=true'),
    ),
    (
        "runAsNonRoot",
        make(securityContext={"runAsNonRoot": False}, containers={"a": {}}),
        ("runAsNonRoot != true", "pod must not set securityContext.runAsNonRoot=false"),
    ),
    (
        "runAsNonRoot",
        make(
            securityContext={"runAsNonRoot": True},
            containers={"a": {}, "b": {"securityContext": {}}}
            | secured("c", "d", runAsNonRoot=False)
            | secured("e", "f", runAsNonRoot=True),
        ),
        ("runAsNonRoot != true", 'containers "c", "d" must not set securityContext.runAsNonRoot=false'),
    ),
    (
        "runAsNonRoot",
        make(containers={"a": {}, "b": {"securityContext": {}}} | secured("d", "e", runAsNonRoot=True)),
        ("runAsNonRoot != true", 'pod or containers "a", "b" must set securityContext.runAsNonRoot=true'),
    ),
    ("runAsNonRoot", make(hostUsers=False, containers={"a": {}}), None),
    (
        "runAsUser",
        make(securityContext={"runAsUser": 0}, containers={"a": {}}),
        ("runAsUser=0", "pod must not set runAsUser=0"),
    ),
    ("runAsUser", make(securityContext={"runAsUser": 1000}, containers={"a": {}}), None),
    ("runAsUser", make(securityContext={}, containers={"a": {}}), None),
    (
        "runAsUser",
        make(
            securityContext={"runAsUser": 1000},
            containers={"a": {}, "b": {"securityContext": {}}}
            | secured("c", "d", runAsUser=0)
            | secured("e", "f", runAsUser=1),
        ),
        ("runAsUser=0", 'containers "c", "d" must not set runAsUser=0'),
    ),
    ("runAsUser", make(containers=secured("c", "d", runAsUser=1)), None),
    ("runAsUser", make(hostUsers=False, securityContext={"runAsUser": 0}), None),
    (
        "runAsUser",
        make(hostUsers=True, securityContext={"runAsUser": 0}),
        ("runAsUser=0", "pod must not set runAsUser=0"),
    ),
    (
        "seLinuxOptions",
        make(
            securityContext={"seLinuxOptions": {"type": "foo", "user": "bar", "role": "baz"}},
            containers=secured("a", seLinuxOptions={"type": "container_t"})
            | secured("b", seLinuxOptions={"type": "container_init_t"})
            | secured("c", seLinuxOptions={"type": "container_kvm_t"})
            | secured("d", seLinuxOptions={"type": "container_engine_t"})
            | secured("e", seLinuxOptions={"type": "bar"})
            | secured("f", seLinuxOptions={"user": "bar"})
            | secured("g", seLinuxOptions={"role": "baz"}),
        ),
        (
            "seLinuxOptions",
            'pod and containers "e", "f", "g" set forbidden securityContext.seLinuxOptions: types "bar", "foo"; user '
            "may not be set; role may not be set",
        ),
    ),
    *[
        (
            "seLinuxOptions",
            make(securityContext={"seLinuxOptions": {field: "bad"}}),
            ("seLinuxOptions", f"pod set forbidden securityContext.seLinuxOptions: {said}"),
        )
        for field, said in (
            ("type", 'type "bad"'),
            ("user", "user may not be set"),
            ("role", "role may not be set"),
        )
    ],
    (
        "seccompProfile_baseline",
        make(securityContext={"seccompProfile": UNCONFINED}, containers={"a": {}}),
        ("seccompProfile", 'pod must not set securityContext.seccompProfile.type to "Unconfined"'),
    ),
    *[
        (
            check,
            make(
                securityContext={"seccompProfile": DEFAULT},
                containers={"a": {}, "b": {"securityContext": {}}}
                | secured("c", "d", seccompProfile=UNCONFINED)
                | secured("e", "f", seccompProfile=DEFAULT),
            ),
            (
                "seccompProfile",
                'containers "c", "d" must not set securityContext.seccompProfile.type to "Unconfined"',
            ),
        )
        for check in ("seccompProfile_baseline", "seccompProfile_restricted")
    ],
    (
        "seccompProfile_baseline",
        make(securityContext={"seccompProfile": UNCONFINED}, containers=secured("c", "d", seccompProfile=UNCONFINED)),
        (
            "seccompProfile",
            'pod and containers "c", "d" must not set securityContext.seccompProfile.type to "Unconfined"',
        ),
    ),
    (
        "seccompProfile_restricted",
        make(containers={"a": {}}),
        (
            "seccompProfile",
            'pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"',
        ),
    ),
    (
        "seccompProfile_restricted",
        make(containers={"a": {}, "b": {"securityContext": {}}} | secured("d", "e", seccompProfile=DEFAULT)),
        (
            "seccompProfile",
            'pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
            '"Localhost"',
        ),
    ),
    (
        "sysctls",
        make(securityContext={"sysctls": [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}]}),
        ("forbidden sysctls", "a, b"),
    ),
    (
        "sysctls",
        make(securityContext={"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports", "value": "1024-4999"}]}),
        None,
    ),
    (
        "windowsHostProcess",
        make(
            securityContext={"windowsOptions": {"hostProcess": True}},
            containers={"a": {}, "b": {"securityContext": {}}, "c": {"securityContext": {"windowsOptions": {}}}}
            | secured("d", windowsOptions={"hostProcess": False})
            | secured("e", "f", windowsOptions={"hostProcess": True}),
        ),
        ("hostProcess", 'pod and containers "e", "f" must not set securityContext.windowsOptions.hostProcess=true'),
    ),
    (
        "restrictedVolumes",
        make(volumes=VOLUMES),
        (
            "restricted volume types",
            "volumes "
            + ", ".join(f'"b{number}"' for number in range(1, 22))
            + ', "c1" use restricted volume types '
            + ", ".join(f'"{kind}"' for kind in sorted([*KINDS, "unknown"])),
        ),
    ),
]  # fmt: skip
PROC = make(
    hostUsers=True,
    containers={"a": {}, "b": {"securityContext": {}}}
    | secured("c", procMount="Default")
    | secured("d", procMount="Unmasked")
    | secured("e", procMount="other"),
)
PROC_SAID = ("procMount", 'containers "d", "e" must not set securityContext.procMount to "Unmasked", "other"')
CASES += [
    ("procMount", PROC, PROC_SAID),
    ("procMount_restricted", PROC, PROC_SAID),
    (
        "procMount",
        PROC.model_copy(update={"spec": PROC.spec.model_copy(update={"host_users": False})}),
        None,
    ),
    (
        "procMount_restricted",
        PROC.model_copy(update={"spec": PROC.spec.model_copy(update={"host_users": False})}),
        PROC_SAID,
    ),
]


@pytest.mark.parametrize(("check", "pod", "said"), CASES, ids=[f"{n}-{c[0]}" for n, c in enumerate(CASES)])
def test_checks(check: str, pod: Pod, said: tuple[str, str] | None) -> None:
    latest = (BASELINE | RESTRICTED)[check][-1]
    assert latest.check(pod) == said


def test_every_check_has_a_case_that_it_forbids() -> None:
    assert {check for check, _, said in CASES if said} == {*BASELINE, *RESTRICTED}
