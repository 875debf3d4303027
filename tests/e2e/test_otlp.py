"""A start as an OpenTelemetry trace, as a collector receives it from a whole node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.manifests import pod
from tests.e2e.node import running_node

_COLLECTOR = """
import http.server, sys
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[1], "ab") as file:
            file.write(body + b"\\n")
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 4318), Collector).serve_forever()
"""


def test_a_collector_gets_the_start_down_to_the_inits_steps(tmp_path: Path, images: Path) -> None:
    got = tmp_path / "traces"
    with running_node(tmp_path / "node", images, otlp_endpoint="http://127.0.0.1:4318") as node:
        collector = subprocess.Popen(
            node.in_netns(sys.executable, "-c", _COLLECTOR, str(got)), stderr=subprocess.DEVNULL
        )
        try:
            node.apply("web.yaml", pod("web"))
            node.wait_status("web", "Running")
            node.wait(got.exists, "a trace", timeout=40)
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            page = node.fetch("http://127.0.0.1:10255/metrics/agent", headers=accept).body.decode()
        finally:
            collector.kill()
            collector.wait()
        uid = node.pod("web")["metadata"]["uid"]
    (resource,) = json.loads(got.read_text().splitlines()[0])["resourceSpans"]
    assert {"key": "k8s.pod.uid", "value": {"stringValue": uid}} in resource["resource"]["attributes"]
    root, *spans = resource["scopeSpans"][0]["spans"]
    names = {span["name"]: span for span in spans}
    assert root["name"] == "start default/web"
    assert names["clone3"]["parentSpanId"] == names["create"]["spanId"]
    assert names["create"]["parentSpanId"] == root["spanId"]
    assert all(int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"]) for span in spans)
    exemplar = f'# {{trace_id="{root["traceId"]}",pod_uid="{uid}"}}'
    named = [line for line in page.splitlines() if exemplar in line]
    assert {line.partition("{")[0] for line in named} == {
        "kubelet_pod_start_duration_seconds_bucket",
        "kubelet_pod_start_sli_duration_seconds_bucket",
        "kubelet_pod_start_total_duration_seconds_bucket",
    }, "the histogram's exemplar is the trace that was sent"
