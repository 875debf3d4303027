"""The engine's own executable cannot be overwritten from a container (CVE-2019-5736)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import runtime
from runtime import syscalls as sc

pytestmark = pytest.mark.kernel

ROOT = str(Path(runtime.__file__).parent.parent)


def run(code: str) -> str:
    script = f"import sys; sys.path.insert(0, {ROOT!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_executes_itself_once_with_its_arguments() -> None:
    said = run(
        "from runtime.oci import sealed; sealed.reexecute(); print(sealed.is_sealed(), sys.flags.isolated)"
    )
    assert said == "True 1\n"


def test_the_sealed_executable_is_on_no_mount_table() -> None:
    code = "from runtime.oci import sealed; sealed.reexecute(); print(open('/proc/self/mountinfo').read())"
    assert os.path.realpath(sys.executable) not in run(code)


LOOK = """
import os, json
from runtime.oci import sealed
SEAL
from runtime.oci.container import Stdio, create
made = create(json.loads(SPEC), container_id="c", bundle="/", stdio=Stdio(0, 1, 2), rootfs=None, cgroup_path=CGROUP)
fd = os.open(f"/proc/{made.pid}/exe", os.O_PATH)
print(bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY))
made.delete()
os.waitpid(made.pid, 0)
"""


@pytest.mark.parametrize("sealed", [True, False])
def test_what_a_container_sees_of_it(
    tmp_path: Path, cgroup_name: str, busybox_rootfs: Path, sealed: bool
) -> None:
    """A created container still runs the interpreter, so an attacker can reach it through /proc/<pid>/exe."""
    copy = tmp_path / "root"
    shutil.copytree(busybox_rootfs, copy, symlinks=True)
    spec = {
        "ociVersion": "1.2.0",
        "root": {"path": str(copy)},
        "process": {"args": ["/bin/true"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    }
    code = LOOK.replace("SEAL", "sealed.reexecute()" if sealed else "").replace(
        "SPEC", repr(json.dumps(spec))
    )
    assert run(code.replace("CGROUP", repr(f"{cgroup_name}/c"))) == f"{sealed}\n"


def test_such_a_mount_cannot_be_written_through_its_descriptor(tmp_path: Path) -> None:
    """The last step of the attack, on a file that is not being executed (otherwise ETXTBSY comes first)."""
    (tmp_path / "file").write_text("whole")
    tree = sc.open_tree(sc.AT_FDCWD, str(tmp_path / "file"), sc.OPEN_TREE_CLONE)
    sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY)
    held = os.open(f"/proc/self/fd/{tree}", os.O_RDONLY)
    with pytest.raises(OSError, match="Read-only"):
        os.open(f"/proc/self/fd/{held}", os.O_WRONLY)
    os.close(held)
    os.close(tree)
