"""`-k DIR`: builds a kustomization with the program that the machine has, `kustomize` or `kubectl`.

There is no library for Python. Both programs have the same code; a `kustomize` of its own is the newer one.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from kubelite.cli.errors import CliError
from kubelite.cli.output.waiting import waiting

BUILDERS = (("kustomize", "build"), ("kubectl", "kustomize"))
_MISSING = (
    "error: -k needs the program kustomize or kubectl: `apt-get install kustomize` (or kubernetes-client) on Debian, "
    "otherwise see https://kubectl.docs.kubernetes.io/installation/kustomize"
)


def built(directory: str) -> tuple[str, bytes]:
    """Return a file name and the text of what the kustomization makes. Raises CliError."""
    command = next((one for one in BUILDERS if shutil.which(one[0])), None)
    if command is None:
        raise CliError(_MISSING)
    with waiting(f"building {directory}"):
        done = subprocess.run([*command, "--", directory], capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().removeprefix("error: ").removeprefix("Error: ")
        raise CliError(f"error: {' '.join(command)} {directory} failed: {words}")
    if not done.stdout.strip():
        raise CliError(f"error: the kustomization {directory} makes no objects")
    return _name(directory), done.stdout


def _name(directory: str) -> str:
    """Return the name of the file for new objects: that of the directory; - for a kustomization from elsewhere."""
    if not os.path.isdir(directory):
        return "-"
    return f"{os.path.basename(os.path.realpath(directory)) or 'kustomization'}.yaml"
