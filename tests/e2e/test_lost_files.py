"""The node's records against the kernel: lost or damaged files of the run directory, removed parts of the network,
hanging processes. The tests count what is in the kernel, not in the node's records."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conformance.conftest import alive
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.programs import missing
from tests.waiting import cgroup_places

MARK = "kubelite-e2e-once"
SERVER = f"while :; do sleep 0.1; done # {MARK}"
WEB = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"


def instances(node: Node, uid: str) -> list[int]:
    """The pids in the pod's cgroups whose command line has the mark, in every hierarchy."""
    found: set[int] = set()
    for tier in ("", "/burstable", "/besteffort"):
        for place in cgroup_places(f"{node.cgroup_parent}{tier}/pod{uid}"):
            for procs in place.rglob("cgroup.procs"):
                found.update(int(pid) for pid in procs.read_text().split())
    return sorted(pid for pid in found if MARK.encode() in _command_line(pid))


def _command_line(pid: int) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def shim_pid(node: Node, uid: str) -> int:
    """The pod's shim, by its name in the kernel."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if line.startswith(b"kubelite-shim") and uid.encode() in line:
            return int(directory.name)
    raise AssertionError(f"no shim of pod {uid}")


def _lose(run_dir: Path, uid: str, what: str) -> None:
    shim = run_dir / "shims" / uid
    match what:
        case "run directory":
            shutil.rmtree(shim)
        case "all run directories":
            shutil.rmtree(run_dir / "shims")
        case "state.json":
            (shim / "state.json").write_text("{")
        case "shim.sock":
            (shim / "shim.sock").unlink()


@pytest.mark.parametrize("what", ["run directory", "all run directories", "state.json", "shim.sock"])
def test_lost_files_of_a_shim_never_make_two_instances(node: Node, what: str) -> None:
    """The shim can no longer be reached, so it is ended with its containers, and the pod starts again."""
    node.apply("p.yaml", pod("p", container(script=SERVER)))
    node.wait_status("p", "Running")
    uid, before = node.pod("p")["metadata"]["uid"], node.pid("p")
    node.kill(signal.SIGKILL)
    _lose(node.run_dir, uid, what)
    node.start()
    node.wait(lambda: len(found := instances(node, uid)) == 1 and found != [before], "one new instance")
    node.wait_status("p", "Running")
    node.wait(lambda: node.doctor() == [], "nothing to complain about")
    assert instances(node, uid) == [node.pid("p")]
    (node.manifests / "p.yaml").unlink()
    node.wait_gone("p")
    assert not alive(before)


def test_pods_whose_leases_are_lost_are_attached_again(node: Node) -> None:
    node.apply("p.yaml", pod("p", container(script=WEB)))
    node.apply("q.yaml", pod("q"))
    for name in ("p", "q"):
        node.wait_status(name, "Running")
    pids = [node.pid(name) for name in ("p", "q")]
    ip = node.pod("p")["status"]["podIP"]
    node.kill(signal.SIGKILL)
    shutil.rmtree(node.run_dir / "network")
    node.start()
    assert [node.pid(name) for name in ("p", "q")] == pids, "nothing was restarted"
    assert node.pod("p")["status"]["podIP"] == ip
    node.wait(
        lambda: node.cli("exec", "q", "--", "wget", "-qO-", f"http://{ip}/").out == "hello\n", "an answer"
    )
    node.wait(lambda: node.doctor() == [], "nothing to complain about")


@pytest.mark.skipif(bool(missing("ip")), reason="needs iproute2")
def test_doctor_repairs_the_network_without_a_restart(tmp_path: Path, images: Path) -> None:
    with running_node(tmp_path, images, relist_seconds="600") as node:  # the standing repair would come first
        _doctor_repairs(node)


def _doctor_repairs(node: Node) -> None:
    node.apply("p.yaml", pod("p", container(script=WEB)))
    node.wait_status("p", "Running")
    pid, ip = node.pid("p"), node.pod("p")["status"]["podIP"]
    links = subprocess.run(
        node.in_netns("ip", "-o", "link", "show", "master", node.bridge),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    veth = links.split()[1].split("@")[0]
    subprocess.run(node.in_netns("ip", "link", "del", veth), check=True)
    assert any("is missing" in finding["message"] for finding in node.doctor())
    done = node.cli("doctor", "--repair")
    assert f"repair: network: pod {node.pod('p')['metadata']['uid']}: interface {veth} is missing" in done.err
    assert done.out == "All is well.\n"
    assert node.pid("p") == pid and node.pod("p")["status"]["podIP"] == ip
    assert node.cli("exec", "p", "--", "wget", "-qO-", f"http://{ip}/").out == "hello\n"


def test_a_stopped_shim_does_not_keep_its_pod(node: Node) -> None:
    """The pod's deletion waits for its answer as long as for any, and kills it then."""
    node.apply("p.yaml", pod("p", container(script=SERVER)))
    node.apply("q.yaml", pod("q"))
    node.wait_status("p", "Running")
    uid, pid = node.pod("p")["metadata"]["uid"], node.pid("p")
    shim = shim_pid(node, uid)
    os.kill(shim, signal.SIGSTOP)
    (node.manifests / "p.yaml").unlink()
    node.wait_status("q", "Running")  # nothing else waits for it
    node.wait_gone("p", timeout=200)
    node.wait(lambda: not (alive(pid) or alive(shim)), "the end of the shim and its container")
    node.wait(lambda: node.doctor() == [], "nothing to complain about")


def test_a_stopped_network_helper_holds_nothing_up_for_good(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    helper = _network_helper(node)
    os.kill(helper, signal.SIGSTOP)
    node.apply("q.yaml", pod("q"))
    node.wait_status("q", "Running", timeout=120)
    assert _network_helper(node) != helper
    os.kill(_network_helper(node), signal.SIGSTOP)
    node.restart(signal.SIGKILL)  # the stopped helper ends with its daemon, and the next one starts
    node.wait_status("q", "Running")
    os.kill(_network_helper(node), signal.SIGSTOP)
    node.restart(signal.SIGTERM)
    node.wait(lambda: node.doctor() == [], "nothing to complain about")


def _network_helper(node: Node) -> int:
    daemon = int((node.run_dir / "kubelite.pid").read_text())
    for child in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text() == "kubelite-net\n":
            return int(child)
    raise AssertionError("no network helper")
