"""Fields of the pod end to end: the program sees what the manifest specifies."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cgroups import cgroup_file
from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import Node, running_node


def manifest(kind: str, name: str, **fields: Any) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields})


def run(node: Node, name: str, command: str, container_name: str = "main") -> str:
    """The output of a shell command in a container."""
    return node.cli("exec", name, "-c", container_name, "--", "sh", "-c", command).out


@pytest.mark.either_cgroup
def test_termination_messages(node: Node) -> None:
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    containers = [
        container("default", "echo last words > /dev/termination-log; exit 3"),
        container("own", "printf mine > /tmp/message; exit 0", terminationMessagePath="/tmp/message"),
        container("logs", "seq 1 100; exit 1", **fallback),
        container("good", "echo well; exit 0", **fallback),
        container("long", "head -c 6000 /dev/zero | tr '\\0' x > /dev/termination-log; exit 1"),
        container("user", "echo by 1000 > /dev/termination-log", securityContext={"runAsUser": 1000}),
    ]
    node.apply("m.yaml", pod("m", *containers, restartPolicy="Never"))
    node.wait(
        lambda: node.status_of("m") == "Error" and node.pod("m")["status"].get("phase") == "Failed",
        "all to end",
    )
    said = {c["name"]: node.container("m", c["name"])["state"]["terminated"] for c in containers}
    assert said["default"]["message"] == "last words\n"
    assert said["own"]["message"] == "mine"
    assert said["logs"]["message"] == "".join(f"{i}\n" for i in range(21, 101)), "the last 80 lines"
    assert "message" not in said["good"]
    assert said["long"]["message"] == "x" * 2048, "six containers have 12 KiB together"
    assert said["user"]["message"] == "by 1000\n"
    assert "Message:      last words" in node.cli("describe", "pod", "m").out


@pytest.mark.either_cgroup
def test_environment(node: Node) -> None:
    node.apply("c.yaml", manifest("ConfigMap", "settings", data={"color": "blue", "SIZE": "7"}))
    node.apply("s.yaml", manifest("Secret", "keys", stringData={"token": "s3cret"}))
    env: list[dict[str, Any]] = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(C)-$$(A)-$("},
        {"name": "A", "value": "2"},
        {"name": "SIZE", "value": "own over $(CFG_color)"},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "x", "optional": True}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "TIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    main = container(
        env=env,
        envFrom=[{"configMapRef": {"name": "settings"}}, {"prefix": "CFG_", "configMapRef": {"name": "settings"}}],
        resources={"limits": {"memory": "33Mi"}},
        command=["sh", "-c", 'echo "$0 $@"; ' + SLEEP, "$(COLOR)"],
        args=["$(TOKEN)", "$(UNKNOWN)", "$$(COLOR)"],
    )  # fmt: skip
    missing = container(env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "k"}}}])
    node.apply("env.yaml", pod("env", main, labels={"tier": "front"}))
    node.apply("missing.yaml", pod("missing", missing))
    node.wait_status("env", "Running")
    found = dict(line.split("=", 1) for line in run(node, "env", "env").splitlines())
    wanted = {
        "A": "2", "B": "1-$(C)-$(A)-$(", "SIZE": "own over blue", "CFG_SIZE": "7", "color": "blue",
        "COLOR": "blue", "TOKEN": "s3cret", "POD": "env", "NODE": node.name, "TIER": "front", "LIMIT": "33",
        "IP": node.pod("env")["status"]["podIP"], "HOSTNAME": "env",
    }  # fmt: skip
    assert {key: found.get(key) for key in wanted} == wanted
    assert "NONE" not in found
    node.wait(
        lambda: node.cli("logs", "env").out.startswith("blue s3cret $(UNKNOWN) $(COLOR)\n"), "its arguments"
    )
    node.wait_status("missing", "CreateContainerConfigError")
    assert 'configmap "later" not found' in node.cli("describe", "pod", "missing").out
    node.apply("later.yaml", manifest("ConfigMap", "later", data={"k": "v"}))
    node.wait_status("missing", "Running", timeout=15)


@pytest.mark.either_cgroup
def test_configmap_secret_and_downward_volumes(node: Node) -> None:
    node.apply("c.yaml", manifest("ConfigMap", "settings", data={"a.conf": "one\n", "b.conf": "b\n"}))
    node.apply("s.yaml", manifest("Secret", "keys", stringData={"token": "s3cret"}))
    volumes: list[dict[str, Any]] = [
        {"name": "all", "configMap": {"name": "settings"}},
        {"name": "some", "configMap": {"name": "settings", "items": [{"key": "a.conf", "path": "d/x", "mode": 0o400}]}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o440}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "proj", "projected": {"sources": [{"secret": {"name": "keys"}}, {"configMap": {"name": "settings"}}]}},
        {"name": "waits", "configMap": {"name": "later"}},
    ]  # fmt: skip
    names = [str(volume["name"]) for volume in volumes]
    mounts = [{"name": name, "mountPath": f"/v/{name}"} for name in names[:-1]]
    mounts.append({"name": "all", "mountPath": "/single", "subPath": "b.conf"})
    main = container(volumeMounts=mounts)
    node.apply(
        "v.yaml", pod("v", main, volumes=volumes, labels={"a": "b"}, securityContext={"fsGroup": 2000})
    )
    waiting = container(volumeMounts=[{"name": "waits", "mountPath": "/w"}])
    node.apply("w.yaml", pod("w", waiting, volumes=volumes[-1:]))
    node.wait_status("v", "Running")
    assert run(node, "v", "cat /v/all/a.conf /v/some/d/x /v/secret/token /v/down/labels") == (
        'one\none\ns3creta="b"'
    )
    assert run(node, "v", "ls /v/proj").split() == ["a.conf", "b.conf", "token"]
    modes = run(node, "v", "stat -L -c '%a %g' /v/some/d/x /v/secret/token /v/all/a.conf").splitlines()
    assert modes == ["440 2000", "440 2000", "644 2000"], "fsGroup owns them, and may read"
    assert "2000" in run(node, "v", "id -G").split()
    assert run(node, "v", "cat /single") == "b\n"
    refused = node.cli("exec", "v", "--", "sh", "-c", "echo x > /v/all/a.conf", check=False)
    assert refused.code == 1 and "Read-only" in refused.err

    pid = node.pid("v")
    node.apply("c.yaml", manifest("ConfigMap", "settings", data={"a.conf": "two\n", "b.conf": "c\n"}))
    node.wait(lambda: run(node, "v", "cat /v/all/a.conf") == "two\n", "the new content in the running pod")
    assert run(node, "v", "cat /single") == "b\n", "a subPath is never refreshed"
    assert node.pid("v") == pid
    node.wait_status("w", "ContainerCreating")
    failed = node.events("FailedMount")
    assert failed[0]["message"] == 'MountVolume.SetUp failed for volume "waits" : configmap "later" not found'
    node.apply("later.yaml", manifest("ConfigMap", "later", data={"k": "v"}))
    node.wait_status("w", "Running", timeout=15)


@pytest.mark.either_cgroup
def test_host_namespaces_and_ids(node: Node) -> None:
    node.apply("host.yaml", pod("host", hostPID=True, hostIPC=True))
    security = {"supplementalGroups": [3000, 4000], "fsGroup": 5000, "runAsUser": 1000, "runAsGroup": 1001}
    mounts = [{"name": "data", "mountPath": "/data"}]
    main = container(volumeMounts=mounts, workingDir="/some/where/new")
    text = pod("ids", main, securityContext=security, volumes=[{"name": "data", "emptyDir": {}}])
    node.apply("ids.yaml", text)
    node.wait_status("host", "Running")
    node.wait_status("ids", "Running")
    for kind in ("pid", "ipc"):
        mine = os.readlink(f"/proc/self/ns/{kind}")
        assert os.readlink(f"/proc/{node.pid('host')}/ns/{kind}") == mine
        assert os.readlink(f"/proc/{node.pid('ids')}/ns/{kind}") != mine
    assert (
        run(node, "host", f"cat /proc/{os.getpid()}/comm").strip()
        == Path("/proc/self/comm").read_text().strip()
    )
    assert run(node, "ids", "id -u; id -g; id -G").split() == ["1000", "1001", "1001", "3000", "4000", "5000"]
    assert run(node, "ids", "pwd") == "/some/where/new\n"
    assert run(node, "ids", "echo x > /data/f && stat -c '%u %g' /data/f") == "1000 5000\n"


@pytest.mark.either_cgroup
def test_names_and_dns(node: Node) -> None:
    dns = {
        "nameservers": ["192.0.2.53"],
        "searches": ["example.test", "sub.example.test"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    aliases = [
        {"ip": "192.0.2.1", "hostnames": ["one.test", "uno.test"]},
        {"ip": "192.0.2.2", "hostnames": ["two.test"]},
    ]
    named: dict[str, Any] = {
        "hostname": "box",
        "subdomain": "inner",
        "hostAliases": aliases,
        "dnsPolicy": "None",
        "dnsConfig": dns,
    }
    node.apply("named.yaml", pod("named", **named))
    node.apply("default.yaml", pod("plain", dnsPolicy="Default"))
    node.apply("hostnet.yaml", pod("hostnet", hostNetwork=True, hostAliases=aliases[:1]))
    for name in ("named", "plain", "hostnet"):
        node.wait_status(name, "Running")
    ip = node.pod("named")["status"]["podIP"]
    assert run(node, "named", "hostname; cat /etc/hostname") == "box\nbox\n"
    hosts = run(node, "named", "cat /etc/hosts")
    assert f"{ip}\tbox.inner.default.svc.cluster.local\tbox\n" in hosts
    assert hosts.endswith(
        "\n# Entries added by HostAliases.\n192.0.2.1\tone.test\tuno.test\n192.0.2.2\ttwo.test\n"
    )
    lines = set(run(node, "named", "cat /etc/resolv.conf").splitlines())
    assert lines == {"nameserver 192.0.2.53", "search example.test sub.example.test", "options ndots:2 edns0"}
    host = Path("/etc/resolv.conf").read_text()
    servers = re.findall(r"^nameserver\s+(\S+)", host, re.MULTILINE)[:3]
    assert re.findall(r"nameserver (\S+)", run(node, "plain", "cat /etc/resolv.conf")) == servers
    assert "192.0.2.1\tone.test\tuno.test" in run(node, "hostnet", "cat /etc/hosts")
    assert run(node, "hostnet", "hostname").strip() == os.uname().nodename
    # host aliases change in the running pod
    pid = node.pid("named")
    node.apply("named.yaml", pod("named", **{**named, "hostAliases": aliases[1:]}))
    node.wait(lambda: "one.test" not in run(node, "named", "cat /etc/hosts"), "the alias to go")
    assert node.pid("named") == pid


def test_resources_and_quality_of_service(node: Node) -> None:
    guaranteed = {"limits": {"cpu": "250m", "memory": "64Mi"}}
    burstable = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "500m"}}
    node.apply("g.yaml", pod("g", container(resources=guaranteed)))
    node.apply("b.yaml", pod("b", container(resources=burstable)))
    node.apply("e.yaml", pod("e"))
    wanted = {"g": "Guaranteed", "b": "Burstable", "e": "BestEffort"}
    pids = {}
    for name, quality in wanted.items():
        node.wait_status(name, "Running")
        pids[name] = node.pid(name)
        assert node.pod(name)["status"]["qosClass"] == quality
        tier = {"g": f"{node.cgroup_parent}/pod", "b": "/burstable/pod", "e": "/besteffort/pod"}[name]
        assert tier in Path(f"/proc/{pids[name]}/cgroup").read_text()
    shares = {name: cgroup_file(pid, "cpu/cpu.shares", "cpu.weight") for name, pid in pids.items()}
    assert shares in ({"g": "256", "b": "102", "e": "2"}, {"g": "35", "b": "17", "e": "1"})
    quota = {name: cgroup_file(pid, "cpu/cpu.cfs_quota_us", "cpu.max") for name, pid in pids.items()}
    assert quota in (
        {"g": "25000", "b": "50000", "e": "-1"},
        {"g": "25000 100000", "b": "50000 100000", "e": "max 100000"},
    )
    memory = {
        name: cgroup_file(pid, "memory/memory.limit_in_bytes", "memory.max") for name, pid in pids.items()
    }
    assert memory["g"] == str(64 << 20)
    assert memory["e"] == "max" or int(memory["e"]) > 1 << 50
    own = int(Path("/proc/self/oom_score_adj").read_text())
    scores = {name: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for name, pid in pids.items()}
    assert scores["e"] == 1000
    assert max(3, own) <= scores["b"] <= 999
    assert scores["g"] in (-997, own), "as low as this machine lets it be"


@pytest.mark.either_cgroup
def test_log_files_rotate_and_lines_keep_their_shape(tmp_path: Path, images: Path) -> None:
    with running_node(tmp_path, images, log_max_size="20000", log_max_files="3") as node:
        script = (
            "head -c 40000 /dev/zero | tr '\\0' y; echo; "
            "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; " + SLEEP
        )
        node.apply("r.yaml", pod("r", container(script=script)))
        node.wait_status("r", "Running")
        node.wait(lambda: node.cli("logs", "r", "--tail", "1").out == "started\n", "the last line")
        directory = next(node.log_dir.glob("pods/default_r_*/main"))
        files = sorted(path.name for path in directory.iterdir())
        assert "0.log" in files and 2 <= len(files) <= 3, files
        assert any(re.fullmatch(r"0\.log\.\d{8}-\d{6}.*", name) for name in files), files
        assert all(path.stat().st_size <= 40_000 for path in directory.iterdir())
        kept = node.cli("logs", "r").out.splitlines()
        numbers = [int(line.split()[1]) for line in kept if line.startswith("line ")]
        assert numbers == list(range(numbers[0], 3000)), (
            "what is kept is whole and in order, rotated files included"
        )
        link = next((node.log_dir / "containers").glob("r_default_main-*.log"))
        assert link.resolve() == directory / "0.log"
        inspected = json.loads(node.cli("inspect", "default/r").out)
        assert inspected["containers"][0]["id"] in link.name


@pytest.mark.either_cgroup
def test_restart_rules_strict_groups_seccomp_files_and_read_only_trees(node: Node) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    }
    directory = node.root / "seccomp" / "profiles"
    directory.mkdir(parents=True)
    (directory / "no-mkdir.json").write_text(json.dumps(profile))
    (node.base / "tree").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "inner", str(node.base / "tree")], check=True)
    try:
        tree = {"name": "tree", "hostPath": {"path": str(node.base), "type": "Directory"}}
        mount = {"name": "tree", "mountPath": "/tree", "readOnly": True, "recursiveReadOnly": "Enabled"}
        localhost = {"type": "Localhost", "localhostProfile": "profiles/no-mkdir.json"}
        rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
        containers = [
            container("main", securityContext={"seccompProfile": localhost}, volumeMounts=[mount]),
            container(
                "once", "[ -e /tmp/x ] || exit 42; exit 0", restartPolicy="Never", restartPolicyRules=rules
            ),
            container(
                "lost", securityContext={"seccompProfile": {**localhost, "localhostProfile": "none.json"}}
            ),
        ]
        strict = {"supplementalGroupsPolicy": "Strict", "supplementalGroups": [3000]}
        text = pod("f", *containers, restartPolicy="Never", securityContext=strict, volumes=[tree])
        node.apply("f.yaml", text)
        node.wait(lambda: node.container("f").get("ready"), "the first to run")
        assert "Function not implemented" in run(node, "f", "mkdir /tmp/d 2>&1; true")
        assert "Read-only" in run(node, "f", "echo x 2>&1 > /tree/tree/file; true")
        assert run(node, "f", "id -G").split() == ["0", "3000"]
        node.wait(
            lambda: node.container("f", "once").get("restartCount") == 1, "the restart that the rule orders"
        )
        waiting = node.container("f", "lost")["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerError"
        assert f"{node.root}/seccomp/none.json" in waiting["message"]
        run(node, "f", "echo '192.0.2.9 mine' >> /etc/hosts")
        node.restart()
        node.wait(lambda: node.container("f").get("ready"), "the daemon to have looked")
        assert "192.0.2.9 mine" in run(node, "f", "cat /etc/hosts"), "nothing changed: nothing is written"
        node.apply(
            "f.yaml", text.replace("spec:", "spec:\n  hostAliases: [{ip: 192.0.2.7, hostnames: [seven]}]", 1)
        )
        node.wait(lambda: "seven" in run(node, "f", "cat /etc/hosts"), "the new alias")
    finally:
        subprocess.run(["umount", "-l", str(node.base / "tree")], check=True)


def test_a_pod_that_exceeds_its_empty_dir_limit_is_evicted(node: Node) -> None:
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    main = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    node.apply("big.yaml", pod("big", main, volumes=volumes))
    node.wait_status("big", "Running")
    run(node, "big", "head -c 3000000 /dev/zero > /v/big")
    node.restart()  # a new daemon measures at once; later measurements are ten seconds apart
    node.wait(lambda: node.pod("big")["status"].get("phase") == "Failed", "the eviction")
    status = node.pod("big")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    node.wait(lambda: node.events("Evicted"), "its event")
