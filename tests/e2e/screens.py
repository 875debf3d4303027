"""Pictures of the web page and of `kubelite ui` for the documentation: `sudo python -m tests.e2e.screens`.

They show a node of its own with the pods below, and are written to docs/assets/web-page.webp and docs/assets/ui.webp.
Needs chromium. Nothing of the node is left.
"""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e import browser
from tests.e2e.manifests import container, pod
from tests.e2e.node import REPO, Node, pack_image, running_node

ASSETS = REPO / "docs" / "assets"
QUALITY = 72  # of WebP
WATCHED = 20.0  # seconds of CPU use that the lines show
BUSY = "trap 'exit 0' TERM; while :; do i=0; while [ $i -lt {} ]; do i=$((i+1)); done; sleep 0.3; done"


def limits(cpu: str, memory: str) -> dict[str, dict[str, dict[str, str]]]:
    return {"resources": {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": "10m"}}}


def start(node: Node) -> None:
    """Start pods that are well and pods that are not."""
    fill = "x=$(head -c 18000000 /dev/zero | tr '\\0' a); " + BUSY.format(900)
    unready = {"httpGet": {"path": "/healthz", "port": 9090}, "periodSeconds": 2}
    web = {"ports": [{"containerPort": 80, "hostPort": 8080}], **limits("500m", "64Mi")}
    checkout = {"ports": [{"containerPort": 8443}], **limits("1", "128Mi")}
    pods = {
        "web": [container("nginx", BUSY.format(9000), **web)],
        "checkout": [container("app", BUSY.format(30000), **checkout)],
        "postgres-0": [container("postgres", fill, ports=[{"containerPort": 5432}], **limits("1", "64Mi"))],
        "redis": [container("redis", BUSY.format(300), ports=[{"containerPort": 6379}])],
        "api": [container("app", readinessProbe=unready, ports=[{"containerPort": 9090}])],
        "payments": [container("app", "echo 'fatal: ledger refused the key' >&2; exit 3")],
        "report": [container("app", image="localhost/acme/report:2.3.1")],
        "search": [container("engine", "x=a; while :; do x=$x$x; done", **limits("500m", "16Mi"))],
    }
    for name, containers in pods.items():
        node.apply(f"{name}.yaml", pod(name, *containers))
    node.apply("backup.yaml", pod("backup-2026-12", container("dump", "echo done"), restartPolicy="Never"))


def page_picture(url: str, path: Path) -> None:
    """Run in the node's network namespace: the page's own picture, after it has been watched for a while."""
    with browser.page("about:blank") as page:
        page.call(
            "Emulation.setDeviceMetricsOverride", width=1280, height=960, deviceScaleFactor=1, mobile=False
        )
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
        page.call("Emulation.setScrollbarsHidden", hidden=True)
        page.call("Page.navigate", url=url)
        time.sleep(WATCHED)
        _save(page, path)


async def terminal_drawing(socket: str) -> str:
    """The terminal as SVG, without the address of a font that the drawing would load."""
    from kubelite.ui.app import Ui

    app = Ui(socket, namespace=None, interval=1.0)
    async with app.run_test(size=(110, 26)):
        await asyncio.sleep(WATCHED)
        return re.sub(r"@font-face \{.*?\}", "", app.export_screenshot(), flags=re.DOTALL)


def drawing_picture(svg: str, path: Path) -> None:
    width, height = (round(float(part)) for part in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    with tempfile.NamedTemporaryFile("w", suffix=".svg") as file, browser.page("about:blank") as page:
        file.write(svg)
        file.flush()
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        page.call("Page.navigate", url=f"file://{file.name}")
        _save(page, path)


def _save(page: browser.Page, path: Path) -> None:
    answer = page.call("Page.captureScreenshot", format="webp", quality=QUALITY)
    path.write_bytes(base64.b64decode(answer["data"]))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        images = pack_image(Path(directory) / "images")
        with running_node(Path(directory) / "node", images, node_name="node-1") as node:
            start(node)
            node.wait_status("payments", "CrashLoopBackOff")
            url, path = "http://127.0.0.1:10255/", str(ASSETS / "web-page.webp")
            subprocess.run(
                node.in_netns(sys.executable, "-m", "tests.e2e.screens", url, path), cwd=REPO, check=True
            )
            drawing_picture(
                asyncio.run(terminal_drawing(node.environ()["KUBELITE_SOCKET"])), ASSETS / "ui.webp"
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        page_picture(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
