"""kubelite, a container node for one machine.

In a checkout the four packages are neighbours. In a wheel only `kubelite` is at the top: `manifests`, `runtime` and
`state` are names that other projects use, too, so `setup.py` puts these three into `kubelite/_packages`. Wherever they
are, their directory comes first in the search path, ahead of other packages of the same name.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _find_packages() -> None:
    place = os.path.join(_HERE, "_packages")
    if not os.path.isdir(place):
        place = os.path.dirname(_HERE)
    for name in ("manifests", "runtime", "state"):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is not None and not origin.startswith(place + os.sep):
            raise ImportError(
                f"kubelite needs its own package {name!r}, but {origin} is already imported: "
                "install kubelite into a virtual environment of its own"
            )
    if sys.path[:1] != [place]:
        sys.path.insert(0, place)


_find_packages()
