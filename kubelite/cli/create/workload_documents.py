"""The workloads that `kubelite create` makes: those of kubectl's generators. Pure.

Source: kubectl pkg/cmd/create/create_deployment.go, create_job.go, create_cronjob.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubelite.cli.create.documents import filled, name_of_image, named

if TYPE_CHECKING:
    from kubelite.kube.json import Json

MANUAL = {"cronjob.kubernetes.io/instantiate": "manual"}  # annotations of a Job made of a CronJob by hand


def deployment(
    name: str, namespace: str | None, images: Sequence[str], words: Sequence[str], options: Json
) -> Json:
    """Return a Deployment with a container for each image."""
    document = named("Deployment", name, namespace, version="apps/v1")
    labels = {"app": name}
    containers = [
        filled({"name": name_of_image(one), "image": one, "command": list(words)}) for one in images
    ]
    if options["port"]:
        containers[0]["ports"] = [{"containerPort": options["port"]}]
    document["metadata"]["labels"] = labels
    document["spec"] = {
        "replicas": options["replicas"],
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
    }
    return document


def job(name: str, namespace: str | None, image: str, words: Sequence[str]) -> Json:
    """Return a Job with one pod."""
    document = named("Job", name, namespace, version="batch/v1")
    document["spec"] = {"template": _template(name, image, words, "Never")}
    return document


def job_of(name: str, namespace: str | None, cron_job: Json) -> Json:
    """Return a Job of a CronJob's template. It has no owner: its manifest is its own."""
    template = cron_job["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    document = named("Job", name, namespace, version="batch/v1")
    if metadata.get("labels"):
        document["metadata"]["labels"] = dict(metadata["labels"])
    document["metadata"]["annotations"] = {**MANUAL, **(metadata.get("annotations") or {})}
    document["spec"] = template["spec"]
    return document


def cron_job(name: str, namespace: str | None, image: str, words: Sequence[str], options: Json) -> Json:
    """Return a CronJob whose Jobs have one pod."""
    document = named("CronJob", name, namespace, version="batch/v1")
    template = {"template": _template(name, image, words, options["restart"])}
    document["spec"] = {
        "schedule": options["schedule"],
        "jobTemplate": {"metadata": {"name": name}, "spec": template},
    }
    return document


def _template(name: str, image: str, words: Sequence[str], restart: str) -> Json:
    container = filled({"name": name, "image": image, "command": list(words)})
    return {"spec": {"containers": [container], "restartPolicy": restart}}
