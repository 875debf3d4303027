"""Ownership: references to owners, adoption of what a selector matches, release of what it no longer matches.

Source: Kubernetes pkg/controller/controller_ref_manager.go. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kubelite.controllers.model import Effect, Rewrite, View
from kubelite.kube.json import Json


def owner_reference(owner: Json) -> Json:
    """Return the ownerReference by which `owner` controls an object."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(doc: Json) -> Json | None:
    """Return the ownerReference of the object that controls this one; None if there is none."""
    return next((ref for ref in doc["metadata"].get("ownerReferences") or () if ref.get("controller")), None)


def controls(owner: Json, doc: Json) -> bool:
    found = controller_of(doc)
    return found is not None and found.get("uid") == owner["metadata"]["uid"]


def is_terminating(doc: Json) -> bool:
    return bool(doc["metadata"].get("deletionTimestamp"))


def managed(view: View, kind: str, matches: Callable[[Json], bool]) -> tuple[list[Json], list[Effect]]:
    """Return the documents of a kind that the owner controls from now on, and the effects that adopt and release.

    `matches` tests a document's labels. A matching object without a controller is adopted, unless it or the owner is
    terminating. An object that matches no longer is released. A terminating owner neither adopts nor releases. An
    adopted document is returned as it will be, with the reference. A pod that has ended and has no controller is
    adopted, too, as in Kubernetes; callers that count active pods leave it out.
    """
    found: list[Json] = []
    effects: list[Effect] = []
    ends = is_terminating(view.owner)
    for doc in view.of(kind):
        if controls(view.owner, doc):
            if matches(doc):
                found.append(doc)
            elif not ends:
                effects.append(Rewrite(_without(doc, view.owner["metadata"]["uid"])))
        elif controller_of(doc) is None and matches(doc) and not ends and not is_terminating(doc):
            adopted = _with(doc, owner_reference(view.owner))
            found.append(adopted)
            effects.append(Rewrite(adopted))
    return found, effects


def _with(doc: Json, reference: Json) -> Json:
    references = [*(doc["metadata"].get("ownerReferences") or ()), reference]
    return {**doc, "metadata": {**doc["metadata"], "ownerReferences": references}}


def _without(doc: Json, uid: str) -> Json:
    left: Sequence[Json] = [ref for ref in doc["metadata"]["ownerReferences"] if ref.get("uid") != uid]
    metadata = {key: value for key, value in doc["metadata"].items() if key != "ownerReferences"}
    return {**doc, "metadata": {**metadata, **({"ownerReferences": left} if left else {})}}
