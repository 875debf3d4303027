"""Tokens of the API for the pods of manifests: an upgrade and an edit of something else restart nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.kube.objects import Automount
from kubelite.policies.token_volumes import uses_api
from kubelite.sources.directory import Sources
from state.store import Store
from tests.unit.sources.kit import directory, pod, web

__all__ = ["directory"]

ACCOUNT = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: bot}\n"
NAMED = pod().replace("spec:\n", "spec:\n  serviceAccountName: bot\n")


@pytest.mark.parametrize("automount", list(Automount))
async def test_pods_of_an_older_version_stay_as_they_are(
    directory: Path, store: Store, automount: Automount
) -> None:
    (directory / "web.yaml").write_text(f"{NAMED}---\n{ACCOUNT}")
    await Sources(str(directory), store).scan(settle=0)
    first = web(store)
    assert not uses_api(first.doc)
    newer = Sources(str(directory), store, automount=automount)
    await newer.scan(settle=0)
    assert web(store) == first
    (directory / "web.yaml").write_text(f"{NAMED.replace('busybox', 'nginx')}---\n{ACCOUNT}")
    await newer.scan(settle=0)
    assert web(store).doc["spec"]["containers"][0]["image"] == "nginx" and not uses_api(web(store).doc)


async def test_a_new_pod_gets_a_token_and_keeps_it(directory: Path, store: Store) -> None:
    sources = Sources(str(directory), store, automount=Automount.NAMED)
    (directory / "a-pod.yaml").write_text(NAMED)
    (directory / "z-account.yaml").write_text(ACCOUNT)  # read with it: the order does not matter
    await sources.scan(settle=0)
    first = web(store)
    assert uses_api(first.doc)
    await sources.scan(settle=0)
    await Sources(str(directory), store, automount=Automount.NONE).scan(settle=0)
    assert web(store) == first, "neither a restart nor another setting changes it"
    (directory / "z-account.yaml").unlink()
    await sources.scan(settle=0)
    assert web(store) == first and store.get("ServiceAccount", "default", "bot") is None
