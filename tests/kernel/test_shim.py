"""A shim on a real kernel: start, exits, OOM kills, stop, reaping, adoption; and no leftovers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import Mode, layout
from runtime.errors import NotFoundError, RuntimeFault, SpecError, StartError, StateError
from runtime.shim.client import ShimClient, ShimGone, read_state, shim_alive
from runtime.shim.protocol import MAX_PACKET, ContainerRecord, Op
from runtime.shim.state import socket_path
from runtime.shim.warm.immortal import supported
from tests.kernel.shim_kit import Node, node
from tests.programs import BUSYBOX
from tests.waiting import until_async as until

__all__ = ["node"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
]


def test_output_and_exit_code_of_a_container(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        ended = await pod.run("sh", "-c", "echo out; echo err >&2; printf tail; exit 3")
        assert (ended.status, ended.exit_code, ended.signal, ended.oom_killed) == ("stopped", 3, 0, False)
        assert ended.created_at <= ended.started_at <= ended.finished_at <= time.time()
        assert sorted(pod.log(ended.id)) == [
            ("stderr", "F", "err"),
            ("stdout", "F", "out"),
            ("stdout", "P", "tail"),
        ]
        assert read_state(pod.config.run_dir) == await pod.client.state()

    node.run(story)


def test_the_sandbox_is_the_shims_namespaces(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod(
            sysctls={"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"}
        )
        for kind in ("net", "uts", "ipc"):
            assert os.readlink(f"/proc/{pod.record.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        for kind in ("mnt", "pid", "cgroup"):
            assert os.readlink(f"/proc/{pod.record.pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
        show = "hostname; ifconfig lo; cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced"
        ended = await pod.run("sh", "-c", show)
        text = "\n".join(line for _, _, line in pod.log(ended.id))
        assert text.startswith("web-0\n") and "UP LOOPBACK RUNNING" in text and text.endswith("\n80\n1")
        assert Path(f"/proc/{pod.record.pid}/comm").read_text() == "kubelite-shim\n"
        assert f"/{node.tag}/shims" in Path(f"/proc/{pod.record.pid}/cgroup").read_text()

    node.run(story)


def test_every_descriptor_of_a_shim_is_close_on_exec(node: Node) -> None:
    """Otherwise hooks would inherit its listener and the procfs of the pod's pid namespace, which has no masks."""

    async def story(node: Node) -> None:
        pod = await node.pod(share_pid=True)
        await pod.start("sleep", "1000")
        for info in Path(f"/proc/{pod.record.pid}/fdinfo").iterdir():
            flags = int(info.read_text().split("flags:")[1].split()[0], 8)
            target = os.readlink(f"/proc/{pod.record.pid}/fd/{info.name}")
            assert int(info.name) <= 2 or flags & os.O_CLOEXEC, target

    node.run(story)


def test_host_network_keeps_the_hosts_name(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod(host_network=True, host_ipc=True)
        for kind in ("net", "uts", "ipc"):
            assert os.readlink(f"/proc/{pod.record.pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
        assert pod.record.host_network

    node.run(story)


@pytest.mark.parametrize("key", ["vm.swappiness", "kernel.pid_max", "net/../kernel/pid_max"])
def test_a_sysctl_of_the_host_is_refused_and_nothing_is_left(node: Node, key: str) -> None:
    async def story(node: Node) -> None:
        config = node.config(sysctls={key: "1"})
        with pytest.raises(SpecError, match="would change the host"):
            await node.forkserver.spawn(config)
        assert not os.path.exists(config.run_dir)

    node.run(story)


def test_killed_by_a_signal(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        await pod.client.kill(container, signal.SIGKILL)
        ended = await pod.ended(container)
        assert (ended.exit_code, ended.signal, ended.oom_killed) == (137, 9, False)
        with pytest.raises(StateError):
            await pod.client.kill(container, signal.SIGTERM)

    node.run(story)


def test_start_error_keeps_a_record(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.create("no-such-program")
        with pytest.raises(StartError, match="no-such-program"):
            await pod.client.start(container)
        (record,) = (await pod.client.state()).containers
        assert (record["status"], record["exit_code"], record["reason"]) == ("stopped", 128, "StartError")
        assert "no-such-program" in record["message"]
        assert (await pod.ended(container)).exit_code == 128
        await pod.client.delete(container)
        assert (await pod.client.state()).containers == []

    node.run(story)


def test_a_create_that_fails_leaves_nothing(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        before = sorted(node.cgroups())

        def break_it(spec: dict[str, object]) -> None:
            spec["mounts"] = [
                {"destination": "/x", "type": "bind", "source": "/no/such/dir", "options": ["bind"]}
            ]

        with pytest.raises(RuntimeFault, match="/no/such/dir"):
            await pod.create("true", change=break_it)
        assert (await pod.client.state()).containers == []
        assert sorted(node.cgroups()) == before
        assert not list((node.base / "logs").rglob("*.log"))
        fds = os.listdir(f"/proc/{pod.record.pid}/fd")
        with pytest.raises(RuntimeFault):
            await pod.create("true", change=break_it)
        assert len(os.listdir(f"/proc/{pod.record.pid}/fd")) == len(fds)
        assert (await pod.run("true")).exit_code == 0

    node.run(story)


def test_oom_kill_is_told_apart_from_sigkill(node: Node) -> None:
    """A real OOM kill; then the same exit code without one, in a pod that has had an OOM kill."""

    async def story(node: Node) -> None:
        pod = await node.pod()
        limit = {"memory": {"limit": 16 * 1024 * 1024, "swap": 16 * 1024 * 1024}}
        hungry = ["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"]
        ended = await pod.run(*hungry, resources=limit)
        assert (ended.exit_code, ended.signal, ended.oom_killed) == (137, 9, True)
        sleeper = await pod.start("sleep", "100", resources=limit)
        await pod.client.kill(sleeper, signal.SIGKILL)
        assert not (await pod.ended(sleeper)).oom_killed
        # A child is taken, the main process lives on and is then stopped by us: not an OOM kill of the container.
        # (On v2 containers die together unless told otherwise; v1 knows nothing else.)
        single = {**limit, "unified": {"memory.oom.group": "0"}}
        survivor = await pod.start(
            "sh", "-c", f"({' '.join(hungry[2:])}); echo lost; sleep 100", resources=single
        )
        await until(lambda: ("stdout", "F", "lost") in pod.log(survivor))
        await pod.client.stop(survivor, signal=signal.SIGTERM, grace=0)
        stopped = await pod.ended(survivor)
        assert (stopped.exit_code, stopped.oom_killed) == (137, False)
        # A shell that passes its child's 137 on was taken by the OOM killer all the same.
        passed_on = await pod.run("sh", "-c", f"({hungry[2]}); exit $?", resources=single)
        assert (passed_on.exit_code, passed_on.signal, passed_on.oom_killed) == (137, 0, True)
        if layout().mode is Mode.V2:
            together = await pod.run("sh", "-c", f"({hungry[2]}); echo lost; sleep 100", resources=limit)
            assert (together.exit_code, together.signal, together.oom_killed) == (137, 9, True)

    node.run(story)


def test_stop_with_grace(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        polite = await pod.start(
            "sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
        )
        await until(lambda: pod.log(polite))
        await pod.client.stop(polite, signal=signal.SIGTERM, grace=10)
        ended = await pod.ended(polite, 5)
        assert (ended.exit_code, ended.stop_signal) == (5, signal.SIGTERM)
        assert ended.stop_deadline > ended.finished_at, "that it was stopped stays on record"
        assert pod.log(polite)[-1][2] == "bye"

    node.run(story)


def test_stop_of_one_that_ignores_sigterm(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        stubborn = await pod.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
        await until(lambda: pod.log(stubborn))
        began = time.time()
        await pod.client.stop(stubborn, signal=signal.SIGTERM, grace=0.5)
        state = read_state(pod.config.run_dir)
        assert state is not None
        assert began + 0.5 <= state.containers[0]["stop_deadline"] <= time.time() + 0.5
        pod.client.close()  # the shim needs nobody for the rest
        await until(lambda: (read_state(pod.config.run_dir) or state).containers[0]["status"] == "stopped")
        assert time.time() - began > 0.4
        await pod.connect()
        record = ContainerRecord.from_json((await pod.client.state()).containers[0])
        assert (record.exit_code, record.signal, record.oom_killed) == (137, 9, False)

    node.run(story)


def test_a_second_stop_only_shortens(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        stubborn = await pod.start("sh", "-c", "trap 'echo term' TERM; echo up; while :; do sleep 0.05; done")
        await until(lambda: pod.log(stubborn))
        await pod.client.stop(stubborn, signal=signal.SIGTERM, grace=30)
        first = (await pod.client.state()).containers[0]["stop_deadline"]
        await pod.client.stop(stubborn, signal=signal.SIGTERM, grace=300)
        assert (await pod.client.state()).containers[0]["stop_deadline"] == first
        await pod.client.stop(stubborn, signal=signal.SIGTERM, grace=0.2)
        assert (await pod.ended(stubborn, 5)).signal == 9
        assert [text for _, _, text in pod.log(stubborn)] == ["up", "term"]  # the signal is sent once
        await pod.client.stop(stubborn, signal=signal.SIGTERM, grace=1)  # of a stopped one: fine

    node.run(story)


def test_stop_of_a_created_container(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.create("sleep", "100")
        await pod.client.stop(container, signal=signal.SIGTERM, grace=30)
        ended = await pod.ended(container, 5)
        assert (ended.started_at, ended.signal) == (0.0, 9)
        with pytest.raises(StateError):
            await pod.client.start(container)

    node.run(story)


def test_host_pid_container_takes_its_processes_along(node: Node) -> None:
    """Without a pid namespace the kernel does not kill the other processes. (The one here also keeps the pipe open.)"""

    async def story(node: Node) -> None:
        pod = await node.pod(host_pid=True)

        def host_pid(spec: dict[str, dict[str, list[dict[str, str]]]]) -> None:
            spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]

        ended = await pod.run("sh", "-c", "setsid sleep 1000 & echo started; exit 7", change=host_pid)
        assert ended.exit_code == 7
        assert pod.log(ended.id) == [("stdout", "F", "started")]
        await until(
            lambda: not [d for d in node.cgroups() if ended.id in d and Path(d, "cgroup.procs").read_text()]
        )

    node.run(story)


def test_a_pipe_held_by_an_outsider_delays_the_exit_for_a_bounded_time(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sh", "-c", "echo before; sleep 100")
        pid = (await pod.client.state()).containers[0]["pid"]
        await until(lambda: pod.log(container))
        held = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
        try:
            os.write(held, b"last words\n")
            await pod.client.kill(container, signal.SIGKILL)
            killed = time.monotonic()
            ended = await pod.ended(container, 5)
            assert time.monotonic() - killed < 3
            assert ended.exit_code == 137
            assert [text for _, _, text in pod.log(container)] == ["before", "last words"]
        finally:
            os.close(held)

    node.run(story)


def test_orphans_are_reaped(node: Node) -> None:
    """After a double fork in a hostPID pod the orphan becomes a child of the shim (subreaper), which reaps it."""

    async def story(node: Node) -> None:
        pod = await node.pod(host_pid=True)

        def host_pid(spec: dict[str, dict[str, list[dict[str, str]]]]) -> None:
            spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]

        command = "(sleep 0.2 & echo $! > /tmp/orphan); echo forked; sleep 100"
        container = await pod.start("sh", "-c", command, change=host_pid)
        await until(lambda: pod.log(container))
        orphan = int((node.base / "bundles" / container / "upper/tmp/orphan").read_text())
        assert f"PPid:\t{pod.record.pid}" in Path(f"/proc/{orphan}/status").read_text()
        await until(lambda: not os.path.exists(f"/proc/{orphan}"))

    node.run(story)


def test_update_changes_limit_and_labels(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start(
            "sleep", "100", labels={"a": "1"}, resources={"memory": {"limit": 64 << 20}}
        )
        record = await pod.client.update(
            container, resources={"memory": {"limit": 32 << 20}}, labels={"b": "2"}
        )
        assert record.labels == {"a": "1", "b": "2"}
        found = [d for d in node.cgroups() if d.endswith(container)]
        limits = [
            f for d in found for f in (Path(d, "memory.limit_in_bytes"), Path(d, "memory.max")) if f.exists()
        ]
        assert [f.read_text().strip() for f in limits] == [str(32 << 20)]

    node.run(story)


def test_state_outlives_its_clients_and_a_second_one_adopts(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod(annotations={"name": "web"})
        await pod.client.annotate({"ip": "10.0.0.2"})
        container = await pod.start("sh", "-c", "echo up; sleep 0.5; exit 9", labels={"hash": "x"})
        await until(lambda: pod.log(container))
        pod.client.close()
        await node.forkserver.close()
        record = read_state(pod.config.run_dir)
        assert record is not None and shim_alive(record)
        assert record.annotations == {"name": "web", "ip": "10.0.0.2"}
        assert record.containers[0]["status"] == "running"
        second = await pod.connect()
        assert (await pod.ended(container)).exit_code == 9
        assert (await second.state()).containers[0]["labels"] == {"hash": "x"}

    node.run(story)


def test_several_clients_and_bad_manners(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        others = [await ShimClient.connect(pod.config.run_dir) for _ in range(20)]
        states = await asyncio.gather(*(c.state() for c in others))
        assert len({json.dumps(s.to_json()) for s in states}) == 1
        for other in others:
            other.close()
        with pytest.raises(RuntimeFault, match="dance") as caught:
            await pod.client.call("dance")
        assert caught.value.reason == "UnknownOp"
        incomplete: list[tuple[Op, dict[str, Any]]] = [
            (Op.START, {}),
            (Op.STOP, {"container_id": container}),
            (Op.CREATE, {"name": "x"}),
        ]
        for operation, args in incomplete:
            with pytest.raises(RuntimeFault) as caught:
                await pod.client.call(operation, **args)
            assert caught.value.reason == "BadRequest"
        with pytest.raises(NotFoundError):
            await pod.client.start("unknown")
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with raw, socket_path(pod.config.run_dir) as path:
            raw.connect(path)
            raw.settimeout(5)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_PACKET)
            for packet in (b"not json", b"[1]", b"{}", b"\xff\xfe", b"x" * (MAX_PACKET + 1)):
                raw.send(packet)
                assert "error" in json.loads(raw.recv(4096))
            raw.send(json.dumps({"id": 1, "op": "state"}).encode())  # and leaves before the answer
        assert (await pod.client.state()).containers[0]["status"] == "running"

    node.run(story)


def test_a_subscriber_that_never_reads_is_dropped_not_waited_for(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as lazy:
            with socket_path(pod.config.run_dir) as path:
                lazy.connect(path)
            lazy.setblocking(False)
            request = json.dumps({"id": 1, "op": "state", "pad": "x" * 1000}).encode()
            sent = 0
            try:
                while sent < 5_000:
                    lazy.send(request)
                    sent += 1
                    await pod.client.state()
            except OSError:
                pass
            assert sent < 5_000
            assert len((await pod.client.state()).containers) == 0

    node.run(story)


def test_shutdown_refuses_while_something_lives(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        with pytest.raises(StateError, match="main"):
            await pod.client.shutdown()
        with pytest.raises(StateError):
            await pod.client.delete(container)
        assert (await pod.client.state()).containers[0]["status"] == "running"
        await pod.client.shutdown(force=True)
        assert not os.path.exists(pod.config.run_dir)
        assert node.cgroups() == []
        await until(lambda: not shim_alive(pod.record))
        with pytest.raises(ShimGone):
            await pod.client.state()
        with pytest.raises(ShimGone):
            await ShimClient.connect(pod.config.run_dir)

    node.run(story)


def test_sigterm_does_not_end_a_shim(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1):
            os.kill(pod.record.pid, number)
        assert (await pod.run("true")).exit_code == 0

    node.run(story)


def test_an_idle_shim_stays_small(node: Node) -> None:
    """The private memory of a shim in which two containers have run and one runs; immortal objects halve it. Not the
    first shim: it was forked before the forkserver's rehearsal, and has private copies of the pages that this
    changed."""

    async def story(node: Node) -> None:
        await node.pod()
        await until(lambda: node.forkserver.spare)
        pod = await node.pod()
        await pod.run("true")
        await pod.start("sleep", "100")
        rollup = Path(f"/proc/{pod.record.pid}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
        print(f"private memory of a shim: {private} kB")
        assert private < (2_500 if supported() else 6_000)

    node.run(story)


def test_nothing_grows_with_use(node: Node) -> None:
    """After many containers and execs there are as many descriptors, and as much in state.json, as after the first."""

    async def story(node: Node) -> None:
        pod = await node.pod()
        keeper = await pod.start("sleep", "100")

        async def use() -> int:
            ended = await pod.run("sh", "-c", "echo x; exit 1", stdin=True)
            await pod.client.delete(ended.id)
            with pytest.raises(StartError):
                await pod.client.start(failed := await pod.create("nothing"))
            await pod.client.delete(failed)
            for tty in (False, True):
                session = await pod.exec(keeper, "true", tty=tty)
                await pod.exec_exit(session.exec_id)
                session.close()
            with pytest.raises(StartError):
                await pod.exec(keeper, "nothing", tty=True)
            return len(os.listdir(f"/proc/{pod.record.pid}/fd"))

        first = await use()
        for _ in range(5):
            assert await use() == first
        state = read_state(pod.config.run_dir)
        assert state is not None and [c["id"] for c in state.containers] == [keeper]

    node.run(story)
