"""A registry in memory, in the process that pulls from it, so that all recorded writes of the process are the
store's."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runtime.images.manifests import this_platform
from tests.kernel.images_support import serving

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


Compress = Callable[[bytes], bytes]


def gzipped(layer: bytes) -> bytes:
    return zlib.compress(layer, 1, wbits=31)


class LittleRegistry(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content: dict[str, tuple[str, bytes]] = {}  # path → media type, body

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def add(self, tag: str, layers: Iterable[bytes], compress: Compress = gzipped) -> None:
        """Add an image with these tars as app:TAG."""
        diff_ids, blobs = [], []
        for layer in layers:
            diff_ids.append(_digest(layer))
            blobs.append(self._blob(compress(layer), _LAYER))
        config = {
            "architecture": this_platform().architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Cmd": ["/bin/tool"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._blob(json.dumps(config).encode(), _CONFIG),
            "layers": blobs,
        }
        self.content[f"/v2/app/manifests/{tag}"] = _MANIFEST, json.dumps(manifest).encode()

    def _blob(self, data: bytes, kind: str) -> dict[str, Any]:
        self.content[f"/v2/app/blobs/{_digest(data)}"] = "application/octet-stream", data
        return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LittleRegistry

    def do_GET(self) -> None:
        kind, body = self.server.content.get(self.path, ("", b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def little_registry() -> Iterator[LittleRegistry]:
    server = LittleRegistry()
    with serving(server):
        yield server
