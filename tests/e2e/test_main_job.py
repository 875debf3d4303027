"""The main job: a manifest in the directory becomes running containers, which keep running."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node


def test_drop_run_remove(node: Node) -> None:
    path = node.apply("web.yaml", pod("web"))
    node.wait_status("web", "Running")
    found = node.pod("web")
    assert found["status"]["phase"] == "Running"
    assert {c["type"]: c["status"] for c in found["status"]["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }
    assert found["status"]["podIP"].startswith("10.77.0.")
    pid = node.pid("web")
    assert Path(f"/proc/{pid}/root/bin/busybox").exists()
    node.wait(lambda: node.cli("logs", "web").out == "started\n", "the first log line")
    path.unlink()
    node.wait_gone("web")
    assert not Path(f"/proc/{pid}").exists()
    assert node.doctor() == []
    assert {e["reason"] for e in node.events()} >= {"Created", "Started", "Killing"}


@pytest.mark.either_cgroup
def test_an_edit_restarts_only_what_is_necessary(node: Node) -> None:
    both = (container("a"), container("b"))
    node.apply("two.yaml", pod("two", *both))
    node.wait_status("two", "Running")
    before = {name: node.pid("two", name) for name in "ab"}
    uid = node.pod("two")["metadata"]["uid"]

    node.apply("two.yaml", pod("two", *both, labels={"tier": "x"}, annotations={"note": "seen"}))
    node.wait(lambda: node.pod("two")["metadata"].get("labels") == {"tier": "x"}, "the label")
    assert {name: node.pid("two", name) for name in "ab"} == before, "labels restart nothing"

    limited = container("a", resources={"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}})
    node.apply("two.yaml", pod("two", limited, both[1], labels={"tier": "x"}))
    node.wait(lambda: memory_limit(before["a"]) == 64 << 20, "the limit in the cgroup")
    assert {name: node.pid("two", name) for name in "ab"} == before, "limits change in place"

    changed = container("b", env=[{"name": "NEW", "value": "1"}])
    node.apply("two.yaml", pod("two", limited, changed, labels={"tier": "x"}))
    node.wait(lambda: node.container("two", "b").get("restartCount") == 1, "b to be made anew")
    node.wait_status("two", "Running")
    assert node.pid("two", "a") == before["a"]
    assert node.pid("two", "b") != before["b"]
    assert node.pod("two")["metadata"]["uid"] == uid


def memory_limit(pid: int) -> int:
    """The memory limit of a process's cgroup, on v1 or v2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return int(Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes").read_text())
    text = Path(f"/sys/fs/cgroup{path}/memory.max").read_text().strip()
    return int(text) if text.isdigit() else 0


@pytest.mark.either_cgroup
def test_a_sandbox_edit_recreates_the_pod(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    first, uid = node.pid("p"), node.pod("p")["metadata"]["uid"]
    node.apply("p.yaml", pod("p", hostname="other"))
    node.wait(lambda: not Path(f"/proc/{first}").exists(), "the first instance to end")
    assert node.pid("p") != first
    assert node.cli("exec", "p", "--", "hostname").out == "other\n"
    assert node.pod("p")["metadata"]["uid"] == uid


@pytest.mark.either_cgroup
def test_a_bad_file_changes_nothing_and_is_named(node: Node) -> None:
    path = node.apply("web.yaml", pod("web"))
    node.wait_status("web", "Running")
    pid = node.pid("web")
    node.apply("web.yaml", pod("web").replace("  - name: main", "  - nam: main"))
    node.wait(lambda: "Invalid" in node.cli("get", "manifests").out, "the error to be seen")
    manifest = next(m for m in node.json("get", "manifests")["files"] if m["file"] == str(path))
    problem = manifest["errors"][0]
    assert (problem["field"], problem["line"]) == ("spec.containers[0].nam", 8)
    assert 'did you mean "name"' in problem["message"]
    assert any("spec.containers[0].nam" in e["message"] for e in node.events("FailedValidation"))
    why = node.cli("why", "web").out
    assert "the last valid version of the manifest applies" in why and "spec.containers[0].nam" in why
    assert node.pid("web") == pid
    node.restart()
    assert node.pid("web") == pid, "nor after a restart of the daemon"


@pytest.mark.either_cgroup
def test_init_containers_run_in_order_and_share_a_volume(node: Node) -> None:
    mount = [{"name": "work", "mountPath": "/shared"}]
    inits = [
        container("one", "echo one >> /shared/log; sleep 0.3", volumeMounts=mount),
        container("two", "echo two >> /shared/log", volumeMounts=mount),
    ]
    main = container(
        script="cat /shared/log; trap 'exit 0' TERM; while :; do sleep 0.1; done", volumeMounts=mount
    )
    text = pod("init", main, initContainers=inits, volumes=[{"name": "work", "emptyDir": {}}])
    node.apply("init.yaml", text)
    node.wait_status("init", "Init:0/2", "Init:1/2", "PodInitializing", "Running")
    node.wait_status("init", "Running")
    node.wait(lambda: node.cli("logs", "init").out == "one\ntwo\n", "the log")


@pytest.mark.either_cgroup
def test_completion_and_failure(node: Node) -> None:
    node.apply("ok.yaml", pod("ok", container(script="echo done"), restartPolicy="Never"))
    node.apply("bad.yaml", pod("bad", container(script="exit 7"), restartPolicy="Never"))
    node.wait_status("ok", "Completed")
    node.wait_status("bad", "Error")
    assert node.pod("ok")["status"]["phase"] == "Succeeded"
    assert node.container("bad")["state"]["terminated"]["exitCode"] == 7
    time.sleep(0.3)
    assert node.container("bad")["restartCount"] == 0
    assert node.cli("logs", "ok").out == "done\n"


@pytest.mark.either_cgroup
def test_crash_loop_back_off(tmp_path: Path, images: Path) -> None:
    delay = 50  # long enough for the checks and a restart of the daemon; the test does not wait for its end
    with running_node(tmp_path, images, crash_backoff_initial=str(delay)) as node:
        _crash_loop(node, delay)


def _crash_loop(node: Node, delay: int) -> None:
    node.apply("crash.yaml", pod("crash", container(script="echo boom; exit 3")))
    node.wait_status("crash", "CrashLoopBackOff")
    state = node.container("crash")
    assert state["restartCount"] == 1, "the first restart is at once, the second waits"
    uid = node.pod("crash")["metadata"]["uid"]
    message = f"back-off {delay}s restarting failed container=main pod=crash_default({uid})"
    assert state["state"]["waiting"]["message"] == message
    assert state["lastState"]["terminated"]["exitCode"] == 3
    node.wait(lambda: node.events("BackOff"), "its event")
    said = f"Back-off restarting failed container main in pod crash_default({uid})"
    assert node.events("BackOff")[0]["message"] == said
    assert node.cli("logs", "-p", "crash").out == "boom\n"
    node.restart()
    node.wait_status("crash", "CrashLoopBackOff")
    assert node.container("crash")["restartCount"] == 1, "a restart of the daemon neither forgets nor repeats"


def test_termination_sends_term_then_kill_after_grace(node: Node) -> None:
    stubborn = container(script="trap 'echo no' TERM; echo up; while :; do sleep 0.1; done")
    path = node.apply("stubborn.yaml", pod("stubborn", stubborn, terminationGracePeriodSeconds=1))
    node.wait_status("stubborn", "Running")
    node.wait(lambda: "up" in node.cli("logs", "stubborn").out, "its trap")
    log = next(node.log_dir.glob("pods/*stubborn*/main/0.log"))
    kept = log.with_name("kept")
    kept.hardlink_to(log)
    began = time.monotonic()
    path.unlink()
    node.wait_status("stubborn", "Terminating")
    node.wait_gone("stubborn")
    assert time.monotonic() - began > 1.0
    assert not log.parent.exists()


def test_an_oom_kill_is_distinguished_from_other_kills(node: Node) -> None:
    hog = container("hog", "x=a; while :; do x=$x$x; done", resources={"limits": {"memory": "16Mi"}})
    node.apply("oom.yaml", pod("oom", hog, restartPolicy="Never"))
    node.wait_status("oom", "OOMKilled")
    ended = node.container("oom", "hog")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    node.apply("kill2.yaml", pod("kill2", container(), restartPolicy="Never"))
    node.wait_status("kill2", "Running")
    os.kill(node.pid("kill2"), 9)
    node.wait_status("kill2", "Error")
    ended = node.container("kill2")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Error", 137)


@pytest.mark.either_cgroup
def test_a_program_that_does_not_exist(node: Node) -> None:
    missing = {**container(), "command": ["/no/such/program"]}
    node.apply("missing.yaml", pod("missing", missing, restartPolicy="Never"))
    node.wait(lambda: node.container("missing").get("state", {}).get("terminated"), "its end")
    ended = node.container("missing")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "/no/such/program" in ended["message"] and "no such file or directory" in ended["message"]


@pytest.mark.either_cgroup
def test_a_missing_image(node: Node) -> None:
    node.apply("img.yaml", pod("img", {**container(), "image": "localhost/nothing:1"}))
    node.wait_status("img", "ErrImageNeverPull")
    node.wait(
        lambda: "is not present with pull policy of Never" in node.cli("describe", "pod", "img").out,
        "the reason in describe",
    )


@pytest.mark.either_cgroup
def test_volumes_hostpath_subpath_and_read_only(node: Node, tmp_path: Path) -> None:
    host = tmp_path / "host"
    (host / "sub").mkdir(parents=True)
    (host / "sub" / "file").write_text("from the host\n")
    script = """
        cat /data/file
        (echo x > /ro/file) 2>/dev/null && echo written || echo refused
        echo back > /data/new
        trap 'exit 0' TERM; while :; do sleep 0.1; done
    """
    mounts = [
        {"name": "host", "mountPath": "/data", "subPath": "sub"},
        {"name": "host", "mountPath": "/ro", "readOnly": True},
    ]
    volumes = [{"name": "host", "hostPath": {"path": str(host), "type": "Directory"}}]
    node.apply("v.yaml", pod("v", container(script=script, volumeMounts=mounts), volumes=volumes))
    node.wait((host / "sub" / "new").exists, "the container to write")
    node.wait(lambda: node.cli("logs", "v").out == "from the host\nrefused\n", "the log")
    (node.manifests / "v.yaml").unlink()
    node.wait_gone("v")
    assert (host / "sub" / "file").read_text() == "from the host\n", "the host's files stay"


def test_security_context(node: Node) -> None:
    main = container(
        securityContext={
            "runAsUser": 1000,
            "runAsGroup": 2000,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        }
    )
    node.apply("sec.yaml", pod("sec", main, securityContext={"supplementalGroups": [3000]}))
    node.wait_status("sec", "Running")
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{node.pid('sec')}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["2000"] * 4
    assert "3000" in status["Groups"].split()
    assert int(status["CapBnd"], 16) == 1 << 10
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert node.cli("exec", "sec", "--", "touch", "/x", check=False).code == 1
    root = {**container(), "securityContext": {"runAsNonRoot": True}}
    node.apply("root.yaml", pod("root", root))
    node.wait_status("root", "CreateContainerConfigError")


@pytest.mark.either_cgroup
def test_an_unsupported_field_causes_an_event(node: Node) -> None:
    node.apply("gated.yaml", pod("gated", schedulerName="another"))
    node.wait_status("gated", "Running")
    node.wait(
        lambda: "spec.schedulerName" in node.cli("describe", "pod", "gated").out,
        "the warning in describe",
    )


@pytest.mark.either_cgroup
def test_why_diff_apply_delete(node: Node) -> None:
    text = pod("p")
    done = node.cli("apply", "-f", "-", stdin=text.encode())
    assert done.out == "pod/p created\n"
    node.wait_status("p", "Running")
    assert node.cli("apply", "-f", "-", stdin=text.encode()).out == "pod/p unchanged\n"
    changed = yaml.safe_load(text)
    changed["spec"]["containers"][0]["env"] = [{"name": "A", "value": "b"}]
    difference = node.cli("diff", "-f", "-", stdin=yaml.safe_dump(changed).encode(), check=False)
    assert difference.code == 1
    assert "main" in difference.out and "restart" in difference.out
    why = node.cli("why", "p").out
    assert "nothing" in why.lower()
    first = node.pod("p")["metadata"]["uid"]
    said = node.cli("delete", "pod", "p")
    assert "p.yaml" in said.out + said.err, "it says which file brings the pod back"
    node.wait(
        lambda: (
            node.cli("get", "pod", "p", check=False).code == 0 and node.pod("p")["metadata"]["uid"] != first
        ),
        "a new pod",
    )
    node.wait_status("p", "Running")
    node.cli("delete", "-f", "-", stdin=text.encode())
    node.wait_gone("p")
    assert list(node.manifests.glob("*.yaml")) == []
