"""Blows on files: one of the node's own is removed, emptied, or overwritten.

Files of images are left alone: they are the only copy of what was pulled. So are manifests, which the orders change,
and what containers have written into their volumes and layers.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from tests.chaos.blows import Blow, Family
from tests.chaos.machine import Machine

_GARBAGE = (b"", b"{", b"\0" * 64, b"\xff\xfe not json")


def _of_the_daemon(machine: Machine) -> list[Path]:
    """Files whose loss concerns no pod."""
    run = machine.run_dir
    found = [path for path in run.rglob("*") if "shims" not in path.relative_to(run).parts]
    return sorted(path for path in found if not path.is_dir())


def _of_pods(machine: Machine) -> list[Path]:
    """Files and directories of the records of pods, except sockets of the forkserver and what containers write."""
    found = list((machine.run_dir / "shims").glob("*/*"))
    found += [path for path in (machine.root / "pods").glob("*/*") if path.name != "volumes"]
    return sorted(found)


def _pod(machine: Machine, path: Path) -> frozenset[str]:
    """The uid of the pod that the file belongs to."""
    for top in (machine.run_dir / "shims", machine.root / "pods"):
        if path.is_relative_to(top):
            return frozenset({path.relative_to(top).parts[0]})
    return frozenset()


def _name(machine: Machine, path: Path) -> str:
    return str(path.relative_to(machine.base))


def remove_file(machine: Machine, rng: random.Random) -> Blow:
    found = _of_the_daemon(machine) if rng.random() < 0.5 else _of_pods(machine)
    if not found:
        return Blow("remove a file: there is none")
    path = rng.choice(found)
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        return Blow(f"remove {_name(machine, path)}: {error.strerror}", pods=_pod(machine, path))
    return Blow(f"remove {_name(machine, path)}", pods=_pod(machine, path))


def corrupt_file(machine: Machine, rng: random.Random) -> Blow:
    found = _of_the_daemon(machine) if rng.random() < 0.5 else _of_pods(machine)
    files = [path for path in found if path.is_file() and not path.is_symlink()]
    if not files:
        return Blow("corrupt a file: there is none")
    path, garbage = rng.choice(files), rng.choice(_GARBAGE)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        os.write(descriptor, garbage)
        os.close(descriptor)
    except OSError as error:
        return Blow(f"corrupt {_name(machine, path)}: {error.strerror}", pods=_pod(machine, path))
    return Blow(f"corrupt {_name(machine, path)} to {garbage[:8]!r}", pods=_pod(machine, path))


FAMILIES: dict[str, Family] = {"removed-file": remove_file, "corrupted-file": corrupt_file}
