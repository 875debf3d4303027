"""Images end to end: a registry in the node's network, images made by skopeo, umoci and buildah, and pods."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import yaml

from runtime.images.store.disk import tree_size
from tests.e2e.manifests import pod
from tests.e2e.node import IMAGE, KUBELITE, REPO, Node
from tests.e2e.registry import APP, HOST, WAIT, Registry, base_layer, needs_tools
from tests.kernel import images_support as support

pytestmark = needs_tools


def image_pod(name: str, image: str, *, grace: int = 2, **fields: Any) -> str:
    """A pod that runs an image without a command."""
    return pod(name, {"name": "main", "image": image, **fields}, terminationGracePeriodSeconds=grace)


def messages(node: Node, name: str, reason: str) -> list[str]:
    return [e["message"] for e in node.events(reason) if e["involvedObject"]["name"] == name]


def logged(node: Node, name: str, text: str) -> Callable[[], bool]:
    return lambda: text in node.cli("logs", name, check=False).out


def test_a_pulled_image_runs_with_its_config(registry: Registry) -> None:
    node = registry.node
    path = node.apply("app.yaml", image_pod("app", APP, grace=20))
    node.apply("built.yaml", image_pod("built", f"{HOST}/built:1"))
    for name in ("app", "built"):
        node.wait_status(name, "Running")

    assert messages(node, "app", "Pulling") == [f'Pulling image "{APP}"']
    said = messages(node, "app", "Pulled")
    took = "[0-9.]+m?s"
    pattern = rf'Successfully pulled image "(.+)" in {took} \({took} including waiting\)\. Image size: (\d+) bytes\.'
    found = re.fullmatch(pattern, said[0])
    assert len(said) == 1 and found, said
    assert found[1] == APP and int(found[2]) > 100_000

    node.wait(logged(node, "app", "above"), "the app's words")
    lines = node.cli("logs", "app").out.splitlines()
    assert lines[0] == "app 2345 /srv hello one two"
    listing = "\n".join(lines[1:])
    assert re.sub(r"\s+", " ", listing) == "/data: kept new /opaque: above", "whiteouts hide what is below"
    groups = node.cli("exec", "app", "--", "id", "-G").out.split()
    assert groups == ["2345", "3456"], "the image's own groups too"
    node.wait(logged(node, "built", "1234"), "the built image's words")
    assert node.cli("logs", "built").out == "by buildah\n1234\n"
    assert node.cli("exec", "built", "--", "ls", "/data").out.split() == ["built", "new"]

    status = node.container("app")
    image = next(i for i in node.json("images") if i["reference"] == APP)
    assert status["image"] == APP
    assert status["imageID"].startswith(f"{HOST}/app@sha256:") and status["imageID"] in image["repoDigests"]

    log = next(node.log_dir.glob("pods/*_app_*/main/0.log"))
    kept = node.base / "kept.log"
    os.link(log, kept)
    path.unlink()
    node.wait_gone("app", timeout=20)
    assert "stopped by USR1" in kept.read_text(), "STOPSIGNAL ends it, long before the grace period"


def test_pull_policies_and_one_pull_for_two(registry: Registry) -> None:
    node = registry.node
    node.apply("one.yaml", image_pod("one", APP))
    node.apply("two.yaml", image_pod("two", APP))
    node.wait_status("one", "Running")
    node.wait_status("two", "Running")
    assert registry.asked("/v2/app/manifests/1") == 1, "two pods that start together pull once"

    node.apply("never.yaml", image_pod("never", APP, imagePullPolicy="Never"))
    node.apply("there.yaml", image_pod("there", APP, imagePullPolicy="IfNotPresent"))
    for name in ("never", "there"):
        node.wait_status(name, "Running")
        text = f'Container image "{APP}" already present on machine and can be accessed by the pod'
        assert messages(node, name, "Pulled") == [text]
    assert registry.asked("/v2/app/manifests/1") == 1

    node.apply("always.yaml", image_pod("always", APP, imagePullPolicy="Always"))
    node.apply("latest.yaml", image_pod("latest", f"{HOST}/built"))  # no tag: latest, so Always
    node.wait_status("always", "Running")
    assert registry.asked("/v2/app/manifests/1") + registry.asked("/v2/app/manifests/1", "HEAD") == 2
    assert len(messages(node, "always", "Pulling")) == 1
    node.apply("missing.yaml", image_pod("missing", f"{HOST}/app:none", imagePullPolicy="Never"))
    node.wait_status("missing", "ErrImageNeverPull")
    assert node.pod("latest")["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    node.wait_status("latest", "ErrImagePull", "ImagePullBackOff")

    # a pod with the policy Always gets the new image of that name
    before = node.container("always")["imageID"]
    registry.push("app:1", relabelled(registry.made.layouts, node.base / "newer"))
    node.cli("delete", "pod", "always", "there")
    node.wait_status("always", "Running")
    node.wait_status("there", "Running")
    assert node.container("always")["imageID"] != before


def relabelled(layout: Path, target: Path) -> Path:
    """The same layers with another config, which is another image."""
    shutil.copytree(layout, target)
    support.run("umoci", "config", "--image", f"{target}:1", "--config.label", "version=2")
    return target


def test_a_failed_pull_is_explained_and_recovers(registry: Registry) -> None:
    node = registry.node
    wrong, down = f"{HOST}/app:later", "127.0.0.1:5999/app:1"
    node.apply("wrong.yaml", image_pod("wrong", wrong))
    node.apply("down.yaml", image_pod("down", down))
    node.apply("name.yaml", image_pod("name", "Not/A/Valid:name:x"))
    node.apply("loaded.yaml", image_pod("loaded", f"{HOST}/app:loaded", imagePullPolicy="IfNotPresent"))

    node.wait_status("wrong", "ErrImagePull")
    node.wait_status("wrong", "ImagePullBackOff")
    failed = messages(node, "wrong", "Failed")
    assert any(m.startswith(f'Failed to pull image "{wrong}": ') and "manifest unknown" in m for m in failed)
    both = {"Error: ErrImagePull", "Error: ImagePullBackOff"}
    node.wait(
        lambda: both <= set(messages(node, "wrong", "Failed")), "both events"
    )  # written after the status
    assert messages(node, "wrong", "BackOff") == [f'Back-off pulling image "{wrong}"']
    waiting = node.container("wrong")["state"]["waiting"]
    assert waiting["message"].startswith(f'Back-off pulling image "{wrong}": ErrImagePull: ')
    assert "manifest unknown" in waiting["message"]
    node.wait(lambda: node.container("down").get("state", {}).get("waiting"), "it to fail")
    node.wait_status("down", "ImagePullBackOff")
    said = " ".join(messages(node, "down", "Failed"))
    assert "127.0.0.1:5999" in said and "refused" in said.lower(), said
    node.wait_status("name", "InvalidImageName")
    node.wait(lambda: "Not/A/Valid:name:x" in node.cli("describe", "pod", "name").out, "the name in describe")
    node.wait_status("loaded", "ImagePullBackOff")

    archive = node.base / "loaded.tar"
    support.run(
        "skopeo",
        "copy",
        "-q",
        f"oci:{registry.made.layouts}:1",
        f"docker-archive:{archive}:{HOST}/app:loaded",
    )
    node.cli("load", str(archive))
    node.wait_status(
        "loaded", "Running", timeout=8
    )  # no pod waits for the registry if the image is on the node

    forward = subprocess.Popen(node.in_netns("docker-registry", "serve", str(second_registry(registry))))
    try:
        registry.push("app:later")
        node.wait_status("wrong", "Running", timeout=15)
        node.wait_status("down", "Running", timeout=15)
    finally:
        forward.terminate()
        forward.wait(10)
    assert node.container("wrong")["restartCount"] == 0


def second_registry(registry: Registry) -> Path:
    """The settings of a second registry with the same storage, at the unused port."""
    first = registry.directory / "config.yml"
    second = registry.directory / "second.yml"
    text = first.read_text().replace(HOST, "127.0.0.1:5999").replace("level: info", "level: error")
    second.write_text(text.replace("disabled: false", "disabled: true"))
    return second


def test_images_by_hand(registry: Registry) -> None:
    node = registry.node
    done = node.cli("pull", APP)
    assert done.out == f"Pulled {APP}\n"
    lines = done.err.splitlines()
    assert re.fullmatch(rf"{re.escape(APP)}: 2 layers, [0-9.]+[kM]?B", lines[0])
    assert sorted(line.partition(": ")[2] for line in lines[1:]) == ["done", "done"]
    assert "\x1b" not in done.err, "no escapes into a pipe"
    again = node.cli("pull", APP, "-o", "json")
    *_, last = map(json.loads, again.out.splitlines())
    assert last["event"] == "done"
    (image,) = last["images"]
    assert (image["reference"], image["architecture"]) == (APP, "amd64")
    refused = node.cli("pull", f"{HOST}/app:none", check=False)
    assert refused.code == 1 and "manifest unknown" in refused.err and len(refused.err.splitlines()) == 1
    assert node.cli("pull", "UPPER/case:x:y", check=False).err.startswith(
        "Error from server (InvalidImageName)"
    )

    for form, name in (("docker-archive", "byhand/docker:1"), ("oci-archive", "byhand/oci:1")):
        archive = node.base / f"{form}.tar"
        target = f"{form}:{archive}:{name}"
        support.run("skopeo", "copy", "-q", f"oci:{registry.made.layouts}:1", target)
        assert node.cli("load", str(archive)).out == f"Loaded docker.io/{name}\n"
    other = relabelled(registry.made.layouts, node.base / "other")
    support.run("skopeo", "copy", "-q", f"oci:{other}:1", f"docker-archive:{node.base}/b.tar:busybox")
    loaded = node.cli("load", "-", stdin=(node.base / "b.tar").read_bytes())
    assert loaded.out == "Loaded docker.io/library/busybox:latest\n"

    rows = [line.split() for line in node.cli("images").out.splitlines()]
    assert rows[0][:4] == ["REPOSITORY", "TAG", "IMAGE", "ID"]
    names = {(row[0], row[1]) for row in rows[1:]}
    assert {("busybox", "latest"), ("byhand/docker", "1"), ("byhand/oci", "1"), (f"{HOST}/app", "1")} <= names

    node.apply("short.yaml", image_pod("short", "busybox", imagePullPolicy="Never", args=["x"]))
    node.wait_status("short", "Running")
    assert node.container("short")["image"] in ("busybox", "docker.io/library/busybox:latest")
    in_use = node.cli("image", "rm", "busybox", check=False)
    assert in_use.code == 1 and len(in_use.err.splitlines()) == 1, in_use
    assert "busybox" in in_use.err and "use" in in_use.err
    assert node.cli("image", "rm", "byhand/oci:1").out == "Untagged: docker.io/byhand/oci:1\n"
    gone = node.cli("image", "rm", "byhand/oci:1", check=False)
    assert gone.code == 1 and "byhand/oci:1" in gone.err
    missing = node.cli("load", "/no/such.tar", check=False)
    assert (missing.code, missing.err) == (1, "error: file /no/such.tar does not exist\n")
    (node.base / "bad.tar").write_bytes(b"no archive" * 100)
    bad = node.cli("load", str(node.base / "bad.tar"), check=False)
    assert bad.code == 1 and "bad.tar" in bad.err and len(bad.err.splitlines()) == 1
    piped = node.cli("load", "-", stdin=b"no archive" * 100, check=False)
    words = "Error from server (ErrImageLoad): cannot load standard input: it is not a tar archive"
    assert piped.code == 1 and piped.err.startswith(words), piped


def test_a_pull_draws_bars_on_a_terminal(registry: Registry) -> None:
    """A bar for each layer, which shows the downloaded part and in the end everything."""
    node = registry.node
    here, there = pty.openpty()
    with os.fdopen(here, "rb", buffering=0) as screen:
        command = [*KUBELITE, "pull", APP]
        environment = {**node.environ(), "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(
            command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=there
        ) as pull:
            os.close(there)
            drawn = b"".join(iter(lambda: _read(screen), b"")).decode()
            assert pull.stdout is not None and pull.stdout.read()
        assert pull.returncode == 0, drawn
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert re.search(r"[0-9a-f]{12} done +━+ +1\.1/1\.1 MB", text), text
    assert drawn.endswith("\x1b[1A\x1b[2K\x1b[1A\x1b[2K"), "they are wiped away in the end"


def _read(screen: IO[bytes]) -> bytes:
    try:
        return screen.read(4096)
    except OSError:  # EIO: the writer has exited
        return b""


def test_several_at_once_as_docker_does(node: Node) -> None:
    """An image that cannot be removed or shown is reported, and the others are processed: exit code 1."""
    node.cli("tag", IMAGE, "one:1")
    gone = node.cli("rmi", "nowhere:1", "one:1", "nowhere:2", check=False)
    assert (gone.code, gone.out) == (1, "Untagged: docker.io/library/one:1\n")
    assert re.findall(r"no such image: (\S+);", gone.err) == ["nowhere:1", "nowhere:2"]
    forced = node.cli("rmi", "--force", "nowhere:1")
    assert "no such image: nowhere:1" in forced.err
    seen = node.cli("image", "inspect", "nowhere:1", IMAGE, check=False)
    assert seen.code == 1 and [about["RepoTags"] for about in json.loads(seen.out)] == [[IMAGE]]
    assert len(seen.err.splitlines()) == 1
    with open("/dev/full", "wb") as full:
        command = [*KUBELITE, "save", IMAGE]
        saved = subprocess.run(
            command,
            cwd=REPO,
            env=node.environ(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert saved.returncode == 1
    assert saved.stderr == b"error: cannot write the archive to stdout: No space left on device\n"
    assert list((node.root / "images/ingest").iterdir()) == []


def test_a_second_container_copies_nothing(node: Node) -> None:
    """According to the kernel its root has the same layers as the first one's. Only mount points are written."""
    layer = next((node.root / "images/layers").iterdir())
    assert (layer / "bin/busybox").stat().st_size > 500_000
    before = tree_size(str(node.root / "images"))
    pids = []
    for name in ("one", "two"):
        node.apply(f"{name}.yaml", pod(name))
        node.wait_status(name, "Running")
        pids.append(node.pid(name))
        (root,) = [line for line in Path(f"/proc/{pids[-1]}/mountinfo").read_text().splitlines()
                   if line.split()[4] == "/"]  # fmt: skip
        assert re.search(rf"lowerdir\+?={layer}[,:]", root), root
        (upper,) = (node.root / "pods").glob(f"{node.pod(name)['metadata']['uid']}/containers/*/*/upper")
        written = [path for path in upper.rglob("*") if path.is_file() and path.stat().st_size]
        assert written == [] and tree_size(str(upper)) < 100_000
    found = [os.stat(f"/proc/{pid}/root/bin/busybox") for pid in pids]
    assert found[0].st_ino == found[1].st_ino == (layer / "bin/busybox").stat().st_ino
    assert tree_size(str(node.root / "images")) == before


def test_kill_9_of_the_daemon_during_a_pull(registry: Registry) -> None:
    node = registry.node
    assert registry.process is not None
    layout = node.base / "large"
    filler = support.tar((support.member("filler"), os.urandom(1 << 20) * 48))
    support.write_layout(layout, [base_layer(), filler], "1", Cmd=["sh", "-c", f"stat -c %s /filler; {WAIT}"])
    registry.push("large:1", layout)
    node.apply("large.yaml", image_pod("large", f"{HOST}/large:1"))
    node.wait(lambda: any((node.root / "images/ingest").glob("*/*")), "the pull to have begun")
    registry.process.send_signal(signal.SIGSTOP)
    node.kill()
    registry.process.send_signal(signal.SIGCONT)
    node.start()
    node.wait_status("large", "Running")
    node.wait(logged(node, "large", str(48 << 20)), "its words")
    assert list((node.root / "images/ingest").iterdir()) == [], "nothing of the first pull is left"
    assert yaml.safe_load(node.cli("get", "pod", "large", "-o", "yaml").out)["status"]["phase"] == "Running"
