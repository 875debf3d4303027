"""Volumes other than directories: images, secrets in memory, claims, devices; and the ownership of files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelite.node.storage import block_devices, loopdev
from tests.e2e.manifests import container, pod
from tests.e2e.node import IMAGE, Node
from tests.e2e.test_fields import manifest, run
from tests.programs import missing
from tests.unit.node.spec.test_trust_bundles import ONE, TWO


def test_an_image_is_a_volume(node: Node) -> None:
    volumes: list[dict[str, Any]] = [
        {"name": "tools", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}},
        {"name": "lost", "image": {"reference": "localhost/no:such", "pullPolicy": "Never"}},
    ]
    mounts = [
        {"name": "tools", "mountPath": "/tools"},
        {"name": "tools", "mountPath": "/b", "subPath": "bin"},
    ]
    node.apply("i.yaml", pod("i", container(volumeMounts=mounts), volumes=volumes[:1]))
    node.apply(
        "l.yaml", pod("l", container(volumeMounts=[{"name": "lost", "mountPath": "/l"}]), volumes=volumes[1:])
    )
    node.wait_status("i", "Running")
    assert "busybox" in run(node, "i", "ls /tools/bin").split()
    assert "busybox" in run(node, "i", "ls /b").split()
    said = run(node, "i", "touch /tools/x 2>&1; /tools/bin/busybox true 2>&1; true")
    assert "Read-only" in said
    assert "ermission denied" in said, "nothing is executed from it"
    node.wait_status("l", "ErrImageNeverPull")
    in_use = node.cli("rmi", IMAGE, check=False)
    assert in_use.code == 1
    node.restart(9)
    node.wait(lambda: node.container("i").get("ready"), "the daemon to have looked")
    (node.manifests / "i.yaml").unlink()
    node.wait_gone("i")


def claim(name: str, **annotations: str) -> str:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    found = yaml.safe_load(manifest("PersistentVolumeClaim", name, spec=spec))
    found["metadata"]["annotations"] = {
        f"kubelite.io/{k.replace('_', '-')}": v for k, v in annotations.items()
    }
    return yaml.safe_dump(found)


def test_claims_survive_pods_and_volumes_survive_by_policy(node: Node) -> None:
    volumes: list[dict[str, Any]] = [
        {"name": name, "persistentVolumeClaim": {"claimName": name}} for name in ("keep", "drop")
    ]
    volumes.append({"name": "ro", "persistentVolumeClaim": {"claimName": "keep", "readOnly": True}})
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    text = pod("p", container(volumeMounts=mounts), volumes=volumes, securityContext={"fsGroup": 77})
    node.apply("p.yaml", text)
    node.wait_status("p", "Pending")
    node.wait(
        lambda: any("not found" in e["message"] for e in node.events("FailedScheduling")),
        "what it waits for",
    )
    node.apply("keep.yaml", claim("keep"))
    node.apply("drop.yaml", claim("drop", reclaim_policy="Delete"))
    node.wait_status("p", "Running")
    row = node.cli("get", "pvc", "keep", "--no-headers").out.split()
    assert row[:2] == ["keep", "Bound"]
    assert row[3:6] == ["1Mi", "RWO", "kubelite"]
    assert node.events("SizeNotEnforced"), (
        "no file system here holds sizes; where one does, there is no such event"
    )
    assert run(node, "p", "echo a > /keep/f; echo b > /drop/f; cat /ro/f; touch /ro/x 2>&1; true").startswith(
        "a\n"
    )
    assert run(node, "p", "stat -c %g /keep /keep/f").split() == ["77", "77"]
    (node.manifests / "p.yaml").unlink()
    node.wait_gone("p")
    node.restart(9)
    node.apply("p.yaml", text)
    node.wait_status("p", "Running")
    assert run(node, "p", "cat /keep/f /drop/f") == "a\nb\n"
    (node.manifests / "keep.yaml").unlink()
    (node.manifests / "drop.yaml").unlink()
    node.wait(
        lambda: node.cli("get", "pvc", "--no-headers").out.count("Terminating") == 2, "the claims to be going"
    )
    assert run(node, "p", "cat /drop/f") == "b\n", "not while a pod has it"
    (node.manifests / "p.yaml").unlink()
    node.wait_gone("p")
    node.wait(lambda: not (node.root / "claims/default/drop").exists(), "the one to be deleted")
    assert node.cli("get", "pvc", "--no-headers", check=False).out.strip() in ("", "No resources found")
    assert (node.root / "claims/default/keep/data/f").read_text() == "a\n"
    copied = yaml.safe_load(claim("copied"))
    copied["spec"]["dataSource"] = {"kind": "PersistentVolumeClaim", "name": "keep"}
    node.apply("copied.yaml", yaml.safe_dump(copied))
    node.wait(
        lambda: any("dataSource" in e["message"] for e in node.events("ProvisioningFailed")), "the refusal"
    )


def persistent_volume(name: str, path: Path, **spec: Any) -> str:
    wanted = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOncePod"],
        "storageClassName": "manual",
        "hostPath": {"path": str(path)},
        **spec,
    }
    wanted = {key: value for key, value in wanted.items() if value is not None}
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": wanted}
    )


def test_a_volume_from_a_manifest_survives_its_claim(node: Node, tmp_path: Path) -> None:
    """A pod, its ReadWriteOncePod claim and its volume are removed in this order; only one pod uses the claim at a
    time."""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    one = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    node.apply("a.yaml", pod("a", one, volumes=volumes))
    node.apply("b.yaml", pod("b", one, volumes=volumes))
    node.wait(lambda: len(node.events("FailedScheduling")) >= 2, "both to be told that there is no claim")
    wants = yaml.safe_load(claim("data"))
    wants["spec"] |= {"accessModes": ["ReadWriteOncePod"], "storageClassName": ""}
    node.apply("claim.yaml", yaml.safe_dump(wants))
    node.wait(lambda: node.events("FailedBinding"), "the claim to be told that there is no volume")
    assert node.status_of("a") == node.status_of("b") == "Pending"
    (tmp_path / "disk").mkdir()
    node.apply("v.yaml", persistent_volume("disk", tmp_path / "disk", storageClassName=""))
    node.wait(lambda: "Running" in (node.status_of("a"), node.status_of("b")), "one of them to run")
    first, second = ("a", "b") if node.status_of("a") == "Running" else ("b", "a")
    row = node.cli("get", "pv", "disk", "--no-headers").out.split()
    assert row[:6] == ["disk", "1Mi", "RWOP", "Retain", "Bound", "default/data"]
    run(node, first, "echo kept > /v/f")
    assert (tmp_path / "disk/f").read_text() == "kept\n"
    assert node.status_of(second) == "Pending"
    node.restart(9)
    node.wait(lambda: node.container(first).get("ready"), "the daemon to have looked")
    assert node.status_of(second) == "Pending"
    (node.manifests / f"{first}.yaml").unlink()
    node.wait_status(second, "Running")
    assert run(node, second, "cat /v/f") == "kept\n"
    (node.manifests / f"{second}.yaml").unlink()
    (node.manifests / "claim.yaml").unlink()
    node.wait(lambda: "Released" in node.cli("get", "pv").out, "the volume to be released")
    assert (tmp_path / "disk/f").read_text() == "kept\n"


def test_secrets_are_in_memory_and_fs_group_owns_the_files(node: Node) -> None:
    node.apply("s.yaml", manifest("Secret", "keys", stringData={"token": "s3cret-on-no-disk"}))
    volumes: list[dict[str, Any]] = [
        {"name": "s", "secret": {"secretName": "keys"}},
        {"name": "p", "projected": {"sources": [{"secret": {"name": "keys"}}]}},
        {"name": "d", "emptyDir": {}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    text = pod("s", container(volumeMounts=mounts), volumes=volumes)
    node.apply("p.yaml", text)
    node.wait_status("s", "Running")
    assert run(node, "s", "cat /s/token /p/token; grep -c ' /[sp] tmpfs' /proc/mounts").endswith("disk2\n")
    if tuple(int(number) for number in os.uname().release.split(".")[:2]) >= (6, 4):
        assert run(node, "s", "grep -c ' /[sp] tmpfs.*noswap' /proc/mounts") == "2\n"
    uid = node.pod("s")["metadata"]["uid"]
    run(node, "s", "mkdir -p /d/in; echo x > /d/in/f; chmod 600 /d/in/f; ln -s /etc/hosts /d/link")
    node.apply(
        "p.yaml", pod("s", container(volumeMounts=mounts), volumes=volumes, securityContext={"fsGroup": 4321})
    )
    node.wait(lambda: node.container("s").get("restartCount") == 1, "the restart that a new group costs")
    node.wait_status("s", "Running")
    found = run(node, "s", "stat -c '%g %a' /d /d/in /d/in/f").split("\n")
    assert found[:3] == ["4321 2777", "4321 2775", "4321 660"]
    assert (node.root / f"pods/{uid}/volumes/kubernetes.io~empty-dir/d/link").lstat().st_gid == 4321
    assert Path("/etc/hosts").stat().st_gid != 4321
    node.apply("s.yaml", manifest("Secret", "keys", stringData={"token": "new"}))
    node.wait(lambda: run(node, "s", "cat /s/token") == "new", "the new content")
    node.restart(9)
    node.wait(lambda: node.container("s").get("ready"), "the daemon to have looked")
    assert run(node, "s", "cat /s/token") == "new"
    on_disk = [
        name for root, _, names in os.walk(node.root / "pods") for name in names
        if os.stat(f"{root}/{name}", follow_symlinks=False).st_dev == os.stat(node.root).st_dev and name == "token"
    ]  # fmt: skip
    assert not on_disk


def test_ephemeral_volumes_live_as_long_as_their_pod(node: Node) -> None:
    """They persist across restarts of container, sandbox and daemon, are removed with the pod, and the next pod sees
    nothing of them."""
    template = {"metadata": {"labels": {"kind": "scratch"}}, "spec": yaml.safe_load(claim("x"))["spec"]}
    volumes: list[dict[str, Any]] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
    mounts = [{"name": "scratch", "mountPath": "/s"}]
    text = pod("e", container(volumeMounts=mounts), volumes=volumes, securityContext={"fsGroup": 77})
    node.apply("e.yaml", text)
    node.wait_status("e", "Running")
    assert not node.events("FailedMount"), "the claim is there before the container is started"
    assert run(node, "e", "stat -c '%g' /s; echo kept > /s/f") == "77\n"
    found = node.json("get", "pvc", "e-scratch")
    assert found["status"]["phase"] == "Bound"
    assert found["metadata"]["ownerReferences"][0]["uid"] == node.pod("e")["metadata"]["uid"]
    assert "EphemeralVolume (an inline" in node.cli("describe", "pod", "e").out
    shim = sandbox_pid(node, "e")
    node.kill(9)
    os.kill(shim, 9)
    node.start()
    node.wait(lambda: node.container("e").get("restartCount") == 1, "the new sandbox")
    node.wait_status("e", "Running")
    assert run(node, "e", "cat /s/f") == "kept\n"
    old = node.pod("e")["metadata"]["uid"]
    node.cli("delete", "pod", "e", "--no-wait")
    node.kill(9)  # during its termination
    node.start()
    node.wait(lambda: node.pod("e")["metadata"]["uid"] != old, "the pod that its manifest makes anew")
    node.wait_status("e", "Running")
    assert run(node, "e", "ls -a /s").split() == [".", ".."]
    node.apply("z.yaml", claim("z-scratch"))
    node.apply("y.yaml", pod("z", container(volumeMounts=mounts), volumes=volumes))
    node.wait(
        lambda: any("not created for pod" in e["message"] for e in node.events("FailedMount")), "a refusal"
    )
    (node.manifests / "z.yaml").unlink()
    node.wait(
        lambda: any("is not bound" in e["message"] for e in node.events("FailedMount")), "what was kept"
    )
    node.apply("y.yaml", pod("z", container()))
    node.wait_status("z", "Running")
    for name in ("e.yaml", "y.yaml"):
        (node.manifests / name).unlink()
    node.wait_gone("e")
    node.wait(lambda: not (node.root / "claims/default/e-scratch").exists(), "its directory to go")
    assert node.cli("get", "pvc", "e-scratch", check=False).code == 1


def test_a_claim_in_use_is_retained_until_its_pod_is_gone(node: Node) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "mine"}}]
    main = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    node.apply("mine.yaml", claim("mine", reclaim_policy="Delete"))
    node.apply("p.yaml", pod("p", main, volumes=volumes))
    node.wait_status("p", "Running")

    def state() -> str:
        return node.cli("get", "pvc", "mine", "--no-headers", check=False).out

    (node.manifests / "mine.yaml").unlink()
    node.wait(lambda: "Terminating" in state(), "the claim to be going")
    node.restart(9)
    assert "Terminating" in state()
    assert run(node, "p", "echo text > /v/file; cat /v/file") == "text\n"
    node.apply("q.yaml", pod("q", main, volumes=volumes))
    words = 'persistentvolumeclaim "mine" is being deleted'
    node.wait(lambda: any(words in e["message"] for e in node.events("FailedScheduling")), "the refusal")
    (node.manifests / "q.yaml").unlink()
    node.wait_gone("q")
    node.apply("mine.yaml", claim("mine", reclaim_policy="Delete"))
    node.wait(lambda: "Bound" in state(), "the deletion to be taken back")
    (node.manifests / "mine.yaml").unlink()
    node.wait(lambda: "Terminating" in state(), "the claim to be going again")
    told = [e["message"] for e in node.events("Terminating")]
    assert "its manifest was removed; it stays until pod default/p no longer uses it" in told
    (node.manifests / "p.yaml").unlink()
    node.wait_gone("p")
    node.wait(lambda: not (node.root / "claims/default/mine").exists(), "claim and directory to go")
    assert node.cli("get", "pvc", "mine", check=False).code == 1


def sandbox_pid(node: Node, name: str) -> int:
    return int(json.loads(node.cli("inspect", f"default/{name}").out)["sandbox"]["pid"])


def test_a_block_claim_is_a_device_in_the_container(node: Node, tmp_path: Path) -> None:
    """One is a file of the claim, the other is named by the PersistentVolume. Both are released when unused."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    here = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]
    by_hand: dict[str, Any] = {
        "volumeMode": "Block",
        "accessModes": ["ReadWriteOnce"],
        "hostPath": None,
        "local": {"path": str(tmp_path / "disk")},
        "nodeAffinity": {"required": {"nodeSelectorTerms": here}},
    }
    node.apply("pv.yaml", persistent_volume("disk", tmp_path / "disk", **by_hand))
    for name, kind in (("own", {}), ("hand", {"storageClassName": "manual"})):
        wants = yaml.safe_load(claim(name))
        wants["spec"] |= {"volumeMode": "Block", **kind}
        node.apply(f"{name}.yaml", yaml.safe_dump(wants))
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in ("own", "hand")]
    devices = [{"name": name, "devicePath": f"/dev/{name}"} for name in ("own", "hand")]
    main = container(volumeDevices=devices, securityContext={"runAsUser": 1000, "runAsGroup": 1000})
    wrong = container("wrong", volumeMounts=[{"name": "own", "mountPath": "/own"}])
    node.apply("p.yaml", pod("p", main, volumes=volumes))
    node.apply("w.yaml", pod("w", wrong, volumes=volumes[:1]))
    node.wait_status("p", "Running")
    said = "volume own has volumeMode Block, but is specified in volumeMounts"
    node.wait(lambda: said in [e["message"] for e in node.events("FailedMount")], "the refusal")
    script = "for d in own hand; do echo text of $d > /dev/$d; head -c 11 /dev/$d; stat -c ' %F %u' /dev/$d; done; sync"
    assert run(node, "p", script).split("\n")[:2] == [
        "text of own block special file 1000",
        "text of han block special file 1000",
    ]
    assert (tmp_path / "disk").read_bytes().startswith(b"text of hand\n")
    own = node.root / "claims/default/own/block"
    assert own.read_bytes().startswith(b"text of own\n") and own.stat().st_size == 1 << 20
    assert run(node, "p", "cat /dev/loop-control 2>&1; true").strip().endswith("No such file or directory")
    files = {str(own), str(tmp_path / "disk")}

    def devices_over() -> set[str]:
        return {path for _, path in loopdev.marked(f"kubelite:{node.root}".encode()[-loopdev.MARK_SIZE :])}

    assert devices_over() == files
    for name in ("p", "w"):
        (node.manifests / f"{name}.yaml").unlink()
        node.wait_gone(name)
    node.wait(lambda: not devices_over(), "the devices to be let go")
    assert own.read_bytes().startswith(b"text of own\n")


@pytest.mark.skipif(bool(missing("mkfs.ext4")), reason="needs mkfs.ext4")
def test_a_local_volume_on_a_device_is_formatted_and_mounted_while_in_use(node: Node, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"")
    os.truncate(tmp_path / "disk", 16 << 20)
    device = loopdev.attach(str(tmp_path / "disk"), f"test of a volume {os.getpid()}".encode())
    here = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]
    by_hand: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "hostPath": None,
        "local": {"path": device},
        "nodeAffinity": {"required": {"nodeSelectorTerms": here}},
    }
    where = block_devices.mount_point(str(node.root), "disk")
    try:
        node.apply("pv.yaml", persistent_volume("disk", Path(device), **by_hand))
        wants = yaml.safe_load(claim("hand"))
        wants["spec"] |= {"storageClassName": "manual"}
        node.apply("hand.yaml", yaml.safe_dump(wants))
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "hand"}}]
        main = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
        group = {"fsGroup": 2000}
        for name in ("p", "q"):
            node.apply(f"{name}.yaml", pod(name, main, volumes=volumes, securityContext=group))
            node.wait_status(name, "Running")
        assert (
            run(node, "p", "grep -c ' /v ext4 ' /proc/mounts; stat -c %g /v; echo text > /v/file")
            == "1\n2000\n"
        )
        assert run(node, "q", "cat /v/file") == "text\n", "one mount for the node"
        assert os.path.ismount(where)
        node.restart(9)
        for name in ("p", "q"):
            assert os.path.ismount(where)
            (node.manifests / f"{name}.yaml").unlink()
            node.wait_gone(name)
        node.wait(lambda: not os.path.exists(where), "the device to be unmounted")
        node.apply("p.yaml", pod("p", main, volumes=volumes))
        node.wait_status("p", "Running")
        assert run(node, "p", "cat /v/file") == "text\n", "what is on it stays"
        (node.manifests / "p.yaml").unlink()
        node.wait_gone("p")
        node.wait(lambda: not os.path.exists(where), "the device to be unmounted again")
    finally:
        loopdev.detach(device)


def test_the_file_of_a_trust_bundle_is_updated(node: Node) -> None:
    def bundle(text: str) -> str:
        metadata = {"name": "roots"}
        of = {"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle"}
        return yaml.safe_dump({**of, "metadata": metadata, "spec": {"trustBundle": text}})

    source = {"clusterTrustBundle": {"name": "roots", "path": "ca.pem"}}
    volumes = [{"name": "v", "projected": {"sources": [source]}}]
    main = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    node.apply("p.yaml", pod("p", main, volumes=volumes))
    words = 'clustertrustbundle "roots" not found'
    node.wait(lambda: any(words in e["message"] for e in node.events("FailedMount")), "what it waits for")
    node.apply("ca.yaml", bundle(f"# ours\n{ONE}"))
    node.wait_status("p", "Running")
    assert run(node, "p", "cat /v/ca.pem") == ONE
    assert node.cli("get", "clustertrustbundles").out.split()[2:] == ["roots", "<none>"]
    node.apply("ca.yaml", bundle(ONE + TWO))
    node.wait(lambda: sorted(run(node, "p", "cat /v/ca.pem")) == sorted(ONE + TWO), "both")
    node.restart(9)
    node.apply("ca.yaml", bundle(TWO))
    node.wait(lambda: run(node, "p", "cat /v/ca.pem") == TWO, "the other alone")


def test_a_failed_mount_is_reported(node: Node) -> None:
    share = [{"name": "v", "nfs": {"server": "127.0.0.1", "path": "/none"}}]
    one = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    node.apply("share.yaml", pod("share", one, volumes=share))
    node.wait(
        lambda: any(": mount 127.0.0.1:/none: " in e["message"] for e in node.events("FailedMount")),
        "the failure",
    )
    node.wait_status("share", "ContainerCreating")
    (node.manifests / "share.yaml").unlink()
    node.wait_gone("share")


def test_a_missing_secret_delays_the_whole_pod(node: Node) -> None:
    first = container("first", script="echo ran")  # which does not mount the secret
    main = container(volumeMounts=[{"name": "keys", "mountPath": "/keys"}])
    volumes = [{"name": "keys", "secret": {"secretName": "keys"}}]
    node.apply("p.yaml", pod("p", main, initContainers=[first], volumes=volumes))
    said = 'MountVolume.SetUp failed for volume "keys" : secret "keys" not found'

    def counted() -> bool:
        return [(e["message"], e["count"] >= 2) for e in node.events("FailedMount")] == [(said, True)]

    node.wait(counted, "one event, counted")
    assert node.status_of("p") == "Init:0/1"
    assert node.container("p", "first")["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert not list((node.run_dir / "shims").iterdir()), "not even a sandbox"
    assert "secret" in node.cli("why", "p").out
    node.apply("s.yaml", manifest("Secret", "keys", stringData={"token": "x"}))
    node.wait_status("p", "Running", timeout=10)
    assert run(node, "p", "cat /keys/token") == "x"
