"""Translate mount options, as spelled in config.json and fstab, to kernel flags, attributes, propagation and data.

The tables follow the OCI runtime specification (config.md, "Linux mount options"). Options in no table are passed to
the file system as data. Nothing here calls the kernel.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from runtime.syscalls import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_DIRSYNC,
    MS_I_VERSION,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_POSIXACL,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
    MS_UNBINDABLE,
)

# option → (flag, whether it clears the flag)
_FLAGS: Final[dict[str, tuple[int, bool]]] = {
    "acl": (MS_POSIXACL, False),
    "async": (MS_SYNCHRONOUS, True),
    "atime": (MS_NOATIME, True),
    "bind": (MS_BIND, False),
    "defaults": (0, False),
    "dev": (MS_NODEV, True),
    "diratime": (MS_NODIRATIME, True),
    "dirsync": (MS_DIRSYNC, False),
    "exec": (MS_NOEXEC, True),
    "iversion": (MS_I_VERSION, False),
    "lazytime": (MS_LAZYTIME, False),
    "loud": (MS_SILENT, True),
    "mand": (MS_MANDLOCK, False),
    "noacl": (MS_POSIXACL, True),
    "noatime": (MS_NOATIME, False),
    "nodev": (MS_NODEV, False),
    "nodiratime": (MS_NODIRATIME, False),
    "noexec": (MS_NOEXEC, False),
    "noiversion": (MS_I_VERSION, True),
    "nolazytime": (MS_LAZYTIME, True),
    "nomand": (MS_MANDLOCK, True),
    "norelatime": (MS_RELATIME, True),
    "nostrictatime": (MS_STRICTATIME, True),
    "nosuid": (MS_NOSUID, False),
    "nosymfollow": (MS_NOSYMFOLLOW, False),
    "rbind": (MS_BIND | MS_REC, False),
    "relatime": (MS_RELATIME, False),
    "remount": (MS_REMOUNT, False),
    "ro": (MS_RDONLY, False),
    "rw": (MS_RDONLY, True),
    "silent": (MS_SILENT, False),
    "strictatime": (MS_STRICTATIME, False),
    "suid": (MS_NOSUID, True),
    "symfollow": (MS_NOSYMFOLLOW, True),
    "sync": (MS_SYNCHRONOUS, False),
}

PROPAGATION: Final[dict[str, int]] = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# Recursive attributes (mount_setattr(2) with AT_RECURSIVE): option → (set, clear)
_RECURSIVE: Final[dict[str, tuple[int, int]]] = {
    "rro": (MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, MOUNT_ATTR_RDONLY),
    "rnosuid": (MOUNT_ATTR_NOSUID, 0),
    "rsuid": (0, MOUNT_ATTR_NOSUID),
    "rnodev": (MOUNT_ATTR_NODEV, 0),
    "rdev": (0, MOUNT_ATTR_NODEV),
    "rnoexec": (MOUNT_ATTR_NOEXEC, 0),
    "rexec": (0, MOUNT_ATTR_NOEXEC),
    "rnodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "rdiratime": (0, MOUNT_ATTR_NODIRATIME),
    "rrelatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "rnorelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "rnoatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
    "ratime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "rstrictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "rnostrictatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "rnosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
}

# The same flags as mount attributes, for detached mounts.
_ATTRS: Final[dict[int, int]] = {
    MS_RDONLY: MOUNT_ATTR_RDONLY,
    MS_NOSUID: MOUNT_ATTR_NOSUID,
    MS_NODEV: MOUNT_ATTR_NODEV,
    MS_NOEXEC: MOUNT_ATTR_NOEXEC,
    MS_NODIRATIME: MOUNT_ATTR_NODIRATIME,
    MS_NOSYMFOLLOW: MOUNT_ATTR_NOSYMFOLLOW,
}
_ATIME_ATTRS: Final[dict[int, int]] = {
    MS_NOATIME: MOUNT_ATTR_NOATIME,
    MS_STRICTATIME: MOUNT_ATTR_STRICTATIME,
    MS_RELATIME: MOUNT_ATTR_RELATIME,
}
# The same attributes as statvfs(3) reports them (include/linux/statfs.h): ST_* → (MOUNT_ATTR_*, MS_*, option)
_STATVFS: Final[dict[int, tuple[int, int, str]]] = {
    0x0001: (MOUNT_ATTR_RDONLY, MS_RDONLY, "ro"),
    0x0002: (MOUNT_ATTR_NOSUID, MS_NOSUID, "nosuid"),
    0x0004: (MOUNT_ATTR_NODEV, MS_NODEV, "nodev"),
    0x0008: (MOUNT_ATTR_NOEXEC, MS_NOEXEC, "noexec"),
    0x0800: (MOUNT_ATTR_NODIRATIME, MS_NODIRATIME, "nodiratime"),
    0x2000: (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW, "nosymfollow"),
}

# Attributes of the source that a bind with options does not have unless they are named.
_UNNAMED: Final = sum(_ATTRS.values()) & ~MOUNT_ATTR_NODIRATIME


class Options(NamedTuple):
    """The parsed options of a mount. Attributes (MOUNT_ATTR_*) are for mount_setattr(2), flags (MS_*) for mount(2)."""

    flags: int = 0
    cleared: int = 0  # MS_* flags that an option clears explicitly
    propagation: tuple[int, ...] = ()  # MS_PRIVATE … [| MS_REC], in the given order
    recursive_set: int = 0
    recursive_clear: int = 0
    data: str = ""
    # x-beneath=DIR: a bind's source is opened below DIR, and no symbolic link may leave DIR
    beneath: str = ""
    idmap: str = ""  # "idmap": only this mount; "ridmap": all mounts below it too
    copy_up: bool = False

    @property
    def is_bind(self) -> bool:
        return bool(self.flags & MS_BIND)

    @property
    def attrs(self) -> tuple[int, int]:
        """The attributes to (set, clear) that the options name."""
        add = sum(attr for flag, attr in _ATTRS.items() if self.flags & flag)
        drop = sum(attr for flag, attr in _ATTRS.items() if self.cleared & flag)
        for flag, attr in _ATIME_ATTRS.items():
            if self.flags & flag:
                # the access-time modes are one field: setting one clears all bits of the field
                return add | attr, drop | MOUNT_ATTR__ATIME
        return add, drop

    @property
    def bind_attrs(self) -> tuple[int, int]:
        """The attributes to (set, clear) on the top mount of a bind: also those of its source that no option names.

        This is `mount --bind -o …`, as runc has it since 1.2 (libcontainer/rootfs_linux.go, mountToRootfs): a bind
        without any flag is an exact copy, and access-time modes are only changed by their own options. With
        "remount", which stands for `mount --bind -o remount,…`, flags that no option names are kept.
        """
        add, drop = self.attrs
        named = self.flags & ~(MS_BIND | MS_REC | MS_REMOUNT) or self.cleared
        if not named or self.flags & MS_REMOUNT:
            return add, drop
        return add, drop | (_UNNAMED & ~add)


def parse(options: list[str]) -> Options:
    """Parse mount options. Later options override earlier ones, as in mount(8)."""
    flags = cleared = rec_set = rec_clear = 0
    propagation: list[int] = []
    data: list[str] = []
    beneath = idmap = ""
    copy_up = False
    for option in options:
        if option.startswith("x-beneath="):
            beneath = option.removeprefix("x-beneath=")
        elif option in _FLAGS:
            flag, clears = _FLAGS[option]
            flags, cleared = (flags & ~flag, cleared | flag) if clears else (flags | flag, cleared & ~flag)
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in _RECURSIVE:
            add, drop = _RECURSIVE[option]
            rec_set, rec_clear = (rec_set & ~drop) | add, (rec_clear & ~add) | drop
        elif option in ("idmap", "ridmap"):
            idmap = option
        elif option == "tmpcopyup":
            copy_up = True
        elif option:
            data.append(option)
    texts = (",".join(data), beneath, idmap)
    return Options(flags, cleared, tuple(propagation), rec_set, rec_clear, *texts, copy_up)


def locked(options: Options, statvfs_flags: int) -> list[str]:
    """The options of a source with these statvfs(3) flags that `options` explicitly ask to clear."""
    return [name for st, (_, flag, name) in _STATVFS.items() if statvfs_flags & st and options.cleared & flag]


def inherited(statvfs_flags: int) -> int:
    """The attributes (MOUNT_ATTR_*) of a source with these statvfs(3) flags, without its access-time mode."""
    return sum(attr for st, (attr, _, _) in _STATVFS.items() if statvfs_flags & st)


def known() -> list[str]:
    """All options that are not passed to the file system (for `features`)."""
    return [*_FLAGS, *PROPAGATION, *_RECURSIVE, "idmap", "ridmap", "tmpcopyup"]
