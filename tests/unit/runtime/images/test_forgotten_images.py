"""A store in a long-running process does not keep the manifests and configs of removed images."""

from __future__ import annotations

from pathlib import Path

from runtime.images.store.store import ImageStore
from tests.kernel.images_support import member, tar, write_layout

EMPTY = b'{"schemaVersion": 2, "manifests": []}'


def test_a_removed_image_is_forgotten(tmp_path: Path) -> None:
    write_layout(tmp_path, [tar((member("file"), b"content"))], "example.com/x:1")
    index = tmp_path / "index.json"
    whole = index.read_bytes()
    store = ImageStore(str(tmp_path))
    (record,) = store.list()
    assert store.image_config(record)["rootfs"]
    index.write_bytes(EMPTY)
    assert store.list() == ()
    Path(store.blob_path(record.id)).unlink()
    index.write_bytes(whole)
    assert store.list() == (), "the config of the removed image is still in memory"
