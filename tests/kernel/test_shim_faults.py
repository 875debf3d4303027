"""kill -9 anywhere between daemon and container: what survives is complete, and the rest leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.cgroups import layout
from runtime.errors import RuntimeFault, StateError
from runtime.shim.client import ShimClient, ShimGone, read_state, reap_dead, shim_alive
from runtime.shim.protocol import ContainerRecord, SandboxConfig
from tests.kernel.shim_kit import Node, Pod, node
from tests.programs import BUSYBOX
from tests.waiting import SECONDS
from tests.waiting import until_async as until

__all__ = ["node"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
]


def children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_a_shim_outlives_the_forkserver_and_another_one_comes(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sh", "-c", "while :; do echo tick; sleep 0.05; done")
        first = node.forkserver.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: node.forkserver.pid != first)
        second = await node.pod()
        assert (await second.run("true")).exit_code == 0
        assert shim_alive(pod.record)
        before = len(pod.log(container))
        await until(lambda: len(pod.log(container)) > before + 2)
        assert first not in children(os.getpid())  # reaped

    node.run(story)


def test_a_stopped_forkserver_is_replaced(node: Node) -> None:
    """Nothing would ever start again. The pod whose spawn found out is tried again by its worker."""

    async def story(node: Node) -> None:
        pod = await node.pod()
        first = node.forkserver.pid
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(RuntimeFault, match="was not ready within 1 seconds"):
            await node.forkserver.spawn(node.config(), timeout=1.0)
        await until(lambda: node.forkserver.pid != first)
        second = await node.pod()
        assert (await second.run("true")).exit_code == 0
        assert shim_alive(pod.record)
        assert first not in children(os.getpid())  # reaped

    node.run(story)


@pytest.mark.either_cgroup  # and what hits its fork half-way ends a guest, by a bug of User Mode Linux
@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02])
def test_forkserver_killed_in_the_middle_of_a_spawn(node: Node, delay: float) -> None:
    """At any moment: afterwards there is either a complete sandbox, which is ours, or nothing."""

    async def story(node: Node) -> None:
        config = node.config()
        spawning = asyncio.ensure_future(node.forkserver.spawn(config))
        await asyncio.sleep(0)
        time.sleep(delay)  # noqa: ASYNC251  exact, and nothing else must run
        os.kill(node.forkserver.pid, signal.SIGKILL)
        try:
            record = await spawning
        except RuntimeFault as fault:
            assert fault.retriable
            await until(lambda: not os.path.exists(config.run_dir))
            pod = Pod(node, config, await node.forkserver.spawn(config))  # again works
        else:
            pod = Pod(node, config, record)
        node.pods.append(pod)
        await pod.connect()
        assert (await pod.run("true")).exit_code == 0

    node.run(story)


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004, 0.008])
def test_shim_killed_while_it_starts(node: Node, delay: float, spare: bool) -> None:
    """The forkserver reports an error and cleans up, or the sandbox was ready and its death is noticed later."""

    async def story(node: Node) -> None:
        config = node.config()
        if spare:
            first = await node.pod()
            await first.client.shutdown()
            others = [first.record.pid]
            (born,) = await until(lambda: [c for c in children(node.forkserver.pid) if c not in others])
        spawning = asyncio.ensure_future(node.forkserver.spawn(config))
        await asyncio.sleep(0)
        end = time.monotonic() + SECONDS
        while not spare and not (found := children(node.forkserver.pid)):
            assert time.monotonic() < end
        born = born if spare else found[0]
        time.sleep(delay)  # noqa: ASYNC251  exact, and nothing else must run
        os.kill(born, signal.SIGKILL)
        try:
            record = await spawning
        except RuntimeFault as fault:
            assert fault.reason == "CreatePodSandboxError" and fault.retriable
            assert not os.path.exists(config.run_dir)
        else:
            if spare and record.pid != born:  # another one stepped in
                client = await ShimClient.connect(config.run_dir)
                await client.shutdown()
                return
            await until(lambda: not os.path.exists(f"/proc/{born}"))
            with pytest.raises(StateError) as caught:
                await node.forkserver.spawn(config)
            assert caught.value.reason == "StaleSandbox"
            assert await reap_dead(config.run_dir) is not None
        assert node.cgroups() == []

    node.run(story)


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012])
def test_shim_killed_in_the_middle_of_a_create(node: Node, delay: float) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        creating = asyncio.ensure_future(pod.create("sleep", "1000"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(delay)  # noqa: ASYNC251  exact, and nothing else must run
        os.kill(pod.record.pid, signal.SIGKILL)
        with contextlib.suppress(ShimGone):
            await creating
        await until(lambda: not shim_alive(pod.record))
        record = await reap_dead(pod.config.run_dir)
        assert record is not None
        assert all(c["status"] == "unknown" for c in record.containers)

    node.run(story)


def test_a_killed_shim_takes_its_containers_along_and_says_what_there_was(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod(annotations={"a": "b"})
        ended = await pod.run("sh", "-c", "exit 3")
        running = await pod.start("sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000")
        created = await pod.create("sleep", "1000")
        session = await pod.exec(running, "sleep", "1000")
        gone = asyncio.get_running_loop().create_future()
        watcher = await ShimClient.connect(pod.config.run_dir, on_close=lambda: gone.set_result(True))
        with pytest.raises(StateError, match="alive"):
            await reap_dead(pod.config.run_dir)
        os.kill(pod.record.pid, signal.SIGKILL)
        await asyncio.wait_for(gone, 5)
        assert watcher.closed
        with pytest.raises(ShimGone):
            await watcher.state()
        await until(lambda: not shim_alive(pod.record))
        record = await reap_dead(pod.config.run_dir)
        assert record is not None and record.annotations == {"a": "b"}
        by_id = {c["id"]: ContainerRecord.from_json(c) for c in record.containers}
        assert (by_id[ended.id].status, by_id[ended.id].exit_code) == ("stopped", 3)
        for container in (running, created):
            lost = by_id[container]
            assert (lost.status, lost.exit_code, lost.reason) == ("unknown", 137, "ContainerStatusUnknown")
            assert (lost.pid, lost.finished_at > 0) == (0, True)
        assert not os.path.exists(pod.config.run_dir)
        assert await reap_dead(pod.config.run_dir) is None  # again: fine
        session.close()

    node.run(story)


def test_host_pid_processes_of_a_killed_shim_are_ended_too(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod(host_pid=True)

        def host_pid(spec: dict[str, dict[str, list[dict[str, str]]]]) -> None:
            spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]

        container = await pod.start("sh", "-c", "setsid sleep 1000 & echo up; sleep 1000", change=host_pid)
        await until(lambda: pod.log(container))
        os.kill(pod.record.pid, signal.SIGKILL)
        await until(lambda: not shim_alive(pod.record))
        assert await reap_dead(pod.config.run_dir) is not None

    node.run(story)


def test_a_spare_that_was_killed_is_not_missed(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        spare = await until(lambda: [c for c in children(node.forkserver.pid) if c != pod.record.pid])
        os.kill(spare[0], signal.SIGKILL)
        second = await node.pod()
        assert (await second.run("true")).exit_code == 0
        assert second.record.pid != spare[0]

    node.run(story)


def test_a_spare_becomes_the_next_sandbox_and_ends_with_the_forkserver(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        spare = await until(lambda: node.forkserver.spare)  # other children come and go in the rehearsal
        second = await node.pod()
        assert second.record.pid == spare
        assert os.readlink(f"/proc/{spare}/ns/net") != os.readlink(f"/proc/{pod.record.pid}/ns/net")
        host = await node.pod(host_network=True)  # no spare fits: forked for it
        assert os.readlink(f"/proc/{host.record.pid}/ns/net") == os.readlink("/proc/self/ns/net")
        known = [pod.record.pid, spare, host.record.pid]
        (next_one,) = await until(lambda: [c for c in children(node.forkserver.pid) if c not in known])
        os.kill(node.forkserver.pid, signal.SIGKILL)
        await until(lambda: not os.path.exists(f"/proc/{next_one}/ns/net"))
        assert all(shim_alive(p.record) for p in node.pods)

    node.run(story)


def test_a_second_spawn_of_a_living_pod_is_refused_and_harms_nothing(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "1000")
        with pytest.raises(StateError) as caught:
            await node.forkserver.spawn(pod.config)
        assert caught.value.reason == "AlreadyExists"
        assert (await pod.client.state()).containers[0]["id"] == container
        assert (await pod.client.state()).containers[0]["status"] == "running"

    node.run(story)


def test_many_spawns_at_once_and_one_bad_one_among_them(node: Node) -> None:
    async def story(node: Node) -> None:
        configs = [node.config() for _ in range(8)]
        bad = node.config(sysctls={"vm.swappiness": "1"})
        results = await asyncio.gather(
            *(node.forkserver.spawn(c) for c in [*configs, bad]), return_exceptions=True
        )
        assert isinstance(results[-1], RuntimeFault)
        for config, record in zip(configs, results, strict=False):
            assert not isinstance(record, BaseException)
            assert record.uid == config.uid
            node.pods.append(Pod(node, config, record))
        assert len({pod.record.pid for pod in node.pods}) == 8

    node.run(story)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("cgroup", lambda c: {"resources": {"memory": {"limit": 1}, "cpu": {"quota": 1, "period": 1}}}),
        ("run directory", lambda c: {"run_dir": "/proc/nowhere/x"}),
        ("host name", lambda c: {"hostname": "x" * 65}),
    ],
)
def test_a_sandbox_that_cannot_be_made_leaves_nothing(
    node: Node, what: str, change: Callable[[SandboxConfig], dict[str, object]]
) -> None:
    async def story(node: Node) -> None:
        config = node.config()
        bad = SandboxConfig.from_json(config.to_json() | change(config))
        with pytest.raises(RuntimeFault):
            await node.forkserver.spawn(bad)
        assert not os.path.exists(config.run_dir)
        assert node.cgroups() == [], what
        pod = await node.pod()
        assert (await pod.run("true")).exit_code == 0

    node.run(story)


def test_a_shims_cgroup_that_a_killed_forkserver_left_half_made_is_finished(node: Node) -> None:
    """cgroup v1: a cpuset without CPUs accepts no process (ENOSPC) until somebody sets them."""

    async def story(node: Node) -> None:
        for point in layout().hierarchies:
            os.makedirs(f"{point}/{node.tag}/shims")
        pod = await node.pod()
        assert (await pod.run("true")).exit_code == 0

    node.run(story)


DAEMON = textwrap.dedent("""
    import asyncio, json, sys
    from runtime.shim.client import ShimClient
    from runtime.shim.warm.forkserver_client import Forkserver
    from runtime.shim.protocol import CreateContainer, SandboxConfig

    async def main():
        given = json.load(sys.stdin)
        forkserver = Forkserver()
        await forkserver.start()
        print("ready", flush=True)
        record = await forkserver.spawn(SandboxConfig.from_json(given["config"]))
        client = await ShimClient.connect(given["config"]["run_dir"])
        for n in range(1000):
            await client.annotate({"turn": str(n)})
        await asyncio.sleep(100)

    asyncio.run(main())
""")


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.005, 0.007, 0.01, 0.03, 0.1])
def test_daemon_killed_anywhere(node: Node, delay: float) -> None:
    """After kill -9 of the whole daemon, its forkserver exits, and there is a complete sandbox or none."""

    async def story(node: Node) -> None:
        config = node.config()
        daemon = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert daemon.stdin is not None and daemon.stdout is not None
        with daemon.stdin, daemon.stdout:
            daemon.stdin.write(json.dumps({"config": config.to_json()}))
            daemon.stdin.close()
            assert daemon.stdout.readline() == "ready\n"
            (forkserver,) = children(daemon.pid)
            time.sleep(delay)  # noqa: ASYNC251
            daemon.kill()
            daemon.wait()
        await until(lambda: not os.path.exists(f"/proc/{forkserver}"))
        await asyncio.sleep(0.1)  # a half-made shim notices and undoes itself
        await until(lambda: read_state(config.run_dir) is not None or not os.path.exists(config.run_dir))
        record = read_state(config.run_dir)
        if record is None:
            return
        assert shim_alive(record)
        pod = Pod(node, config, record)
        node.pods.append(pod)
        await pod.connect()
        assert (await pod.run("true")).exit_code == 0

    node.run(story)


def test_shim_with_no_room_for_its_state_goes_on(node: Node) -> None:
    """With /run full, the container runs and exits, and the shim reports that on its socket; state.json is written
    later."""

    async def story(node: Node) -> None:
        pod = await node.pod()
        (run / "ballast").write_bytes(b"")
        with (run / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"x" * 4096)
            except OSError:
                pass
        ended = await pod.run("sh", "-c", "exit 4")
        assert ended.exit_code == 4
        os.unlink(run / "ballast")

        def caught_up() -> bool:
            state = read_state(pod.config.run_dir)
            return state is not None and [c["exit_code"] for c in state.containers] == [4]

        await until(caught_up)

    run = node.base / "run"
    run.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", run], check=True)
    try:
        node.run(story)
    finally:
        node.sweep()
        subprocess.run(["umount", run], check=True)
