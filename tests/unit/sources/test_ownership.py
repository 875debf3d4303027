"""Field managers of objects whose manifests are edited."""

from __future__ import annotations

from typing import Any

from kubelite.sources.ownership import Ownership

KEY = ("ServiceAccount", "default", "builder")


def account(*secrets: dict[str, str], **metadata: Any) -> dict[str, Any]:
    metadata = {"name": "builder", "namespace": "default", **metadata}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "secrets": list(secrets)}


def test_an_edit_that_belongs_to_nobody_keeps_the_managers() -> None:
    managers = [
        {
            "apiVersion": "v1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:secrets": {'k:{"name":"key"}': {}}},
            "manager": "me",
            "operation": "Apply",
        }
    ]
    old = account({"name": "key"}, managedFields=managers)
    new = Ownership(lambda: 0.0).of_edited(KEY, old, account({"kind": "Secret"}))
    assert new == account({"kind": "Secret"}, managedFields=managers)


def test_an_edit_of_an_object_whose_managers_cannot_be_read_has_an_owner() -> None:
    old = account(managedFields=[{"manager": "me"}])
    new = Ownership(lambda: 0.0).of_edited(KEY, old, account({"name": "key"}))
    assert [one["manager"] for one in new["metadata"]["managedFields"]] == ["kubelite-directory"]
