"""kubelite's engine as a library in a warm process, for the row "engine alone". Orders are lines of JSON.

{"start": ID, "bundle": DIRECTORY, "out": FILE} → {"began": Unix nanoseconds}; {"delete": ID} → {}. The clock begins
with the order in hand: reading and validating config.json is in it, as it is for runc and crun.
"""

from __future__ import annotations

import json
import os
import sys
import time

from runtime.oci import container as engine
from runtime.oci.container import Container, Stdio


def main() -> None:
    running: dict[str, Container] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if name := order.get("start"):
            began = time.time_ns()
            running[name] = _start(name, order["bundle"], order["out"])
            answer = {"began": began}
        else:
            made = running.pop(order["delete"])
            made.delete()
            os.waitpid(made.pid, 0)
            answer = {}
        print(json.dumps(answer), flush=True)


def _start(name: str, bundle: str, out: str) -> Container:
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        spec = json.load(file)
    null = os.open("/dev/null", os.O_RDWR)
    output = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        made = engine.create(
            spec,
            container_id=name,
            bundle=bundle,
            stdio=Stdio(null, output, null),
            rootfs=None,
            cgroup_path=spec["linux"]["cgroupsPath"],
        )
        made.start()
    finally:
        os.close(null)
        os.close(output)
    return made
