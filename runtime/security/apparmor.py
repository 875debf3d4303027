"""The default AppArmor profile of containers: its text, and how it is loaded into the kernel.

It restricts what docker's and containerd's default profiles restrict: no mounts, no writes to /proc and /sys except
where a container needs them, no tracing of processes outside the profile. Everything else is left to capabilities,
seccomp and namespaces. docs/explanation/security.md has the rules in words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

from runtime.errors import CapabilityError

PARSER = "apparmor_parser"
PROFILES = "/sys/kernel/security/apparmor/profiles"  # one "NAME (MODE)" a line
PATIENCE = 30.0  # seconds that the parser may take; it needs 0.02
#: Policy of AppArmor 3.0. Without it, the rules that a newer parser knows (user namespaces, message queues, io_uring)
#: would deny by default what this profile does not name.
_ABI = "abi/3.0"
_POLICY = "/etc/apparmor.d"


def load(name: str) -> None:
    """Load the profile, or replace it in the kernel by this version. Processes that it confines are confined by the new
    one at once. Raises CapabilityError, which says what to do."""
    # The parser is in a directory that a PATH may lack.
    parser = shutil.which(PARSER, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if parser is None:
        raise CapabilityError(f"{PARSER} is not installed (Debian and Ubuntu: apt install apparmor)")
    try:
        done = subprocess.run(
            [parser, "--replace", "--skip-cache"],
            input=profile(name, abi=os.path.exists(f"{_POLICY}/{_ABI}")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CapabilityError(f"{PARSER} did not end within {PATIENCE:g} seconds") from None
    except OSError as error:
        raise CapabilityError(f"{parser}: {os.strerror(error.errno or 0)}") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise CapabilityError(f"{PARSER}: {said}")
    if not loaded(name):
        raise CapabilityError(f"{PARSER} succeeded, but {PROFILES} does not list {name}")


def loaded(name: str) -> bool:
    """Whether the kernel has a profile of this name."""
    try:
        with open(PROFILES, encoding="utf-8", errors="replace") as file:
            return any(line.rpartition(" (")[0] == name for line in file)
    except OSError:
        return False


def profile(name: str, *, abi: bool = True) -> str:
    """The profile as apparmor_parser reads it (apparmor.d(5)). A `deny` has precedence over every other rule, so a
    directory with one writable entry is denied by the names that are not that entry."""
    rules = [
        "network,",
        "capability,",
        "file,",
        "umount,",
        # The node's own processes and those of another runtime (runtimeClassName) stop the container.
        *(f"signal (receive) peer={peer}," for peer in ("unconfined", "runc", "crun")),
        f"signal (send, receive) peer={name},",
        'signal (send, receive) set=("exists"),',
        # Who reads /proc/PID/ns or attaches a debugger needs the right to do so, and has it outside of the profile.
        "ptrace (tracedby, readby),",
        f"ptrace (trace, read) peer={name},",
        "deny mount,",
        # /proc: a process may write to its own directory, and to /proc/sys/kernel/shm*.
        "deny /proc/* w,",
        *(f"deny /proc/{other}/** w," for other in _others("sys", first="[^0-9s/]")),
        *(f"deny /proc/sys/{other}/** w," for other in _others("kernel")),
        *(f"deny /proc/sys/kernel/{other} w," for other in _not_beginning("shm")),
        "deny /proc/sysrq-trigger rwklx,",
        "deny /proc/kcore rwklx,",
        # /sys: a container may write to its cgroups, if their mount lets it.
        *(f"deny /sys/{other}/** wklx," for other in _others("fs")),
        *(f"deny /sys/fs/{other}/** wklx," for other in _others("cgroup")),
        *(
            f"deny /sys/{path}/** rwklx,"
            for path in ("firmware", "devices/virtual/powercap", "kernel/security")
        ),
    ]
    head = [f"abi <{_ABI}>,"] if abi else []
    body = [f"  {rule}" for rule in rules]
    return "\n".join(
        [*head, f"profile {name} flags=(attach_disconnected, mediate_deleted) {{", *body, "}", ""]
    )


def _others(word: str, *, first: str = "") -> Iterator[str]:
    """Patterns that together match every name of a directory but `word`. `first`: the pattern of the first character,
    if it is not that of the word alone."""
    yield f"{first or f'[^{word[0]}/]'}*"
    for length in range(1, len(word)):
        yield word[:length]
        yield f"{word[:length]}[^{word[length]}/]*"
    yield f"{word}?*"


def _not_beginning(word: str) -> Iterator[str]:
    """Patterns that together match every path below a directory that does not begin with `word`."""
    yield f"[^{word[0]}/]**"
    for length in range(1, len(word)):
        yield word[:length]
        yield f"{word[:length]}[^{word[length]}]**"
