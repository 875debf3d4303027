"""A watched directory, a store and the sources between them, with helpers for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.sources.directory import Sources
from state.store import Record, Store

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  containers:
  - name: main
    image: {image}
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
data:
  key: value
"""
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  storageClassName: manual
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /mnt/data}
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  storageClassName: manual
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
"""
BROKEN = (
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: main\n    imagee: x\n"
)


def pod(name: str = "web", image: str = "busybox") -> str:
    return POD.format(name=name, image=image)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def sources(directory: Path, store: Store) -> Sources:
    return Sources(str(directory), store)


def names(store: Store) -> list[str]:
    return [r.name for r in store.list("Pod") if not r.deleting]


def web(store: Store) -> Record:
    record = store.get("Pod", "default", "web")
    assert record is not None
    return record


def image(store: Store) -> str:
    found: str = web(store).doc["spec"]["containers"][0]["image"]
    return found
