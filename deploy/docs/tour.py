"""Write the pages of docs/tutorials/tour: `sudo python -m deploy.docs.tour [STATION...]` records `kubelite tour`.

The node runs in namespaces of its own, at its usual paths, as for the recording of the main job (record.py).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Final

from deploy.docs.record import KUBELITE, REPO, namespaces, node
from kubelite.cli.tour.tour import STATIONS, Station

PAGES: Final = REPO / "docs/tutorials/tour"
NOTE: Final = """<!-- Written by `sudo python -m deploy.docs.tour`, from kubelite/cli/tour/{name}.py: do not edit. -->

Walk this station on your own node: `sudo kubelite tour {name}`. What follows is the record of one walk. A line with ✓
is a check that the tour made there, and makes on your machine, too.

"""


def page(station: Station, walk: str) -> str:
    """The page of a station: a note below its title, the recorded session, and a link to the next station."""
    title, _, rest = walk.partition("\n\n")
    note = NOTE.format(name=station.name)
    place = STATIONS.index(station)
    ahead = STATIONS[place + 1] if place + 1 < len(STATIONS) else None
    way = f"Next: [{ahead.title}]({ahead.name}.md)." if ahead else "Back to [the tour](index.md)."
    return f"{title}\n\n{note}{rest.rstrip()}\n\n{way}\n"


def inside(names: list[str]) -> int:
    environment = namespaces("tour")
    chosen = [station for station in STATIONS if not names or station.name in names]
    failed = 0
    with node(environment):
        for station in chosen:
            done = subprocess.run(
                [KUBELITE, "tour", station.name, "--kill-daemon", "-o", "markdown"], env=environment, text=True,
                stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            if done.returncode:
                print(f"{station.name}: failed\n{done.stdout}", file=sys.stderr)
                failed = 1
                continue
            walk = done.stdout.replace(sys.executable, "python3").replace(str(REPO), "/home/me/kubelite")
            release = os.uname().release
            walk = walk.replace(release, release.partition("-")[0])
            (PAGES / f"{station.name}.md").write_text(page(station, walk), encoding="utf-8")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.docs.tour", description=__doc__)
    parser.add_argument("stations", nargs="*")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return inside(given.stations)
    if os.geteuid() != 0:
        print("a node needs root: sudo python -m deploy.docs.tour", file=sys.stderr)
        return 1
    apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*apart, sys.executable, "-m", "deploy.docs.tour", "--inside", *given.stations]
    return subprocess.run(command, cwd=REPO, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
