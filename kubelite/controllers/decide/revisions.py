"""ControllerRevisions: the templates that a StatefulSet or a DaemonSet has had, and which pods are of which.

Sources: Kubernetes pkg/controller/history/controller_history.go, and getPatch and newRevision of the two controllers.
Pure. A revision's `data` is a patch of the owner: `{"spec": {"template": {…, "$patch": "replace"}}}`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from kubelite.controllers.decide.hashes import template_hash
from kubelite.controllers.model import Create, Delete, Effect, Rewrite, View
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from kubelite.kube.times import unix

KIND = "ControllerRevision"
POD_LABEL = "controller-revision-hash"  # of a pod: which revision it was made from
MAX_PREFIX = 223  # characters of the owner's name in a revision's name

# Annotation of a revision: the back-off of pods of this revision that fail, `<seconds> <Unix second of its begin>`.
BACK_OFF = "kubelite.io/failed-pods-back-off"
BACK_OFF_INITIAL, BACK_OFF_MAX = (
    1.0,
    900.0,
)  # seconds; pkg/controller/daemon/daemon_controller.go, failedPodsBackoff


class Placed(NamedTuple):
    """The revision of the owner's present template. `effects` create or renumber it. `collisions`: the owner's
    `status.collisionCount` from now on."""

    revision: Json
    effects: list[Effect]
    collisions: int


def data_of(template: Json) -> Json:
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def template_of(revision: Json) -> Json:
    """Return the pod template of a revision (ApplyRevision)."""
    return {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}


def name_of(revision: Json) -> str:
    return str(revision["metadata"]["name"])


def sort_revisions(revisions: Iterable[Json]) -> list[Json]:
    """Sort by number, then by age, then by name; the newest is the last (SortControllerRevisions)."""
    return sorted(revisions, key=lambda one: (one["revision"], _created(one), name_of(one)))


def next_number(revisions: Iterable[Json]) -> int:
    return max((int(one["revision"]) for one in revisions), default=0) + 1


def is_same(revision: Json, template: Json) -> bool:
    """Whether a revision has a template (EqualRevision)."""
    return bool(revision["data"] == data_of(template))


def is_equivalent(revision: Json, template: Json) -> bool:
    """Whether a revision has a template, apart from fields that have got a default since. Without this, all pods would
    be replaced when a new version of kubelite fills in more defaults (setMatchesLatestExistingRevision)."""
    return is_same(revision, template) or with_defaults(template_of(revision)) == template


def with_defaults(template: Json) -> Json | None:
    """Return a stored template with this version's defaults; None if this version refuses it."""
    from manifests.problems import InvalidObject
    from manifests.types.defaults import default_template
    from manifests.types.pod import PodTemplateSpec

    try:
        found = PodTemplateSpec.parse(template)
    except InvalidObject:  # valid for the version that wrote it
        return None
    default_template(found.spec)
    return found.to_json()


def new_revision(owner: Json, label: str, number: int, collisions: int) -> Json:
    """Return a revision of the owner's template, named OWNER-HASH. `label`: the label that contains the hash."""
    template, metadata = owner["spec"]["template"], owner["metadata"]
    # Owners of two kinds may have one name and one template.
    found = template_hash({"kind": owner["kind"], "template": template}, collisions)
    labels = {**((template.get("metadata") or {}).get("labels") or {}), label: found}
    about: Json = {
        "name": f"{metadata['name'][:MAX_PREFIX]}-{found}",
        "namespace": metadata.get("namespace", "default"),
        "labels": labels,
        "ownerReferences": [owner_reference(owner)],
    }
    if metadata.get("annotations"):
        about["annotations"] = dict(metadata["annotations"])
    return {
        "apiVersion": "apps/v1",
        "kind": KIND,
        "metadata": about,
        "data": data_of(template),
        "revision": number,
    }


def create(view: View, label: str, number: int) -> Placed:
    """Return a new revision of the owner's template. If another revision has its name, the number of collisions is
    incremented, which gives another name (CreateControllerRevision)."""
    seen = {name_of(one): one for one in view.of(KIND)}
    collisions = int((view.owner.get("status") or {}).get("collisionCount") or 0)
    while True:
        revision = new_revision(view.owner, label, number, collisions)
        existing = seen.get(name_of(revision))
        if existing is not None and existing["data"] == revision["data"]:
            return Placed(existing, [], collisions)
        if existing is None and not view.taken(KIND, name_of(revision)):
            return Placed(revision, [Create(revision)], collisions)
        collisions += 1


def renumber(revision: Json, number: int) -> tuple[Json, list[Effect]]:
    """Return the revision with another number: a template that an owner has again is its newest."""
    if revision["revision"] == number:
        return revision, []
    changed = {**revision, "revision": number}
    return changed, [Rewrite(changed)]


def truncate(revisions: Sequence[Json], live: Collection[str], surplus: int) -> list[Effect]:
    """Delete the `surplus` oldest revisions, except for those in `live` (names). `revisions` is sorted."""
    old = [one for one in revisions if name_of(one) not in live]
    return [Delete(one["metadata"]["uid"]) for one in old[: max(0, surplus)]]


def back_off(revision: Json, now: float) -> float:
    """Return for how many seconds failed pods of a revision stay before they are deleted; 0.0: they need not stay.

    The first failed pod is deleted at once, the next one after a second, then the delay doubles up to 15 minutes. It
    begins again after twice the longest delay without a failure (client-go util/flowcontrol/backoff.go)."""
    delay, since = _backed_off(revision)
    return max(0.0, since + delay - now) if _in_force(since, now) else 0.0


def backed_off(revision: Json, now: float) -> Json:
    """Return the revision after failed pods of it were deleted: the next ones stay longer."""
    delay, since = _backed_off(revision)
    longer = min(delay * 2, BACK_OFF_MAX) if delay and _in_force(since, now) else BACK_OFF_INITIAL
    metadata = revision["metadata"]
    annotations = {**(metadata.get("annotations") or {}), BACK_OFF: f"{longer:g} {now:.3f}"}
    return {**revision, "metadata": {**metadata, "annotations": annotations}}


def merged(effects: Iterable[Effect]) -> list[Effect]:
    """Return effects with one Rewrite an object, the last one at the place of the first: a Rewrite of a version that an
    earlier effect has replaced would end the plan."""
    last = {effect.doc["metadata"]["uid"]: effect for effect in effects if isinstance(effect, Rewrite)}
    found: list[Effect] = []
    for effect in effects:
        if not isinstance(effect, Rewrite):
            found.append(effect)
        elif (one := last.pop(effect.doc["metadata"]["uid"], None)) is not None:
            found.append(one)
    return found


def _in_force(since: float, now: float) -> bool:
    return now - since <= 2 * BACK_OFF_MAX


def _backed_off(revision: Json) -> tuple[float, float]:
    text = (revision["metadata"].get("annotations") or {}).get(BACK_OFF, "")
    delay, _, since = str(text).partition(" ")
    try:
        return float(delay), float(since)
    except ValueError:  # none, or edited by a person
        return 0.0, 0.0


def _created(revision: Json) -> float:
    return unix(revision["metadata"].get("creationTimestamp"))
