"""The node's records against the kernel: lost or damaged files of the run directory, removed parts of the network,
hanging processes. The tests count what is in the kernel, not in the node's records."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import alive
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.kernel.conftest import cannot_map_ids
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
        case "no state.json":
            (shim / "state.json").unlink()
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


@pytest.mark.parametrize("own_users", [False, True])
def test_a_removed_pod_directory_is_created_again(node: Node, own_users: bool) -> None:
    """The container's next start needs what was in it, its range of user ids included."""
    if own_users and cannot_map_ids(node.root):
        pytest.skip("needs a file system that can be id-mapped")
    fields: dict[str, Any] = {"volumes": [{"name": "cache", "emptyDir": {}}], "hostUsers": not own_users}
    main = container(volumeMounts=[{"name": "cache", "mountPath": "/cache"}])
    node.apply("p.yaml", pod("p", main, **fields))
    node.wait_status("p", "Running")
    uid, before = node.pod("p")["metadata"]["uid"], node.pid("p")
    ids = Path(f"/proc/{before}/uid_map").read_text()
    shutil.rmtree(node.root / "pods" / uid, ignore_errors=True)
    os.kill(before, signal.SIGKILL)
    node.wait(lambda: node.container("p").get("restartCount") == 1, "a restart")
    node.wait_status("p", "Running")
    assert Path(f"/proc/{node.pid('p')}/uid_map").read_text() == ids
    assert "127.0.0.1" in node.cli("exec", "p", "--", "cat", "/etc/hosts").out
    assert not [event for event in node.events("Failed")]


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


def test_a_start_does_not_wait_long_for_a_stopped_shim(node: Node) -> None:
    node.apply("p.yaml", pod("p", container(script=SERVER)))
    node.wait_status("p", "Running")
    uid, pid = node.pod("p")["metadata"]["uid"], node.pid("p")
    shim = shim_pid(node, uid)
    node.kill(signal.SIGKILL)
    os.kill(shim, signal.SIGSTOP)
    try:
        node.start(wait=False)
        node.wait(node.answers, "the daemon to answer", timeout=20)
        node.apply("q.yaml", pod("q"))
        node.wait_status("q", "Running")
    finally:
        os.kill(shim, signal.SIGCONT)
    node.wait(lambda: node.pid("p") == pid, "the pod to be found again", timeout=60)
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


def test_a_stopped_forkserver_ends_with_its_daemon(node: Node) -> None:
    """It would wait for the end of file for ever, together with its spare shim."""
    forkserver = _helper(node, "forkserver")
    os.kill(forkserver, signal.SIGSTOP)
    node.kill(signal.SIGKILL)
    node.wait(lambda: not alive(forkserver), "the forkserver to end", timeout=10)
    node.start()
    node.wait(lambda: node.doctor() == [], "nothing to complain about")


def _network_helper(node: Node) -> int:
    return _helper(node, "kubelite-net")


def _helper(node: Node, name: str) -> int:
    daemon = int((node.run_dir / "kubelite.pid").read_text())
    for child in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text() == f"{name}\n":
            return int(child)
    raise AssertionError(f"no {name}")


def test_a_damaged_record_of_a_shim_is_written_again(tmp_path: Path, images: Path) -> None:
    """Before a restart of the daemon could not find the shim any more: the container goes on."""
    with running_node(tmp_path, images, relist_seconds="1") as node:
        node.apply("p.yaml", pod("p", container(script=SERVER)))
        node.wait_status("p", "Running")
        uid, before = node.pod("p")["metadata"]["uid"], node.pid("p")
        for damage in ("state.json", "no state.json"):
            _lose(node.run_dir, uid, damage)
            node.wait(lambda: node.doctor() == [], "nothing to complain about")
        node.restart(signal.SIGKILL)
        assert instances(node, uid) == [before] and node.pid("p") == before


@pytest.mark.parametrize("level", ["pod", "container", "inside"])
def test_a_frozen_cgroup_does_not_keep_its_pod(node: Node, level: str) -> None:
    """On cgroup v1 a frozen process dies only when it is thawed."""
    node.apply("p.yaml", pod("p", container(script="sleep 1000 & wait")))
    node.wait_status("p", "Running")
    pid = node.pid("p")
    place = freezer_of(pid)
    if level == "pod":
        place = place.parent
    elif level == "inside":
        place /= "frozen"
        place.mkdir()
        child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        (place / "cgroup.procs").write_text(child)
    freeze(place)
    (node.manifests / "p.yaml").unlink()
    node.wait_gone("p", timeout=20)
    assert not alive(pid)


def test_a_frozen_cgroup_above_the_pods_is_named(node: Node) -> None:
    """The node does not thaw what holds all of its pods, and waits for nothing else meanwhile."""
    node.apply("p.yaml", pod("p", container()))
    node.wait_status("p", "Running")
    top = freezer_of(node.pid("p"))
    while top.name != node.cgroup_parent:
        top = top.parent
    freeze(top)
    try:
        (found,) = node.doctor()
        assert f"cgroup /{node.cgroup_parent} is frozen" in found["message"]
        (node.manifests / "p.yaml").unlink()
        node.wait_status("p", "Terminating")
    finally:
        freeze(top, thaw=True)
    node.wait_gone("p", timeout=20)
    node.wait(lambda: node.doctor() == [], "nothing to complain about")


def freezer_of(pid: int) -> Path:
    """The directory of the process's cgroup that can be frozen: of the v1 controller, if there is one."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    found = {controllers: path for _, controllers, path in lines}
    path = found.get("freezer", found.get(""))
    assert path
    file = "freezer.state" if "freezer" in found else "cgroup.freeze"
    return next(place for place in cgroup_places(path.strip("/")) if (place / file).exists())


def freeze(place: Path, *, thaw: bool = False) -> None:
    if (place / "freezer.state").exists():
        (place / "freezer.state").write_text("THAWED" if thaw else "FROZEN")
    else:
        (place / "cgroup.freeze").write_text("0" if thaw else "1")


@pytest.mark.skipif(bool(missing("mount", "umount")), reason="needs mount")
def test_logs_that_could_not_be_removed_are_removed_later(tmp_path: Path, images: Path) -> None:
    with running_node(tmp_path, images, relist_seconds="1") as node:
        node.apply("p.yaml", pod("p"))
        node.wait_status("p", "Running")
        subprocess.run(["mount", "--bind", node.log_dir, node.log_dir], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", node.log_dir], check=True)
            (node.manifests / "p.yaml").unlink()
            node.wait_gone("p")
            assert list((node.log_dir / "pods").iterdir())
        finally:
            subprocess.run(["umount", "-l", node.log_dir], check=True)
        node.wait(lambda: not list((node.log_dir / "pods").iterdir()), "no log", timeout=40)
        node.wait(lambda: not list((node.root / "pods").iterdir()), "no directory")


@pytest.mark.skipif(bool(missing("mount", "umount")), reason="needs mount")
def test_doctor_answers_while_the_root_is_read_only(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    subprocess.run(["mount", "--bind", node.root, node.root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", node.root], check=True)
        done = node.cli("doctor", check=False)
    finally:
        subprocess.run(["umount", "-l", node.root], check=True)
    assert f"error: disk: {node.root} is read-only" in done.out
    assert done.code == 1 and not done.err
