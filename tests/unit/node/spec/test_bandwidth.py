"""The annotations of a pod's bandwidth: Kubernetes pkg/util/bandwidth/utils.go, ExtractPodBandwidthResources."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.model.cri import Rates
from kubelite.node.model.errors import CreateError
from kubelite.node.spec.bandwidth import EGRESS, INGRESS, pod_bandwidth
from kubelite.node.spec.hashes import creation_hash, sandbox_hash
from manifests.types.core import Pod


def pod(annotations: dict[str, str], **spec: Any) -> Pod:
    metadata = {"name": "p", "annotations": annotations}
    return Pod.model_validate({"metadata": metadata, "spec": {"containers": [], **spec}})


@pytest.mark.parametrize(
    ("annotations", "rates"),
    [
        ({}, (0, 0)),
        ({INGRESS: "10M"}, (10_000_000, 0)),
        ({EGRESS: "1Ki"}, (0, 1024)),
        ({INGRESS: "1k", EGRESS: "1P"}, (10**3, 10**15)),
        ({INGRESS: "1.5M", "other": "x"}, (1_500_000, 0)),
    ],
)
def test_a_limit(annotations: dict[str, str], rates: Rates) -> None:
    assert pod_bandwidth(pod(annotations)) == rates
    assert (creation_hash(pod(annotations)) == creation_hash(pod({}))) == (rates == (0, 0))
    assert sandbox_hash(pod(annotations)) == sandbox_hash(pod({})), "a pod that runs is not recreated"
    assert pod_bandwidth(pod(annotations, hostNetwork=True)) == (0, 0)


@pytest.mark.parametrize("value", ["", "fast", "999", "-1M", "1001T", "10Mbit"])
def test_what_is_no_rate_is_refused(value: str) -> None:
    with pytest.raises(CreateError, match=f"annotation {EGRESS} is '{value}'"):
        pod_bandwidth(pod({EGRESS: value}))
