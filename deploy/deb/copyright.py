"""Print the copyright file of the Debian package: kubelite's license, and those of the packages in its environment,
from their metadata. Run it with the package's own interpreter."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: kubelite
Comment: The package contains the Python packages that kubelite depends on. Their licences are in full below
 {venv}/lib, in the directories *.dist-info.

Files: *
Copyright: kubelite contributors
License: Apache-2.0

License: Apache-2.0
 On Debian systems, the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
"""


def main() -> None:
    venv = sys.argv[1]
    sys.stdout.write(HEAD.format(venv=venv[venv.index("/usr/lib/") :]))
    for found in sorted(distributions(), key=lambda one: one.name.lower()):
        if found.name != "kubelite":
            words = f"Files: {package(found)}\nCopyright: {holder(found)}\nLicense: {licence(found)}"
            sys.stdout.write(f"\n{words}\n")


def package(found: Distribution) -> str:
    return f"usr/lib/kubelite/venv/lib/*/{found.name} (version {found.version})"


def holder(found: Distribution) -> str:
    meta = found.metadata
    return meta.get("Author") or meta.get("Author-email") or f"the authors of {found.name}"


def licence(found: Distribution) -> str:
    """The SPDX expression, otherwise the classifier, otherwise the first line of the license text."""
    meta = found.metadata
    if expression := meta.get("License-Expression"):
        return expression
    classifiers = [
        c.rpartition(" :: ")[2] for c in meta.get_all("Classifier", []) if c.startswith("License ::")
    ]
    if classifiers:
        return " and ".join(dict.fromkeys(classifiers))
    words = (meta.get("License") or "").strip().splitlines()
    if not words:
        raise SystemExit(f"{found.name} does not say what its licence is")
    return re.sub(r"\s+", " ", words[0])


if __name__ == "__main__":
    main()
