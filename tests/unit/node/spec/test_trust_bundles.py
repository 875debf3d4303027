"""ClusterTrustBundles: validation, and what pods get from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import yaml

from kubelite.node.decide.unsupported import blocked_containers
from kubelite.node.model.errors import MountError
from kubelite.node.spec.trust_bundles import KIND, trust_anchors
from kubelite.node.spec.volume_plans import plan_volume
from manifests.types.core import ClusterTrustBundleProjection
from manifests.yaml.loader import load_text
from tests.unit.node.decide.pod_worlds import container, make_pod
from tests.unit.node.semantics.pod_rows import NONE

# Two authorities and a certificate that is not an authority. Their keys do not exist any more.
ONE = """\
-----BEGIN CERTIFICATE-----
MIIBcDCCARWgAwIBAgIUImfwDMeROtShghKhgYz3Hgi0XQ4wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAgFw0yNjExMjgyMjQwMDhaGA8yMTI2MTEwNDIyNDAwOFow
DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDR0AZEcOkPs
dS/p0DD3SaHvTbikv0jul+TwTW8JF7YwNG88ZOucs/0Ek1KBQCBVtmdqlhlSfylT
Rk92J41evCijUzBRMB0GA1UdDgQWBBQglHlYqp9aYj4CdGmDODLzGU+hcjAfBgNV
HSMEGDAWgBQglHlYqp9aYj4CdGmDODLzGU+hcjAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0kAMEYCIQCG5I/3jG7Xr5+3zmjNX8JUaQIg+k1nrXaE0beVWPGs
ngIhAKc2qjVKyj+m5rGzGc0fgdEpNU7L7PzWTTh1JCFTgfTX
-----END CERTIFICATE-----
"""
TWO = """\
-----BEGIN CERTIFICATE-----
MIIBbzCCARWgAwIBAgIUMTdanMKi6mI7DJwrtu7xeyqCSQkwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYjAgFw0yNjExMjgyMjQwMDhaGA8yMTI2MTEwNDIyNDAwOFow
DDEKMAgGA1UEAwwBYjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCUPdSXz4dGr
kEUMiTz8Dtk623BSfjlS1AC1ctqKBUemC0hdrLxg2HFK29uT9iKfY2V2uFSbDrFD
65Qtb4o69mijUzBRMB0GA1UdDgQWBBQzM2KVXmVIZe9g5oN+aNMjN7WJszAfBgNV
HSMEGDAWgBQzM2KVXmVIZe9g5oN+aNMjN7WJszAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0gAMEUCIBRL9kwKV6Psseq/5U5tAeKfmsC1oVqp5uQDVILL3UGz
AiEA+i1Dwgp65f8Yyje0dvABHxySwncJsSnZyHlVl7nE75E=
-----END CERTIFICATE-----
"""
LEAF = """\
-----BEGIN CERTIFICATE-----
MIIBczCCARigAwIBAgIUbLBTWulqpFWWW+FC6QVmz2AZZscwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEbGVhZjAgFw0yNjExMjgyMjQwMDhaGA8yMTI2MTEwNDIyNDAw
OFowDzENMAsGA1UEAwwEbGVhZjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABEha
bkXBNd07mPVkSQYLvgvJ5S/shqe0YokM4f/JEChT977oXOu6EGtnzZTU0/I4GLrO
5xE3nbkeRz8LkwDYeDOjUDBOMB0GA1UdDgQWBBRP4//iZ8GznHjEcP3S1H1NBRlu
dzAfBgNVHSMEGDAWgBRP4//iZ8GznHjEcP3S1H1NBRludzAMBgNVHRMBAf8EAjAA
MAoGCCqGSM49BAMCA0kAMEYCIQCn+pFpU/M92Ees3BPNEIJBy4MJ470FnTj11ZBz
9e0PnAIhAN/dDu4vOUqVNvLeHXC7yX8dq+DSGAq965HA6OzsssLq
-----END CERTIFICATE-----
"""
SIGNER = "example.com/mine"


def bundle(name: str, text: str, signer: str = "", **labels: str) -> dict[str, Any]:
    spec = {"trustBundle": text, **({"signerName": signer} if signer else {})}
    metadata: dict[str, Any] = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "certificates.k8s.io/v1beta1", "kind": KIND, "metadata": metadata, "spec": spec}


def errors(name: str, text: str, signer: str = "") -> list[str]:
    found = load_text(yaml.safe_dump(bundle(name, text, signer)), file="b.yaml")
    return [f"{error.field}: {error.message}" for error in found.errors]


ANCHORS = 'spec.trustBundle: Invalid value: "<value omitted>": '


@pytest.mark.parametrize(
    ("name", "signer", "text", "wanted"),
    [
        ("roots", "", ONE, ""),
        ("example.com:mine:v1", SIGNER, f"# ours\n{ONE}\n{TWO}", ""),
        ("roots", SIGNER, ONE, 'metadata.name: Invalid value: "roots": ClusterTrustBundle for signerName'),
        ("a:b", "", ONE, 'metadata.name: Invalid value: "a:b": ClusterTrustBundle without signer name'),
        ("Roots", "", ONE, 'metadata.name: Invalid value: "Roots": a lowercase RFC 1123 subdomain'),
        ("x", "nobody", ONE, 'spec.signerName: Invalid value: "nobody": must be a fully qualified domain'),
        ("roots", "", "nothing", f"{ANCHORS}at least one trust anchor must be provided"),
        ("roots", "", LEAF, f"{ANCHORS}entry 0 does not have the CA bit set"),
        ("roots", "", ONE + TWO + ONE, f"{ANCHORS}duplicate trust anchor (indices [0 2])"),
        ("roots", "", ONE.replace("CERTIFICATE", "X"), f"{ANCHORS}entry 0 has bad block type: X"),
        (
            "roots",
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            f"{ANCHORS}entry 0 does not parse as X.509",
        ),
        (
            "roots",
            "",
            ONE.replace("CERTIFICATE-----\n", "CERTIFICATE-----\nA: b\n\n", 1),
            f"{ANCHORS}entry 0 has PEM block headers",
        ),
    ],
)
def test_validation_of_trust_bundles(name: str, signer: str, text: str, wanted: str) -> None:
    found = errors(name, text, signer)
    if not wanted:
        assert found == []
    else:
        assert any(one.startswith(wanted) for one in found), found


THERE = [
    bundle("roots", ONE),
    bundle("example.com:mine:a", f"text\n{ONE}", SIGNER, live="yes"),
    bundle("example.com:mine:b", TWO + ONE, SIGNER, live="no"),
    bundle("example.com:other:a", TWO, "example.com/other", live="yes"),
]


@pytest.mark.parametrize(
    ("wanted", "has"),
    [
        ({"name": "roots"}, {ONE}),
        ({"signerName": SIGNER, "labelSelector": {}}, {ONE, TWO}),
        ({"signerName": SIGNER, "labelSelector": {"matchLabels": {"live": "yes"}}}, {ONE}),
        ({"signerName": SIGNER, "optional": True}, set()),
        ({"name": "none", "optional": True}, set()),
    ],
)
def test_the_trust_anchors_that_a_pod_gets(wanted: dict[str, Any], has: set[str]) -> None:
    def every(kind: str) -> Iterable[dict[str, Any]]:
        return THERE if kind == KIND else []

    found = trust_anchors(ClusterTrustBundleProjection.parse({"path": "ca", **wanted}), every).decode()
    parts = [f"{part}-----END CERTIFICATE-----\n" for part in found.split("-----END CERTIFICATE-----\n")[:-1]]
    assert set(parts) == has and len(parts) == len(has), "each once"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"name": "none"}, 'clustertrustbundle "none" not found'),
        (
            {"signerName": SIGNER, "labelSelector": {}},
            "combination of signerName and labelSelector matched zero ClusterTrustBundles",
        ),
    ],
)
def test_a_pod_waits_for_a_missing_bundle(wanted: dict[str, Any], words: str) -> None:
    volume = {"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "ca", **wanted}}]}}
    pod = make_pod(container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=[volume])
    assert not blocked_containers(pod)
    with pytest.raises(MountError, match=words):
        plan_volume(pod, pod.spec.volumes[0], NONE)
