"""Station 6: history, stages, the build cache, cache mounts, a registry on loopback, and content addressing by hand."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from typing import Any

from kubelite.cli.errors import CliError
from kubelite.cli.tour import kernel
from kubelite.cli.tour.guide import IMAGE, IMAGES, Guide

INTRODUCTION = """
An image is a manifest that names a config and layers by the digests of their content, so a name may move and a digest
never does. A build step whose inputs are unchanged is taken from the cache, so what changes often belongs at the end
of a Containerfile. Registries, docker and kubelite exchange exactly these blobs, which anyone can verify with
sha256sum.
"""
APP = f"{IMAGES}app:1"
STAGES = f"""FROM {IMAGE} AS builder
RUN dd if=/dev/zero of=/toolchain bs=1M count=8 2>/dev/null && echo built > /program
FROM {IMAGE}
COPY --from=builder /program /program
CMD ["cat", "/program"]
"""
SLOW = "RUN sleep 2 && echo installed > /dependencies"
LATE = f"FROM {IMAGE}\n{SLOW}\nCOPY source /source\n"
EARLY = f"FROM {IMAGE}\nCOPY source /source\n{SLOW}\n"


def visit(guide: Guide) -> None:
    guide.image()
    _stages(guide)
    _invalidation(guide)
    _cache_mount(guide)
    _digests(guide)
    with guide.optional("push and pull through a registry"):
        _registry(guide)


def _stages(guide: Guide) -> None:
    guide.step("Two stages, and the history of the result")
    guide.write("Containerfile", STAGES)
    guide.run("cat Containerfile")
    guide.run(f"kubelite build -t {APP} .", lines=20)
    guide.run(f"kubelite build --target builder -t {IMAGES}builder:1 .", lines=20)
    guide.run("kubelite images | grep -E 'REPOSITORY|kubelite-tour'")
    guide.run(f"kubelite image history {APP}")
    whole, final = (_inspect(guide, name)["size"] for name in (f"{IMAGES}builder:1", APP))
    guide.say("The toolchain stays in the first stage: the image has only what COPY --from took out of it.")
    guide.check(
        "the final image is at least the toolchain's 8 MiB smaller on disk", _unpacked(guide, final, whole)
    )


def _unpacked(guide: Guide, final: int, whole: int) -> bool:
    """Whether no layer of the final image has the toolchain, which the builder's top layer has. Zeros compress well, so
    the sizes of blobs would not show it."""
    layers = _inspect(guide, APP)["layers"]
    below = _inspect(guide, f"{IMAGES}builder:1")["layers"]
    has = [os.path.exists(f"{path}/toolchain") for path in layers]
    return not any(has) and os.path.getsize(f"{below[0]}/toolchain") == 8 << 20 and final < whole


def _invalidation(guide: Guide) -> None:
    guide.step("What a changed file costs, by the order of COPY and RUN")
    for name, text in (("late", LATE), ("early", EARLY)):
        guide.write(name, text)
        guide.run(f"cat {name}")
    guide.write("source", f"version 1 of {time.time_ns()}\n")
    times, shown = {}, {}
    for name in ("late", "early"):
        guide.ask(f"kubelite build -q -f {name} -t {IMAGES}{name}:1 .")
    guide.say("Both images are built. Now change the source and build them again.")
    guide.run("echo 'version 2' >> source")
    for name in ("late", "early"):
        began = time.monotonic()
        shown[name] = guide.run(f"kubelite build -f {name} -t {IMAGES}{name}:2 .", lines=20)
        times[name] = time.monotonic() - began
    rows = [
        ("late: RUN, then COPY", "COPY", f"{times['late']:.1f} s"),
        ("early: COPY, then RUN", "COPY and RUN", f"{times['early']:.1f} s"),
    ]
    guide.table(("Containerfile", "steps that ran again", "the second build took"), rows)
    guide.check("with COPY last, the slow step came from the cache", " CACHED" in shown["late"])
    guide.check("with COPY first, it ran again", " CACHED" not in shown["early"] and times["early"] > 2.0)


def _cache_mount(guide: Guide) -> None:
    guide.step("A cache that survives the step: --mount=type=cache")
    cache = f"kubelite-tour-{os.getpid()}"
    step = (
        f"--mount=type=cache,id={cache},target=/cache echo $TRY >> /cache/log && wc -l < /cache/log > /lines"
    )
    guide.write("cached", f"FROM {IMAGE}\nARG TRY\nRUN {step}\n")
    guide.run("cat cached")
    counts = []
    for number in (1, 2):
        name = f"{IMAGES}cached:{number}"
        guide.run(f"kubelite build -f cached --build-arg TRY={time.time_ns()} -t {name} .", lines=12)
        top = _inspect(guide, name)["layers"][0]
        counts.append(guide.run(f"cat {top}/lines").strip())
    guide.say(
        "The argument makes the step run again, but the directory is the same: package managers keep downloads there."
    )
    guide.check("the second step found what the first had written", counts == ["1", "2"])
    top = _inspect(guide, f"{IMAGES}cached:2")["layers"][0]
    guide.check(
        "nothing of the cache is in the image",
        not (os.path.isdir(f"{top}/cache") and os.listdir(f"{top}/cache")),
    )


def _digests(guide: Guide) -> None:
    guide.step("Content addressing by hand")
    image = _inspect(guide, APP)
    blobs = f"{image['layers'][0].partition('/layers/')[0]}/blobs/sha256"
    manifest = image["manifest_digest"].partition(":")[2]
    config = image["id"].partition(":")[2]
    found = guide.run(f"cd {blobs} && sha256sum {manifest} {config}")
    guide.check("each blob is named by the sha256 of its content", found.split()[::2] == found.split()[1::2])
    guide.run(f"cat {blobs}/{manifest}", lines=4)
    with open(f"{blobs}/{manifest}", "rb") as file:
        document = json.load(file)
    guide.check("the manifest names the config by its digest", document["config"]["digest"] == image["id"])
    layers = [layer["digest"].partition(":")[2] for layer in document["layers"]]
    sums = [_sha256(f"{blobs}/{name}") for name in layers]
    guide.check("it names the layers by theirs: a digest vouches for everything below it", sums == layers)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _registry(guide: Guide) -> None:
    guide.needs(docker_registry="docker-registry")
    guide.step("Push and pull through a registry on loopback")
    port = _free_port()
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": f"{guide.directory}/registry"}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    guide.write("registry.yml", json.dumps(config))
    # The registry would read podman's REGISTRY_AUTH_FILE as one of its own settings.
    environment = {
        name: value for name, value in guide.environment.items() if not name.startswith("REGISTRY_")
    }
    with open(f"{guide.directory}/registry.log", "wb") as log:
        registry = subprocess.Popen(
            ["docker-registry", "serve", f"{guide.directory}/registry.yml"],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    guide.undo.callback(_end, registry)
    guide.until(lambda: _listens(port) or registry.poll() is not None, "the registry to listen")
    if registry.poll() is not None:
        raise CliError(f"tour: the registry ended: {kernel.read(f'{guide.directory}/registry.log')}")
    remote = f"127.0.0.1:{port}/app:1"
    guide.undo.callback(guide.shell, f"kubelite rmi {remote}")
    guide.run(f"kubelite push {APP} {remote}", lines=8)
    guide.run("find registry -name link | sed 's#/link##' | cut -d / -f 7- | cut -c 1-72 | sort", lines=8)
    guide.run(f"kubelite pull {remote}", lines=8)
    pushed, pulled = _inspect(guide, APP), _inspect(guide, remote)
    guide.check("what comes back has the same image id", pushed["id"] == pulled["id"])
    digest = pulled["manifest_digest"]
    path = f"registry/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    found = guide.run(f"sha256sum {shlex.quote(path)} | cut -c 1-64")
    guide.check(
        "the registry keeps the manifest under the digest that sha256sum computes",
        found.strip() == digest[7:],
    )


def _inspect(guide: Guide, name: str) -> Any:
    return json.loads(guide.ask(f"kubelite inspect {name}"))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
