"""The workloads that `kubelite create` makes: those of kubectl's generators. Pure.

Source: kubectl pkg/cmd/create/create_deployment.go, create_job.go, create_cronjob.go, create_pdb.go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubelite.cli.create.documents import filled, name_of_image, named
from kubelite.cli.errors import CliError

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_COUNT = re.compile(r"[0-9]+%?", re.ASCII)
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


def budget(name: str, namespace: str | None, options: Json) -> Json:
    """Return a PodDisruptionBudget. Raises CliError for what kubectl refuses (PodDisruptionBudgetOpts.Validate)."""
    least, most = options["min_available"], options["max_unavailable"]
    if not least and not most:
        raise CliError("error: one of min-available or max-unavailable must be specified")
    if least and most:
        raise CliError("error: min-available and max-unavailable cannot be both specified")
    given, field, flag = (
        (least, "minAvailable", "min-available") if least else (most, "maxUnavailable", "max-unavailable")
    )
    if not _COUNT.fullmatch(given):
        raise CliError(f"error: invalid format specified for {flag}")
    document = named("PodDisruptionBudget", name, namespace, version="policy/v1")
    count = given if given.endswith("%") else int(given)
    document["spec"] = {field: count, "selector": _selector(options["selector"])}
    return document


def _selector(text: str) -> Json:
    from manifests.types.meta import parse_selector

    try:
        found = parse_selector(text).match_expressions
    except ValueError as error:
        raise CliError(f"error: {error}") from error
    equal = {one.key: one.values[0] for one in found if one.operator == "In" and len(one.values) == 1}
    left = (one for one in found if one.key not in equal or one.operator != "In")
    others = [one.to_json() for one in sorted(left, key=lambda one: one.key)]
    return filled({"matchLabels": equal, "matchExpressions": others})


def _template(name: str, image: str, words: Sequence[str], restart: str) -> Json:
    container = filled({"name": name, "image": image, "command": list(words)})
    return {"spec": {"containers": [container], "restartPolicy": restart}}
