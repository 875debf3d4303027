"""The default seccomp profile as data: the system calls that a container may make unless its manifest changes that.

This is the allow-list that docker, podman and containerd share (moby/profiles seccomp/default.json). Calls that are not
listed fail with EPERM. Groups depend on the container's capabilities, the machine and the kernel. `resolve` evaluates
these conditions and returns a plain OCI `linux.seccomp`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_EPERM, _ENOSYS = 1, 38


class Group(NamedTuple):
    """System calls that are allowed, or fail with `errno`, if all conditions hold."""

    names: str  # separated by white space
    caps: tuple[str, ...] = ()  # the container has all of these
    without_caps: tuple[str, ...] = ()  # the container has none of these
    arches: tuple[str, ...] = ()  # GOARCH names; the machine's is one of these
    without_arches: tuple[str, ...] = ()
    min_kernel: tuple[int, int] = (0, 0)
    arg: tuple[int, str, int] | None = None  # index, operator, value
    errno: int | None = None  # None: allow


# uname machine → the GOARCH name in the groups, and all architectures whose programs it runs
ARCHITECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "x86_64": ("amd64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": ("arm64", ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
    "riscv64": ("riscv64", ("SCMP_ARCH_RISCV64",)),
    "s390x": ("s390x", ("SCMP_ARCH_S390X", "SCMP_ARCH_S390")),
    "ppc64le": ("ppc64le", ("SCMP_ARCH_PPC64LE",)),
}

GROUPS: tuple[Group, ...] = (
    Group(
        """
        accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
        clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
        dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
        epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
        fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
        fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
        fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
        futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32
        geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp
        getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
        get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday
        getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
        inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64
        ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
        landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
        listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
        map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
        mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
        mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
        msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect
        open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
        pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
        pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
        recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
        renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending
        rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
        sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
        sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
        semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
        sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
        setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
        setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid
        setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
        sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount statx
        symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
        timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
        timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
        truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64
        utimes vfork vmsplice wait4 waitid waitpid write writev
        """,
    ),
    Group("socketcall"),
    Group(
        "process_vm_readv process_vm_writev ptrace",
        min_kernel=(4, 8),
    ),
    Group(
        "socket",
        arg=(0, "SCMP_CMP_LT", 38),
    ),
    Group(
        "socket",
        arg=(0, "SCMP_CMP_EQ", 39),
    ),
    Group(
        "socket",
        arg=(0, "SCMP_CMP_GT", 40),
    ),
    Group(
        "personality",
        arg=(0, "SCMP_CMP_EQ", 0),
    ),
    Group(
        "personality",
        arg=(0, "SCMP_CMP_EQ", 8),
    ),
    Group(
        "personality",
        arg=(0, "SCMP_CMP_EQ", 0x20000),
    ),
    Group(
        "personality",
        arg=(0, "SCMP_CMP_EQ", 0x20008),
    ),
    Group(
        "personality",
        arg=(0, "SCMP_CMP_EQ", 0xFFFFFFFF),
    ),
    Group(
        "sync_file_range2 swapcontext",
        arches=("ppc64le",),
    ),
    Group(
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        arches=(
            "arm",
            "arm64",
        ),
    ),
    Group(
        "arch_prctl",
        arches=(
            "amd64",
            "x32",
        ),
    ),
    Group(
        "modify_ldt",
        arches=(
            "amd64",
            "x32",
            "x86",
        ),
    ),
    Group(
        "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
        arches=(
            "s390",
            "s390x",
        ),
    ),
    Group(
        "riscv_flush_icache",
        arches=("riscv64",),
    ),
    Group(
        "open_by_handle_at",
        caps=("CAP_DAC_READ_SEARCH",),
    ),
    Group(
        """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open
        quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
        """,
        caps=("CAP_SYS_ADMIN",),
    ),
    Group(
        "clone",
        without_caps=("CAP_SYS_ADMIN",),
        without_arches=(
            "s390",
            "s390x",
        ),
        arg=(0, "SCMP_CMP_MASKED_EQ", 0x7E020000),
    ),
    Group(
        "clone",
        arches=(
            "s390",
            "s390x",
        ),
        without_caps=("CAP_SYS_ADMIN",),
        arg=(1, "SCMP_CMP_MASKED_EQ", 0x7E020000),
    ),
    Group(
        "clone3",
        without_caps=("CAP_SYS_ADMIN",),
        errno=38,
    ),
    Group(
        "reboot",
        caps=("CAP_SYS_BOOT",),
    ),
    Group(
        "chroot",
        caps=("CAP_SYS_CHROOT",),
    ),
    Group(
        "delete_module init_module finit_module",
        caps=("CAP_SYS_MODULE",),
    ),
    Group(
        "acct",
        caps=("CAP_SYS_PACCT",),
    ),
    Group(
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
        caps=("CAP_SYS_PTRACE",),
    ),
    Group(
        "iopl ioperm",
        caps=("CAP_SYS_RAWIO",),
    ),
    Group(
        "settimeofday stime clock_settime clock_settime64",
        caps=("CAP_SYS_TIME",),
    ),
    Group(
        "vhangup",
        caps=("CAP_SYS_TTY_CONFIG",),
    ),
    Group(
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        caps=("CAP_SYS_NICE",),
    ),
    Group(
        "syslog",
        caps=("CAP_SYSLOG",),
    ),
    Group(
        "bpf",
        caps=("CAP_BPF",),
    ),
    Group(
        "perf_event_open",
        caps=("CAP_PERFMON",),
    ),
)


def resolve(
    caps: frozenset[str], *, machine: str, kernel: tuple[int, int], socketcall: bool = True
) -> dict[str, Any]:
    """The profile as OCI `linux.seccomp` for a container with these capabilities (its bounding set). Pure.

    An unknown machine gets the list without the groups that depend on an architecture. Without `socketcall`, that call
    fails with ENOSYS. An errno other than the default's keeps libseccomp from allowing it after all: a rule for
    socket(2) makes it add one for socketcall(2).
    """
    goarch, architectures = ARCHITECTURES.get(machine, ("", ()))
    chosen = [group for group in GROUPS if _holds(group, caps, goarch, kernel)]
    if not socketcall:
        refused = Group("socketcall", errno=_ENOSYS)
        chosen = [refused, *(group for group in chosen if group.names != refused.names)]
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "syscalls": [_rule(group) for group in chosen],
    }
    if architectures:
        profile["architectures"] = list(architectures)
    return profile


def _holds(group: Group, caps: frozenset[str], goarch: str, kernel: tuple[int, int]) -> bool:
    return (
        caps.issuperset(group.caps)
        and caps.isdisjoint(group.without_caps)
        and (not group.arches or goarch in group.arches)
        and goarch not in group.without_arches
        and kernel >= group.min_kernel
    )


def _rule(group: Group) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": group.names.split(), "action": "SCMP_ACT_ALLOW"}
    if group.errno is not None:
        rule |= {"action": "SCMP_ACT_ERRNO", "errnoRet": group.errno}
    if group.arg is not None:
        index, operator, value = group.arg
        # MASKED_EQ compares (argument & value) with valueTwo
        rule["args"] = [{"index": index, "value": value, "valueTwo": 0, "op": operator}]
    return rule
