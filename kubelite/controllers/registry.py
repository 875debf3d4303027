"""The controllers of this node. A kind is listed once its controller works; until then its manifests are refused."""

from __future__ import annotations

from kubelite.controllers.model import Controller

_ROOM = "kubelite.controllers.decide"
#: what a disruption budget counts: pods, and how many of them there ought to be
_COUNTED = ("Pod", "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet")

CONTROLLERS: tuple[Controller, ...] = (
    Controller("ReplicaSet", "apps/v1", ("Pod",), f"{_ROOM}.replica_set"),
    Controller("ReplicationController", "v1", ("Pod",), f"{_ROOM}.replica_set"),
    Controller("Deployment", "apps/v1", ("ReplicaSet",), f"{_ROOM}.deployment"),
    Controller(
        "StatefulSet",
        "apps/v1",
        ("Pod", "ControllerRevision", "PersistentVolumeClaim"),
        f"{_ROOM}.stateful_set",
        shares=("PersistentVolumeClaim",),
    ),
    Controller("DaemonSet", "apps/v1", ("Pod", "ControllerRevision"), f"{_ROOM}.daemon_set", sees_node=True),
    Controller("Job", "batch/v1", ("Pod",), f"{_ROOM}.job"),
    Controller("CronJob", "batch/v1", ("Job",), f"{_ROOM}.cron_job"),
    Controller(
        "PodDisruptionBudget",
        "policy/v1",
        _COUNTED,
        f"{_ROOM}.disruption",
        shares=_COUNTED,
    ),
)
