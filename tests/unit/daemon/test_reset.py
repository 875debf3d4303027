"""`kubelite reset` without a node: the network while pods terminate, the time that they have, and the question."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.daemon import drain, reset
from kubelite.daemon.losses import described, find_losses
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from kubelite.settings import Settings
from runtime.network.plan import NetworkConfig
from runtime.shim.protocol import SandboxRecord
from state.store import Store

SANDBOX = SandboxRecord(1, "u", "s", 1, 1, 1.0, "/x", "web", True, {"namespace": "default", "name": "web"})


class FakeNetwork:
    """Remembers how the network was set up last."""

    config: NetworkConfig | None = None

    @classmethod
    async def start(cls, config: NetworkConfig) -> FakeNetwork:
        cls.config = config
        return cls()

    async def teardown(self) -> None: ...
    async def close(self) -> None: ...


@pytest.mark.parametrize("routing", [False, True])
async def test_pods_remain_reachable_while_they_terminate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, routing: bool
) -> None:
    """The helper of a reset writes the node's rules again, so they must be those of the daemon."""
    monkeypatch.setattr(reset, "NetworkClient", FakeNetwork)
    (tmp_path / "network").mkdir()
    environ = {"KUBELITE_RUN_DIR": str(tmp_path), "KUBELITE_POD_ROUTING": str(routing).lower()}
    settings = Settings.load({}, environ)
    await reset._end_pods_and_network(settings, lambda _step: None, now=False, timeout=None)
    assert FakeNetwork.config is not None and FakeNetwork.config.routed is routing


@pytest.mark.parametrize(
    ("spec", "timeout", "seconds"),
    [
        ({}, None, 30),
        ({"terminationGracePeriodSeconds": 5}, None, 5),
        ({"terminationGracePeriodSeconds": 50}, 10, 10),
        ({"terminationGracePeriodSeconds": 0}, None, 1),
        (
            {"initContainers": [{"name": "a"}, {"name": "b", "restartPolicy": "Always"}]},
            None,
            30 + drain.SIDECAR,
        ),
    ],
)
async def test_a_pod_has_its_grace_period_and_time_for_each_sidecar(
    tmp_path: Path, spec: Json, timeout: float | None, seconds: float
) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.create("Pod", {"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": spec})
    ending = drain._ending(store, "u", SANDBOX, timeout)
    assert ending.deadline == pytest.approx(ending.began + seconds + drain.MARGIN)
    assert ending.name == "default/web"
    await store.close()


@pytest.mark.parametrize("recorded", ["", "/srv/manifests"])
async def test_the_question_names_the_manifest_directory_of_the_daemon(tmp_path: Path, recorded: str) -> None:
    """`kubelite serve --manifests` may have named another one than the configuration file."""
    store = Store.open(str(tmp_path / "state.db"))
    await store.create("Pod", {"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": {}})
    if recorded:
        await store.create(
            "ManifestDirectory", {"metadata": {"name": recorded, "uid": f"directory:{recorded}"}}
        )
    await store.close()
    environ = {name: str(tmp_path) for name in ("KUBELITE_ROOT", "KUBELITE_RUN_DIR")}
    settings = Settings.load({}, {**environ, "KUBELITE_MANIFESTS": "/etc/manifests"})
    lines = described(find_losses(settings), now=False, timeout=None)
    where = recorded or "/etc/manifests"
    assert lines[-1] == f"This keeps: images, manifests ({where}), the data of volumes and claims"


async def test_the_question_names_the_finished_jobs_that_will_run_again(tmp_path: Path) -> None:
    """Only the record of a finished Job says that it has run; its manifest stays."""
    store = Store.open(str(tmp_path / "state.db"))
    for name, source, condition in (
        ("done", "/m/done.yaml", {"type": "Complete", "status": "True"}),
        ("broken", "/m/broken.yaml", {"type": "Failed", "status": "True"}),
        ("runs", "/m/runs.yaml", {"type": "Suspended", "status": "False"}),
        ("nightly-29000000", "", {"type": "Complete", "status": "True"}),  # of a CronJob
    ):
        annotations = {SOURCE: source} if source else {}
        metadata = {"name": name, "namespace": "default", "uid": name, "annotations": annotations}
        await store.create("Job", {"metadata": metadata, "spec": {}, "status": {"conditions": [condition]}})
    await store.close()
    settings = Settings.load({}, {"KUBELITE_ROOT": str(tmp_path), "KUBELITE_RUN_DIR": str(tmp_path)})
    lines = described(find_losses(settings), now=False, timeout=None)
    wanted = "  that the jobs default/broken, default/done finished: they run again when the daemon starts"
    assert wanted in lines
