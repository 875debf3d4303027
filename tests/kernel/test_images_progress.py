"""What is reported while an image is saved: the events that a pull reports, too."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from runtime.images.client import ImageClient
from tests.kernel.images_support import member, tar, write_layout

NAME = "example.test/team/app:1.2"


async def saved(root: Path, path: Path, form: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The digests of the image's layers, and the events of saving it."""
    client, events = ImageClient(str(root)), list[dict[str, Any]]()
    try:
        if client.store.get(NAME) is None:
            await client.load(str(root / "layout"))
        await client.save([NAME], str(path), form=form, progress=events.append)
        return list(client.store.find(NAME).layer_digests), events
    finally:
        await client.close()


@pytest.mark.kernel
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_a_save_reports_each_layer(tmp_path: Path, form: str) -> None:
    content = os.urandom(3_000_000)
    write_layout(tmp_path / "layout", [tar((member("a"), content)), tar((member("b"), b"b"))], NAME)
    digests, (first, *layers, last) = asyncio.run(saved(tmp_path, tmp_path / "out", form))
    sizes = {layer["digest"]: layer["size"] for layer in first["layers"]}
    assert (first["event"], first["reference"], first["size"]) == ("resolved", NAME, sum(sizes.values()))
    assert set(sizes) == set(digests)
    assert {event["digest"]: event["current"] for event in layers if event["state"] == "done"} == sizes
    assert {event["state"] for event in layers} == {"saving", "done"}
    assert last["event"] == "saved"
    if form == "oci-dir":  # what is there already is reported as such
        _, events = asyncio.run(saved(tmp_path, tmp_path / "out", form))
        assert {event["state"] for event in events[1:-1]} == {"present"}
