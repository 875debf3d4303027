"""How much a pod may send and receive, from the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth. Pure.

The values are quantities in bits per second, such as 10M, between 1k and 1P (Kubernetes pkg/util/bandwidth/utils.go:
ExtractPodBandwidthResources, validateBandwidthIsReasonable).
"""

from __future__ import annotations

from kubelite.node.model.cri import Rates
from kubelite.node.model.errors import CreateError
from manifests.types.core import Pod
from manifests.types.meta import Quantity

INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
LEAST, MOST = 10**3, 10**15  # bits per second


def asked_bandwidth(pod: Pod) -> tuple[str | None, str | None]:
    """The two annotations as they are written; None for one that is missing, and in the host's network."""
    given = pod.metadata.annotations
    if not given or pod.spec.host_network:
        return None, None
    return given.get(INGRESS), given.get(EGRESS)


def pod_bandwidth(pod: Pod) -> Rates:
    """(ingress, egress) in bits per second; 0: not limited. Raises CreateError for an annotation that is no such
    value."""
    ingress, egress = asked_bandwidth(pod)
    return _parsed(INGRESS, ingress), _parsed(EGRESS, egress)


def _parsed(annotation: str, text: str | None) -> int:
    if text is None:
        return 0
    try:
        value = Quantity(text).value()
    except ValueError as error:
        raise CreateError(f"the annotation {annotation} is {text!r}: {error}") from error
    if not LEAST <= value <= MOST:
        raise CreateError(
            f"the annotation {annotation} is {text!r}; it must be between 1k and 1P bits per second, such as 10M"
        )
    return value
