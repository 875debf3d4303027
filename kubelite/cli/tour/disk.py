"""Station 2: the directories on the disk, their counterparts in Docker, and what is lost by deleting them."""

from __future__ import annotations

import json
import os

from kubelite.cli.tour.guide import IMAGE, NAMESPACE, Guide, container, pod

INTRODUCTION = """
Docker keeps everything below /var/lib/docker, in formats of its own. kubelite's images are an OCI image layout, which
other tools read, and a container is a directory with a config.json, which any OCI runtime runs. What outlives a
reboot is below /var/lib/kubelite, what does not is below /run/kubelite.
"""


def visit(guide: Guide) -> None:
    guide.step("A pod, and where it lies")
    guide.image()
    script = "echo written by the container > /note; echo hello; exec sleep 3600"
    guide.apply(pod("disk", container("app", script)))
    seen = guide.inspect("disk")
    bundle, uid = seen["containers"][0]["bundle"], seen["pod"]["metadata"]["uid"]
    root = bundle.partition("/pods/")[0]
    run = os.path.dirname(guide.environment["KUBELITE_SOCKET"])
    log = _log(guide)
    guide.run(f"ls {root} {root}/images {bundle}", lines=40)
    guide.run(f"ls {run} {run}/shims/{uid}", lines=30)
    _table(guide, root, run, log)
    _files(guide, root, bundle, log)
    guide.delete()
    guide.until(lambda: not os.path.exists(f"{root}/pods/{uid}"), "the pod's directory to go")
    guide.check("with the pod its directory is gone", not os.path.exists(f"{root}/pods/{uid}"))


def _log(guide: Guide) -> str:
    """The container's log: the target of the link in /var/log/containers."""
    doc = guide.pod("disk")
    name = (
        f"disk_{NAMESPACE}_app-{doc['status']['containerStatuses'][0]['containerID'].partition('://')[2]}.log"
    )
    for directory in (os.environ.get("KUBELITE_LOG_DIR", "/var/log"), "/var/log"):
        if os.path.islink(path := f"{directory}/containers/{name}"):
            return os.readlink(path)
    return ""


def _table(guide: Guide, root: str, run: str, log: str) -> None:
    guide.step("The layout as a table")
    logs = log.partition("/pods/")[0] or "/var/log"
    rows = [
        (
            f"{root}/images/blobs",
            "manifests, configs, layers, by digest",
            "image/overlay2 (image store)",
            "images: pulled again",
        ),
        (f"{root}/images/layers", "each layer unpacked once", "overlay2/*/diff", "images: unpacked again"),
        (f"{root}/images/cache", "results of build steps", "buildkit/", "builds: slower once"),
        (
            f"{root}/pods",
            "volumes, bundles, each container's upper",
            "containers/, overlay2/*/diff",
            "what containers wrote",
        ),
        (f"{root}/claims", "PersistentVolumeClaims", "volumes/", "your data"),
        (f"{root}/state.db", "status, history, restart counts", "containers/*/config.v2.json", "history"),
        (
            f"{run}/shims",
            "sockets and records of running shims",
            "/run/docker/containerd",
            "contact with what runs",
        ),
        (f"{run}/network", "leases of addresses", "network/files/local-kv.db", "addresses of running pods"),
        (f"{logs}/pods", "logs, in CRI format", "containers/*/*-json.log", "logs"),
    ]
    guide.table(
        ("directory", "contents", "Docker's counterpart (/var/lib/docker)", "deleting it loses"), rows
    )
    present = [row[0] for row in rows if os.path.exists(row[0])]
    # The directories of claims, builds and leases are created with the first claim, build or lease.
    guide.check("the directories of images, pods, state and shims exist", len(present) >= 5)


def _files(guide: Guide, root: str, bundle: str, log: str) -> None:
    guide.step("The same things, read from the files")
    guide.run(f"cat {bundle}/upper/note")
    guide.check("what the container wrote is in its upper directory", os.path.isfile(f"{bundle}/upper/note"))
    guide.run(f"cat {root}/images/oci-layout")
    with open(f"{root}/images/index.json", encoding="utf-8") as file:
        index = json.load(file)
    names = [m.get("annotations", {}) for m in index["manifests"]]
    guide.check(
        "the index of the OCI layout lists the image", any(IMAGE in entry.values() for entry in names)
    )
    if log:
        guide.run(f"cat {log}")
        guide.run(f"kubelite logs disk -n {NAMESPACE}")
        with open(log, encoding="utf-8") as file:
            guide.check(
                "the log's file has the line in CRI format", file.read().endswith(" stdout F hello\n")
            )
    guide.run("kubelite df")
