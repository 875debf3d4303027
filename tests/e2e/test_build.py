"""Builds on a node: which steps run again, what is rejected, and the results."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.build import build_again
from runtime.builder.known import TRUSTED
from runtime.syscalls import fstatfs_type
from tests.e2e.build_support import FROM, build, check_nothing_left, context, identity, states
from tests.e2e.node import IMAGE, KUBELITE, REPO, Finished, Node, running_node
from tests.e2e.registry import APP, HOST, Registry
from tests.e2e.test_images import image_pod
from tests.kernel import images_support as support


def test_only_changed_steps_and_later_ones_run_again(builder: Node, tmp_path: Path) -> None:
    text = (
        FROM + "RUN echo first > /first\nCOPY a /a\nRUN cat /a > /b\nENV X=1\nRUN echo $X > /x\n"
        f"FROM {IMAGE}\nCOPY c /c\nCOPY --from=0 /b /x /\n"
    )
    where = context(tmp_path / "c", text, a="a\n", c="c\n")
    first, _ = build(builder, "-t", "cache:1", where)
    assert set(states(first).values()) == {"done"}
    before = identity(builder, "cache:1")

    for path in (tmp_path / "c").iterdir():
        os.utime(path, (1, 1))  # a new checkout is not a change
    builder.restart(signal.SIGKILL)
    again, _ = build(builder, "-t", "cache:1", where)
    assert set(states(again).values()) == {"cached"} and identity(builder, "cache:1") == before

    (tmp_path / "c/a").write_text("changed\n")
    changed, _ = build(builder, "-t", "cache:2", where)
    assert states(changed) == {
        "RUN echo first > /first": "cached",
        "COPY a /a": "done",
        "RUN cat /a > /b": "done",
        "RUN echo $X > /x": "done",
        "COPY c /c": "cached",
        "COPY --from=0 /b /x /": "done",
    }
    (tmp_path / "c/a").chmod(0o755)
    assert states(build(builder, "-t", "cache:2", where)[0])["COPY a /a"] == "done"

    later = text.replace("ENV X=1", "ENV X=2")
    (tmp_path / "c/Containerfile").write_text(later)
    assert states(build(builder, "-t", "cache:3", where)[0])["RUN cat /a > /b"] == "cached"
    whole, _ = build(builder, "--no-cache", "-t", "cache:3", where)
    assert set(states(whole).values()) == {"done"}


@pytest.mark.parametrize(
    "step", ["COPY log /log", "COPY . /here", "RUN --mount=type=bind,target=/c cat /c/log > /log"]
)
def test_a_file_that_changes_while_it_is_copied_is_not_cached(
    builder: Node, tmp_path: Path, step: str
) -> None:
    """The cache key was computed from one content and the layer has another. If it were stored under that key, it would
    be wrong permanently."""
    where = context(tmp_path / "c", f"{FROM}{step}\n", log="")
    ended = threading.Event()

    def writes() -> None:
        with open(tmp_path / "c/log", "a", buffering=1) as file:
            while not ended.wait(0.001):
                file.write("line\n")

    writer = threading.Thread(target=writes)
    writer.start()
    try:
        events, _ = build(builder, "-t", "moving:1", where)
    finally:
        ended.set()
        writer.join()
    assert [e["message"].partition(" ")[0] for e in events if e.get("event") == "warning"] == ["log"]
    (tmp_path / "c/log").write_text("at rest\n")
    first, _ = build(builder, "-t", "moving:1", where)
    assert set(states(first).values()) == {"done"}
    again, _ = build(builder, "-t", "moving:1", where)
    assert set(states(again).values()) == {"cached"}


def test_an_unchanged_build_reuses_its_note(builder: Node, tmp_path: Path) -> None:
    """The result is reused after stat(2) calls alone, and only while nothing it depends on has changed."""
    text = FROM + "COPY a /a\nRUN cat /a > /b\n"
    where = context(tmp_path / "n", text, a="one\n", **{".dockerignore": "x\n"})
    with open(tmp_path / "n/a", "rb") as file:
        if fstatfs_type(file.fileno()) not in TRUSTED:
            pytest.skip("needs a file system whose times can be relied on")
    notes = builder.run_dir / "builds"

    def built() -> Finished:
        return builder.cli("build", "--progress", "plain", "-t", "noted:1", where)

    for other in notes.glob("*"):
        other.unlink()
    assert "DONE" in built().err and not [*notes.glob("*")]  # its files are too recent
    time.sleep(build_again.SETTLED / 1e9)  # checked rarely, because each check is a build
    builder.wait(lambda: built() and [*notes.glob("*")], "a note", 120)
    (note,) = notes.glob("*")
    whole = note.read_text()
    again = built()
    assert again.out == "Built docker.io/library/noted:1\n"
    assert again.err.count("CACHED") == 2 and "FROM" in again.err

    def rewrite() -> None:
        before = (tmp_path / "n/a").stat()
        (tmp_path / "n/a").write_text("two\n")
        os.utime(tmp_path / "n/a", ns=(before.st_atime_ns, before.st_mtime_ns))

    changes: list[Callable[[], object]] = [
        rewrite,
        lambda: (tmp_path / "n/.dockerignore").write_text("y\n"),
        lambda: builder.cli("tag", "noted:1", "noted:2"),
        lambda: builder.cli("rmi", "noted:1"),
        lambda: builder.cli("image", "prune", "--all", "--build-cache", "--force"),
    ]
    base = str(tmp_path / "base.tar")
    builder.cli("save", IMAGE, "-o", base)
    for change in changes:
        note.write_text(_renewed(whole))
        assert "From the note" in built().out
        change()
        if not json.loads(builder.cli("images", "-o", "json").out):
            builder.cli("load", base)
        assert built().out == "Built docker.io/library/noted:1\n", change
    root = Path(builder.cli("image", "mount", "noted:1").out.strip())
    assert (root / "b").read_text() == "two\n"
    builder.cli("image", "unmount", str(root))
    note.write_text(_renewed(whole))
    builder.kill(signal.SIGKILL)
    dead = builder.cli("build", "--progress", "plain", "-t", "noted:1", where, check=False)
    assert dead.code == 1 and "kubelite is not running" in dead.err
    builder.start()


def _renewed(note: str) -> str:
    """Make the note a minute older, and mark it so that its use is visible."""
    lines = [line.split(" ") for line in note.split("\n")]
    now = [
        f"S {build_again.stamp(line[-1])} {line[-1]}" if line[0] == "S" else " ".join(line) for line in lines
    ]
    return "\n".join(now).replace("\nO Built", "\nO From the note: built")


def test_a_failure_names_its_line_and_keeps_earlier_steps(builder: Node, tmp_path: Path) -> None:
    where = context(
        tmp_path / "f", FROM + "RUN echo fine > /fine\nRUN echo why >&2; \\\n  exit 3\nRUN echo never\n"
    )
    done = builder.cli("build", "--progress", "plain", "-t", "fails:1", where, check=False)
    assert done.code == 1 and done.out == ""
    assert f"error: {where}/Containerfile:3: RUN failed with exit code 3" in done.err
    assert "    RUN echo why >&2; \\" in done.err
    assert re.search(r"^#3 [\d.]+ why$", done.err, re.MULTILINE) and "#3 ERROR" in done.err
    assert builder.cli("image", "inspect", "fails:1", check=False).code == 1
    check_nothing_left(builder)
    assert states(build(builder, "-t", "fails:1", where, check=False)[0]) == {
        "RUN echo fine > /fine": "cached",
        "RUN echo why >&2;   exit 3": "error",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x\n", "Containerfile:1: RUN is not allowed before the first FROM"),
        (FROM + "COPY nowhere /\n", 'Containerfile:2: "nowhere" is not in the build context'),
        (FROM + "COPY hidden /\n", '"hidden" is not in the build context: .dockerignore excludes it'),
        (FROM + "COPY --chown=nobodyatall hidden2 /\n", "the image's /etc/passwd has no user nobodyatall"),
        (FROM + "RUN [\"/no/such/program\"]\n", "Containerfile:2: RUN failed with exit code 127"),
        (FROM + "COPY hidden2 Containerfile /file\n", "/file must end with a slash"),
        (FROM + "COPY --from=nowhere.invalid/x /a /\n", "Containerfile:2: COPY:"),
        ("FROM localhost/not/here:1\n", "Containerfile:1: FROM localhost/not/here:1:"),
        (FROM + "ADD git://127.0.0.1:9/x.git#v1 /\n", "ADD: 127.0.0.1: the host's own addresses are refused"),
        (FROM + "ADD https://127.0.0.1:9/x.git#-v1 /\n", "is not the URL of a git repository"),
        ("FROM --platform=plan9/mips x\n", "--platform=plan9/mips is not supported: this machine builds only for"),
        (FROM + "RUN --mount=type=secret,id=none,required=true x\n", "the secret none is required"),
        (FROM + "COPY /../../../../etc/shadow /\n", '"/../../../../etc/shadow" is not in the build context'),
        (FROM + "COPY escape /\n", '"escape" is not in the build context'),
    ],
)  # fmt: skip
def test_errors_of_builds(builder: Node, tmp_path: Path, text: str, message: str) -> None:
    where = context(tmp_path / "x", text, **{".dockerignore": "hidden\n", "hidden": "", "hidden2": ""})
    (tmp_path / "x/escape").symlink_to("/etc/shadow")
    done = builder.cli("build", "-q", where, check=False)
    assert done.code == 1 and message in done.err, done.err
    check_nothing_left(builder)


def test_reproducible(builder: Node, tmp_path: Path, images: Path) -> None:
    text = (
        FROM
        + "ARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /e; mkdir -p /d/e; ln -s x /l\nCOPY Containerfile /\n"
    )
    text += "WORKDIR /new\n"
    where = context(tmp_path / "r", text)
    args = ("--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--no-cache")
    build(builder, "-t", "same:1", *args, where)
    first = identity(builder, "same:1")
    with running_node(tmp_path / "other", images) as other:
        build(other, "-t", "same:2", *args, where)
        assert identity(other, "same:2") == first
    os.utime(tmp_path / "r/Containerfile")  # another timestamp, the same content
    for number in "12":
        for form in ("oci", "docker", "tar"):
            tagged = ("-t", "same:1") if form != "tar" else ()
            build(builder, *tagged, *args, "-o", f"type={form},dest={tmp_path}/{form}{number}", where)
    for form in ("oci", "docker", "tar"):
        one, two = (tmp_path / f"{form}{number}" for number in "12")
        assert one.read_bytes() == two.read_bytes(), f"{form}: bit for bit, with nothing from the cache"
    (about,) = json.loads(builder.cli("image", "inspect", first).out)
    assert about["Created"] == "2023-11-14T22:13:20Z"
    top = about["LayerDirectories"][0]
    assert os.stat(top).st_mtime <= 1_700_000_000


def test_a_built_image_runs_and_is_garbage_collected(builder: Node, tmp_path: Path) -> None:
    text = (
        FROM
        + "ENV WHO=pod\nRUN dd if=/dev/zero of=/big bs=1M count=4 2>&1\n"
        + 'CMD ["sh", "-c", "echo hello $WHO; sleep 600"]\n'
    )
    where = context(tmp_path / "w", text)
    out = build(builder, "-t", "localhost/built:1", "--label", "made.by=test", where)[1]
    assert out == "Built localhost/built:1\n"
    builder.apply("built.yaml", image_pod("built", "localhost/built:1", imagePullPolicy="Never"))
    builder.wait_status("built", "Running")
    builder.wait(lambda: "hello pod" in builder.cli("logs", "built").out, "its word")
    steps = json.loads(builder.cli("image", "history", "localhost/built:1", "-o", "json").out)
    assert [s["createdBy"].split()[0] for s in steps][:3] == ["CMD", "RUN", "ENV"]

    def cache() -> dict[str, Any]:
        found = json.loads(builder.cli("df", "-o", "json").out)
        return next(kind for kind in found if kind["type"] == "Build Cache")

    # the layer of an intermediate stage belongs to the cache, the image's layers to the image
    context(
        tmp_path / "w",
        FROM + "RUN dd if=/dev/zero of=/big bs=1M count=6 2>&1\nFROM scratch\nCOPY --from=0 /etc/passwd /\n",
    )
    build(builder, "-t", "localhost/small:1", where)
    assert cache()["total"] > 0 and cache()["size"] > 6_000_000
    builder.cli("image", "prune", "--force")
    assert cache()["size"] > 6_000_000, "images alone, unless it is asked for"
    builder.cli("image", "prune", "--build-cache", "--force")
    assert cache()["size"] < 1_000_000
    assert set(states(build(builder, where)[0]).values()) == {"done", "cached"}
    base = str(tmp_path / "base.tar")
    builder.cli("save", IMAGE, "-o", base)
    builder.cli("image", "prune", "--all", "--build-cache", "--force")
    builder.cli("load", base)
    assert cache()["size"] == 0 and cache()["total"] == 0
    assert identity(builder, "localhost/built:1")  # a pod uses it
    assert builder.cli("exec", "built", "--", "cat", "/etc/passwd").out.startswith("root:")
    (builder.manifests / "built.yaml").unlink()
    builder.wait_gone("built")


@pytest.mark.skipif(
    bool(support.need("docker-registry", "podman", "runc", "umoci", "buildah")), reason="needs podman"
)
def test_from_a_registry_and_to_one(registry: Registry, tmp_path: Path) -> None:
    """The node pulls the base image; podman pulls and runs the result."""
    node = registry.node
    text = f"FROM {APP}\nUSER root\nRUN cat /data/new > /greeting; rm /data/new\n"
    text += 'ENTRYPOINT ["/bin/sh", "-c"]\nCMD ["cat /greeting; ls /data"]\n'
    where = context(tmp_path / "reg", text)
    done = node.cli("build", "--progress", "json", "-t", f"{HOST}/team/made:1", where, timeout=60)
    events = [json.loads(line) for line in done.err.splitlines()]
    assert any(e["event"] == "resolved" for e in events)
    node.cli("push", f"{HOST}/team/made:1")
    environment = {**os.environ, **support.buildah_environment(tmp_path / "podman")}
    podman = ("podman", "--root", f"{tmp_path}/graph", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs",
              "--cgroup-manager", "cgroupfs", "--events-backend", "none")  # fmt: skip
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--runtime", "runc")
    command = (
        *podman,
        "run",
        "--rm",
        "--network",
        "none",
        "--tls-verify=false",
        *limits,
        f"{HOST}/team/made:1",
    )
    ran = subprocess.run(
        node.in_netns(*command), env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout.split()) == (0, ["new", "kept"]), ran.stderr


def test_a_terminal_shows_what_runs(builder: Node, tmp_path: Path) -> None:
    where = context(tmp_path / "tty", FROM + "RUN for i in 1 2 3; do echo line $i; sleep 0.2; done\n")
    command = [*KUBELITE, "build", "--progress", "tty", "-t", "tty:1", where]
    done = subprocess.run(
        command, cwd=REPO, env=builder.environ(), capture_output=True, text=True, check=True
    )
    assert re.search(r"→ .*RUN for i .*\n   \| line 1", done.stderr)
    assert re.search(r"✓ \[stage-0 2/2\] RUN for i .*  [\d.]+s\n", done.stderr)
    assert done.stdout == "Built docker.io/library/tty:1\n"
