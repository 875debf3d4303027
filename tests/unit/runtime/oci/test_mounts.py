"""Mount options: each option in the specification's table has the meaning of mount(8)."""

from __future__ import annotations

import pytest

from runtime import syscalls as sc
from runtime.oci.rootfs import mount_options
from runtime.oci.rootfs.mount_options import Options


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], Options()),
        (["defaults"], Options()),
        (["ro", "nosuid"], Options(sc.MS_RDONLY | sc.MS_NOSUID)),
        (["ro", "rw"], Options(0, sc.MS_RDONLY)),
        (["rw", "ro"], Options(sc.MS_RDONLY, 0)),
        (["rbind", "rprivate"], Options(sc.MS_BIND | sc.MS_REC, 0, (sc.MS_PRIVATE | sc.MS_REC,))),
        (["bind", "shared", "rslave"], Options(sc.MS_BIND, 0, (sc.MS_SHARED, sc.MS_SLAVE | sc.MS_REC))),
        (["mode=755", "nosuid", "size=64k"], Options(sc.MS_NOSUID, data="mode=755,size=64k")),
        (["rro"], Options(recursive_set=sc.MOUNT_ATTR_RDONLY)),
        (["rro", "rrw"], Options(recursive_clear=sc.MOUNT_ATTR_RDONLY)),
        (["rnoatime"], Options(recursive_set=sc.MOUNT_ATTR_NOATIME, recursive_clear=sc.MOUNT_ATTR__ATIME)),
        (["", "noatime"], Options(sc.MS_NOATIME)),
    ],
)
def test_parse(options: list[str], expected: Options) -> None:
    assert mount_options.parse(options) == expected


@pytest.mark.parametrize(
    ("options", "attrs"),
    [
        (["bind"], (0, 0)),
        (["bind", "ro", "nosuid", "nodev", "noexec"], (1 | 2 | 4 | 8, 0)),
        (["bind", "rw"], (0, 1)),
        (["bind", "exec", "dev", "suid"], (0, 2 | 4 | 8)),
        (["bind", "noatime"], (sc.MOUNT_ATTR_NOATIME, sc.MOUNT_ATTR__ATIME)),
        (["bind", "relatime"], (0, sc.MOUNT_ATTR__ATIME)),
        (["bind", "strictatime", "nodiratime"], (0x20 | 0x80, sc.MOUNT_ATTR__ATIME)),
        (["bind", "nosymfollow"], (sc.MOUNT_ATTR_NOSYMFOLLOW, 0)),
    ],
)  # fmt: skip
def test_attributes_of_binds(options: list[str], attrs: tuple[int, int]) -> None:
    assert mount_options.parse(options).attrs == attrs


_ALL = 1 | 2 | 4 | 8 | sc.MOUNT_ATTR_NOSYMFOLLOW


@pytest.mark.parametrize(
    ("options", "attrs"),
    [
        (["rbind", "rprivate", "defaults"], (0, 0)),  # a copy of its source
        (["rbind", "rro"], (0, 0)),
        (["bind", "rw"], (0, _ALL)),
        (["bind", "ro", "nosuid"], (1 | 2, _ALL & ~(1 | 2))),
        (["bind", "sync"], (0, _ALL)),  # as runc, although the flag is one of the file system
        (["bind", "noatime"], (sc.MOUNT_ATTR_NOATIME, _ALL | sc.MOUNT_ATTR__ATIME)),
        (["bind", "diratime"], (0, _ALL | sc.MOUNT_ATTR_NODIRATIME)),
        (["bind", "remount", "ro"], (1, 0)),
        (["bind", "remount", "rw", "exec"], (0, 1 | 8)),
    ],
)
def test_flags_of_a_source_that_no_option_names(options: list[str], attrs: tuple[int, int]) -> None:
    assert mount_options.parse(options).bind_attrs == attrs


def test_locked_flags() -> None:
    nosuid_noexec = 0x2 | 0x8
    assert mount_options.locked(mount_options.parse(["bind", "ro"]), nosuid_noexec) == []
    assert mount_options.locked(mount_options.parse(["bind", "exec", "dev"]), nosuid_noexec) == ["noexec"]
    assert mount_options.inherited(nosuid_noexec) == sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NOEXEC


def test_options_that_are_not_mount_flags() -> None:
    assert mount_options.parse(["ridmap", "tmpcopyup"]) == mount_options.Options(idmap="ridmap", copy_up=True)
    assert mount_options.parse(["idmap"]).idmap == "idmap"
    assert mount_options.parse(["tmpcopyup", "size=1m"]).data == "size=1m"


def test_known_options_are_not_passed_to_the_file_system() -> None:
    words = (
        "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime"
        " noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev"
        " rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid"
        " rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared"
        " silent slave strictatime suid symfollow sync unbindable"
    )  # config.md, "Linux mount options"
    for word in words.split():
        assert mount_options.parse([word]).data == "", word
