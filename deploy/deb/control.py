"""Print the control file of the Debian package in the directory given by the first argument. The second argument is the
version (empty: the project's version with revision 1). Run it with the package's own interpreter.

The package's environment needs one minor version of Python, and the C library for which its compiled modules were built
(PEP 600).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

DESCRIPTION = """\
container node for one machine: runs Kubernetes pods from a directory
 kubelite runs pods from manifests in a directory, as a Kubernetes node does:
 restarts, probes, limits, volumes, logs, events, metrics and rolling edits. It
 makes the containers itself, from namespaces, cgroups, overlay and veth, and
 needs no API server, containerd or runc.
 .
 kubelite-oci is its container engine alone, with the command line of runc.
"""


def main() -> None:
    tree, version = Path(sys.argv[1]), sys.argv[2]
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    fields = {
        "Package": "kubelite",
        "Version": version or f"{project['version']}-1",
        "Architecture": printed("dpkg", "--print-architecture"),
        "Maintainer": maintainer(project),
        "Installed-Size": str(size(tree)),
        "Depends": ", ".join(depends()),
        "Recommends": "apparmor, ca-certificates, e2fsprogs, tzdata",
        "Suggests": "busybox-static, git, uidmap, xfsprogs",
        "Section": "admin",
        "Priority": "optional",
        "Homepage": project.get("urls", {}).get("Homepage", ""),
        "Description": DESCRIPTION.rstrip(),
    }
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in fields.items() if value))


def depends() -> list[str]:
    major, minor = sys.version_info[:2]
    return [
        f"python3 (>= {major}.{minor}~)",
        f"python3 (<< {major}.{minor + 1})",
        f"libc6 (>= {libc()})",
        "libseccomp2",
        "init-system-helpers (>= 1.54~)",
    ]


def libc() -> str:
    """The newest C library that a wheel in this environment was built for."""
    found = [(2, 17)]
    for distribution in distributions():
        for tag in re.findall(r"^Tag: (.*)$", distribution.read_text("WHEEL") or "", re.MULTILINE):
            if match := re.search(r"-manylinux_(\d+)_(\d+)_", tag):
                found.append((int(match[1]), int(match[2])))
            elif not re.search(
                r"-any$|-manylinux(1|2010|2014)_", tag
            ):  # older names stand for 2.17 and older
                raise SystemExit(f"{distribution.name} was built here: what it needs is not known ({tag})")
    return ".".join(map(str, max(found)))


def maintainer(project: dict[str, list[dict[str, str]]]) -> str:
    name = os.environ.get("DEBFULLNAME") or next(
        (a["name"] for a in project.get("authors", ())), "kubelite contributors"
    )
    address = os.environ.get("DEBEMAIL")
    return f"{name} <{address}>" if address else name


def size(tree: Path) -> int:
    """The size in KiB: files rounded up, every other object 1 (deb-substvars(5))."""
    every = [path for path in tree.rglob("*") if "DEBIAN" not in path.relative_to(tree).parts]
    return sum(
        -(-path.stat().st_size // 1024) if path.is_file() and not path.is_symlink() else 1 for path in every
    )


def printed(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
