"""Pod Security admission: what the levels of a namespace, and the allowed host paths, make of a pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kubelite.kube.pod_security import Labels, Level, Levels, PodSecurity, Policy, parse_levels
from kubelite.node.decide.pod_security.admission import audited, forbidden, host_paths, violations, warning
from manifests.types.core import Pod
from tests.unit.node.decide.test_pod_security import DEFAULT, make, secured

GOOD = make(
    securityContext={"runAsNonRoot": True, "seccompProfile": DEFAULT},
    containers=secured("c", allowPrivilegeEscalation=False, capabilities={"drop": ["ALL"]}),
)


def test_levels() -> None:
    bad = make(hostNetwork=True, volumes=[{"name": "v", "hostPath": {"path": "/"}}], containers={"c": {}})
    assert violations(bad, Policy(Level.PRIVILEGED)) == ""
    assert (
        violations(bad, Policy(Level.BASELINE))
        == 'host namespaces (hostNetwork=true), hostPath volumes (volume "v")'
    )
    assert violations(bad, Policy(Level.RESTRICTED)) == (
        'host namespaces (hostNetwork=true), allowPrivilegeEscalation != false (container "c" must set '
        'securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set '
        'securityContext.capabilities.drop=["ALL"]), restricted volume types (volume "v" uses restricted volume type '
        '"hostPath"), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")'
    )
    for level in Level:
        assert violations(GOOD, Policy(level)) == ""


def test_ephemeral_containers_are_checked() -> None:
    debug = {"name": "debug", "image": "i", "securityContext": {"privileged": True}}
    pod = Pod.parse({**GOOD.to_json(), "spec": {**GOOD.to_json()["spec"], "ephemeralContainers": [debug]}})
    assert violations(pod, Policy(Level.BASELINE)) == (
        'privileged (container "debug" must not set securityContext.privileged=true)'
    )


def test_a_namespace_has_its_own_levels() -> None:
    security = PodSecurity(
        Levels.of(Level.BASELINE, warn=Level.RESTRICTED),
        {"system": Levels(), "strict": Levels.of(Level.RESTRICTED)},
    )
    plain = make(containers={"c": {}})
    said = 'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
    assert forbidden(plain, security) == "" and warning(plain, security).startswith(said)
    host = make(hostPID=True, containers={"c": {}})
    assert forbidden(host, security) == (
        'pods "web" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)'
    )
    for namespace, word in (("system", ""), ("strict", 'violates PodSecurity "restricted:latest"')):
        moved = host.model_copy(
            update={"metadata": host.metadata.model_copy(update={"namespace": namespace})}
        )
        assert (word in forbidden(moved, security)) and bool(forbidden(moved, security)) is bool(word)
        assert warning(moved, security) == "" and audited(moved, security) == ""


def mounting(path: str, *, read_only: bool = False) -> Pod:
    mounts = [{"name": "v", "mountPath": "/v", "readOnly": read_only}]
    return make(
        volumes=[{"name": "v", "hostPath": {"path": path}}], containers={"c": {"volumeMounts": mounts}}
    )


@pytest.mark.parametrize(
    ("path", "allowed", "read_only", "said"),
    [
        ("/etc", None, False, ""),
        ("/etc", (), False, "is not allowed to be used"),
        ("/data", ("/data",), False, ""),
        ("/data/", ("/data",), False, ""),
        ("/data/x", ("/data/",), False, ""),
        ("//data//./x", ("/data",), False, ""),
        ("/database", ("/data",), False, "is not allowed to be used"),
        ("/data/../etc", ("/data",), False, "is not allowed to be used"),
        ("/", ("/data",), False, "is not allowed to be used"),
        ("/etc", ("/",), False, ""),
        ("/srv/x", ("/data", "/srv:ro"), True, ""),
        ("/srv/x", ("/data", "/srv:ro"), False, "must be read-only"),
        ("/srv/x", ("/srv:ro", "/srv/x"), False, ""),
    ],
)
def test_allowed_host_paths(path: str, allowed: tuple[str, ...] | None, read_only: bool, said: str) -> None:
    found = host_paths(mounting(path, read_only=read_only), allowed)
    assert found.endswith(said) if said else found == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("restricted", Levels.of(Level.RESTRICTED, warn=Level.BASELINE)),
        ("enforce:baseline+warn:restricted", Levels.of(Level.BASELINE, Level.RESTRICTED)),
        ("audit:restricted", Levels.of(Level.PRIVILEGED, Level.BASELINE, Level.RESTRICTED)),
    ],
)
def test_parsing(text: str, found: Levels) -> None:
    assert parse_levels(text, Levels.of(warn=Level.BASELINE)) == found


@pytest.mark.parametrize("text", ["", "strict", "enforced:baseline", "enforce:", "warn:baseline+"])
def test_wrong_levels(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_levels(text, Levels())


def test_the_labels_of_a_cluster() -> None:
    assert Levels().labels({}) == {}
    assert Levels.of(Level.BASELINE, warn=Level.RESTRICTED).labels({}) == {
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted",
    }


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"containers": {"c": {"image": f"nginx@sha256:{'1' * 64}"}}}, ""),
        ({"containers": {"c": {"image": f"q.io/x:1@sha256:{'1' * 64}"}}}, ""),
        (
            {"containers": {"c": {"image": "nginx:1"}}},
            'container "c": image "nginx:1" must be named by its digest',
        ),
        (
            {"containers": {"c": {"image": "nginx@sha256:1"}}},
            'image "nginx@sha256:1" must be named by its digest',
        ),
        ({"inits": {"i": {"image": "x"}}}, 'container "i": image "x" must be named by its digest'),
        (
            {"volumes": [{"name": "v", "image": {"reference": "x:1"}}]},
            'volume "v": image "x:1" must be named by',
        ),
    ],
)
def test_images_by_digest_alone(spec: dict[str, Any], said: str) -> None:
    found = forbidden(make(**spec), PodSecurity(digests_only=True))
    assert said in found if said else found == ""
    assert forbidden(make(**spec), PodSecurity()) == ""
    assert not PodSecurity(digests_only=True).open


PSA = "pod-security.kubernetes.io/"
P, B, R = Level


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, Levels.of(B, R, P)),
        ({"enforce": "privileged"}, Levels.of(P, R, P)),
        ({"enforce": "restricted", "warn": "baseline", "audit": "restricted"}, Levels.of(R, B, R)),
        ({"enforce-version": "v1.20"}, Levels(Policy(B, 20), Policy(R), Policy(P))),
        (
            {"enforce": "unknown", "warn": "unknown", "audit": "unknown"},
            Levels.of(R, P, P),
        ),  # PolicyToEvaluate
    ],
)
def test_labels_replace_the_levels_of_the_settings(labels: dict[str, str], expected: Levels) -> None:
    declared: dict[str, Mapping[str, str]] = {"web": {f"{PSA}{key}": value for key, value in labels.items()}}
    security = PodSecurity(Levels.of(B, R, P), declared=declared)
    assert security.levels("web") == expected
    assert security.levels("other") == Levels.of(B, R, P)
    named = PodSecurity(Levels(), {"web": Levels.of(B, R, P)}, declared=declared)
    assert named.levels("web") == expected
    assert not named.open


def test_labels_that_only_restrict_or_are_ignored() -> None:
    declared: dict[str, Mapping[str, str]] = {
        "web": {f"{PSA}enforce": "privileged", f"{PSA}warn": "restricted"}
    }
    base = PodSecurity(Levels.of(B), declared=declared)
    assert base.levels("web") == Levels.of(P, R, P)
    assert replace(base, labels=Labels.RESTRICT).levels("web") == Levels.of(B, R, P)
    assert replace(base, labels=Labels.IGNORE).levels("web") == Levels.of(B)
    assert PodSecurity(declared={"web": {}}).open and not PodSecurity(declared=declared).open
    assert base.declaring({"web": {}}).levels("web") == Levels.of(B)
    assert base.levels("web").labels(declared["web"]) == {
        f"{PSA}enforce": "privileged",
        f"{PSA}warn": "restricted",
    }
