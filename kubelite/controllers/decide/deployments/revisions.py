"""Which ReplicaSet is the new one, its revision, and which old ones are retained.

A rollback is an edit of the template to what it was: the ReplicaSet of that template becomes the new one again and gets
the next revision. Source: Kubernetes pkg/controller/deployment/sync.go, util/deployment_util.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kubelite.controllers.decide.deployments.limits import Limits
from kubelite.controllers.decide.deployments.owned import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
    OwnedSet,
)
from kubelite.controllers.decide.deployments.rolling import new_replicas
from kubelite.controllers.decide.hashes import template_hash
from kubelite.controllers.decide.revisions import with_defaults
from kubelite.controllers.model import Delete, View
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from kubelite.kube.objects import REPLICAS, SOURCE

HASH_LABEL = "pod-template-hash"
UNLIMITED = 2**31 - 1  # of revisionHistoryLimit and progressDeadlineSeconds
HISTORY_LENGTH = 2000  # characters
NAME_LENGTH = 253  # characters

#: Annotations of a Deployment that its ReplicaSets do not get. SOURCE says that a file defines the object.
_NOT_COPIED = frozenset(
    {
        "deprecated.deployment.rollback.to",
        "kubectl.kubernetes.io/last-applied-configuration",
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        REPLICAS,
        REVISION,
        REVISION_HISTORY,
        SOURCE,
    }
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def find_new(deployment: Json, sets: Iterable[OwnedSet]) -> OwnedSet | None:
    """Return the ReplicaSet of the Deployment's template, the oldest if there are several (FindNewReplicaSet)."""
    template, found = deployment["spec"]["template"], list(sets)
    same = [one for one in found if same_template(one.template, template)]
    if not same and found:
        newest = max(found, key=lambda one: (one.revision, one.age_key))
        same = [newest] if _is_renewable(newest, template) else []
    return min(same, key=lambda one: one.age_key, default=None)


def _is_renewable(newest: OwnedSet, template: Json) -> bool:
    """Whether the newest ReplicaSet has the template but for fields that have got a default since. A new version of
    kubelite that fills in more defaults would otherwise roll all Deployments out."""
    given = with_defaults(newest.template)
    return given is not None and same_template(given, template)


def renew_template(deployment: Json, new: OwnedSet) -> None:
    """Give the new ReplicaSet the template with today's defaults. Its pods do not change."""
    template = deployment["spec"]["template"]
    if not same_template(new.template, template):
        labels = (new.template.get("metadata") or {}).get("labels") or {}
        new.template = {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}}


def same_template(one: Json, other: Json) -> bool:
    """Whether two templates are equal but for the label with the hash (EqualIgnoreHash)."""
    return one.get("spec") == other.get("spec") and _metadata(one) == _metadata(other)


def _metadata(template: Json) -> Json:
    """The metadata without the label of the hash, and without what is empty."""
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    return {key: value for key, value in {**metadata, "labels": labels}.items() if value}


def annotate_new(deployment: Json, new: OwnedSet, old: Iterable[OwnedSet]) -> None:
    """Give the new ReplicaSet the Deployment's annotations and the highest revision (SetNewReplicaSetAnnotations). The
    revisions that it had before a rollback to it are kept in another annotation."""
    given = deployment["metadata"].get("annotations") or {}
    new.annotations.update({key: value for key, value in given.items() if key not in _NOT_COPIED})
    next_revision = max((found.revision for found in old), default=0) + 1
    before = new.annotations.get(REVISION)
    if (before and not _NUMBER.fullmatch(before)) or new.revision >= next_revision:
        return
    new.annotations[REVISION] = str(next_revision)
    if before is not None:
        history = shortened_history(new.annotations.get(REVISION_HISTORY, ""), before, HISTORY_LENGTH)
        new.annotations[REVISION_HISTORY] = history


def shortened_history(history: str, revision: str, most: int) -> str:
    """Append a revision to a list with commas; the oldest are left out when it has more than `most` characters."""
    revisions = [*(history.split(",") if history else ()), revision]
    while len(revisions) > 1 and len(",".join(revisions)) > most:
        del revisions[0]
    return ",".join(revisions)


def new_set(view: View, limits: Limits, old: Sequence[OwnedSet]) -> tuple[OwnedSet, int]:
    """Return the ReplicaSet to create for the Deployment's template, and the collisionCount by which its name is free
    (getNewReplicaSet)."""
    deployment = view.owner
    collisions = (deployment.get("status") or {}).get("collisionCount") or 0
    spec, template = deployment["spec"], deployment["spec"]["template"]
    digest = template_hash(template, collisions)
    while view.taken("ReplicaSet", name := set_name(deployment["metadata"]["name"], digest)):
        collisions += 1
        digest = template_hash(template, collisions)
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), HASH_LABEL: digest}
    selector = spec["selector"]
    doc: Json = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": deployment["metadata"].get("namespace", "default"),
            "labels": labels,
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": new_replicas(limits, old, 0),
            "selector": {
                **selector,
                "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest},
            },
            "template": {**template, "metadata": {**metadata, "labels": labels}},
        },
    }
    if seconds := spec.get("minReadySeconds", 0):
        doc["spec"]["minReadySeconds"] = seconds
    made = OwnedSet(doc, new=True)
    made.note_sizes(limits.replicas, limits.most)
    annotate_new(deployment, made, old)
    return made, collisions


def set_name(deployment: str, digest: str) -> str:
    """Return the name of a ReplicaSet (generateReplicaSetName): long names of Deployments are cut."""
    return f"{deployment[: NAME_LENGTH - 1 - len(digest)]}-{digest}"


def cleanup(deployment: Json, old: Iterable[OwnedSet]) -> list[Delete]:
    """Return the deletions of the oldest ReplicaSets beyond revisionHistoryLimit that have no pods (cleanupDeployment).
    The plan must not scale them up."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    if limit is None or limit == UNLIMITED:
        return []
    retained = sorted(
        (found for found in old if not found.terminating), key=lambda one: (one.revision, one.age_key)
    )
    excess = max(len(retained) - limit, 0)
    return [
        Delete(found.doc["metadata"]["uid"])
        for found in retained[:excess]
        if found.replicas == found.doc["spec"].get("replicas", 1) == found.status("replicas") == 0
        and found.observed
    ]
