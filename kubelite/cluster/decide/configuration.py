"""The node's configuration in kubelet's words, for `/configz`. Pure.

Sources: Kubernetes staging/src/k8s.io/kubelet/config/v1beta1/types.go (the fields), cmd/kubelet/app/server.go
(setConfigz: the name kubeletconfig). A field of kubelet's without a meaning here is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubelite.cluster.decide.node_status import LEASE_SECONDS, REPORT
from kubelite.kube.durations import go_duration
from kubelite.kube.json import Json
from kubelite.settings import Settings

#: Settings that have kubelet's name and meaning, in kubelet's spelling → ours.
_SAME = {
    "staticPodPath": "manifests",
    "resolvConf": "resolv_conf",
    "maxPods": "max_pods",
    "podPidsLimit": "pod_pids_limit",
    "singleProcessOOMKill": "single_process_oom_kill",
    "serializeImagePulls": "serialize_image_pulls",
    "maxParallelImagePulls": "max_parallel_pulls",
    "registryPullQPS": "registry_pull_qps",
    "registryBurst": "registry_burst",
    "imagePullCredentialsVerificationPolicy": "image_pull_credentials_verification_policy",
    "imageGCHighThresholdPercent": "image_gc_high_threshold_percent",
    "imageGCLowThresholdPercent": "image_gc_low_threshold_percent",
    "containerLogMaxFiles": "log_max_files",
    "cpuManagerPolicy": "cpu_manager_policy",
    "reservedSystemCPUs": "reserved_cpus",
    "memoryThrottlingFactor": "memory_throttling_factor",
    "memoryReservationPolicy": "memory_reservation_policy",
}
_DURATIONS = {
    "imageMinimumGCAge": "image_minimum_gc_age",
    "imageMaximumGCAge": "image_maximum_gc_age",
    "evictionPressureTransitionPeriod": "eviction_pressure_transition_period",
    "shutdownGracePeriod": "shutdown_grace_period",
    "shutdownGracePeriodCriticalPods": "shutdown_grace_period_critical_pods",
}


def configz(settings: Settings, *, port: int, dns: Sequence[str], domain: str) -> Json:
    """Return the answer. `port`: of the node's server; `dns`, `domain`: of the cluster."""
    given = settings.model_dump()
    found: Json = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": True,
        "port": port,
        "podLogsDir": f"{settings.log_dir}/pods",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "2m0s"},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "rotateCertificates": True,
        "clusterDomain": domain,
        "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": go_duration(REPORT),
        "nodeLeaseDurationSeconds": LEASE_SECONDS,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "enableControllerAttachDetach": True,
        "containerLogMaxSize": str(settings.log_max_size),
        "memorySwap": {"swapBehavior": settings.memory_swap_behavior},
        "evictionHard": _thresholds(settings.eviction_hard),
    }
    if dns:
        found["clusterDNS"] = list(dns)
    for name, text in (
        ("systemReserved", settings.system_reserved),
        ("kubeReserved", settings.kube_reserved),
    ):
        if text:
            found[name] = _pairs(text, "=")
    found |= {name: given[ours] for name, ours in _SAME.items() if given[ours] != ""}
    found |= {name: go_duration(given[ours]) for name, ours in _DURATIONS.items()}
    return {"kubeletconfig": found}


def _thresholds(text: str) -> dict[str, str]:
    return {} if text == "none" else _pairs(text, "<")


def _pairs(text: str, joint: str) -> dict[str, str]:
    entries = (entry.strip().partition(joint) for entry in text.split(",") if entry.strip())
    return {name.strip(): value.strip() for name, _, value in entries}
