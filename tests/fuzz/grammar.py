# ruff: noqa: E501 - tables, a line an entry
"""config.json from a grammar of the specification: each field is mostly valid and sometimes invalid in a specific way.
All randomness comes from one `random.Random`, so a seed and a number identify a case."""

from __future__ import annotations

from random import Random
from typing import Any

KINDS = ("pid", "network", "mount", "ipc", "uts", "cgroup", "user", "time")
PROGRAMS: tuple[list[str], ...] = (
    ["true"],
    ["/bin/true"],
    ["sh", "-c", "exit 3"],
    ["nowhere"],
    ["/etc/passwd"],
    ["/tmp"],
    [""],
    [],
)
PATHS = (
    "/",
    "/tmp",
    "/made/here",
    "/proc/self/fd/7",
    "/dev/null",
    "/link",
    "tmp",
    "",
    "/../../x",
    "//",
    "/etc/passwd",
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    1000,
    4096,
    65536,
    1 << 20,
    1 << 31,
    1 << 32,
    1 << 53,
    (1 << 63) - 1,
    1 << 63,
    1 << 64,
    10**30,
)
OPTIONS = (
    "ro", "rw", "nosuid", "nodev", "noexec", "bind", "rbind", "rprivate", "rshared", "slave", "unbindable", "noatime",
    "strictatime", "relatime", "rro", "rnoexec", "ratime", "tmpcopyup", "idmap", "ridmap", "mode=755", "size=64k",
    "size=nonsense", "newinstance", "ptmxmode=0666", "gid=5", "unknown", "", "remount", "private", "copy_up",
)  # fmt: skip
CAPS = (
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_SYS_ADMIN",
    "CAP_NET_RAW",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_NOSUCH",
    "kill",
    "",
)
SYSCALLS = ("read", "write", "execve", "exit_group", "mount", "ptrace", "clone", "nosuchcall", "")
ACTIONS = (
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_LOG",
    "SCMP_ACT_KILL",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_NONE",
)


class Grammar:
    """One case. `fault`: the probability that a field is invalid."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.fault = random.choice((0.0, 0.0, 0.02, 0.1, 0.4))

    def config(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "ociVersion": self.pick(("1.0.2", "1.2.0", "1.3.0"), ("2.0.0", "", "one", None, 1)),
            "root": {
                "path": self.pick(
                    ("rootfs",), ("", "nowhere", "rootfs/etc/passwd", "rootfs/link", "root\0fs")
                )
            },
            "process": self.process(),
            "mounts": [*self.usual_mounts(), *(self.mount() for _ in range(self.count(3)))],
            "linux": self.linux(),
        }
        if self.maybe(0.2):
            made["root"]["readonly"] = self.pick((True, False), ("yes", 1, None))
        if self.maybe(0.3):
            made["hostname"] = self.pick(("box", "a" * 64), ("a" * 300, "", "\ud800", 5))
        if self.maybe(0.1):
            made["domainname"] = self.pick(("example",), ("x" * 100, None))
        if self.maybe(0.3):
            made["annotations"] = self.pick(({"a": "b"}, {}), ({"a": 1}, [], "text"))
        if self.maybe(0.2):
            made["hooks"] = {self.hook_kind(): [self.hook() for _ in range(self.count(2))]}
        return made

    # --- chance ---

    def maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    def pick(self, right: tuple[Any, ...], wrong: tuple[Any, ...] = ()) -> Any:
        return self.random.choice(wrong if wrong and self.maybe(self.fault) else right)

    def count(self, most: int) -> int:
        return self.random.randint(0, most)

    def some(self, of: tuple[Any, ...], most: int = 4) -> list[Any]:
        return [self.random.choice(of) for _ in range(self.count(most))]

    def number(self, *right: int) -> Any:
        return self.pick(right or (1, 2, 100), (*NUMBERS, -5, 1.5, "1", True, None, [], float("nan")))

    def chosen(self, fields: dict[str, Any], chance: float = 0.3) -> dict[str, Any]:
        """Some of the fields; callable values are evaluated only if chosen."""
        return {
            key: value() if callable(value) else value for key, value in fields.items() if self.maybe(chance)
        }

    # --- parts ---

    def process(self) -> Any:
        made = {
            "args": self.pick(PROGRAMS[:3], (*PROGRAMS[3:], None, "true", [1], ["a\0b"])),
            "cwd": self.pick(("/", "/tmp"), PATHS),
            "env": self.pick(
                (["PATH=/bin"], ["PATH=/bin", "A="]), (["novalue"], ["=x"], [None], "PATH=/bin", ["A=\ud800"])
            ),
            "user": {"uid": self.number(0, 1000), "gid": self.number(0, 1000)},
        }
        made |= self.chosen(
            {
                "terminal": lambda: self.pick((False,), (True, "no")),
                "noNewPrivileges": lambda: self.pick((True, False), ("yes",)),
                "oomScoreAdj": lambda: self.number(0, 500, 1000),
                "capabilities": self.capabilities,
                "rlimits": lambda: [self.rlimit() for _ in range(self.count(3))],
                "apparmorProfile": lambda: self.pick(("", "unconfined"), ("nosuch", 1)),
                "selinuxLabel": lambda: self.pick(("",), ("a:b:c", 1)),
                "consoleSize": lambda: {"height": self.number(24), "width": self.number(80)},
                "scheduler": lambda: {
                    "policy": self.pick(("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_NONE", 1, "SCHED_DEADLINE")),
                    "nice": self.number(0, 5),
                    "flags": self.pick(([], ["SCHED_FLAG_RESET_ON_FORK"]), (["X"], "X", [1])),
                },
                "ioPriority": lambda: {
                    "class": self.pick(("IOPRIO_CLASS_BE",), ("X", 1)),
                    "priority": self.number(4),
                },
                "execCPUAffinity": lambda: {
                    "initial": self.pick(("0", "0-1"), ("x", "9-1", "0-99999999", "-", 1))
                },
                "commandLine": lambda: self.pick(("",), ("dir", 1)),
            },
            0.12,
        )
        if self.maybe(0.2):
            made["user"] |= self.chosen(
                {"umask": self.number(18), "additionalGids": self.some((1, 5, -1, "x", 1 << 33), 3)}
            )
        return made

    def capabilities(self) -> Any:
        kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
        return self.chosen({kind: self.some(CAPS) for kind in kinds}, 0.6)

    def rlimit(self) -> Any:
        names = ("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_STACK")
        return {
            "type": self.pick(names, ("RLIMIT_X", "", 1)), "soft": self.number(1024), "hard": self.number(4096, 1 << 20),
        }  # fmt: skip

    def usual_mounts(self) -> list[dict[str, Any]]:
        usual = [("/proc", "proc", []), ("/dev", "tmpfs", ["nosuid", "mode=755"]), ("/dev/pts", "devpts", ["newinstance"]),
                 ("/dev/shm", "tmpfs", ["size=64k"]), ("/sys", "sysfs", ["ro"])]  # fmt: skip
        return [
            {"destination": target, "type": kind, "source": kind, "options": options}
            for target, kind, options in usual
            if self.maybe(0.85)
        ]

    def mount(self) -> Any:
        made = {
            "destination": self.pick(
                ("/tmp/a", "/data", "/made/here"), (*PATHS, "/proc/self", "/proc", "/sys/x", None, 1)
            ),
            "type": self.pick(
                ("tmpfs", "bind", "mqueue", "cgroup"), ("proc", "ext4", "nosuch", "", "overlay", None, 7)
            ),
            "source": self.pick(
                ("tmpfs", "SOURCE", "SOURCE/file"), ("nowhere", "", "/dev/nosuch", "SOURCE/loop", None)
            ),
            "options": self.some(OPTIONS),
        }
        if self.maybe(0.1):
            made["uidMappings"], made["gidMappings"] = self.mappings(), self.mappings()
        return made

    def mappings(self) -> Any:
        entry = {"containerID": self.number(0), "hostID": self.number(100_000), "size": self.number(65536)}
        return self.pick(([entry],), ([], [entry, entry], [{}], None))

    def hook_kind(self) -> str:
        kinds = (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
            "nosuch",
        )
        return self.random.choice(kinds)

    def hook(self) -> Any:
        made = {"path": self.pick(("/bin/true",), ("/bin/false", "/nowhere", "true", "", None, 1))}
        return made | self.chosen(
            {
                "args": self.pick((["true"],), ("true", [1])),
                "env": self.pick((["A=b"],), (["A"], [1])),
                "timeout": self.number(5),
            }
        )

    def linux(self) -> dict[str, Any]:
        kinds = [kind for kind in KINDS[:5] if not self.maybe(self.fault)]
        kinds += [kind for kind in KINDS[5:] if self.maybe(0.1)]
        spaces: list[Any] = [{"type": kind} for kind in kinds]
        if self.maybe(self.fault):
            spaces.append(self.random.choice((
                {"type": "pid"}, {"type": "X"}, {}, None, {"type": "network", "path": "/proc/self/ns/net"},
                {"type": "ipc", "path": "/proc/self/ns/net"}, {"type": "uts", "path": "nowhere"},
                {"type": "mount", "path": "/proc/self/ns/mnt"}, {"type": "user", "path": "/proc/self/ns/user"},
            )))  # fmt: skip
        made: dict[str, Any] = {"namespaces": spaces, "resources": self.resources()}
        if "user" in kinds or self.maybe(self.fault):
            made["uidMappings"], made["gidMappings"] = self.mappings(), self.mappings()
        return made | self.chosen(
            {
                "cgroupsPath": lambda: self.pick(("CGROUP",), ("CGROUP/../..", "a:b:c", "", None, 1)),
                "devices": lambda: [self.device() for _ in range(self.count(3))],
                "rootfsPropagation": lambda: self.pick(
                    ("", "slave", "rprivate", "shared"), ("x", 1, "unbindable")
                ),
                "maskedPaths": lambda: self.some(
                    ("/proc/kcore", "/etc", "/etc/passwd", "/nowhere", "/link", "rel", ""), 3
                ),
                "readonlyPaths": lambda: self.some(("/proc/sys", "/etc", "/nowhere", "/link", "rel"), 3),
                "sysctl": lambda: self.pick(
                    ({"net.ipv4.ip_forward": "1"}, {"kernel.shmmax": "65536"}),
                    (
                        {"kernel.pid_max": "1"},
                        {"net..x": "1"},
                        {"net/../kernel/x": "1"},
                        {"net.x": 1},
                        {"net.ipv4.\0": "1"},
                    ),
                ),
                "seccomp": self.seccomp,
                "personality": lambda: {"domain": self.pick(("LINUX",), ("X", 1, ""))},
                "timeOffsets": lambda: self.pick(
                    ({},),
                    (
                        {"boottime": {"secs": self.number(10), "nanosecs": self.number(5)}},
                        {"x": {}},
                        {"monotonic": 1},
                    ),
                ),
                "intelRdt": lambda: self.pick(({},), ({"closID": "x"}, 1)),
                "memoryPolicy": lambda: self.pick(({},), ({"mode": "MPOL_LOCAL"}, "x")),
                "mountLabel": lambda: self.pick(("",), ("x", 1)),
            },
            0.15,
        )

    def device(self) -> Any:
        return {
            "type": self.pick(("c", "b", "p", "u"), ("x", "", None)),
            "path": self.pick(("/dev/mine", "/dev/deep/er"), (*PATHS, "/dev/pts/9")),
            "major": self.number(1, 10), "minor": self.number(3, 229), "fileMode": self.number(0o666), "uid": self.number(0),
        }  # fmt: skip

    def resources(self) -> Any:
        rule = {"allow": self.pick((True, False), (None, 1)), "access": self.pick(("rwm", "r"), ("x", 1)),
                "type": self.pick(("c", "b"), ("a", "x")), "major": self.number(1), "minor": self.number(3, -1)}  # fmt: skip
        block = {
            "major": self.number(8),
            "minor": self.number(0),
            "rate": self.number(1 << 20),
            "weight": self.number(100),
        }
        return self.chosen(
            {
                "devices": [{"allow": False, "access": "rwm"}, *([rule] if self.maybe(0.5) else [])],
                "memory": self.chosen({
                    "limit": self.number(64 << 20), "reservation": self.number(32 << 20), "swap": self.number(64 << 20, -1),
                    "swappiness": self.number(60), "disableOOMKiller": self.pick((False,), ("x",)), "kernel": self.number(-1),
                }),
                "cpu": self.chosen({
                    "shares": self.number(512, 1024), "quota": self.number(50_000, -1), "period": self.number(100_000),
                    "burst": self.number(0), "idle": self.number(0), "cpus": self.pick(("0", "0-1"), ("x", "99", 1)),
                    "mems": self.pick(("0",), ("x",)), "realtimePeriod": self.number(0),
                }),
                "pids": {"limit": self.number(100, 1000, -1, 0)},
                "blockIO": self.chosen({
                    "weight": self.number(100, 500), "weightDevice": [block], "throttleReadBpsDevice": [block],
                    "leafWeight": self.number(0),
                }),
                "hugepageLimits": [{"pageSize": self.pick(("2MB",), ("7KB", "../x", 1)), "limit": self.number(0)}],
                "network": {"classID": self.number(0), "priorities": self.pick(([], None), ([{"name": "lo", "priority": 1}],))},
                "rdma": self.pick(({},), ({"mlx5_0": {"hcaHandles": 1}}, {"x": 1})),
                "unified": self.pick(({}, {"memory.oom.group": "1"}), ({"x": "1"}, {"a/b.c": "1"}, {"memory.high": 1})),
            },
            0.2,
        )  # fmt: skip

    def seccomp(self) -> Any:
        rule = {
            "names": self.pick((self.some(SYSCALLS, 3),), (None, "read", [1])),
            "action": self.pick(ACTIONS[:4], (*ACTIONS, None)),
            "args": self.pick(
                ([], [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]),
                (
                    [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}],
                    [{"index": 0, "value": -1, "op": "X"}],
                    [None],
                    [{}],
                ),
            ),
        }
        made: dict[str, Any] = {"defaultAction": self.pick(ACTIONS[:1], (*ACTIONS, None)), "syscalls": [rule]}
        return made | self.chosen(
            {
                "architectures": self.pick((["SCMP_ARCH_X86_64"],), (["SCMP_ARCH_Z80"], [1], "x")),
                "flags": self.pick((["SECCOMP_FILTER_FLAG_LOG"],), (["X"], [1])),
                "defaultErrnoRet": self.number(1, 38),
                "listenerPath": "/nowhere",
            }
        )
