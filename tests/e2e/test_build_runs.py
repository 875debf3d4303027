"""RUN: parallel stages, isolation, triggers, layers, outputs."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest

from tests.e2e.build_support import FROM, build, context, logged, states
from tests.e2e.node import IMAGE, KUBELITE, REPO, Node, running_node
from tests.kernel import images_support as support


def test_stages_run_in_parallel(builder: Node, tmp_path: Path) -> None:
    wait = "for i in $(seq 600); do test -e /c/{other} && exit 0; sleep 0.05; done; exit 9"
    text = "".join(
        f"FROM {IMAGE} AS {name}\nRUN --mount=type=cache,id={tmp_path.name},target=/c touch /c/{name}; "
        f"{wait.format(other=other)}\n"
        for name, other in (("one", "two"), ("two", "one"))
    )
    where = context(
        tmp_path / "p", text + f"{FROM}COPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"
    )
    assert set(states(build(builder, where)[0]).values()) == {"done"}


def test_a_runs_isolation(builder: Node, tmp_path: Path) -> None:
    text = (
        FROM + "RUN grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status; hostname; ls /sys/class/net; "
        "cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /proc/self/cgroup\n"
        "RUN --network=none ls /sys/class/net > /none\nRUN --network=host ls /sys/class/net > /host\n"
        "RUN --mount=type=bind,target=/m,rw touch /m/new && ls /m\n"
    )
    where = context(tmp_path / "i", text)
    events, _ = build(builder, "-o", f"type=local,dest={tmp_path}/out", "-m", "64m", where)
    said = logged(events)
    assert "Seccomp:\t2" in said and "CapEff:\t00000000a80425fb" in said and "\nbuild\n" in said
    assert "\neth0\nlo\n" in said
    assert (tmp_path / "out/none").read_text() == "lo\n"
    assert (tmp_path / "out/host").read_text().split() == sorted(os.listdir("/sys/class/net"))
    assert not (tmp_path / "i/new").exists() and "new\n" in said
    # nothing that was mounted for a RUN is left
    assert sorted(os.listdir(tmp_path / "out/etc")) == sorted(["group", "nsswitch.conf", "passwd"])
    assert not (tmp_path / "out/m").exists() and not os.listdir(tmp_path / "out/dev")
    context(tmp_path / "i", FROM + "RUN x=x; while :; do x=$x$x; done\n")
    done = builder.cli("build", "-q", "-m", "16m", where, check=False, timeout=60)
    assert done.code == 1 and "at its memory limit of 16Mi (kubelite build --memory" in done.err


def test_a_run_has_the_memory_of_the_setting(tmp_path: Path, images: Path) -> None:
    where = context(tmp_path / "i", FROM + "RUN x=x; while :; do x=$x$x; done\n")
    with running_node(tmp_path / "node", images, build_memory="64Mi") as node:
        done = node.cli("build", "-q", where, check=False, timeout=60)
        assert (
            done.code == 1
            and "at its memory limit of 64Mi (kubelite build --memory, or the setting" in done.err
        )
        more = node.cli("build", "-q", "-m", "80m", where, check=False, timeout=60)
        assert more.code == 1 and "at its memory limit of 80Mi" in more.err  # the option takes precedence


def test_a_run_that_changes_nothing_makes_no_layer(builder: Node, tmp_path: Path) -> None:
    """Mount points are not a change, nor is the target created for a dangling link."""
    where = context(
        tmp_path / "n",
        FROM + "COPY links /etc/\n"
        "RUN --mount=type=cache,target=/deep/er/cache --mount=type=secret,id=x grep nameserver /etc/resolv.conf; true\n"
        "FROM scratch\nCOPY --from=0 /bin/busybox /bin/sh\nRUN test -e /proc/self/status\n",
    )
    (tmp_path / "n/links").mkdir()
    (tmp_path / "n/links/resolv.conf").symlink_to("../run/resolved/stub")
    build(builder, "-t", "nothing:1", "--target", "0", where)
    steps = json.loads(builder.cli("image", "history", "nothing:1", "-o", "json").out)
    assert [step["emptyLayer"] for step in steps[:2]] == [True, False]
    build(builder, "-t", "nothing:2", where)
    (about,) = json.loads(builder.cli("image", "inspect", "nothing:2").out)
    assert len(about["RootFS"]["Layers"]) == 1


def test_a_mount_points_parent_that_becomes_a_link(builder: Node, tmp_path: Path) -> None:
    """The empty mount points that a RUN leaves are removed from its layer, never from where a link leads."""
    victim = tmp_path / "victim"
    (victim / "deep/cache").mkdir(parents=True)
    (victim / "deep/file").touch()
    swap = f"mv /deep /moved && ln -s {victim}/deep /deep && mv /er /moved2 && ln -s {victim} /er"
    mounts = "--mount=type=cache,target=/deep/cache --mount=type=cache,target=/er/deep/cache"
    files = "--mount=type=bind,source=empty,target=/deep/file"
    where = context(tmp_path / "l", f"{FROM}RUN {mounts} {files} {swap}\n")
    (tmp_path / "l/empty").touch()
    build(builder, "-o", f"type=local,dest={tmp_path}/out", where)
    assert (victim / "deep/cache").is_dir()
    assert (victim / "deep/file").exists()
    assert os.readlink(tmp_path / "out/deep") == f"{victim}/deep"


def capability_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("ping")
        member.mode, member.uid, member.mtime, member.size = 0o755, 7, 1_600_000_000, 3
        member.pax_headers = {
            "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            "mtime": "1600000000.25",
        }
        archive.addfile(member, io.BytesIO(b"abc"))
    return out.getvalue()


def test_metadata_in_a_layer(builder: Node, tmp_path: Path) -> None:
    """Extended attributes, nanoseconds, hard links, whiteouts and opaque directories, in the layer and in its unpacked
    tar."""
    where = context(
        tmp_path / "l",
        FROM
        + "ADD ping.tar /\nRUN cp -p /ping /copy; ln /copy /copy2; mkdir /d && touch /d/old; mknod /null c 1 3\n"
        "RUN rm /null; rm -r /d; mkdir /d; touch /d/new; ln /copy2 /copy3\nFROM scratch\nCOPY --from=0 / /\n",
    )
    (tmp_path / "l/ping.tar").write_bytes(capability_tar())
    build(builder, "-t", "carries:1", "--target", "0", where)
    build(builder, "-t", "carries:2", where)
    archive = tmp_path / "x.tar"
    builder.cli("save", "--format", "oci-archive", "carries:1", "-o", str(archive))
    layers = json.loads(builder.cli("image", "inspect", "carries:1").out)[0]["LayerDirectories"]
    builder.cli("rmi", "carries:1")
    assert os.path.exists(layers[0])  # it is still the result of a step
    builder.cli("image", "prune", "--build-cache", "--force")
    assert not os.path.exists(layers[0])
    builder.cli("load", str(archive))
    assert os.path.exists(layers[0])
    for name in ("carries:1", "carries:2"):
        root = Path(builder.cli("image", "mount", name).out.strip())
        try:
            assert os.getxattr(root / "ping", "security.capability")[:1] == b"\1"
            assert os.stat(root / "ping").st_mtime_ns == 1_600_000_000_250_000_000
            assert os.stat(root / "ping").st_uid == 7
            assert os.listdir(root / "d") == ["new"] and not (root / "null").exists()
            assert (root / "copy3").stat().st_ino == (root / "copy2").stat().st_ino
        finally:
            builder.cli("image", "unmount", str(root))


def test_outputs(builder: Node, tmp_path: Path) -> None:
    where = context(
        tmp_path / "o",
        FROM + "RUN echo made > /made && chown 5:6 /made\nFROM scratch\nCOPY --from=0 /made /\n",
    )
    before = builder.cli("images", "-q").out
    build(builder, "-o", str(tmp_path / "dir"), where)
    assert (tmp_path / "dir/made").read_text() == "made\n" and os.stat(tmp_path / "dir/made").st_uid == 5
    build(builder, "-o", f"type=tar,dest={tmp_path}/files.tar", where)
    with tarfile.open(tmp_path / "files.tar") as archive:
        assert [(m.name, m.gid) for m in archive] == [("made", 6)]
    piped = subprocess.run(
        [*KUBELITE, "build", "-q", "-o", "-", where],
        cwd=REPO,
        env=builder.environ(),
        capture_output=True,
        check=True,
    )
    assert piped.stdout == (tmp_path / "files.tar").read_bytes()
    assert builder.cli("images", "-q").out == before
    build(builder, "-t", "out:1", "-o", f"type=oci,dest={tmp_path}/oci.tar", where)
    build(builder, "-t", "out:1", "-o", f"type=docker,dest={tmp_path}/docker.tar", where)
    with (tmp_path / "again.tar").open("wb") as out:
        command = [*KUBELITE, "build", "-q", "-t", "out:1", "-o", "type=oci,dest=-", where]
        subprocess.run(command, cwd=REPO, env=builder.environ(), stdout=out, check=True)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "oci.tar").read_bytes()
    if not support.need("skopeo"):
        for kind in ("oci", "docker"):
            found = json.loads(support.run("skopeo", "inspect", f"{kind}-archive:{tmp_path}/{kind}.tar"))
            assert len(found["Layers"]) == 1 and found["Os"] == "linux"
    done = builder.cli("build", "-o", "type=registry", where, check=False)
    assert done.code == 2 and "unknown type" in done.err


def test_a_directory_gets_no_privileged_files(builder: Node, tmp_path: Path) -> None:
    """Anybody on the node could run and open them."""
    text = (
        f"{FROM}RUN cp /bin/busybox /sh && chmod 6755 /sh && ln /sh /sh2 && mkdir -m 2775 /d && mknod /disk b 7 0 "
        "&& ln /disk /disk2 && mkfifo /fifo\nADD ping.tar /\n"
    )
    where = context(tmp_path / "p", text)
    (tmp_path / "p/ping.tar").write_bytes(capability_tar())
    events, _ = build(builder, "-o", str(tmp_path / "out"), where)
    out = tmp_path / "out"
    assert stat.S_IMODE((out / "sh").stat().st_mode) == stat.S_IMODE((out / "sh2").stat().st_mode) == 0o755
    assert not os.path.lexists(out / "disk") and not os.path.lexists(out / "disk2")
    assert stat.S_ISFIFO((out / "fifo").stat().st_mode)
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o2775
    said = [event["message"] for event in events if event.get("event") == "warning"]
    assert [f"{out} has no " in text for text in said] == [True, True, True]
    assert os.listxattr(out / "ping") == []
    build(builder, "-o", f"type=local,dest={tmp_path}/all,special=true", where)
    assert stat.S_IMODE((tmp_path / "all/sh").stat().st_mode) == 0o6755
    assert (tmp_path / "all/disk").stat().st_rdev == os.makedev(7, 0)
    assert (tmp_path / "all/disk2").stat().st_nlink == 2
    assert os.listxattr(tmp_path / "all/ping") == ["security.capability"]


def test_a_mounted_image_gives_no_privileges(builder: Node, tmp_path: Path) -> None:
    text = f"{FROM}RUN cp /bin/busybox /sh && chmod 4755 /sh && mknod -m 666 /null c 1 3\n"
    build(builder, "-t", "privileged:1", context(tmp_path / "m", text))
    with tempfile.TemporaryDirectory(prefix="klt-") as at:
        os.chmod(at, 0o755)
        for given in ([], [at]):
            root = Path(builder.cli("image", "mount", "privileged:1", *given).out.strip())
            try:
                assert os.statvfs(root).f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV
                assert user_of(root / "sh") == (
                    65534 if given else -1
                )  # others do not reach a directory of ours
                with pytest.raises(PermissionError):
                    (root / "null").read_bytes()
            finally:
                builder.cli("image", "unmount", str(root))
            assert given or not root.parent.exists()


def user_of(program: Path) -> int:
    """Run the program as an unprivileged user. Return the effective uid that it reports, or -1 if the user may not
    execute it."""
    args = [str(program), "-c", "id -u"]
    try:
        done = subprocess.run(args, user=65534, group=65534, extra_groups=[], capture_output=True, check=True)
    except PermissionError:
        return -1
    return int(done.stdout)


def test_triggers_stdin_and_the_network(builder: Node, tmp_path: Path) -> None:
    base = context(tmp_path / "b", FROM + "ONBUILD COPY seed /seed\nONBUILD RUN cat /seed > /grown\n")
    build(builder, "-t", "onbuild:1", base)
    child = context(tmp_path / "ch", "FROM onbuild:1\nRUN cat /grown\n", seed="oak\n")
    events, _ = build(builder, "-t", "child:1", child)
    assert "oak" in logged(events)
    (about,) = json.loads(builder.cli("image", "inspect", "child:1").out)
    assert "OnBuild" not in about["Config"]

    taking = context(tmp_path / "ta", FROM + "ONBUILD COPY --from=given /etc/passwd /\n")
    build(builder, "-t", "onbuild:2", taking)
    done = builder.cli("build", "-", stdin=f"{FROM.strip()} AS given\nFROM onbuild:2\n".encode(), check=False)
    assert done.code == 1 and "an ONBUILD trigger needs stage given" in done.err

    (tmp_path / "www").mkdir()
    (tmp_path / "www/data.txt").write_text("remote\n")
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *words: handler(*words, directory=str(tmp_path / "www"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/data.txt"
        right = hashlib.sha256(b"remote\n").hexdigest()
        text = f"FROM scratch\nADD {url} /d/\nADD --checksum=sha256:{right} --chmod=644 {url} /e\n"
        refused = builder.cli("build", "-", stdin=text.encode(), check=False)
        assert refused.code == 1 and "`kubelite build --network host` allows them" in refused.err
        host = ("--network", "host")
        done = builder.cli("build", "-q", *host, "-o", f"{tmp_path}/remote", "-", stdin=text.encode())
        assert done.out == "" and (tmp_path / "remote/d/data.txt").read_text() == "remote\n"
        assert (tmp_path / "remote/d/data.txt").stat().st_mode & 0o777 == 0o600
        wrong = f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url} /\n".encode()
        refused = builder.cli("build", *host, "-", stdin=wrong, check=False)
        assert refused.code == 1 and f"{url} has the digest sha256:{right}, not" in refused.err
    finally:
        server.shutdown()
        server.server_close()


def test_parents_with_any_depth_and_a_pivot(builder: Node, tmp_path: Path) -> None:
    text = (
        FROM + "RUN mkdir -p /a/b/c /a/x; for d in a a/b/c a/x; do touch /$d/f.txt; done; ln -s b /a/link\n"
        f"{FROM}COPY --from=0 --parents /a/**/f.txt /deep/\nCOPY --from=0 --parents /a/./**/f.txt /pivot/\n"
        "COPY --from=0 /a/**/f.txt /flat/\nCOPY --parents **/f.txt /ours/\nFROM scratch\n"
        "COPY --from=1 --parents /deep /pivot /flat /ours /\n"
    )
    where = context(tmp_path / "p", text)
    (tmp_path / "p/y").mkdir()
    (tmp_path / "p/y/f.txt").touch()
    build(builder, "-o", str(tmp_path / "out"), where)
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.txt"))
    assert found == [
        *("deep/a/b/c/f.txt", "deep/a/f.txt", "deep/a/x/f.txt", "flat/f.txt", "ours/y/f.txt"),
        *("pivot/b/c/f.txt", "pivot/f.txt", "pivot/x/f.txt"),
    ]


def test_a_cache_starts_with_the_content_of_a_stage(builder: Node, tmp_path: Path) -> None:
    """Once. What RUNs put there persists until the stage changes."""

    def built(first: str, command: str) -> str:
        text = (
            f"{FROM.strip()} AS seed\nRUN mkdir -m 750 /s && chown 7:8 /s && echo {first} > /s/f\n"
            f"{FROM}RUN --mount=type=cache,id=seeded,from=seed,source=/s,target=/c {command}\n"
        )
        return logged(build(builder, context(tmp_path / "c", text))[0])

    assert built("one", "stat -c '%a %u %g' /c; cat /c/f; echo more > /c/g") == "750 7 8\none\n"
    assert built("one", "cat /c/f /c/g; : again") == "one\nmore\n"
    assert built("two", "cat /c/f; ls /c") == "two\nf\n", "another stage's files are another cache"
    text = f"{FROM}RUN --mount=type=cache,from={IMAGE},source=/bin/busybox,target=/c true\n"
    failed = builder.cli("build", "-q", context(tmp_path / "f", text), check=False, timeout=60)
    assert failed.code == 1 and '"/bin/busybox" is not a directory' in failed.err


def test_an_archive_that_leads_outside_is_rejected(builder: Node, tmp_path: Path) -> None:
    """By its own names and links, and by a link in the image on the way to its target."""
    aim = tmp_path / "aim"
    aim.mkdir()
    link = support.member("l", tarfile.SYMTYPE, linkname=str(aim))
    archives = {
        "dots": (support.tar((support.member(f"{'../' * 12}{aim}/x"), b"x")), 'contains ".."'),
        "through": (support.tar(link, (support.member("l/x"), b"x")), "leads out of the layer"),
        "hard": (
            support.tar(support.member("h", tarfile.LNKTYPE, linkname="/etc/shadow")),
            "which no layer has",
        ),
        "absolute": (support.tar((support.member(f"{aim}/x"), b"x")), ""),
        "link": (support.tar((support.member("x"), b"x")), ""),
    }
    for name, (data, words) in archives.items():
        target = f"/way{aim}/" if name == "link" else "/into/"
        where = context(tmp_path / name, f"{FROM}RUN ln -s {aim} /into && ln -s / /way\nADD a.tar {target}\n")
        (tmp_path / name / "a.tar").write_bytes(data)
        done = builder.cli("build", "-q", where, check=False, timeout=60)
        assert (done.code != 0) == bool(words) and words in done.err, (name, done)
        assert list(aim.iterdir()) == [], name
