"""docs/reference/annotations.md: the keys that a node reads or writes, from the constants in the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.docs.tables import table, titled
from kubelite.api.audit import OBJECTS, PID
from kubelite.cli.containers.logs import DEFAULT_CONTAINER
from kubelite.cluster.decide.node_status import LEFT
from kubelite.controllers.decide.cron_job import SCHEDULED
from kubelite.controllers.decide.deployments.owned import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
)
from kubelite.controllers.decide.deployments.revisions import HASH_LABEL
from kubelite.controllers.decide.jobs.indexes import FAILURES, IGNORED_FAILURES, INDEX
from kubelite.controllers.decide.revisions import BACK_OFF as FAILED_PODS
from kubelite.daemon.cni.node_cni import IPS, MAC
from kubelite.ingress.model import CLASS_ANNOTATION, CONTROLLER
from kubelite.ingress.model import DEFAULT_CLASS as DEFAULT_INGRESS_CLASS
from kubelite.ingress.proxy_pod import SPEC_ANNOTATION
from kubelite.kube.jobs import (
    CONTROLLER_UID,
    JOB_NAME,
    LEGACY_CONTROLLER_UID,
    LEGACY_JOB_NAME,
    TRACKING_FINALIZER,
)
from kubelite.kube.objects import CLUSTER, CREATED_BY, REPLICAS, SOURCE
from kubelite.node.decide.back_off import BACK_OFF_INITIAL, BACK_OFF_MAX
from kubelite.node.decide.pod_rules import RESTART_ON_CHANGE
from kubelite.node.model.node_facts import PRESSURE_TAINTS, own_labels
from kubelite.node.model.schedule import UNSCHEDULABLE_TAINT
from kubelite.node.scheduling.volume_binding import DEFAULT_CLASS, NO_PROVISIONER, PROVISIONED_BY, PROVISIONER
from kubelite.node.spec.bandwidth import EGRESS, INGRESS
from kubelite.node.storage.claims import RECLAIM
from kubelite.node.storage.protection import FINALIZERS
from kubelite.policies.limit_range import ANNOTATION as LIMIT_RANGER
from manifests.types.annotations import APPARMOR, DELETION_COST, SECCOMP, SECCOMP_POD

REPO: Final = Path(__file__).resolve().parents[2]
HEAD: Final = """# Annotations, labels and taints

Any annotation or label is stored and shown. This page lists the keys that kubelite reads or writes.
"""

#: key → (object that has it, what kubelite does with it)
READ: Final = {
    BACK_OFF_INITIAL: (
        "Pod",
        "Delay before the first restart of a crashed container, such as `1s`, `500ms` or `2m`. Overrides the setting "
        "`crash_backoff_initial`.",
    ),
    BACK_OFF_MAX: ("Pod", "Longest delay between restarts. Overrides the setting `crash_backoff_max`."),
    RESTART_ON_CHANGE: (
        "Pod",
        '`"true"`: containers restart when a ConfigMap or Secret that they use changes.',
    ),
    RECLAIM: (
        "PersistentVolumeClaim",
        "`Retain` or `Delete`: what happens to the claim's directory when the claim is deleted. Overrides the setting "
        "`volume_reclaim_policy`.",
    ),
    DEFAULT_CLASS: ("StorageClass", '`"true"`: the class of claims that name none.'),
    CLASS_ANNOTATION: ("Ingress", "Its class, if `ingressClassName` is not set."),
    DEFAULT_INGRESS_CLASS: ("IngressClass", '`"true"`: the class of Ingresses that name none.'),
    DEFAULT_CONTAINER: ("Pod", "The container that `logs`, `exec` and `attach` choose when none is named."),
    f"{APPARMOR}<container>": (
        "Pod",
        "AppArmor profile of a container without `securityContext.appArmorProfile`: `runtime/default`, `unconfined` or "
        "`localhost/<profile>`.",
    ),
    INGRESS: (
        "Pod",
        "Bits per second that the pod receives at most, such as `10M`; between `1k` and `1P`. A change takes effect "
        "at once.",
    ),
    EGRESS: ("Pod", "The same for what the pod sends."),
    IPS: (
        "Pod",
        "With `network: cni`: addresses that it asks the plugins for, separated by commas: `10.66.0.9/24`.",
    ),
    MAC: ("Pod", "With `network: cni`: the hardware address that it asks the plugins for."),
    f"{SECCOMP}<container>": (
        "Pod",
        "Must be well-formed; has no effect, and an event says so. Use `seccompProfile`.",
    ),
    SECCOMP_POD: ("Pod", "The same, for all containers."),
    DELETION_COST: (
        "Pod",
        "A 32-bit integer: of the pods of a ReplicaSet that is scaled down, those with a lower one are deleted first.",
    ),
}
WRITTEN: Final = {
    SOURCE: ("every object of a manifest", "Path of the manifest, relative to the manifest directory."),
    CREATED_BY: (
        "Pod, workloads, HorizontalPodAutoscaler",
        "`run` or `create`, in a manifest that this command wrote: `kubelite delete TYPE NAME` deletes the manifest "
        "with the object.",
    ),
    REPLICAS: (
        "Deployment, ReplicaSet, StatefulSet, ReplicationController",
        "The number of replicas in its manifest, while an autoscaler has set another one.",
    ),
    CLUSTER: ("Pod of a cluster", "The API server of the cluster that has bound the pod to this node."),
    LEFT: (
        "Node, in the cluster",
        "When the node left the cluster, for which it is cordoned until it joins again.",
    ),
    SPEC_ANNOTATION: ("The pod of the proxy of Ingresses", "A digest of the settings for which it was made."),
    LIMIT_RANGER: ("Pod", "What the pod got from LimitRanges when it was created."),
    PROVISIONED_BY: (
        "PersistentVolume",
        f"`{PROVISIONER}` marks a volume that kubelite created for a claim.",
    ),
    REVISION: (
        "Deployment, ReplicaSet",
        "The number of the template, counted from 1. A rollback gives the old template the next number.",
    ),
    REVISION_HISTORY: ("ReplicaSet", "The numbers that its template had before rollbacks to it."),
    DESIRED_REPLICAS: ("ReplicaSet", "The Deployment's replicas when the ReplicaSet was last scaled."),
    MAX_REPLICAS: (
        "ReplicaSet",
        "The same, and `maxSurge`: by this a scaling during a rollout keeps proportions.",
    ),
    INDEX: ("Pod of an Indexed Job", "The completion index, also in the variable `JOB_COMPLETION_INDEX`."),
    FAILURES: ("Pod of a Job with `backoffLimitPerIndex`", "How often its index failed before this pod."),
    IGNORED_FAILURES: (
        "Pod of a Job with `backoffLimitPerIndex`",
        "How often its index failed before this pod without being counted, because of `podFailurePolicy`.",
    ),
    FAILED_PODS: (
        "ControllerRevision",
        "How long a pod of this revision that fails again stays before it is replaced, and since when.",
    ),
    SCHEDULED: ("Job of a CronJob", "The time for which the Job was created, in the CronJob's time zone."),
}
JOB_LABELS: Final = {
    CONTROLLER_UID: "the Job's uid, by which it finds its pods",
    JOB_NAME: "the Job's name",
    LEGACY_CONTROLLER_UID: "the same, as before Kubernetes 1.27",
    LEGACY_JOB_NAME: "the same, as before Kubernetes 1.27",
    INDEX: "the completion index of a pod, if the Job is Indexed",
}
AUDIT: Final = {
    OBJECTS: "an annotation: the objects of a request whose path does not name them",
    PID: "an extra fact about the user: the process that connected",
}
PROVISIONERS: Final = {
    PROVISIONER: "The default: a directory below `claims/` in the state directory.",
    NO_PROVISIONER: "No volume is created; claims wait for a PersistentVolume.",
}


def _finalizers() -> Iterator[tuple[str, str, str]]:
    for kind, name in FINALIZERS.items():
        yield f"`{name}`", kind, "it is in use"
    yield f"`{TRACKING_FINALIZER}`", "Pod of a Job", "its Job has not counted how it ended"


def page() -> str:
    missing = unlisted()
    if missing:
        raise ValueError(f"annotations that no list names: {', '.join(missing)}")
    return titled(
        "".join(
            [
                HEAD,
                "\n## Annotations that kubelite reads\n\n",
                table(("annotation", "of", "effect"), _rows(READ)),
                "\n## Annotations that kubelite writes\n\n",
                table(("annotation", "of", "content"), _rows(WRITTEN)),
                "\n## Labels of the node\n\n",
                "kubelite sets these labels; `kubelite node label` adds others.\n\n",
                table(("label", "value"), ((f"`{key}`", _value(key)) for key in own_labels("node"))),
                "\nA namespace has the label `kubernetes.io/metadata.name`, as on a cluster.\n",
                "\n## Labels of a Deployment's ReplicaSets and pods\n\n",
                table(("label", "value"), [(f"`{HASH_LABEL}`", "a hash of the Deployment's template")]),
                "\n## Labels of a Job's pods\n\n",
                table(("label", "value"), ((f"`{key}`", said) for key, said in JOB_LABELS.items())),
                "\n## Taints of the node\n\n",
                table(("taint", "when"), _taints()),
                "\n## Finalizers\n\n",
                "A deleted object with one of these stays, with the status `Terminating`, while the reason lasts.\n\n",
                table(("finalizer", "of", "while"), _finalizers()),
                "\n## Events of the audit log\n\n",
                table(("key", "content"), ((f"`{key}`", said) for key, said in AUDIT.items())),
                "\n## Provisioners of a StorageClass\n\n",
                table(
                    ("provisioner", "effect"), ((f"`{name}`", said) for name, said in PROVISIONERS.items())
                ),
                "\nWith any other provisioner kubelite creates a directory, too.\n",
            ]
        )
    )


def _rows(listed: dict[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(f"`{key}`", of, said) for key, (of, said) in listed.items()]


def _value(key: str) -> str:
    if key.endswith("/hostname"):
        return "the node's name"
    return "`linux`" if key.endswith("/os") else "the architecture as Go names it: `amd64`, `arm64`"


def _taints() -> list[tuple[str, str]]:
    pressed = [(f"`{key}:NoSchedule`", f"the node has {kind}") for kind, key in PRESSURE_TAINTS.items()]
    return [(f"`{UNSCHEDULABLE_TAINT}:NoSchedule`", "the node is cordoned"), *pressed]


def unlisted() -> list[str]:
    """Keys below kubelite.io/ that are in the code and not on this page."""
    listed = {*READ, *WRITTEN, *PROVISIONERS, *AUDIT, CONTROLLER}
    own = re.compile(r"[\"`](kubelite\.io/[a-z-]+)[\"`]")
    sources = (path for room in ("kubelite", "manifests") for path in (REPO / room).rglob("*.py"))
    return sorted({key for path in sources for key in own.findall(path.read_text(encoding="utf-8"))} - listed)
