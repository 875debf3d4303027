"""`kubelite delete`: the grace period of a manifest's pods, and where an object of another type is deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.objects.delete import _Deleter

OPTIONS = {
    "namespace": None,
    "force": False,
    "now": False,
    "grace_period": None,
    "all_namespaces": False,
    "ignore_not_found": False,
}
POD = {"metadata": {"namespace": "default", "name": "web", "uid": "1"}}


class _Server:
    def __init__(self, *, kind: str = "Pod", result: str = "deleted") -> None:
        self.entry = {"kind": kind, "namespace": "default", "name": "web", "result": result}
        self.deleted: list[tuple[str, Any, Any]] = []

    def get(self, path: str, **_: Any) -> Any:
        if path.endswith("/configmaps/app"):
            return {"metadata": {"annotations": {"kubelite.io/source": "/etc/m/app.yaml"}}}
        if path.endswith("/storageclasses/kubelite"):
            return {"metadata": {"name": "kubelite"}}
        if path.endswith("/persistentvolumeclaims"):
            source = {"kubelite.io/source": "/etc/m/data.yaml"}
            claims = [{"name": "data-db-0"}, {"name": "data", "annotations": source}]
            return {"items": [{"metadata": metadata} for metadata in claims]}
        if path.endswith("/persistentvolumeclaims/data"):
            return {"metadata": {"annotations": {"kubelite.io/source": "/etc/m/data.yaml"}}}
        return {"items": [POD]}

    def json(self, method: str, path: str, *, query: Any = None, body: bytes = b"", **_: Any) -> Any:
        if method == "POST":
            return {"objects": [self.entry]}
        self.deleted.append((path, query, json.loads(body or b"{}")))
        return POD


@pytest.mark.parametrize(
    ("given", "seconds"),
    [({"grace_period": 3}, 3), ({"now": True}, 1), ({"force": True}, 0), ({}, None)],
)
def test_the_grace_period_applies_to_the_pods_of_a_file(given: dict[str, Any], seconds: int | None) -> None:
    server: Any = _Server()
    _Deleter(server, {**OPTIONS, **given}).files(iter([("web.yaml", b"")]))
    call = (
        "/api/v1/namespaces/default/pods/web",
        {"gracePeriodSeconds": seconds, "manifest": "keep"},
        {"preconditions": {"uid": "1"}},
    )
    assert server.deleted == ([] if seconds is None else [call])


def test_the_file_of_a_configmap_is_named() -> None:
    server: Any = _Server()
    with pytest.raises(CliError, match=r"kubelite delete -f /etc/m/app\.yaml$"):
        _Deleter(server, OPTIONS).objects(["configmap", "app"])


def test_an_object_that_no_manifest_defines_has_no_file() -> None:
    server: Any = _Server()
    with pytest.raises(CliError, match=r'^error: storageclass "kubelite" is in no manifest'):
        _Deleter(server, OPTIONS).objects(["storageclass", "kubelite"])


def test_a_claim_that_no_manifest_defines_is_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of a StatefulSet outlive it, and have no file to remove."""
    server: Any = _Server()
    _Deleter(server, {**OPTIONS, "cascade": "background"}).objects(["pvc", "data-db-0"])
    (call,) = server.deleted
    assert call[0] == "/api/v1/namespaces/default/persistentvolumeclaims/data-db-0"
    assert capsys.readouterr().out == 'persistentvolumeclaim "data-db-0" deleted from default namespace\n'
    with pytest.raises(CliError, match=r"kubelite delete -f /etc/m/data\.yaml$"):
        _Deleter(server, OPTIONS).objects(["pvc", "data"])


@pytest.mark.parametrize(("kind", "plural"), [("Pod", "pods"), ("StorageClass", "storageclasses")])
def test_a_missing_object_is_named_by_its_type(
    kind: str, plural: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server: Any = _Server(kind=kind, result="missing")
    _Deleter(server, OPTIONS).files(iter([("web.yaml", b"")]))
    assert capsys.readouterr().err == f'Error from server (NotFound): {plural} "web" not found\n'
