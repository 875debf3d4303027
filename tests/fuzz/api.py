"""Gives random requests to the API, with the node's real store, readers and writers of manifests in this process.

Each request gets an answer below 500 within a second or two, with a Status that says why if it is an error. Whatever
was written, every kind can still be listed, every manifest can be read, and no temporary file is left.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

from kubelite.api.app import create_app
from kubelite.api.audit import Audit, AuditLog
from kubelite.api.kube.resources import RESOURCES
from kubelite.api.secure.access import Secure
from kubelite.api.secure.users import AUTHENTICATED, KEY, MASTERS, User
from kubelite.sources.fields import dumped
from manifests.yaml.loader import load_file
from tests.fuzz.decide import Unclean
from tests.fuzz.requests import Sent, objects, path_of, request
from tests.unit.api.fake_node import FakeNode

BATCH: Final = 100  # requests to one node; the next gets a new one
MOST_SECONDS: Final = 2.0  # of processor time for a request
_ADMIN = User("admin", (MASTERS, AUTHENTICATED))


class Target:
    """A node, and its API as the TLS port has it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.node = FakeNode(directory)
        log = AuditLog(str(directory / "audit.log"), max_bytes=1 << 20, files=2)
        self._app: ASGIApp = Audit(Secure(create_app(self.node), self.node), log)

    async def fill(self) -> None:
        """Let the node have half of the objects, as JSON and as YAML that somebody wrote by hand."""
        for number, document in enumerate(objects()[::2]):
            text = f"# {number}\n---\n{dumped(document)}" if number % 3 else json.dumps(document)
            Path(self.node.manifests_dir, f"{number}.yaml").write_text(text)
        await self.node.rescan()

    async def ask(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer."""
        path, _, query = sent.target.partition("?")
        headers = [("host", "127.0.0.1:6443"), ("content-length", str(len(sent.body))), *sent.headers]
        scope = {
            "type": "http", "method": sent.method, "path": unquote(path), "raw_path": path.encode("latin-1", "replace"),
            "query_string": query.encode(), "scheme": "https", "http_version": "1.1", "root_path": "", KEY: _ADMIN,
            "asgi": {"version": "3.0", "spec_version": "2.4"}, "server": ("127.0.0.1", 6443),
            "client": ("127.0.0.1", 1),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }  # fmt: skip
        coming = [{"type": "http.request", "body": sent.body, "more_body": False}]
        messages: list[Message] = []

        async def receive() -> Message:
            if coming:
                return coming.pop()
            await asyncio.sleep(0.005)  # then the client leaves: a watch ends
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in messages[0]["headers"]}
        return messages[0]["status"], given, body

    async def check(self) -> None:
        """Raise Unclean if something that was written breaks a list, or cannot be read."""
        await self.node.rescan()
        for resource in RESOURCES.values():
            status, _, body = await self.ask(Sent("GET", path_of(resource, namespace=""), (), b""))
            if status != 200:
                raise Unclean(f"{resource.plural} cannot be listed: {body[:300]!r}")
        for path in Path(self.node.manifests_dir).rglob("*"):
            if path.is_file() and (
                path.suffix != ".yaml" or path.name.startswith(".") or load_file(path).errors
            ):
                raise Unclean(f"{path.name} is left, or cannot be read: {path.read_bytes()[:300]!r}")


class Api:
    """`attempt(seed, number)` sends a request. What the requests before it in its batch have written is there."""

    def __init__(self, base: Path) -> None:
        base.mkdir()
        self._base = base
        self._runner = asyncio.Runner()
        self._target: Target | None = None

    def close(self) -> None:
        if self._target is not None:
            self._runner.run(self._target.node.store.close())
            self._target = None
        self._runner.close()

    def attempt(self, seed: int, number: int) -> bool:
        """Return whether the answer is no error. Raises Unclean."""
        return self._runner.run(self._attempt(seed, number))

    async def _attempt(self, seed: int, number: int) -> bool:
        if number % BATCH == 0 and self._target is not None:
            await self._target.check()
            await self._target.node.store.close()
            self._target = None
        if self._target is None:
            self._target = Target(self._base / str(number))
            await self._target.fill()
        sent = request(seed, number)
        began = time.process_time()
        try:
            status, headers, body = await self._target.ask(sent)
        except Exception as error:
            raise Unclean(f"{error!r} at {_shown(sent)}") from error
        if said := _wrong(sent, status, headers, body):
            raise Unclean(f"{said} at {_shown(sent)}")
        if (took := time.process_time() - began) > MOST_SECONDS:
            raise Unclean(f"{took:.1f} s of processor time at {_shown(sent)}")
        return status < 400


def _wrong(sent: Sent, status: int, headers: dict[str, str], body: bytes) -> str:
    """Return what is wrong with an answer, "" if nothing is."""
    # 503: of a Service without pods, or a pod that cannot be reached through the proxy
    if status >= 500 and status not in (501, 504) and not (status == 503 and "/proxy" in sent.target):
        return f"{status}: {body[:300]!r}"
    if status < 400 or sent.method == "HEAD":
        return ""
    try:
        said: Any = json.loads(body)
    except ValueError:
        return f"{status} without a Status: {body[:300]!r}"
    if (
        not isinstance(said, dict)
        or said.get("kind") != "Status"
        or said.get("code") != status
        or not said.get("message")
    ):
        return f"{status} without a Status: {body[:300]!r}"
    return ""


def _shown(sent: Sent) -> str:
    return f"{sent.method} {sent.target[:200]} {dict(sent.headers)!r:.200} {sent.body[:1500]!r}"
