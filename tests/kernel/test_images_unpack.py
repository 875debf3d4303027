"""Unpacking on a real file system: everything a layer can carry is preserved, and nothing leaves the directory."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.layers.tarstream import ChunkSource, TarStream
from runtime.images.layers.unpack import LayerUnpacker
from runtime.images.store.disk import tree_size
from runtime.removal import remove_tree
from tests.kernel.images_support import directory, member, need, run, snapshot, tar

pytestmark = pytest.mark.kernel


def unpack(path: Path, data: bytes, lower: Iterable[Path] = (), **options: Any) -> LayerUnpacker:
    """Unpack one layer into `path`, with the stream split into odd pieces. `lower`: topmost first."""
    path.mkdir()
    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    with LayerUnpacker(str(path), **options) as unpacker:
        unpacker.unpack(TarStream(ChunkSource(pieces)))
        unpacker.finish([str(layer) for layer in lower])
    return unpacker


def is_whiteout(path: Path) -> bool:
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_everything_a_layer_can_carry(tmp_path: Path) -> None:
    long = "d" * 120 + "/" + "f" * 200
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    data = tar(
        directory("./", mode=0o711, mtime=5),
        directory("setgid", mode=0o2775, gid=50, mtime=1_600_000_000),
        (member("setgid/inside", uid=70_000, gid=80_000, mtime=1_600_000_000), b"x"),
        (member("setuid", mode=0o6755, uid=33), b"#!"),
        directory("sticky", mode=0o1777),
        (member("nanoseconds", pax_headers={"mtime": "1234567890.123456789"}), b""),
        (member("before-1970", pax_headers={"mtime": "-1.5"}), b""),
        (
            member(
                "attributes",
                uid=12,
                pax_headers={
                    "SCHILY.xattr.user.one": "1",
                    "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
                },
            ),
            b"a",
        ),
        member("link", tarfile.SYMTYPE, linkname="../../etc/passwd", uid=9, mtime=77),
        member("hard", tarfile.LNKTYPE, linkname="setuid"),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, uid=1),
        member("loop", tarfile.BLKTYPE, devmajor=7, devminor=0, mode=0o660, gid=6),
        member("fifo", tarfile.FIFOTYPE, mode=0o640),
        (member(long, mtime=3), b"long"),
    )
    root = tmp_path / "layer"
    assert unpack(root, data).warnings == []
    found = snapshot(root)
    assert found["."][0] == "drwx--x--x" and found["."][3] == 5_000_000_000
    assert found["setgid"][:4] == ("drwxrwsr-x", 0, 50, 1_600_000_000 * 10**9)
    assert found["setgid/inside"][:3] == ("-rw-r--r--", 70_000, 80_000)
    assert found["setuid"][:2] == ("-rwsr-sr-x", 33) and found["sticky"][0] == "drwxrwxrwt"
    assert found["hard"][6] == found["setuid"][6]  # the same inode
    assert found["nanoseconds"][3] == 1_234_567_890_123_456_789 and found["before-1970"][3] == -1_500_000_000
    assert found["attributes"][7] == {"user.one": b"1", "security.capability": capability}
    assert found["attributes"][1] == 12
    assert found["link"][5] == "../../etc/passwd" and found["link"][1] == 9 and found["link"][3] == 77 * 10**9
    assert found["null"][0] == "crw-rw-rw-" and found["null"][4] == os.makedev(1, 3) and found["null"][1] == 1
    assert found["loop"][0] == "brw-rw----" and found["fifo"][0] == "prw-r-----"
    assert (root / long).read_bytes() == b"long" and found[long][3] == 3_000_000_000


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    unpack(tmp_path / "layer", tar((member(os.fsdecode(b"caf\xe9"), mtime=1), b"x")))
    assert os.listdir(os.fsencode(tmp_path / "layer")) == [b"caf\xe9"]


@pytest.mark.parametrize(
    "form", ["gnu", "posix", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "oldgnu"]
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, form: str) -> None:
    if need("tar"):
        pytest.skip("needs GNU tar")
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        for at in range(40):  # more extents than the old header has room for
            file.seek(at * 200_000)
            file.write(b"data%d" % at)
        file.truncate(20_000_000)
    run("tar", "-S", *f"--format={form}".split(), "-C", str(source), "-cf", str(tmp_path / "t"), "sparse")
    unpack(tmp_path / "layer", (tmp_path / "t").read_bytes())
    unpacked = tmp_path / "layer/sparse"
    assert unpacked.read_bytes() == (source / "sparse").read_bytes()
    assert unpacked.stat().st_blocks * 512 < 2_000_000


def test_a_tree_of_gnu_tar_comes_out_the_same(tmp_path: Path) -> None:
    """/etc and some programs of this machine, packed by GNU tar: modes, owners, times and links are equal."""
    if need("tar"):
        pytest.skip("needs GNU tar")
    source = tmp_path / "source"
    source.mkdir()
    run("cp", "-a", "/etc", str(source))
    options = ["--format=posix", "--xattrs", "--xattrs-include=*"]
    run("tar", *options, "-C", str(source), "-cf", str(tmp_path / "t"), ".")
    unpack(tmp_path / "layer", (tmp_path / "t").read_bytes())
    assert snapshot(tmp_path / "layer") == snapshot(source)


class TestWhiteouts:
    def test_become_overlayfs_own_form(self, tmp_path: Path) -> None:
        root = tmp_path / "layer"
        unpack(
            root,
            tar(
                directory("d"),
                member("d/.wh.gone"),
                directory("o"),
                member("o/.wh..wh..opq"),
                member(".wh.x"),
            ),
        )
        assert is_whiteout(root / "d/gone") and is_whiteout(root / "x") and opaque(root / "o")
        assert not opaque(root / "d")

    def test_spare_what_their_own_layer_has(self, tmp_path: Path) -> None:
        root = tmp_path / "layer"
        unpack(
            root,
            tar(
                (member("before"), b"1"), member(".wh.before"), member(".wh.after"), (member("after"), b"2"),
                directory("dir"), (member("dir/f"), b"3"), member(".wh.dir"), member(".wh.late"), directory("late"),
            ),
        )  # fmt: skip
        assert (root / "before").read_bytes() == b"1" and (root / "after").read_bytes() == b"2"
        assert (root / "dir/f").exists() and opaque(root / "dir") and opaque(root / "late")

    def test_under_an_implied_directory(self, tmp_path: Path) -> None:
        root = tmp_path / "layer"
        unpack(root, tar(member(".wh.d"), (member("d/f"), b"")))
        assert opaque(root / "d") and (root / "d/f").exists()

    def test_aufs_bookkeeping_is_skipped(self, tmp_path: Path) -> None:
        unpack(tmp_path / "layer", tar(directory(".wh..wh.plnk"), (member(".wh..wh.aufs"), b"")))
        assert os.listdir(tmp_path / "layer") == []


class TestLowerLayers:
    def test_unlisted_parents_stay_as_they_were(self, tmp_path: Path) -> None:
        unpack(
            tmp_path / "low",
            tar(directory("a", mode=0o700, uid=5, mtime=9), directory("a/b", mode=0o1777, gid=6)),
        )
        unpack(tmp_path / "top", tar((member("a/b/c/d"), b"x")), [tmp_path / "low"])
        found = snapshot(tmp_path / "top")
        assert found["a"][:4] == ("drwx------", 5, 0, 9 * 10**9)
        assert found["a/b"][:3] == ("drwxrwxrwt", 0, 6) and found["a/b/c"][0] == "drwxr-xr-x"

    def test_hard_links_to_earlier_layers(self, tmp_path: Path) -> None:
        unpack(
            tmp_path / "low",
            tar(directory("a", uid=5), (member("a/f", mode=0o4711, uid=7, mtime=8), b"content")),
        )
        top = tar(
            member("l1", tarfile.LNKTYPE, linkname="a/f"),
            member("l2", tarfile.LNKTYPE, linkname="l1"),
            (member("l3"), b"own"),
            member("l3", tarfile.LNKTYPE, linkname="a/f"),
        )
        unpack(tmp_path / "top", top, [tmp_path / "low"])
        found = snapshot(tmp_path / "top")
        assert found["l1"][:4] == ("-rws--x--x", 7, 0, 8 * 10**9)
        assert found["a/f"][6] == found["l1"][6] == found["l2"][6] == found["l3"][6]
        assert found["a"][1] == 5 and (tmp_path / "top/l1").read_bytes() == b"content"

    def test_a_link_to_what_an_upper_layer_deleted_is_refused(self, tmp_path: Path) -> None:
        unpack(tmp_path / "low", tar((member("f"), b"")))
        unpack(tmp_path / "middle", tar(member(".wh.f")))
        with pytest.raises(ImageError, match="no layer has"):
            unpack(
                tmp_path / "top",
                tar(member("l", tarfile.LNKTYPE, linkname="f")),
                [tmp_path / "middle", tmp_path / "low"],
            )

    def test_a_parent_that_is_a_link_below(self, tmp_path: Path) -> None:
        """`lib/x` of a tool that does not support usr-merge must not hide the link lib (and all libraries behind
        it)."""
        unpack(
            tmp_path / "low",
            tar(
                directory("usr"),
                directory("usr/lib", gid=4),
                member("lib", tarfile.SYMTYPE, linkname="usr/lib"),
            ),
        )
        unpack(
            tmp_path / "top",
            tar((member("lib/deep/x"), b"x"), (member("usr/lib/y"), b"y")),
            [tmp_path / "low"],
        )
        found = snapshot(tmp_path / "top")
        assert sorted(found) == [".", "usr", "usr/lib", "usr/lib/deep", "usr/lib/deep/x", "usr/lib/y"]
        assert found["usr/lib"][2] == 4

    def test_a_listed_directory_replaces_a_link_below(self, tmp_path: Path) -> None:
        unpack(tmp_path / "low", tar(directory("real"), member("d", tarfile.SYMTYPE, linkname="real")))
        unpack(tmp_path / "top", tar(directory("d"), (member("d/f"), b"")), [tmp_path / "low"])
        assert sorted(snapshot(tmp_path / "top")) == [".", "d", "d/f"]


def test_later_entries_win(tmp_path: Path) -> None:
    root = tmp_path / "layer"
    unpack(
        root,
        tar(
            (member("f"), b"first"), (member("f"), b"second"),
            directory("d"), (member("d/x"), b""), (member("d"), b"file"),
            member("s", tarfile.SYMTYPE, linkname="d"), directory("s"), (member("s/inside"), b""),
        ),
    )  # fmt: skip
    assert (root / "f").read_bytes() == b"second" and (root / "d").read_bytes() == b"file"
    assert (root / "s/inside").exists() and not (root / "s").is_symlink()


def test_links_inside_the_layer_are_followed_for_parents(tmp_path: Path) -> None:
    root = tmp_path / "layer"
    unpack(
        root,
        tar(
            directory("usr/lib"),
            member("lib", tarfile.SYMTYPE, linkname="usr/lib"),
            (member("lib/x", uid=3), b"x"),
        ),
    )
    assert snapshot(root)["usr/lib/x"][1] == 3 and (root / "lib").is_symlink()


Member = tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo

HOSTILE: dict[str, tuple[list[Member], str]] = {
    "dot-dot": ([(member("../escaped"), b"x")], "../escaped"),
    "inner dot-dot": ([directory("a"), (member("a/../../escaped"), b"x")], "a/../../escaped"),
    "absolute": ([(member("/tmp/escaped"), b"x")], "/tmp/escaped"),
    "through an absolute link": (
        [member("out", tarfile.SYMTYPE, linkname="{outside}"), (member("out/escaped"), b"x")], "out/escaped",
    ),
    "through a relative link": (
        [member("out", tarfile.SYMTYPE, linkname="../outside"), (member("out/escaped"), b"x")], "out/escaped",
    ),
    "through two links": (
        [
            directory("d"), member("d/up", tarfile.SYMTYPE, linkname=".."),
            member("out", tarfile.SYMTYPE, linkname="d/up/.."),
            (member("out/outside/escaped"), b"x"),
        ],
        "out/outside/escaped",
    ),
    "directory through a link": (
        [member("out", tarfile.SYMTYPE, linkname="../outside"), directory("out/escaped")], "out/escaped/",
    ),
    "hard link out": ([member("h", tarfile.LNKTYPE, linkname="../outside/secret"), (member("h"), b"x")], "h"),
    "hard link to an absolute name": ([member("h", tarfile.LNKTYPE, linkname="{outside}/secret")], "h"),
    "hard link through a link": (
        [member("out", tarfile.SYMTYPE, linkname="../outside"), member("h", tarfile.LNKTYPE, linkname="out/secret")],
        "h",
    ),
    "hard link to nothing": ([member("h", tarfile.LNKTYPE, linkname="nothing")], "h"),
    "hard link to a directory": ([directory("d"), member("h", tarfile.LNKTYPE, linkname="d")], "h"),
    "whiteout upwards": ([directory("d"), member("d/.wh...")], "d/.wh..."),
    "whiteout of its own directory": ([directory("d"), member("d/.wh..")], "d/.wh.."),
    "whiteout through a link": (
        [member("out", tarfile.SYMTYPE, linkname="../outside"), member("out/.wh.secret")], "out/.wh.secret",
    ),
    "opaque through a link": (
        [member("out", tarfile.SYMTYPE, linkname="../outside"), member("out/.wh..wh..opq")], "out/.wh..wh..opq",
    ),
    "a raw whiteout": ([member("w", tarfile.CHRTYPE, devmajor=0, devminor=0)], "w"),
    "overlay's own attribute": (
        [directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})], "d/",
    ),
    "a file as parent": ([(member("f"), b""), (member("f/x"), b"")], "f/x"),
    "a link in circles": (
        [member("a", tarfile.SYMTYPE, linkname="b"), member("b", tarfile.SYMTYPE, linkname="a"), (member("a/x"), b"")],
        "a/x",
    ),
    "a file as root": ([(member("."), b"")], "."),
    "an unknown type": ([member("v", b"V")], "v"),
    "an owner out of range": ([(member("o", pax_headers={"uid": "4294967295"}), b"")], "o"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries_are_refused_by_name(tmp_path: Path, name: str) -> None:
    members, culprit = HOSTILE[name]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    before = snapshot(outside)
    for item in members:
        info = item[0] if isinstance(item, tuple) else item
        info.linkname = info.linkname.replace("{outside}", str(outside))
    with pytest.raises(ImageError) as caught:
        unpack(tmp_path / "layer", tar(*members))
    assert f'"{culprit}"' in str(caught.value), caught.value
    assert snapshot(outside) == before and not (tmp_path / "escaped").exists()
    assert not Path("/tmp/escaped").exists()


def test_too_many_entries(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r'"f100".*a layer may have at most 100'):
        unpack(tmp_path / "layer", tar(*[member(f"f{n}") for n in range(200)]), max_entries=100)


@pytest.mark.parametrize("cut", [100, 700, 1500, 1800, 2300])
def test_a_truncated_stream_names_where_it_ended(tmp_path: Path, cut: int) -> None:
    data = tar((member("one"), b"1" * 600), (member("two"), b"2" * 600))
    with pytest.raises(ImageError, match=r"ends in the middle|too short"):
        unpack(tmp_path / "layer", data[:cut])


def test_descriptors_are_not_leaked(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    entries: list[Member] = [
        entry for n in range(200) for entry in (directory(f"d{n}"), (member(f"d{n}/f"), b"x"))
    ]
    replaced: list[Member] = [
        (member("d5"), b"file"),
        member("l", tarfile.SYMTYPE, linkname="d6"),
        directory("l"),
    ]
    unpack(tmp_path / "layer", tar(*entries, *replaced))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("file", {"mtime": "99999999999999999999"}),
        ("file", {"LIBARCHIVE.xattr.user.x": "A"}),
        ("file", {"SCHILY.xattr.user.nul\0x": "1"}),
        ("link", {"linkpath": "a\0b"}),
    ],
)
def test_values_no_system_call_takes_are_a_bad_layer(
    tmp_path: Path, name: str, headers: dict[str, str]
) -> None:
    made = member(name, type=tarfile.SYMTYPE, linkname="a") if name == "link" else member(name)
    made.pax_headers = headers
    with pytest.raises(ImageError):
        unpack(tmp_path / "layer", tar((made, b"")))


def test_a_layer_nested_as_deep_as_links_make_it_is_replaced_and_removed(tmp_path: Path) -> None:
    """A name may have 255 components; links in it lead deeper."""
    step = "/".join(["d"] * 200)
    entries: list[Any] = [directory(step), member("l1", tarfile.SYMTYPE, linkname=step)]
    for number in range(2, 9):
        entries.append(directory(f"l{number - 1}/{step}"))
        entries.append(member(f"l{number}", tarfile.SYMTYPE, linkname=f"l{number - 1}/{step}"))
    unpack(tmp_path / "layer", tar(*entries, (member("d"), b"file")))
    assert (tmp_path / "layer/d").read_bytes() == b"file"
    unpack(tmp_path / "other", tar(*entries))
    assert tree_size(str(tmp_path / "other")) >= 0
    remove_tree(str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_name_nested_too_deep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="too deep"):
        unpack(tmp_path / "layer", tar(directory("/".join(["d"] * 2000))))
