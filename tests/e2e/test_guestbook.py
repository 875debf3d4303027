"""The guestbook of Kubernetes' examples answers: a frontend finds redis by the names of Services, a replica its master.

The manifests of the frontend and of the replicas are those of kubernetes/examples; redis is the distribution's. The
frontend of the example is in PHP; the one here has the same commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.build_support import build, context
from tests.e2e.node import Node, running_node
from tests.e2e.test_network import needs_nat
from tests.e2e.test_services import deployment, dump, fetched, found, ready, service
from tests.programs import PACKED_BUSYBOX, missing

pytestmark = [needs_nat, pytest.mark.skipif(bool(missing("redis-server")), reason="needs redis-server")]
EXAMPLE = Path(__file__).parents[1] / "corpus/kubernetes-examples/web/guestbook"
FRONTEND, REPLICA = "gcr.io/google-samples/gb-frontend:v5", "gcr.io/google_samples/gb-redisslave:v1"
REDIS = "localhost/redis:packed"
SERVER = "redis-server --protected-mode no --save '' --dir /tmp"
SCRIPT = r"""#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
case $QUERY_STRING in
cmd=set*) exec redis-cli -h redis-master set "${QUERY_STRING#*key=}" "$HOSTNAME" ;;
*) exec redis-cli -h redis-replica get "${QUERY_STRING#*key=}" ;;
esac
"""
MASTER = {"app": "redis", "role": "master"}
REPLICAS = {"app": "redis", "role": "replica", "tier": "backend"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("guestbook"), images) as one:
        base = tmp_path_factory.mktemp("build")
        one.cli("image", "pack", PACKED_BUSYBOX, "redis-server", "redis-cli", "-t", REDIS)
        frontend = f"FROM {REDIS}\nCOPY --chmod=755 guestbook /www/cgi-bin/\nCMD httpd -f -p 80 -h /www\n"
        replica = f"FROM {REDIS}\nCMD exec {SERVER} --replicaof redis-master 6379\n"
        build(one, "-t", FRONTEND, context(base / "frontend", frontend, guestbook=SCRIPT))
        build(one, "-t", REPLICA, context(base / "replica", replica))
        yield one


def master() -> dict[str, object]:
    made = deployment(1)
    made["metadata"]["name"] = "redis-master"
    made["spec"]["selector"]["matchLabels"] = made["spec"]["template"]["metadata"]["labels"] = MASTER
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container |= {"image": REDIS, "command": ["sh", "-c", f"exec {SERVER}"]}
    container |= {"ports": [{"containerPort": 6379}]}
    container["readinessProbe"]["tcpSocket"]["port"] = 6379
    return made


def test_the_guestbook_answers(node: Node) -> None:
    port = [{"port": 6379}]
    for name in ("frontend-deployment.yaml", "frontend-service.yaml", "redis-replica-deployment.yaml"):
        node.apply(name, (EXAMPLE / name).read_text())
    node.apply("redis.yaml", dump(
        service("redis-master", selector=MASTER, ports=port), master(),
        service("redis-replica", selector=REPLICAS, ports=port),
    ))  # fmt: skip
    for name, count in (("redis-master", 1), ("redis-replica", 2), ("frontend", 3)):
        node.wait(partial(ready, node, count, name), f"the endpoints of {name}")
    spec = found(node, "frontend")["spec"]
    page = "cgi-bin/guestbook?cmd={}&key=messages"
    inside, outside = f"http://{spec['clusterIP']}/", f"http://10.77.0.1:{spec['ports'][0]['nodePort']}/"
    node.wait(lambda: fetched(node, inside + page.format("set")) == "OK", "the master to take a message")
    read = page.format("get")
    node.wait(lambda: fetched(node, outside + read).startswith("frontend-"), "the replicas to have it")
    assert len({fetched(node, inside + read) for _ in range(20)}) == 1
    # every replica has found the master by its name
    pods = json.loads(node.cli("get", "pods", "-l", "role=replica", "-o", "json").out)["items"]
    for one in pods:
        said = node.cli("exec", one["metadata"]["name"], "--", "redis-cli", "info", "replication").out
        assert "role:slave" in said and "master_link_status:up" in said
