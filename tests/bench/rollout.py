"""Whether rolling updates behind a Service lose requests, and how fast it answers meanwhile.

python -m tests.bench.rollout [--requests 100000]

A node with a Deployment of three nginx pods, which is rolled out again and again while four processes of the host make
requests to its cluster IP: two with a connection for each request, two with connections that stay open. A server that
ends closes the connections that stay open, and a request may be on its way. Such a request, which got no byte of an
answer on a connection that had been used before, is made once more, as curl, browsers and Go's client do (RFC 9110,
9.2.2); anything else is lost.

Needs root and nginx.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.node import Node, pack_image, running_node

IMAGE, ADDRESS, PODS, CLIENTS = "localhost/bench/nginx:latest", "10.96.0.80", 3, 2
SETTLE = 60.0  # seconds for a rollout
_NGINX = """\
daemon off; user root; worker_processes 1; error_log stderr; pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 1000000;
  client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d;
  scgi_temp_path /tmp/e;
  server { listen 8080; location / { return 200 "served"; } }
}
"""
_CLIENT = """
import collections, http.client, json, sys
address, count, keep = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "keep"
found, connection, used = collections.Counter(), None, False
def ask():
    global connection, used
    if connection is None:
        connection, used = http.client.HTTPConnection(address, 80, timeout=5), False
    connection.request("GET", "/")
    answer = connection.getresponse()
    text = answer.read()
    used = True
    if not keep or answer.will_close:
        drop()
    return answer.status == 200 and text == b"served"
def drop():
    global connection
    connection.close()
    connection = None
for _ in range(count):
    for attempt in range(2):
        try:
            found["answered" if ask() else "wrong answer"] += 1
        except (ConnectionError, http.client.BadStatusLine) as error:
            drop()
            if used and not attempt:
                found["asked again"] += 1
                continue
            found[type(error).__name__] += 1
        except OSError as error:
            drop()
            found[type(error).__name__] += 1
        break
print(json.dumps(found))
"""


def manifests(version: int) -> str:
    probe = {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1}
    command = ["sh", "-c", "exec nginx -c /nginx.conf"]
    # nginx finishes the requests that it has at SIGQUIT; its images have it as STOPSIGNAL
    container: dict[str, Any] = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": command,
    }
    container |= {"readinessProbe": probe, "lifecycle": {"stopSignal": "SIGQUIT"}}
    template = {
        "metadata": {"labels": {"app": "web"}, "annotations": {"version": str(version)}},
        "spec": {"os": {"name": "linux"}, "containers": [container]},
    }
    spec = {
        "replicas": PODS,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"selector": {"app": "web"}, "clusterIP": ADDRESS, "ports": ports}
    docs = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec},
    ]
    return yaml.safe_dump_all(docs)


def roll_out(node: Node, version: int) -> None:
    node.apply("web.yaml", manifests(version))

    def complete() -> bool:
        text = node.cli("get", "deployment", "web", "-o", "json", check=False).out
        found = json.loads(text) if text else {"metadata": {"generation": 1}}
        status = found.get("status") or {}
        counts = {status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        return status.get("observedGeneration") == found["metadata"]["generation"] and counts == {PODS}

    node.wait(complete, "the rollout", timeout=SETTLE)


def measure(node: Node, requests: int) -> str:
    with tempfile.TemporaryDirectory() as directory:
        (conf := Path(directory, "nginx.conf")).write_text(_NGINX)
        node.cli("image", "pack", "busybox", "nginx", "--file", f"{conf}:/nginx.conf", "-t", IMAGE)
    roll_out(node, 0)
    began, clients = time.monotonic(), []
    for kind in ("keep", "close"):
        command = node.in_netns(sys.executable, "-c", _CLIENT, ADDRESS, str(requests // (2 * CLIENTS)), kind)
        clients += [(kind, subprocess.Popen(command, stdout=subprocess.PIPE)) for _ in range(CLIENTS)]
    rollouts = 0
    while any(client.poll() is None for _, client in clients):
        rollouts += 1
        roll_out(node, rollouts)
    found: dict[str, dict[str, int]] = {"keep": {}, "close": {}}
    for kind, client in clients:
        for word, count in json.loads(client.communicate()[0]).items():
            found[kind][word] = found[kind].get(word, 0) + count
    took = time.monotonic() - began
    lines = [f"{rollouts} rollouts of {PODS} pods in {took:.0f} s"]
    for kind, words in (("close", "one request a connection"), ("keep", "connections that stay open")):
        said = ", ".join(f"{count:,} {word}" for word, count in found[kind].items())
        lost = sum(count for word, count in found[kind].items() if word not in ("answered", "asked again"))
        lines.append(f"{words}: {said}; {lost} lost")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rollout", description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        images = pack_image(base / "pack")
        with running_node(base / "node", images) as node:
            print(measure(node, given.requests))


if __name__ == "__main__":
    main()
