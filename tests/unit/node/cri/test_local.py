"""LocalCri with fake shims: cancelled starts, exits that arrive before the reply to a start, and cleanup."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kubelite.node.cri import local
from kubelite.node.cri.local import LocalCri
from kubelite.node.model.cri import ContainerRequest, ObservedImage
from kubelite.settings import Settings
from kubelite.telemetry.tracing.trace import Tracer
from runtime.errors import RuntimeFault
from runtime.shim.client import ShimClient, ShimGone
from runtime.shim.protocol import EVENT_EXIT, ContainerRecord, CreateContainer, SandboxRecord
from state.store import Store
from tests.waiting import until_async as until

UID = "u1"


class Shim:
    """A fake shim and the connection to it."""

    def __init__(self) -> None:
        self.closed = False
        self.killed: list[str] = []
        self.containers: dict[str, ContainerRecord] = {}
        self.on_event: Callable[[dict[str, Any]], None] = lambda _event: None
        self.while_starting: Callable[[str], Any] = lambda _id: None

    async def state(self) -> SandboxRecord:
        found = [c.to_json() for c in self.containers.values()]
        return SandboxRecord(1, UID, "s1", os.getpid(), 1, 1.0, "/x", "web", True, {}, found)

    subscribe = state

    @contextlib.contextmanager
    def launch(self, request: CreateContainer) -> Iterator[Any]:
        async def created() -> str:
            return await self.create(request)

        async def started() -> tuple[ContainerRecord, str]:
            return await self.start(request.container_id)

        yield SimpleNamespace(created=created, started=started)

    async def create(self, request: CreateContainer) -> str:
        Path(request.log_path).parent.mkdir(parents=True, exist_ok=True)
        self._put(request.container_id, "created", message_path=request.termination_message_path)
        return ""

    async def start(self, identity: str) -> tuple[ContainerRecord, str]:
        record = self._put(identity, "running", started_at=2.0)
        waiting = self.while_starting(identity)
        if waiting is not None:
            await waiting
        return record, ""

    async def kill(self, identity: str, _signal: int, *, all: bool) -> None:
        self.killed.append(identity)

    async def delete(self, identity: str) -> None:
        del self.containers[identity]

    def exit(self, identity: str) -> None:
        record = self._put(identity, "stopped", started_at=2.0, finished_at=3.0, exit_code=0)
        self.on_event({"event": EVENT_EXIT, "container": record.to_json()})

    def close(self) -> None:
        self.closed = True

    def _put(self, identity: str, status: str, message_path: str = "", **more: Any) -> ContainerRecord:
        old = self.containers.get(identity)
        labels = old.labels if old else {"message_path": message_path}
        log_path = f"/log/pods/default_web_{UID}/a/0.log"
        found = ContainerRecord(identity, "a", 0, status, labels=labels, log_path=log_path, **more)
        self.containers[identity] = found
        return found


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Shim:
    found = Shim()

    async def connect(_run_dir: str, *, on_event: Any, on_close: Any) -> Shim:
        found.on_event = on_event
        return found

    monkeypatch.setattr(ShimClient, "connect", connect)
    monkeypatch.setattr(local, "read_state", lambda _dir: SimpleNamespace(containers=[]))
    monkeypatch.setattr(local, "shim_alive", lambda _record: True)
    return found


async def nothing(*_: Any) -> list[Any]:
    return []


@pytest.fixture
async def cri(tmp_path: Path, store: Store) -> AsyncIterator[LocalCri]:
    settings = Settings.load({"root": str(tmp_path), "run_dir": str(tmp_path), "log_dir": str(tmp_path)}, {})
    network: Any = SimpleNamespace(list=nothing, delete=nothing, reattaches=True)
    other: Any = SimpleNamespace()
    found = LocalCri(settings, store, forkserver=other, network=network, images=other, tracer=Tracer())
    yield found
    await found.close()


def request(tmp_path: Path, identity: str = "c1", pod: str = "web") -> ContainerRequest:
    message = str(tmp_path / f"pods/{UID}/message-{identity}")
    log_path = str(tmp_path / f"pods/default_{pod}_{UID}/a/0.log")
    image = ObservedImage("sha256:1", "app:1")
    return ContainerRequest(
        UID,
        identity,
        "a",
        0,
        image,
        "app:1",
        {},
        "",
        "",
        log_path,
        0,
        ((message, ""),),
        False,
        False,
        message,
    )


async def test_a_start_interrupted_by_the_daemons_end_kills_nothing(
    cri: LocalCri, shim: Shim, tmp_path: Path
) -> None:
    shim.while_starting = lambda _id: asyncio.Event().wait()
    task = asyncio.create_task(cri.start_container(request(tmp_path)))
    while not shim.containers or next(iter(shim.containers.values())).status != "running":
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert shim.killed == []


async def test_a_start_that_fails_leaves_nothing_running(cri: LocalCri, shim: Shim, tmp_path: Path) -> None:
    async def fail() -> None:
        raise RuntimeFault("no")

    shim.while_starting = lambda _id: fail()
    with pytest.raises(RuntimeFault):
        await cri.start_container(request(tmp_path))
    assert shim.killed == ["c1"]


async def test_an_exit_that_arrives_before_the_reply_to_start_stays_recorded(
    cri: LocalCri, shim: Shim, store: Store, tmp_path: Path
) -> None:
    shim.while_starting = shim.exit
    await cri.start_container(request(tmp_path))
    await cri.close()
    assert [row.state for row in store.containers(UID)] == ["stopped"]


async def test_nothing_is_remembered_of_a_removed_pod(
    cri: LocalCri, shim: Shim, store: Store, tmp_path: Path
) -> None:
    await cri.start_container(request(tmp_path))
    shim.exit("c1")
    await until(lambda: [row.state for row in store.containers(UID)] == ["stopped"])
    await cri.observe(UID)
    assert cri._messages
    shim.containers.clear()
    await cri.remove_pod(UID)
    assert cri._messages == {}


async def test_an_unchanged_record_is_the_same_object(cri: LocalCri, shim: Shim, tmp_path: Path) -> None:
    await cri.start_container(request(tmp_path))
    await cri.observe(UID)
    before = cri.running_sandboxes()[UID]
    assert await cri.observe(UID) == await cri.observe(UID)
    assert cri.running_sandboxes()[UID] is before
    shim.exit("c1")
    assert (await cri.observe(UID)).containers[0].exit_code == 0
    assert cri.running_sandboxes()[UID] is not before


async def test_a_long_name_is_possible(cri: LocalCri, shim: Shim, tmp_path: Path) -> None:
    await cri.start_container(request(tmp_path, "c" * 64, pod="w" * 200))
    links = os.listdir(tmp_path / "containers")
    assert len(links) == 1 and links[0].endswith(".log") and len(links[0]) == 255


async def test_concurrent_observations_share_a_connection(
    cri: LocalCri, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Shim] = []

    async def connect(_run_dir: str, *, on_event: Any, on_close: Any) -> Shim:
        await asyncio.sleep(0)
        made.append(Shim())
        return made[-1]

    monkeypatch.setattr(ShimClient, "connect", connect)
    await asyncio.gather(cri.observe(UID), cri.observe(UID))
    assert [shim.closed for shim in made] == [False, True]


async def test_a_broken_pod_does_not_keep_the_node_from_starting(
    cri: LocalCri, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shims" / "broken").mkdir(parents=True)
    (tmp_path / "shims" / UID).mkdir(parents=True)

    async def broken(uid: str, _run_dir: str) -> None:
        raise RuntimeFault("its cgroup does not go")

    monkeypatch.setattr(local, "shim_alive", lambda record: record is not None)
    monkeypatch.setattr(
        local,
        "read_state",
        lambda path: None if path.endswith("broken") else SimpleNamespace(containers=[]),
    )
    monkeypatch.setattr(cri, "_bury", broken)
    assert list(await cri.adopt()) == [UID]


async def test_the_release_of_an_address_is_retried(
    cri: LocalCri, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the failure the run directory still exists, so the next round tries again."""
    run_dir = tmp_path / "shims" / UID
    run_dir.mkdir(parents=True)
    asked: list[str] = []

    async def refuses(uid: str) -> None:
        asked.append(uid)
        raise RuntimeFault("the network helper died")

    async def shutdown(*, force: bool) -> None:
        run_dir.rmdir()

    monkeypatch.setattr(cri._network, "delete", refuses)
    monkeypatch.setattr(shim, "shutdown", shutdown, raising=False)
    for _ in range(2):
        with pytest.raises(RuntimeFault):
            await cri.stop_sandbox(UID)
        assert run_dir.exists()
    monkeypatch.setattr(local, "shim_alive", lambda _record: False)
    shim.closed = True
    with pytest.raises(RuntimeFault):
        await cri.stop_sandbox(UID)  # the shim has died meanwhile
    assert run_dir.exists() and asked == [UID] * 3


async def test_a_shim_that_is_exiting_is_not_a_missing_sandbox(
    cri: LocalCri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process closes its sockets before it has exited. If the pod counted as ended then, nothing would clean
    up after its shim."""
    (tmp_path / "shims" / UID).mkdir(parents=True)
    looks, buried = [0], []

    async def connect(_run_dir: str, **_: Any) -> Shim:
        raise ShimGone("hung up")

    def alive(_record: object) -> bool:
        looks[0] += 1
        return looks[0] < 4

    async def reap(run_dir: str) -> None:
        buried.append(run_dir)

    monkeypatch.setattr(ShimClient, "connect", connect)
    monkeypatch.setattr(local, "read_state", lambda _dir: SimpleNamespace(containers=[]))
    monkeypatch.setattr(local, "shim_alive", alive)
    monkeypatch.setattr(local, "occupied", alive)
    monkeypatch.setattr(local, "reap_dead", reap)
    assert (await cri.observe(UID)).sandbox is None
    assert len(buried) == 1
    (tmp_path / "shims" / UID).mkdir(exist_ok=True)
    monkeypatch.setattr(local, "occupied", lambda _dir: True)
    monkeypatch.setattr(local, "DYING", 0.05)
    with pytest.raises(RuntimeFault, match="neither answers nor exits"):
        await cri.observe(UID)
    assert len(buried) == 1


async def test_no_link_is_made_before_its_log_exists(
    cri: LocalCri, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(_request: CreateContainer) -> None:
        raise RuntimeFault("the shim hung up")

    monkeypatch.setattr(shim, "create", dies)
    with pytest.raises(RuntimeFault):
        await cri.start_container(request(tmp_path))
    assert not os.path.exists(tmp_path / "containers")


async def test_a_start_survives_a_failed_link(
    cri: LocalCri, shim: Shim, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The program may already run, so the start is not undone, as in kubelet."""
    (tmp_path / "containers").write_text("no directory")
    observed = await cri.start_container(request(tmp_path))
    assert observed.state == "running" and not shim.killed
    assert "no link to the log" in caplog.text


async def _dies_at_its_start(cri: LocalCri, shim: Shim, wanted: ContainerRequest) -> None:
    """The daemon dies after the log was created and before the instance was recorded."""

    async def dies(_identity: str) -> None:
        raise RuntimeFault("the daemon was killed here")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeFault):
        patch.setattr(shim, "start", dies)
        await cri.start_container(wanted)


async def test_links_of_an_unrecorded_container_are_removed_with_the_pod(
    cri: LocalCri, shim: Shim, tmp_path: Path
) -> None:
    await _dies_at_its_start(cri, shim, request(tmp_path))
    other = tmp_path / "containers" / "web_default_a-other.log"
    other.symlink_to("/log/pods/default_web_u2/a/0.log")
    assert len(os.listdir(tmp_path / "containers")) == 2
    shim.containers.clear()
    await cri.remove_pod(UID)
    assert os.listdir(tmp_path / "containers") == [other.name]


async def test_links_of_an_unrecorded_instance_are_removed(cri: LocalCri, shim: Shim, tmp_path: Path) -> None:
    """The next instance has the same attempt and therefore the same log. If only that log were removed, the earlier
    link would remain."""
    await _dies_at_its_start(cri, shim, request(tmp_path, "c1"))
    await cri.start_container(request(tmp_path, "c2"))
    assert os.listdir(tmp_path / "containers") == ["web_default_a-c2.log"]


async def test_a_log_is_removed_with_its_container_unless_another_writes_it(
    cri: LocalCri, shim: Shim, tmp_path: Path
) -> None:
    path = tmp_path / "0.log"
    for name in ("0.log", "0.log.20260101-000000", "1.log"):
        (tmp_path / name).touch()
    shim._put("c1", "stopped")
    shim._put("c2", "running")
    for identity in ("c1", "c2"):
        shim.containers[identity] = replace(shim.containers[identity], log_path=str(path))
    await cri.remove_container(UID, "c1")
    assert path.exists(), "it was made anew under the same number"
    await cri.remove_container(UID, "c2")
    assert [name for name in sorted(os.listdir(tmp_path)) if ".log" in name] == ["1.log"]
    for name in ("0.log", "2.log", "3.log", "10.log", "note.log"):
        (tmp_path / name).touch()
    shim._put("c3", "stopped")
    shim.containers["c3"] = replace(shim.containers["c3"], log_path=str(tmp_path / "3.log"))
    await cri.remove_container(UID, "c3", keep_log=True)  # `logs -p` reads this one; earlier ones are removed
    assert sorted(p.name for p in tmp_path.glob("*.log")) == ["10.log", "3.log", "note.log"]
