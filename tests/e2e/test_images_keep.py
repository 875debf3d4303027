"""Images on a node: inspect, tag, save, push, mount, prune, garbage collection, repair."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from kubelite.cli.images.images import size
from tests.e2e.node import IMAGE, KUBELITE, REPO, Node, running_node
from tests.e2e.registry import APP, HOST, Images, Registry, needs_tools
from tests.e2e.test_images import image_pod
from tests.kernel import images_support as support

pytestmark = needs_tools


def test_inspecting_images(registry: Registry) -> None:
    node = registry.node
    events = [json.loads(line) for line in node.cli("pull", "-o", "json", APP).out.splitlines()]
    assert events[0]["event"] == "resolved" and events[-1]["event"] == "done"
    identity = events[-1]["images"][0]["id"]

    node.cli("tag", APP, "example.test/mine:2")
    (about,) = json.loads(node.cli("image", "inspect", "example.test/mine:2").out)
    assert about["Id"] == identity and set(about["RepoTags"]) == {APP, "example.test/mine:2"}
    assert about["Config"]["User"] == "app" and len(about["RootFS"]["Layers"]) == 2
    assert about["RepoDigests"][0].startswith(f"{HOST}/app@sha256:")
    rows = node.cli("image", "history", APP).out.splitlines()
    assert rows[0].split()[:3] == ["CREATED", "CREATED", "BY"] and len(rows) > 2
    listed = node.cli("images", "-a", "--digests").out.splitlines()
    assert listed[0].split()[:3] == ["REPOSITORY", "TAG", "DIGEST"]
    assert any(about["RepoDigests"][0].partition("@")[2] in line for line in listed)
    missing = node.cli("image", "inspect", "nowhere:1", check=False)
    assert missing.code == 1 and "no such image: nowhere:1" in missing.err

    where = node.base / "look"
    where.mkdir()
    assert node.cli("image", "mount", APP, str(where)).out == f"{where}\n"
    try:
        assert (where / "data/new").read_text() == "new\n" and not (where / "data/old").exists()
        assert sorted(os.listdir(where / "opaque")) == ["above"]
        assert {"bin", "data", "etc", "srv"} <= set(os.listdir(where))
        refused = subprocess.run(["touch", str(where / "x")], capture_output=True, check=False)
        assert refused.returncode != 0 and b"Read-only" in refused.stderr
        assert node.cli("image", "mount").out.splitlines()[1].split() == [identity[7:19], str(where)]
        node.cli("rmi", "example.test/mine:2")
        held = node.cli("rmi", APP, check=False)
        assert held.code == 1 and "in use" in held.err
    finally:
        node.cli("image", "unmount", APP)
    assert os.listdir(where) == []
    single = Path(node.cli("image", "mount", IMAGE).out.strip())
    assert "bin" in os.listdir(single) and (single / "bin/busybox").exists()
    node.cli("image", "unmount", str(single))
    made = Path(node.cli("image", "mount", APP).out.strip())
    assert (made / "srv/start.sh").exists()
    assert node.cli("image", "unmount", "--all").out.strip() == str(made) and not made.exists()
    again = node.cli("image", "unmount", APP, check=False)
    assert (again.code, again.err) == (1, f"error: {APP} is not mounted\n")
    assert node.cli("rmi", APP).out == f"Untagged: {APP}\nDeleted: {identity}\n"


def test_saving_and_pushing_images(registry: Registry) -> None:
    node = registry.node
    node.cli("pull", "-q", APP)
    target = f"{HOST}/copy/app:9"
    said = node.cli("push", APP, target)
    assert re.fullmatch(rf"{target}: digest: sha256:[0-9a-f]{{64}} size: \d+\n", said.out)
    node.apply("copy.yaml", image_pod("copy", target))
    node.wait_status("copy", "Running")

    archive, piped = node.base / "file.tar", node.base / "piped.tar"
    node.cli("save", APP, "-o", str(archive))
    with piped.open("wb") as out:
        command = [*KUBELITE, "save", APP]
        subprocess.run(command, cwd=REPO, env=node.environ(), stdout=out, check=True, timeout=60)
    assert piped.read_bytes() == archive.read_bytes()
    support.run("skopeo", "inspect", f"docker-archive:{archive}")
    for form in ("oci-archive", "oci-dir"):
        node.cli("save", APP, "--format", form, "-o", str(node.base / form))
        node.cli("load", str(node.base / form))
    reader_gone = f"{' '.join(KUBELITE)} save {APP} | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}"
    left = subprocess.run(["bash", "-c", reader_gone], cwd=REPO, env=node.environ(), timeout=60, check=False)
    assert left.returncode == 141
    assert list((node.root / "images/ingest").iterdir()) == []
    for arguments in (("save", "nowhere:1"), ("save", APP, "--format", "oci-dir"), ("push", "nowhere:1")):
        failed = node.cli(*arguments, check=False)
        assert failed.code == 1 and len(failed.err.splitlines()) == 1, failed


def test_prune_df_and_repair(registry: Registry) -> None:
    node = registry.node
    node.apply("app.yaml", image_pod("app", APP))
    node.cli("pull", "-q", f"{HOST}/built:1")
    node.wait_status("app", "Running")
    usage = {kind["type"]: kind for kind in json.loads(node.cli("df", "-o", "json").out)}
    assert usage["Images"]["total"] == 3 and usage["Images"]["active"] == 1
    assert 0 < usage["Images"]["reclaimable"] < usage["Images"]["size"]
    assert usage["Containers"] == {**usage["Containers"], "total": 1, "active": 1, "reclaimable": 0}
    assert node.cli("df").out.splitlines()[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    each = {kind["type"]: kind for kind in json.loads(node.cli("df", "-v", "-o", "json").out)}
    for kind in ("Containers", "Local Volumes", "Claims"):
        assert sum(item["size"] for item in each[kind]["items"]) == each[kind]["size"]
        assert len(each[kind]["items"]) == each[kind]["total"]
    for image in each["Images"]["items"]:
        assert image["size"] == image["shared"] + image["unique"] > 0
    assert len(each["Images"]["items"]) == each["Images"]["total"] > 0
    listed = {line.split()[0] for line in node.cli("images", "--no-headers").out.splitlines()}
    listing, _, _ = node.cli("df", "-v").out.partition("Containers space usage:")
    rows = listing.partition("Images space usage:")[2].splitlines()[3:]
    assert {row.split()[0] for row in rows if row} == listed, "the names that `kubelite images` prints"

    asked = node.cli("image", "prune", "-a", check=False)
    assert asked.code == 1 and "--force" in asked.err
    young = node.cli("image", "prune", "-a", "-f", "--older", "1h")
    assert young.out == "Total reclaimed space: 0B\n"
    promised = {kind["type"]: kind for kind in json.loads(node.cli("df", "-o", "json").out)}
    pruned = node.cli("image", "prune", "-a", "-f").out
    assert f"Total reclaimed space: {size(promised['Images']['reclaimable'])}\n" in pruned
    left = {kind["type"]: kind for kind in json.loads(node.cli("df", "-o", "json").out)}
    assert left["Images"]["reclaimable"] == 0
    assert f"Untagged: {HOST}/built:1" in pruned and APP not in pruned
    assert [row.split()[0] for row in node.cli("images", "--no-headers").out.splitlines()] == [f"{HOST}/app"]

    (about,) = json.loads(node.cli("image", "inspect", APP).out)
    manifest = json.loads((node.root / "images/blobs/sha256" / about["Digest"][7:]).read_text())
    blob = node.root / "images/blobs/sha256" / manifest["layers"][1]["digest"][7:]
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert node.cli("doctor").out == "All is well.\n", "without --deep nobody reads the blobs"
    found = node.cli("doctor", "--deep", check=False)
    assert found.code == 1 and "is damaged" in found.out and "kubelite doctor --repair" in found.out
    mended = node.cli("doctor", "--deep", "--repair")
    assert mended.out == "All is well.\n" and f"pulled {APP} again" in mended.err
    assert node.status_of("app") == "Running"


def test_unused_images_are_collected(tmp_path: Path, images: Path, made: Images) -> None:
    settings = {"image_gc_high_threshold_percent": "1", "image_gc_low_threshold_percent": "0",
                "image_minimum_gc_age": "0", "image_gc_period": "0.5"}  # fmt: skip
    with running_node(tmp_path, images, **settings) as node:
        registry = Registry(node, made)
        registry.start()
        try:
            collect(node)
        finally:
            registry.stop()


def collect(node: Node) -> None:
    node.apply("app.yaml", image_pod("app", APP))
    node.wait_status("app", "Running")
    node.cli("pull", "-q", f"{HOST}/built:1")
    node.wait(lambda: "built" not in node.cli("images").out, "the unused image to go")
    node.wait(lambda: node.events("FreeDiskSpaceFailed"), "the event")
    (event,) = node.events("FreeDiskSpaceFailed")[:1]
    assert event["involvedObject"]["kind"] == "Node" and "Attempted to free" in event["message"]
    names = node.cli("images", "-o", "name").out.split()
    assert sorted(names) == sorted([APP, IMAGE]), "neither what runs nor what no registry can give again"
    assert node.status_of("app") == "Running"
