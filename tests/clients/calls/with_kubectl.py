"""kubectl, of the version that the variable KUBECTL names."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator

from harness import DEADLINE, LABEL, NAME, NAMESPACE, config_map, run, same, until

PROGRAM = [os.environ["KUBECTL"], "--namespace", NAMESPACE]


def _kubectl(*words: str, stdin: str = "", code: int = 0) -> str:
    done = subprocess.run(
        [*PROGRAM, *words], input=stdin, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    if done.returncode != code:
        raise AssertionError(f"kubectl {' '.join(words)}: exit code {done.returncode}: {done.stderr}")
    return done.stdout if code == 0 else done.stderr


@contextlib.contextmanager
def _running(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PROGRAM, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def create() -> None:
    for name in ("one", "two", "three"):
        text = json.dumps(config_map(name, a="1"))
        same(_kubectl("create", "-f", "-", stdin=text), f"configmap/{NAME}-{name} created\n")


def list() -> None:
    names = _kubectl("get", "configmaps", "-o", "name").split()
    same({f"configmap/{NAME}-{one}" for one in ("one", "two", "three")} - {*names}, set())


def selectors() -> None:
    same(len(_kubectl("get", "configmaps", "-l", LABEL, "-o", "name").split()), 3)
    field = f"metadata.name={NAME}-two"
    same(_kubectl("get", "configmaps", "--field-selector", field, "-o", "name"), f"configmap/{NAME}-two\n")


def paging() -> None:
    same(len(_kubectl("get", "configmaps", "-l", LABEL, "-o", "name", "--chunk-size=2").split()), 3)


def get() -> None:
    same(_kubectl("get", "configmap", f"{NAME}-one", "-o", "jsonpath={.data.a}"), "1")
    same("(NotFound)" in _kubectl("get", "configmap", "none", code=1), True)


def watch() -> None:
    field = f"metadata.name={NAME}-late"
    with _running("get", "configmaps", "--field-selector", field, "--watch", "-o", "name") as process:
        _kubectl("create", "-f", "-", stdin=json.dumps(config_map("late")))
        assert process.stdout is not None
        same(process.stdout.readline(), f"configmap/{NAME}-late\n")


def patch_merge() -> None:
    body = json.dumps({"data": {"a": None, "b": "2"}})
    _kubectl("patch", "configmap", f"{NAME}-one", "--type=merge", "-p", body)
    same(json.loads(_kubectl("get", "configmap", f"{NAME}-one", "-o", "json"))["data"], {"b": "2"})


def patch_json() -> None:
    body = json.dumps([{"op": "add", "path": "/data/c", "value": "3"}])
    _kubectl("patch", "configmap", f"{NAME}-one", "--type=json", "-p", body)
    same(json.loads(_kubectl("get", "configmap", f"{NAME}-one", "-o", "json"))["data"], {"b": "2", "c": "3"})


def patch_strategic() -> None:
    containers = [{"name": "main", "env": [{"name": "BY", "value": NAME}]}]
    body = json.dumps({"spec": {"template": {"spec": {"containers": containers}}}})
    done = json.loads(_kubectl("patch", "deployment", "idle", "-p", body, "-o", "json"))
    same([one["value"] for one in done["spec"]["template"]["spec"]["containers"][0]["env"]], [NAME])


def apply() -> None:
    words = ("apply", "--server-side", "-f", "-")
    for data in ({"a": "1", "b": "1"}, {"a": "1"}):
        done = _kubectl(*words, stdin=json.dumps(config_map("applied", **data)))
        same(done, f"configmap/{NAME}-applied serverside-applied\n")
        same(json.loads(_kubectl("get", "configmap", f"{NAME}-applied", "-o", "json"))["data"], data)
    other = json.dumps(config_map("applied", a="2"))
    said = _kubectl(*words, "--field-manager=other", stdin=other, code=1)
    same('conflict with "kubectl": .data.a' in said, True)
    _kubectl(*words, "--field-manager=other", "--force-conflicts", stdin=other)
    same(_kubectl("diff", "--server-side", "--field-manager=other", "-f", "-", stdin=other), "")


def replace() -> None:
    found = json.loads(_kubectl("get", "configmap", f"{NAME}-two", "-o", "json"))
    found["data"] = {"z": "9"}
    _kubectl("replace", "-f", "-", stdin=json.dumps(found))
    same("(Conflict)" in _kubectl("replace", "-f", "-", stdin=json.dumps(found | {"data": {}}), code=1), True)


def delete() -> None:
    same(_kubectl("delete", "configmap", f"{NAME}-two").startswith(f'configmap "{NAME}-two" deleted'), True)


def scale() -> None:
    for count in (2, 1):
        same(_kubectl("scale", "deployment", "idle", f"--replicas={count}"), "deployment.apps/idle scaled\n")
        path = "jsonpath={.status.replicas}"
        until(lambda: _kubectl("get", "deployment", "idle", "-o", path) == str(count), "pods")  # noqa: B023


def logs() -> None:
    same(_kubectl("logs", "web", "--tail=1"), "ready\n")


def exec() -> None:
    words = ("exec", "-i", "web", "--", "sh", "-c", "read line; echo $line; echo bad >&2; exit 3")
    done = subprocess.run(
        [*PROGRAM, *words], input="hello\n", capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    same((done.stdout, done.stderr.splitlines()[0], done.returncode), ("hello\n", "bad", 3))


def attach() -> None:
    with _running("attach", "-i", "echo") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{NAME}\n")
        process.stdin.flush()
        same(process.stdout.readline(), f"{NAME}\n")


def port_forward() -> None:
    with _running("port-forward", "pod/web", ":8080") as process:
        assert process.stdout is not None
        port = process.stdout.readline().partition("127.0.0.1:")[2].split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=DEADLINE) as answer:
            same(answer.read(), b"hello from web\n")


def evict() -> None:
    """As `kubectl drain` does, for one pod."""
    words = ("get", "pods", "-l", "app=idle", "--field-selector", "status.phase=Running", "-o", "json")
    found = json.loads(_kubectl(*words))["items"]
    name = next(one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"])
    node = found[0]["spec"]["nodeName"]
    _kubectl("drain", node, "--pod-selector=app=idle", "--force", f"--timeout={DEADLINE:.0f}s")
    _kubectl("uncordon", node)
    until(
        lambda: f"pod/{name}\n" not in _kubectl("get", "pods", "-l", "app=idle", "-o", "name"), "the eviction"
    )


def token() -> None:
    same(_kubectl("create", "token", "default", "--duration=10m").count("."), 2)


def can_i() -> None:
    same(_kubectl("auth", "can-i", "delete", "pods"), "yes\n")


def cordon() -> None:
    node = _kubectl("get", "nodes", "-o", "name").strip()
    for command, wanted in (("cordon", "true"), ("uncordon", "")):
        _kubectl(command, node)
        same(_kubectl("get", node, "-o", "jsonpath={.spec.unschedulable}"), wanted)


run(globals())
_kubectl("delete", "configmaps", "-l", LABEL)
