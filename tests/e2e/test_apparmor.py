"""AppArmor on a whole node: the default profile, a profile of the machine, none; and a node that cannot load its own.

Few kernels that tests run on have AppArmor. `make test-uml` boots one that has.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.spec import lsm
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.programs import missing

DEFAULT = lsm.DEFAULT_PROFILE
PROFILES = Path("/sys/kernel/security/apparmor/profiles")
SECCOMP_OFF = {"type": "Unconfined"}

pytestmark = [
    pytest.mark.skipif(not lsm.apparmor(), reason="this kernel does not enforce AppArmor"),
    pytest.mark.skipif(bool(missing("apparmor_parser")), reason="needs apparmor_parser"),
]


def profile(kind: str, name: str = "") -> dict[str, Any]:
    return {"appArmorProfile": {"type": kind, **({"localhostProfile": name} if name else {})}}


def tried(node: Node, name: str, script: str) -> str:
    """What a command in a pod's container says and how it ends."""
    done = node.cli("exec", name, "--", "sh", "-c", script, check=False)
    return f"{done.out}{done.err} {done.code}"


def unload(name: str) -> None:
    (PROFILES.parent / ".remove").write_text(name)


def test_containers_have_the_default_profile(node: Node) -> None:
    admin = {"capabilities": {"add": ["SYS_ADMIN"]}, "seccompProfile": SECCOMP_OFF}
    node.apply("pods.yaml", "---\n".join([
        pod("plain", container(script=f"cat /proc/self/attr/current; {container()['command'][2]}")),
        pod("asked", container(securityContext=profile("RuntimeDefault"))),
        pod("users", hostUsers=False),
        pod("admin", container(securityContext=admin)),
        pod("free", container(securityContext={**admin, **profile("Unconfined")})),
        pod("privileged", container(securityContext={"privileged": True})),
        pod("annotated", annotations={"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}),
    ]))  # fmt: skip
    confined = {"plain", "asked", "users", "admin"}
    for name in (*confined, "free", "privileged", "annotated"):
        node.wait_status(name, "Running")
        label = f"{DEFAULT} (enforce)\n" if name in confined else "unconfined\n"
        assert Path(f"/proc/{node.pid(name)}/attr/current").read_text() == label, name
        assert tried(node, name, "cat /proc/self/attr/current") == f"{label} 0", name
    assert node.logs("plain").startswith(f"{DEFAULT} (enforce)\n")

    mount = "mkdir -p /m && mount -t tmpfs none /m"
    assert "Permission denied" in tried(node, "admin", mount)
    assert tried(node, "free", mount) == " 0"
    assert not node.events("Unsupported") and not node.events("NoAppArmorProfile")
    # The node reads what belongs to the container, signals it, and stops it in time.
    assert os.readlink(f"/proc/{node.pid('plain')}/ns/net")
    uid = node.pod("plain")["metadata"]["uid"]
    (node.manifests / "pods.yaml").unlink()
    node.wait_gone("plain")
    assert not (node.root / "pods" / uid).exists()


def test_what_the_default_profile_denies(node: Node) -> None:
    """In a privileged container, where nothing else denies it, and in one without a profile for comparison."""
    for name, wanted in (("confined", profile("Localhost", DEFAULT)), ("free", profile("Unconfined"))):
        node.apply(f"{name}.yaml", pod(name, container(securityContext={"privileged": True, **wanted})))
        node.wait_status(name, "Running")
    denied = (
        "echo ? > /proc/sysrq-trigger",
        "head -c 1 /proc/kcore | wc -c | grep -q 1",
        "cat /proc/sys/kernel/hostname > /tmp/h && cat /tmp/h > /proc/sys/kernel/hostname",
        "cat /proc/sys/vm/swappiness > /tmp/s && cat /tmp/s > /proc/sys/vm/swappiness",
        "cd /sys/devices/virtual/net/lo; cat tx_queue_len > /tmp/q && cat /tmp/q > tx_queue_len",
        "mkdir -p /m && mount -t tmpfs none /m",
        "mkdir -p /p && mount -t proc proc /p",
    )
    for script in denied:
        assert tried(node, "free", script) == " 0", script
        assert "Permission denied" in tried(node, "confined", script), script
    for script in (
        "echo 0 > /proc/self/oom_score_adj",
        "cat /proc/sys/kernel/shmmax > /tmp/s && cat /tmp/s > /proc/sys/kernel/shmmax",
        "mkdir /sys/fs/cgroup/inner && rmdir /sys/fs/cgroup/inner",
        "sleep 9 & kill -9 $!",
        "touch /etc/file && chown 5:5 /etc/file && rm /etc/file",
    ):
        assert tried(node, "confined", script) == " 0", script


def test_containers_end_with_their_shim(node: Node) -> None:
    """AppArmor takes the signal of a parent's death (PR_SET_PDEATHSIG) from a process whose profile changes."""
    node.apply("p.yaml", pod("p", restartPolicy="Always"))
    node.wait_status("p", "Running")
    before, uid = node.pid("p"), node.pod("p")["metadata"]["uid"]
    shim = int(
        next(line for line in Path(f"/proc/{before}/status").read_text().splitlines() if "PPid" in line)[5:]
    )
    os.kill(shim, 9)
    node.wait(lambda: not Path(f"/proc/{before}").exists(), "the container to end with its shim")
    node.wait(lambda: node.pid("p") != before, "the container to run again")
    assert node.pod("p")["metadata"]["uid"] == uid


@pytest.fixture
def loaded() -> Iterator[str]:
    name = "kubelite-test-noexec"
    text = f"profile {name} {{ file, network, capability, signal, ptrace, deny /etc/secret rw, }}"
    subprocess.run(["apparmor_parser", "-Kr"], input=text, text=True, check=True)
    yield name
    unload(name)


def test_profiles_of_the_machine(node: Node, loaded: str) -> None:
    node.apply("pods.yaml", "---\n".join([
        pod("mine", securityContext=profile("Localhost", loaded)),
        pod("lost", container(securityContext=profile("Localhost", "kubelite-test-none"))),
    ]))  # fmt: skip
    node.wait_status("mine", "Running")
    assert Path(f"/proc/{node.pid('mine')}/attr/current").read_text() == f"{loaded} (enforce)\n"
    assert "Permission denied" in tried(node, "mine", "echo x > /etc/secret")
    node.wait(lambda: node.container("lost").get("state", {}).get("waiting"), "the container to fail")
    node.wait(
        lambda: any("is the profile loaded?" in e["message"] for e in node.events("Failed")), "an event"
    )


def test_a_build_has_the_default_profile(node: Node, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Containerfile").write_text(
        f"FROM {container()['image']}\nRUN cat /proc/self/attr/current > /label\n"
    )
    node.cli("build", "-q", "-t", "localhost/labelled:1", str(tmp_path / "context"))
    node.apply("p.yaml", pod("p", container(script="cat /label; sleep 60", image="localhost/labelled:1")))
    node.wait_status("p", "Running")
    node.wait(lambda: node.logs("p"), "the log")
    assert node.logs("p") == f"{DEFAULT} (enforce)\n"


def test_a_node_that_cannot_load_its_profile(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin/apparmor_parser"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho the parser is broken >&2; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    if DEFAULT in PROFILES.read_text():
        unload(DEFAULT)
    with running_node(tmp_path / "node", images) as node:
        node.apply("pods.yaml", "---\n".join([
            pod("plain"), pod("asked", container(securityContext=profile("RuntimeDefault"))),
        ]))  # fmt: skip
        node.wait_status("plain", "Running")
        assert Path(f"/proc/{node.pid('plain')}/attr/current").read_text() == "unconfined\n"
        node.wait_status("asked", "CreateContainerConfigError")
        message = node.container("asked")["state"]["waiting"]["message"]
        assert "the default AppArmor profile is not loaded" in message
        words = [event["message"] for event in node.events("NoAppArmorProfile")]
        assert words == [
            "containers run without the default AppArmor profile: apparmor_parser: the parser is broken"
        ]
        said = node.cli("doctor", check=False).out
        assert (
            f"the kernel has AppArmor, but not the profile {DEFAULT}" in said
            and "apt install apparmor" in said
        )
