"""Station 7: an OCI bundle by hand, run with kubelite-oci and with runc from the same directory; shared namespaces."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Any

from kubelite.cli.tour import kernel
from kubelite.cli.tour.guide import NAMESPACE, Guide, container, pod, static_busybox

INTRODUCTION = """
A container is a directory with a root file system and a config.json: the OCI runtime specification says what they
mean. Any runtime that implements it runs the same bundle, so kubelite-oci and runc are exchangeable. A namespace
lives as long as a process or a file refers to it, so a second process, or nsenter, can join it at any time.
"""
SHELL = "echo hello from $(hostname), pid $$; trap 'exit 3' TERM; while :; do sleep 0.1; done"


def visit(guide: Guide) -> None:
    _make(guide)
    _run(guide, "kubelite-oci")
    with guide.optional("the same bundle with runc"):
        guide.needs(runc="runc")
        _run(guide, "runc")
    _shared(guide)


def _make(guide: Guide) -> None:
    guide.step("The bundle")
    busybox = shlex.quote(static_busybox())
    guide.run("mkdir -p bundle/rootfs/bin bundle/rootfs/proc bundle/rootfs/dev bundle/rootfs/sys")
    guide.run(f"cp {busybox} bundle/rootfs/bin/busybox")
    guide.run("cd bundle/rootfs/bin && for a in sh ls ps sleep hostname echo id; do ln -s busybox $a; done")
    guide.run("cd bundle && kubelite-oci spec && ls")
    path = f"{guide.directory}/bundle/config.json"
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    spec["hostname"] = "by-hand"
    spec["process"] |= {"terminal": False, "args": ["sh", "-c", SHELL]}
    spec["linux"]["cgroupsPath"] = f"/kubelite-tour-{os.getpid()}"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(spec, file, indent=1)
    guide.run("cd bundle && grep -E '\"(hostname|args|cgroupsPath|type)\"' config.json", lines=20)
    guide.check("the file asks for new namespaces", len(spec["linux"]["namespaces"]) >= 5)


def _run(guide: Guide, runtime: str) -> None:
    guide.step(f"create, start, exec, state, kill, delete with {runtime}")
    command, name = f"{runtime} --root {guide.directory}/{runtime}", f"tour-{os.getpid()}"
    guide.undo.callback(guide.shell, f"{command} delete --force {name}")
    guide.run(f"cd bundle && {command} create {name} > ../{runtime}.log 2>&1 < /dev/null")
    created = _state(guide, command, name)
    guide.run(f"{command} state {name}", lines=20)
    guide.check("it is created, and its init waits before execve", created["status"] == "created")
    guide.run(f"{command} start {name}")
    guide.until(
        lambda: "hello" in kernel.read(f"{guide.directory}/{runtime}.log"), "the program's first line"
    )
    guide.run(f"cat {runtime}.log")
    running = _state(guide, command, name)
    guide.check("it runs in the process that was created", running["pid"] == created["pid"])
    guide.check(
        "the host name is the one of config.json",
        "from by-hand, pid 1" in kernel.read(f"{guide.directory}/{runtime}.log"),
    )
    inside = guide.run(f"{command} exec {name} sh -c 'ps -o pid,args; id -u'")
    guide.check(
        "exec joined the pid namespace, where the program is process 1",
        re.search(r"^ *1 sh", inside, re.MULTILINE),
    )
    guide.run(f"{command} kill {name} TERM")
    guide.until(lambda: _state(guide, command, name)["status"] == "stopped", "the program to end")
    guide.run(f"{command} state {name} | grep status")
    guide.run(f"{command} delete {name}")
    gone = guide.run(f"{command} state {name}", fails=True)
    guide.check(
        "after delete nothing knows it, and its pid is free",
        not kernel.alive(running["pid"]) and "exist" in gone,
    )


def _state(guide: Guide, command: str, name: str) -> Any:
    return json.loads(guide.ask(f"{command} state {name}"))


def _pods_own(guide: Guide, container: Any) -> None:
    guide.step("The bundle of a pod's container")
    guide.say(
        "A pure function turns the manifest into the same file. What the pod shares is named by a path: the shim's."
    )
    path = f"{container['bundle']}/config.json"
    guide.run(f"ls {container['bundle']}")
    guide.run(f"python3 -m json.tool {path} | sed -n '/\"namespaces\"/,/]/p'", lines=30)
    guide.run(f"grep -E '^(CapEff|Seccomp):' /proc/{container['pid']}/status")
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    paths = {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}
    joined = {kind: path for kind, path in paths.items() if path}
    guide.check(
        "network, uts and ipc are joined, the others are new", set(joined) == {"network", "uts", "ipc"}
    )
    effective = int(kernel.status(container["pid"], "CapEff"), 16)
    wanted = spec["process"]["capabilities"]["effective"]
    guide.check(
        "the kernel gave as many capabilities as the file names", effective.bit_count() == len(wanted)
    )


def _shared(guide: Guide) -> None:
    guide.step("Namespaces that are shared, entered with nsenter")
    guide.image()
    guide.apply(pod("shared", container("one"), container("two", "echo $$ > /tmp/mine; exec sleep 3600")))
    seen = {c["name"]: c for c in guide.inspect("shared")["containers"]}
    one, two = seen["one"]["pid"], seen["two"]["pid"]
    rows = [(kind, kernel.namespace(one, kind), kernel.namespace(two, kind)) for kind in kernel.KINDS]
    guide.table(("namespace", "container one", "container two"), rows)
    guide.run(f"nsenter -t {two} -m -p -u -i -n sh -c 'hostname; ls /tmp; ps -o pid,args'")
    inside = guide.ask(f"nsenter -t {two} -m -p -u -i -n sh -c 'hostname; ls /tmp'").split()
    guide.check("nsenter with all five namespaces sees what the container sees", inside == ["shared", "mine"])
    outside = guide.run(f"nsenter -t {two} -u -i -n hostname")
    guide.check(
        "without -m and -p it keeps the host's programs, under the pod's host name",
        outside.strip() == "shared",
    )
    first = guide.ask(f"kubelite exec shared -c one -n {NAMESPACE} -- ls /tmp").strip()
    guide.check("container one does not see the files of container two", first == "")
    _pods_own(guide, seen["one"])
    guide.delete()
