"""The web page in a browser, and what the TCP port serves only with the token."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.api import basic
from tests.e2e.browser import BROWSER, IN_A_GUEST
from tests.e2e.manifests import container, pod
from tests.e2e.node import PATIENCE, Node, running_node
from tests.e2e.pictures import colours

BASE = "http://127.0.0.1:10255"
TOKEN = "0123456789abcdef0123"
ME = basic(f"me:{TOKEN}")


def answer(node: Node, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    found = node.fetch(BASE + path, method=method, headers=headers)
    return found.status, found.body.decode()


def browse(node: Node, path: str, picture: Path) -> tuple[str, str]:
    """(the document in the browser, its error messages). The browser can reach only the node."""
    command = node.in_netns(
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
        f"--user-data-dir={picture.parent}/profile", "--window-size=1100,900", "--timeout=4000",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--screenshot={picture}", "--dump-dom",
        BASE + path,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(not BROWSER or IN_A_GUEST, reason="needs chromium, on a machine that can run it")
def test_the_page_in_a_browser(node: Node, tmp_path: Path) -> None:
    busy = "trap 'exit 0' TERM; while :; do :; done"
    node.apply("web.yaml", pod("web", container(script=busy)))
    node.apply("bad.yaml", pod("bad", container(image="localhost/nothing:here")))
    node.wait_status("web", "Running")
    node.wait(lambda: "<polyline" in answer(node, "/")[1], "lines")
    document, complaints = browse(node, "/", tmp_path / "index.png")
    assert complaints == "", "nothing is forbidden by its own policy, nothing is missing"
    assert re.search(
        r'<a href="/pods/default/web">web</a>.*mark running.*Running</span>.*<polyline', document
    )
    attention = document.partition('id="attention"')[2].partition("</section>")[0]
    assert "ErrImageNeverPull" in attention and "kubelite pull localhost/nothing:here" in attention
    assert colours(tmp_path / "index.png") > 50
    document, complaints = browse(node, "/pods/default/web", tmp_path / "pod.png")
    assert complaints == "" and "pivot_root" in document and document.count("<rect") > 30
    assert colours(tmp_path / "pod.png") > 50


@pytest.mark.skipif(not BROWSER or IN_A_GUEST, reason="needs chromium, on a machine that can run it")
def test_the_page_is_live_searchable_and_fits_every_screen(node: Node) -> None:
    node.apply("web.yaml", pod("web"))
    node.apply("bad.yaml", pod("bad", container(image="localhost/nothing:here")))
    node.wait_status("web", "Running")
    command = node.in_netns(sys.executable, "-m", "tests.e2e.page_visit", BASE + "/")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["measured"] and seen["same element"], "it changes without being loaded again"
    assert seen["markup from strings"] == "TypeError" and seen["inline script"] == 0
    assert {int(width): needed for width, needed in seen["wide"].items() if needed > int(width)} == {}
    assert seen["searched"] and seen["address"] == "?q=bad" and seen["focus"] == "q"
    assert "bad" in seen["row"] and "ErrImageNeverPull" in seen["row"]


def test_the_page_works_without_scripts(node: Node) -> None:
    node.apply("web.yaml", pod("web"))
    node.apply(
        "odd.yaml", pod("odd", container(readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1}))
    )
    node.wait_status("web", "Running")
    node.wait(lambda: "Readiness probe failed" in answer(node, "/")[1], "why the pod is not ready")
    page = answer(node, "/")[1]
    assert (
        '<noscript><meta http-equiv="refresh"' in page
        and '<form role="search" action="/" method="get">' in page
    )
    assert "Not ready" in page and "1 waiting, 1 running" in page
    only = answer(node, "/?level=waiting")[1].partition('id="pods"')[2]
    assert ">odd</a>" in only and ">web</a>" not in only.partition("</section>")[0]
    for file in re.findall(r'(?:href|src)="(/kubelite\.\w+\?\w+)"', page):
        found = node.fetch(BASE + file)
        assert found.status == 200 and "immutable" in found.headers["cache-control"], file
    packed = node.fetch(BASE + "/", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and b"Node " in gzip.decompress(packed.body)


def test_logs_need_the_token(tmp_path: Path, images: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with running_node(tmp_path / "node", images, web_token_file=str(token)) as node:
        secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"
        node.apply("secret.yaml", secret)
        says = "trap 'exit 0' TERM; echo said in confidence; while :; do sleep 0.1; done"
        hidden = [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}}]
        node.apply("web.yaml", pod("web", container(script=says, env=hidden)))
        node.wait_status("web", "Running")
        node.wait(lambda: "said" in node.logs("web"), "the log")
        log = "/pods/default/web/log/main"
        assert answer(node, log)[0] == 401
        assert answer(node, log, Authorization="Bearer wrong")[0] == 401
        assert answer(node, log, Authorization=f"Bearer {TOKEN}") == (200, "said in confidence\n")
        assert answer(node, log, **ME) == (200, "said in confidence\n")
        assert answer(node, "/pods/default/web/log/none", **ME)[0] == 400
        assert answer(node, "/pods/default/none/log/main", **ME)[0] == 404
        assert 'href="/pods/default/web/log/main"' in answer(node, "/pods/default/web")[1]
        rebound = {"Host": "evil.example:10255", **ME}
        for page in ("/", "/metrics", "/stats/summary", log):
            assert answer(node, page, **rebound)[0] == 421, "a stranger's name for the loopback address"
        assert answer(node, "/", Host=f"{node.name}:10255")[0] == 200
        token.write_text("another secret, of length")
        assert answer(node, log, **ME)[0] == 401
        pages = ("", "pods/default/web", "metrics", "metrics/state", "metrics/agent", "stats/summary", "sd")
        for page in pages:
            code, body = answer(node, f"/{page}")
            assert code == 200
            for word in ("confidence", "hunter2", "aHVudGVyMg", str(node.root)):
                assert word not in body, (page, word)
        for path in ("/api/v1/pods", "/kubelite/v1/usage", "/api/v1/namespaces/default/secrets"):
            assert answer(node, path)[0] == 404, "the API is not on TCP"
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in ("/", "/metrics", "/pods/default/web", log):
                assert answer(node, path, method)[0] == 405
