"""The tokens that the daemon gives pods' volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.daemon.serving.pod_access import PodAccess
from kubelite.settings import Settings
from manifests.types.core import Pod, ServiceAccountTokenProjection
from state.store import Store

POD = Pod.parse(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "pod-1"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
)
WANTED = ServiceAccountTokenProjection(path="token", audience="vault")


@pytest.mark.parametrize("changed", [{"cluster_domain": "another.local"}, {"node_name": "there"}])
def test_a_file_gets_a_new_token_when_the_nodes_names_change(tmp_path: Path, changed: dict[str, str]) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    names = {"cluster_domain": "cluster.local", "node_name": "here"}
    before = Settings(root=str(tmp_path), **names)
    after = PodAccess(Settings(root=str(tmp_path), **(names | changed)), store)
    text = PodAccess(before, store).token(POD, WANTED, "")
    assert PodAccess(before, store).token(POD, WANTED, text) == text
    new = after.token(POD, WANTED, text)
    assert new != text and after.token(POD, WANTED, new) == new
