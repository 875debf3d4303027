"""The runs of tests/corpus: read from its data, turned into objects, and compared with the result.

What a run says about a container is compared with the kernel (/proc/<pid>, with the pid that the node reports), which
needs no process. What the documentation does with a command (`run`, `http`) is done with that command.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kubelite.cli.errors import CliError
from kubelite.cli.transport.client import Client
from kubelite.kube.json import Json
from manifests.types.meta import Quantity
from manifests.yaml.loader import ErrorKind, load_file
from tests.e2e.cgroups import cpu_limit, memory_limit, memory_used
from tests.e2e.node import Node

CORPUS = Path(__file__).parents[1] / "corpus"
FILES = ("runs-website.yaml", "runs-podman.yaml", "runs-others.yaml")
PLACES = {
    "W": "kubernetes-website/content/en/examples",
    "O": "kubernetes-website-2021/content/en/examples",
    "P": "containers-podman/test/e2e/play_kube_test.go",
    "Q": "containers-podman/test/system",
}
READER = "reader"
DEFAULT_GRACE = 30
#: The conditions of a pod in this phase, unless the run gives others.
CONDITIONS = {
    "Running": {"PodScheduled": "True", "Initialized": "True", "ContainersReady": "True", "Ready": "True"},
    "Succeeded": {"PodScheduled": "True", "Initialized": "True", "Ready": "False PodCompleted"},
}
MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def api(node: Node) -> Client:
    return Client(str(node.run_dir / "kubelite.sock"), timeout=30)


# -- what is run ------------------------------------------------------------------------------------------------


def runs() -> list[Json]:
    return [run for name in FILES for run in yaml.safe_load((CORPUS / name).read_text())]


def path_of(file: str) -> Path:
    place, _, rest = file.partition("/")
    return CORPUS.joinpath(PLACES.get(place, place), rest)


def objects(run: Json, namespace: str) -> tuple[list[Json], list[str]]:
    """Return the objects of the manifest and those it needs, in one namespace, as JSON; and the names of the pods that
    are compared."""
    own = loaded(run["file"])
    beside = [doc for file in run.get("beside", ()) for doc in loaded(file)]
    found = [*needed(run), *beside, *own]
    if not any(doc["kind"] == "Pod" for doc in own):
        own = [_reader([doc for doc in own if doc["kind"] != "PersistentVolume"])]
        found += own
    for doc in found:
        if doc["kind"] != "PersistentVolume":
            doc["metadata"]["namespace"] = namespace
        for one in containers(doc):
            one["imagePullPolicy"] = "IfNotPresent"
        if doc["kind"] == "Pod" and doc["spec"].get("terminationGracePeriodSeconds") in (None, DEFAULT_GRACE):
            doc["spec"]["terminationGracePeriodSeconds"] = (
                2  # a program may be told to stop before it listens
            )
    return found, [doc["metadata"]["name"] for doc in own if doc["kind"] == "Pod"]


def loaded(file: str) -> list[Json]:
    loaded = load_file(path_of(file))
    assert not [error for error in loaded.errors if error.kind is not ErrorKind.UNSUPPORTED], file
    return [document.obj.to_json() for document in loaded.documents]


def needed(run: Json) -> Iterator[Json]:
    for kind, named in run.get("with", {}).items():
        for name, data in named.items():
            doc: Json = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
            if kind == "PersistentVolumeClaim":
                size = {"requests": {"storage": data}}
                yield {**doc, "spec": {"accessModes": ["ReadWriteOnce"], "resources": size}}
            elif kind == "Pod":
                doc["metadata"]["labels"] = data
                yield {**doc, "spec": {"containers": [{"name": name, "image": name}]}}
            elif kind == "Secret":
                encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
                yield {**doc, "data": encoded}
            else:
                yield {**doc, "data": data}


def _reader(docs: list[Json]) -> Json:
    """A pod that mounts all of these below /<kind>/<name> and has them in its environment."""
    volumes: list[Json] = []
    mounts: list[Json] = []
    env: list[Json] = []
    for number, doc in enumerate(docs):
        kind, name = doc["kind"], doc["metadata"]["name"]
        volume = {
            "ConfigMap": {"configMap": {"name": name}},
            "Secret": {"secret": {"secretName": name}},
            "PersistentVolumeClaim": {"persistentVolumeClaim": {"claimName": name}},
        }[kind]
        volumes.append({"name": f"v{number}", **volume})
        mounts.append({"name": f"v{number}", "mountPath": f"/{kind}/{name}"})
        if kind != "PersistentVolumeClaim":
            env.append({f"{kind[0].lower()}{kind[1:]}Ref": {"name": name}})
    container = {"name": READER, "image": READER, "envFrom": env, "volumeMounts": mounts}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": READER},
        "spec": {"containers": [container], "volumes": volumes},
    }


def containers(doc: Json) -> list[Json]:
    if doc["kind"] != "Pod":
        return []
    return [*doc["spec"].get("initContainers", []), *doc["spec"]["containers"]]


def image_names(doc: Json) -> set[str]:
    """The images of its containers and of its image volumes."""
    volumes = doc["spec"].get("volumes", []) if doc["kind"] == "Pod" else []
    return {
        *(container["image"] for container in containers(doc)),
        *(volume["image"]["reference"] for volume in volumes if "image" in volume),
    }


@contextlib.contextmanager
def on_the_machine(run: Json) -> Iterator[None]:
    """Create the files of the machine that the run needs, with their directories, and remove them afterwards."""
    with contextlib.ExitStack() as undo:
        for name, text in run.get("machine", {}).items():
            path = Path(name)
            missing = [place for place in (path, *path.parents) if not place.exists()]
            assert missing, f"{name} is somebody's"
            path.parent.mkdir(parents=True, exist_ok=True)
            undo.callback(_remove, missing[-1])
            path.write_text(text)
        yield


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


# -- what became of it --------------------------------------------------------------------------------------------


def wrong(node: Node, run: Json, name: str, namespace: str) -> list[str]:
    """The differences of this pod from its run."""
    try:
        pod = api(node).get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        found = Comparison(node, run, pod)
        found.status()
        for look in () if found.problems or found.refused else LOOKS:
            look(found)
    except CliError as error:
        return [str(error)]
    return found.problems


@dataclass(slots=True)
class Comparison:
    """Compares one pod with its run."""

    node: Node
    run: Json
    pod: Json
    problems: list[str] = field(default_factory=list)
    _pids: dict[str, int] | None = None

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    def check(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self.problems.append(f"{what}: {got!r}, not {wanted!r}")

    def told(self, text: object) -> str:
        """The run with values that are known only on this node."""
        status = self.pod.get("status", {})
        known = {
            "{node}": self.pod["spec"].get("nodeName", ""),
            "{namespace}": self.namespace,
            "{ip}": status.get("podIP", ""),
            "{host}": socket.gethostname(),
            "{ipc}": os.readlink("/proc/self/ns/ipc"),
            "{capabilities}": process_status(os.getpid())["CapEff"],
        }
        whole = str(text)
        for token, value in known.items():
            whole = whole.replace(token, value)
        return whole

    def of(self, key: str) -> Iterator[tuple[str, Any]]:
        """(container, its expectations) for each container of this pod."""
        own = {container["name"] for container in containers(self.pod)} | {"pod"}
        yield from ((name, said) for name, said in self.run.get(key, {}).items() if name in own)

    def running(self, key: str) -> Iterator[tuple[str, int, Any]]:
        """(container, pid, its expectations) for each running container."""
        for name, said in self.of(key):
            pid = self.pids().get(name, 0)
            if pid:
                yield name, pid, said
            else:
                self.problems.append(f"{name} does not run")

    def pids(self) -> dict[str, int]:
        """The pids of running containers; "pod" is any of them."""
        if self._pids is None:
            found = api(self.node).get(f"/kubelite/v1/inspect/{self.namespace}/{self.name}")["containers"]
            self._pids = {one["name"]: int(one["pid"]) for one in found if one["state"] == "running"}
            if self._pids:
                self._pids["pod"] = next(iter(self._pids.values()))
        return self._pids

    @property
    def refused(self) -> bool:
        """Whether the machine has too few processors for the pod."""
        return int(self.run.get("cpus", 0)) > (os.cpu_count() or 1)

    # -- its status -------------------------------------------------------------------------------------------------

    def status(self) -> None:
        run, status = self.run, self.pod.get("status", {})
        every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        conditions = {one["type"]: one for one in status.get("conditions", [])}
        phase, reason = run["phase"], run.get("reason")
        if self.refused:
            phase, reason = "Failed", "OutOfcpu"
        self.check("phase", status.get("phase"), phase)
        if not self.refused:
            self._conditions(conditions)
        if "qos" in run:
            self.check("qosClass", status.get("qosClass"), run["qos"])
        if "ready" in run:
            self.check("ready", all(one["ready"] for one in every), run["ready"])
        if reason:
            reasons = {conditions.get("PodScheduled", {}).get("reason"), status.get("reason")}
            reasons |= {one["state"].get("waiting", {}).get("reason") for one in every}
            if not reasons & set(reason.split("|")):
                self.problems.append(f"no reason {reason!r}: {reasons}")
        if sum(one["restartCount"] for one in every) < run.get("restarts", 0):
            self.problems.append("too few restarts")
        self._ended({one["name"]: one for one in every})

    def _conditions(self, conditions: dict[str, Json]) -> None:
        wanted = self.run.get("conditions", CONDITIONS.get(self.run["phase"], {}))
        for kind, words in wanted.items():
            status, _, reason = words.partition(" ")
            found = conditions.get(kind, {})
            self.check(f"condition {kind}", found.get("status"), status)
            if reason:
                self.check(f"reason of condition {kind}", found.get("reason"), reason)

    def _ended(self, statuses: dict[str, Json]) -> None:
        for name, code in self.of("exit"):
            ended = statuses.get(name, {}).get("state", {}).get("terminated", {})
            self.check(f"exit code of {name}", ended.get("exitCode"), code)
        for name, facts in self.of("last"):
            ended = statuses.get(name, {}).get("lastState", {}).get("terminated", {})
            for key, value in facts.items():
                self.check(f"{key} of {name}'s last end", ended.get(key), value)


def process_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def events(found: Comparison) -> None:
    wanted = found.run.get("event", [])
    every = api(found.node).get(f"/api/v1/namespaces/{found.namespace}/events")["items"] if wanted else []
    said = [e["message"] for e in every if e["involvedObject"]["name"] == found.name]
    found.problems += [
        f"no event: {text!r}: {said}" for text in wanted if not any(text in one for one in said)
    ]


def logs(found: Comparison) -> None:
    for container, texts in found.of("log"):
        place = f"/api/v1/namespaces/{found.namespace}/pods/{found.name}/log"
        answer = api(found.node).open("GET", place, query={"container": container})
        log = answer.read().decode(errors="replace")
        found.problems += [
            f"{container}'s log has no {text!r}: {log[-300:]!r}"
            for text in map(found.told, texts)
            if text not in log
        ]


def environment(found: Comparison) -> None:
    for container, pid, wanted in found.running("env"):
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        known = dict(entry.partition("=")[::2] for entry in entries)
        for name, value in wanted.items():
            found.check(f"{name} of {container}", known.get(name), found.told(value))


def files(found: Comparison) -> None:
    for container, pid, wanted in found.running("files"):
        for path, text in wanted.items():
            try:
                content = Path(f"/proc/{pid}/root{path}").read_text(errors="replace")
            except OSError as error:
                content = str(error)
            if text not in content:
                found.problems.append(f"{path} of {container} has no {text!r}: {content[-300:]!r}")


def mounts(found: Comparison) -> None:
    """mountPath → words of its options or its type."""
    for container, pid, wanted in found.running("mounts"):
        known = {}
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
            first, _, second = line.partition(" - ")
            known[first.split()[4]] = {*first.split()[5].split(","), second.split()[0]}
        for path, words in wanted.items():
            if missing := set(words.split()) - known.get(path, set()):
                found.problems.append(f"{path} of {container}: no {missing}: {known.get(path)}")


def processes(found: Comparison) -> None:
    for container, pid, wanted in found.running("status"):
        known = process_status(pid)
        for key, value in wanted.items():
            found.check(f"{key} of {container}", known.get(key), found.told(value))
    for container, pid, wanted in found.running("user"):
        known = process_status(pid)
        found.check(f"user of {container}", f"{known['Uid'].split()[0]}:{known['Gid'].split()[0]}", wanted)
    for container, pid, wanted in found.running("hostname"):
        asked = subprocess.run(
            ["nsenter", f"--uts=/proc/{pid}/ns/uts", "hostname"], capture_output=True, text=True, check=True
        )
        found.check(f"hostname of {container}", asked.stdout.strip(), found.told(wanted))


def resources(found: Comparison) -> None:
    for container, pid, wanted in () if found.problems else found.running("limits"):
        of_pod = container == "pod"
        if "cpu" in wanted:
            limit = float(Quantity(wanted["cpu"]).milli()) / 1000
            found.check(f"CPU limit of {container}", cpu_limit(pid, of_pod=of_pod), limit)
        if "memory" in wanted:
            size = Quantity(wanted["memory"]).value() & -os.sysconf("SC_PAGE_SIZE")
            found.check(f"memory limit of {container}", memory_limit(pid, of_pod=of_pod), size)
    for container, pid, wanted in found.running("uses"):
        if memory_used(pid) < Quantity(wanted).value():
            found.problems.append(f"{container} uses {memory_used(pid)} bytes, less than {wanted}")
    for container, wanted in found.of("requests"):
        given = next(one for one in containers(found.pod) if one["name"] == container)["resources"][
            "requests"
        ]
        for name, amount in wanted.items():
            found.check(f"request of {container}", Quantity(given.get(name, "0")), Quantity(amount))


def claims(found: Comparison) -> None:
    for name, words in found.run.get("claims", {}).items():
        doc = api(found.node).get(f"/api/v1/namespaces/{found.namespace}/persistentvolumeclaims/{name}")
        status, spec = doc.get("status", {}), doc["spec"]
        modes = [MODES[mode] for mode in status.get("accessModes", [])]
        size, kind = status.get("capacity", {}).get("storage"), spec.get("storageClassName")
        known = [status.get("phase"), size, *modes, kind, spec.get("volumeName")]
        found.check(f"claim {name}", [word for word in known if word][: len(words.split())], words.split())


def claim_dir(node: Node, namespace: str, name: str) -> Path:
    return node.root / "claims" / namespace / name / "data"


def pages(found: Comparison) -> None:
    asked = [(found.pod["status"].get("podIP"), *pair) for pair in found.run.get("http", {}).items()]
    if "host_port" in found.run:
        asked.append(("127.0.0.1", *found.run["host_port"]))
    for host, port, text in asked:
        try:
            page = found.node.get(f"http://{host}:{port}/")
        except (OSError, http.client.HTTPException) as error:
            page = str(error)
        if text not in page:
            found.problems.append(f"port {port} of {host} says no {text!r}: {page[-300:]!r}")


def commands(found: Comparison) -> None:
    for container, command, text in found.run.get("run", []):
        arguments = ("exec", "-n", found.namespace, found.name, "-c", container, "--", *shlex.split(command))
        done = found.node.cli(*arguments, check=False)
        if text not in done.out.replace("\r", ""):
            found.problems.append(f"{command} in {container}: {done.out!r} {done.err!r} has no {text!r}")
    for name, path in found.run.get("claim_files", {}).items():
        if not (claim_dir(found.node, found.namespace, name) / path).exists():
            found.problems.append(f"claim {name} has no {path}")


#: In this order. Checks that start a process are last, and run only if all others pass.
LOOKS: tuple[Callable[[Comparison], None], ...] = (
    events, logs, environment, files, mounts, processes, resources, claims,
    lambda found: None if found.problems else pages(found),
    lambda found: None if found.problems else commands(found),
)  # fmt: skip
