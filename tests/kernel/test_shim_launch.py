"""A shim creates and starts a container in one step, on a real kernel: the container runs, or nothing of it remains."""

from __future__ import annotations

import os
from typing import Any

import pytest

from runtime.errors import NotFoundError, RuntimeFault, StartError
from runtime.shim.client import ShimClient, read_state
from tests.kernel.shim_kit import Node, node
from tests.programs import BUSYBOX
from tests.waiting import until_async as until

__all__ = ["node"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
]


def test_it_runs(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        with pod.client.launch(pod.request("sh", "-c", "echo up; exit 4")) as launch:
            assert "clone3" in await launch.created()
            record, times = await launch.started()
        assert record.status == "running" and record.started_at and times
        ended = await pod.ended(record.id)
        assert (ended.exit_code, pod.log(record.id)) == (4, [("stdout", "F", "up")])

    node.run(story)


def test_behind_a_create_that_fails_the_start_is_refused(node: Node) -> None:
    def broken(spec: dict[str, Any]) -> None:
        spec["mounts"] = [{"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}]

    async def story(node: Node) -> None:
        pod = await node.pod()
        before = sorted(node.cgroups())
        request = pod.request("sleep", "1000", change=broken)
        with pytest.raises(RuntimeFault, match="/no/such"), pod.client.launch(request) as launch:
            await launch.created()
        assert (await pod.client.state()).containers == []  # answered after the start was
        assert sorted(node.cgroups()) == before
        with pytest.raises(NotFoundError):
            await pod.client.start(request.container_id)
        assert (await pod.run("true")).exit_code == 0

    node.run(story)


def test_a_program_that_is_not_there_leaves_its_record(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        request = pod.request("no-such-program")
        with pytest.raises(StartError, match="no-such-program"), pod.client.launch(request) as launch:
            await launch.created()
            await launch.started()
        [record] = (await pod.client.state()).containers
        assert (record["status"], record["exit_code"], record["reason"]) == ("stopped", 128, "StartError")

    node.run(story)


def test_a_client_that_hangs_up_leaves_it_created(node: Node) -> None:
    """A daemon that is killed here finds a created container after its restart, as before, and recreates it."""

    async def story(node: Node) -> None:
        pod = await node.pod()
        request = pod.request("sleep", "1000")
        other = await ShimClient.connect(pod.config.run_dir)
        with other.launch(request):
            other.close()

        def here() -> list[tuple[str, str]]:
            record = read_state(pod.config.run_dir)
            return [(c["id"], c["status"]) for c in record.containers] if record is not None else []

        await until(here)
        assert (await pod.client.state()).pid == pod.record.pid
        assert here() == [(request.container_id, "created")]

    node.run(story)


def test_containers_of_one_pod_beside_each_other(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        requests = [pod.request("sh", "-c", f"exit {code}") for code in range(4)]
        with (
            pod.client.launch(requests[0]) as a,
            pod.client.launch(requests[1]) as b,
            pod.client.launch(requests[2]) as c,
            pod.client.launch(requests[3]) as d,
        ):
            for launch in (d, c, b, a):  # in whatever order they are asked for
                await launch.created()
                await launch.started()
        assert [(await pod.ended(r.container_id)).exit_code for r in requests] == [0, 1, 2, 3]

    node.run(story)
