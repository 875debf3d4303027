"""What a container with CAP_SYS_PTRACE sees of the processes that start beside it in its pid namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Engine
from tests.kernel.shim_kit import Node, node  # noqa: F401 - a fixture
from tests.waiting import until, until_async

pytestmark = pytest.mark.kernel

# It notes each process whose root has the file, and each that has a directory open.
WATCH = """
while :; do
    for p in /proc/[0-9]*; do
        [ -e "$p/root$0" ] && echo "$p has the host's root" >> /found
        for f in "$p"/fd/*; do [ -d "$f/" ] && [ "$p" != /proc/$$ ] && echo "$p has a directory open" >> /found; done
    done
    echo >> /rounds
done
"""
ROUNDS = 100


def watcher(spec: dict[str, Any]) -> None:
    """Give the container CAP_SYS_PTRACE."""
    for names in spec["process"].setdefault("capabilities", {}).values():
        names.append("CAP_SYS_PTRACE")


def found(upper: Path) -> str:
    notes = upper / "found"
    return notes.read_text() if notes.exists() else ""


def test_an_exec_brings_nothing_of_the_host_into_the_pid_namespace(oci: Engine) -> None:
    secret = oci.tmp / "secret"
    secret.write_text("of the host")
    spec = oci.spec("sh", "-c", WATCH, str(secret))
    watcher(spec)
    container = oci.start(spec)
    upper = oci.tmp / "bundle0/upper"
    until((upper / "rounds").exists)
    for _ in range(ROUNDS):
        assert oci.exec(container, "true").code == 0
    assert found(upper) == ""
    assert oci.exec(container, "ls", "/proc/1/root/").code == 0  # it may look


def test_a_start_brings_nothing_of_the_host_into_the_pods_pid_namespace(node: Node) -> None:  # noqa: F811
    secret = node.base / "secret"
    secret.write_text("of the host")

    def shares(spec: dict[str, Any]) -> None:
        spec["process"]["capabilities"] = {
            kind: ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")
        }
        own = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]
        spec["linux"]["namespaces"] = [*own, {"type": "pid", "path": f"/proc/{pause[0]}/ns/pid"}]

    pause: list[int] = []

    async def story(node: Node) -> None:
        pod = await node.pod(share_pid=True)
        pause.append(pod.record.pause)
        watching = await pod.start("sh", "-c", WATCH, str(secret), change=shares)
        upper = node.base / "bundles" / watching / "upper"
        await until_async((upper / "rounds").exists)
        for _ in range(ROUNDS):
            record = await pod.run(
                "sh", "-c", "[ $(id -u) = 0 ] && [ -e /proc/1/status ] && exit 7", change=shares
            )
            assert record.exit_code == 7
        assert found(upper) == ""
        # no path leads to the procfs that the inits clone, which is without masks
        record = await pod.run(
            "sh", "-c", "cat /proc/1/comm; ls /proc/1/root/ /proc/1/root/../", change=shares
        )
        assert [text for _, _, text in pod.log(record.id) if text and not text.endswith(":")] == ["pause"]

    node.run(story)
