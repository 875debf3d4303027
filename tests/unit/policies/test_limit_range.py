"""LimitRange: defaults and bounds. The rows are those of Kubernetes' plugin/pkg/admission/limitranger/admission_test.go
(TestPodLimitFunc, TestMergePodResourceRequirements, TestPersistentVolumeClaimLimitFunc); the messages are those of
admission.go."""

from __future__ import annotations

import pytest

from kubelite.kube.json import Json
from kubelite.policies.limit_range import (
    ANNOTATION,
    claim_violations,
    forbidden,
    kept,
    pod_violations,
    with_defaults,
)
from tests.unit.policies.kit import claim, compute, container, limit_range, pod, resources

DEFAULTS = limit_range(
    "Container",
    max=compute("100m", "2Gi"),
    min=compute("25m", "1Mi"),
    default=compute("75m", "10Mi"),
    defaultRequest=compute("50m", "5Mi"),
)


def mem(request: str = "", limit: str = "") -> Json:
    return resources(compute(memory=request), compute(memory=limit))


def cpu(request: str = "", limit: str = "") -> Json:
    return resources(compute(request), compute(limit))


def disk(request: str = "", limit: str = "") -> Json:
    given = ({"ephemeral-storage": one} if one else {} for one in (request, limit))
    return resources(*given)


LEVEL = resources(compute("100m", "60Mi"), compute("200m", "100Mi"))
DISK = {"min": {"ephemeral-storage": "50Mi"}}


@pytest.mark.parametrize(
    ("count", "given", "type_", "item"),
    [
        (1, cpu("100m"), "Container", {"min": compute("50m")}),
        (1, cpu("100m", "200m"), "Container", {"min": compute("50m")}),
        (1, mem("60Mi", "100Mi"), "Container", {"min": compute("", "50Mi")}),
        (1, cpu("500m", "1"), "Container", {"max": compute("2")}),
        (1, cpu("", "1"), "Container", {"max": compute("2")}),
        (1, mem("250Mi", "500Mi"), "Container", {"max": compute("", "1Gi")}),
        (1, cpu("500m", "750m"), "Container", {"maxLimitRequestRatio": compute("1.5")}),
        (2, cpu("75m"), "Pod", {"min": compute("100m")}),
        (2, cpu("75m", "200m"), "Pod", {"min": compute("100m")}),
        (2, cpu("500m", "1"), "Pod", {"max": compute("2")}),
        (2, mem("", "500Mi"), "Pod", {"max": compute("", "1Gi")}),
        (3, mem("300Mi", "450Mi"), "Pod", {"maxLimitRequestRatio": compute("", "1.5")}),
        (1, disk("60Mi", "100Mi"), "Container", DISK),
        (2, disk("", "500Mi"), "Container", {"max": {"ephemeral-storage": "600Mi"}}),
    ],
)
def test_pods_within_the_bounds(count: int, given: Json, type_: str, item: Json) -> None:
    ranges = [limit_range(type_, **item)]
    assert pod_violations(with_defaults(pod("web", count, given), ranges), ranges) == []


@pytest.mark.parametrize(
    ("count", "given", "type_", "item", "said"),
    [
        (1, cpu("40m"), "Container", {"min": compute("50m")},
         "minimum cpu usage per Container is 50m, but request is 40m"),
        (1, cpu("40m", "200m"), "Container", {"min": compute("50m")},
         "minimum cpu usage per Container is 50m, but request is 40m"),
        (1, {}, "Container", {"min": compute("50m")},
         "minimum cpu usage per Container is 50m.  No request is specified"),
        (1, mem("60Mi", "40Mi"), "Container", {"min": compute("", "50Mi")},
         "minimum memory usage per Container is 50Mi, but limit is 40Mi"),
        (1, cpu("500m", "2500m"), "Container", {"max": compute("2")},
         "maximum cpu usage per Container is 2, but limit is 2500m"),
        (1, {}, "Container", {"max": compute("2")},
         "maximum cpu usage per Container is 2.  No limit is specified"),
        (1, cpu("3", "2"), "Container", {"max": compute("2")},
         "maximum cpu usage per Container is 2, but request is 3"),
        (1, cpu("1250m", "2500m"), "Container", {"maxLimitRequestRatio": compute("1")},
         "cpu max limit to request ratio per Container is 1, but provided ratio is 2.000000"),
        (1, {}, "Container", {"maxLimitRequestRatio": compute("1")},
         "cpu max limit to request ratio per Container is 1, but no request is specified or request is 0"),
        (1, cpu("1"), "Container", {"maxLimitRequestRatio": compute("1")},
         "cpu max limit to request ratio per Container is 1, but no limit is specified or limit is 0"),
        (1, cpu("75m"), "Pod", {"min": compute("100m")}, "minimum cpu usage per Pod is 100m, but request is 75m"),
        (3, cpu("500m", "1"), "Pod", {"max": compute("2")}, "maximum cpu usage per Pod is 2, but limit is 3"),
        (3, mem("", "500Mi"), "Pod", {"max": compute("", "1Gi")},
         "maximum memory usage per Pod is 1Gi, but limit is 1500Mi"),
        (3, mem("250Mi", "500Mi"), "Pod", {"maxLimitRequestRatio": compute("", "1.5")},
         "memory max limit to request ratio per Pod is 1500m, but provided ratio is 2.000000"),
        (1, disk("40Mi"), "Container", DISK,
         "minimum ephemeral-storage usage per Container is 50Mi, but request is 40Mi"),
    ],
)  # fmt: skip
def test_pods_outside_the_bounds(count: int, given: Json, type_: str, item: Json, said: str) -> None:
    ranges = [limit_range(type_, **item)]
    found = pod_violations(with_defaults(pod("web", count, given), ranges), ranges)
    assert {one.sentence for one in found} == {said}
    assert forbidden("pods", "web", found) == f'pods "web" is forbidden: {said}'


def test_several_violations_are_listed_once() -> None:
    ranges = [limit_range("Container", max=compute("1", "1Gi"))]
    found = pod_violations(pod("web", 2, resources({}, compute("2", "2Gi"))), ranges)
    assert forbidden("pods", "web", found) == (
        'pods "web" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, '
        "maximum memory usage per Container is 1Gi, but limit is 2Gi]"
    )
    assert [one.field for one in found][::2] == [f"spec.containers[{n}].resources" for n in range(2)]


def test_init_containers_count_as_much_as_the_largest() -> None:
    """pod-init-max-cpu-limit, pod-init-max-mem-limit and ctr-max-cpu-limit-restartable-init-container."""
    two = limit_range("Pod", max=compute("2"))
    fits = pod("web", 2, cpu("", "1"), init=(cpu("", "2"), cpu("", "2")))
    assert pod_violations(fits, [two]) == []
    large = pod("web", 1, mem("", "500Mi"), init=(mem("", "1.5Gi"),))
    assert pod_violations(large, [limit_range("Pod", max=compute("", "1Gi"))])
    sidecar = pod("web", 1, cpu("1000m", "1500m"))
    sidecar["spec"]["initContainers"] = [container("side", cpu("1500m", "1500m"), restartPolicy="Always")]
    (found,) = pod_violations(sidecar, [two])
    assert found.sentence == "maximum cpu usage per Pod is 2, but limit is 3"


def test_resources_of_the_pod_count_in_place_of_the_containers() -> None:
    """pod-level-resources-with-min-max and -exceeding-max."""
    ranges = [limit_range("Pod", max=compute("400m", "200Mi"))]
    fits = pod("web", 3, LEVEL, own=resources(compute("200m", "180Mi"), compute("400m", "200Mi")))
    assert pod_violations(fits, ranges) == []
    large = pod("web", 3, LEVEL, own=resources(compute("200m", "180Mi"), compute("500m", "280Mi")))
    assert len(pod_violations(large, ranges)) == 2


@pytest.mark.parametrize(
    ("given", "init", "said"),
    [
        ({}, (), "cpu, memory request for container foo-0; cpu, memory limit for container foo-0"),
        (mem("512Mi"), (mem("512Mi"),),
         "cpu request for container foo-0; cpu, memory limit for container foo-0; "
         "cpu request for init container init-0; cpu, memory limit for init container init-0"),
        (resources(compute("100m", "512Mi"), compute("200m", "1G")), (), ""),
        (cpu("", "60m"), (), "memory request for container foo-0; memory limit for container foo-0"),
    ],
)  # fmt: skip
def test_defaults_and_their_annotation(given: Json, init: tuple[Json, ...], said: str) -> None:
    before = pod("web", 1, given, init=init)
    found = with_defaults(before, [DEFAULTS])
    annotation = (found["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    assert annotation == (f"LimitRanger plugin set: {said}" if said else "")
    if not said:
        assert found is before
    (one,) = found["spec"]["containers"]
    for what, values in (("requests", compute("50m", "5Mi")), ("limits", compute("75m", "10Mi"))):
        wanted = {**values, **(given.get("limits") or {}), **(given.get(what) or {})}
        assert set(one["resources"][what]) == set(wanted)


def test_a_pod_without_resources_gets_all_defaults() -> None:
    (one,) = with_defaults(pod("web", 1, init=({},)), [DEFAULTS])["spec"]["containers"]
    assert one["resources"] == resources(compute("50m", "5Mi"), compute("75m", "10Mi"))


def test_the_first_range_by_name_that_has_a_default_counts() -> None:
    other = limit_range("Container", "xyz", default={"cpu": "1", "ephemeral-storage": "1Gi"})
    (one,) = with_defaults(pod(), [DEFAULTS, other])["spec"]["containers"]
    assert one["resources"]["limits"] == {"cpu": "75m", "memory": "10Mi", "ephemeral-storage": "1Gi"}


def test_an_existing_pod_keeps_what_it_got() -> None:
    file = pod("web", 2, init=({},))
    recorded = with_defaults(file, [DEFAULTS])
    for ranges in ([], [DEFAULTS], [limit_range("Container", default=compute("1", "1Gi"))]):
        assert kept(recorded, file, ranges) == recorded
    never = pod("web", 2)
    assert kept(never, file, []) is file  # nothing to keep, and nothing to add
    assert kept(never, never, [DEFAULTS]) is never  # a range that came later


def test_an_edit_keeps_the_rest_and_drops_what_the_file_has_now() -> None:
    file = pod("web", 1)
    recorded = with_defaults(file, [DEFAULTS])
    edited = pod("web", 1, cpu("", "90m"))
    edited["spec"]["containers"].append(container("new", {}))
    edited["metadata"]["annotations"] = {ANNOTATION: "from `get -o yaml`"}
    found = kept(
        recorded, edited, [limit_range("Container", default=compute("80m"), defaultRequest={"cpu": "80m"})]
    )
    first, second = found["spec"]["containers"]
    assert first["resources"]["limits"] == {"cpu": "90m", "memory": "10Mi"}
    assert second["resources"] == resources(compute("80m"), compute("80m"))
    assert found["metadata"]["annotations"][ANNOTATION] == (
        "LimitRanger plugin set: memory request for container foo-0; memory limit for container foo-0; "
        "cpu request for container new; cpu limit for container new"
    )
    assert kept(found, edited, []) == found


@pytest.mark.parametrize(
    ("storage", "item", "said"),
    [
        ("1Gi", {"min": {"storage": "1Gi"}}, ""),
        ("900Mi", {"min": {"storage": "1Gi"}},
         "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 900Mi"),
        ("4Gi", {"min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}},
         "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 4Gi"),
    ],
)  # fmt: skip
def test_claims(storage: str, item: Json, said: str) -> None:
    found = claim_violations(claim(storage), [limit_range("PersistentVolumeClaim", **item)])
    assert [one.sentence for one in found] == ([said] if said else [])
