"""An HTTP GET request as kubelet's probes and hooks make it (Kubernetes pkg/probe/http): no keep-alive, no proxy,
certificates not verified, redirects followed on the same host only, and at most 10 KiB of a body read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from kubelite.node.probing import exchange as wire
from kubelite.node.probing.exchange import TimedOut, WireError

MAX_BODY = 10 * 1024
MAX_HEAD = 256 * 1024
MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Get:
    """One request. `headers` are the manifest's. A Host header among them replaces the default one."""

    scheme: str  # http or https
    host: str
    port: int
    path: str
    headers: Sequence[tuple[str, str]] = ()
    agent: str = "kube-probe/1.36"

    @property
    def url(self) -> str:
        path = self.path if self.path.startswith("/") else f"/{self.path}"
        return f"{self.scheme}://{wire.address(self.host, self.port)}{path}"


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    location: str = ""
    body: bytes = b""


async def fetch(get: Get, timeout: float, first: Response | None = None) -> Response:
    """The last response in a chain of redirects on one host. `first` is the first response if it has been read before.
    Raises WireError with the messages of Go's client."""
    url = get.url
    try:
        for _ in range(MAX_REDIRECTS):
            response = first or await _one(url, get, timeout)
            first, target = None, redirect(response, url, get.host)
            if not target:
                return response
            url = target
    except (WireError, ValueError) as error:
        raise failed(url, error) from error
    raise WireError(f'Get "{shown(url)}": stopped after {MAX_REDIRECTS} redirects')


def redirect(response: Response, url: str, host: str) -> str:
    """Pure: the URL to request next; "" if this response is final. Raises ValueError if Location is not a URL."""
    if response.status not in _REDIRECTS or not response.location:
        return ""
    target = urljoin(url, response.location)
    parts = urlsplit(target)
    return target if parts.hostname == host and parts.scheme in ("http", "https") else ""


def failed(url: str, error: WireError | ValueError) -> WireError:
    """Pure: the error with the message of Go's client."""
    if isinstance(error, TimedOut):
        sentence = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return TimedOut(f'Get "{shown(url)}": {sentence}')
    return WireError(f'Get "{shown(url)}": {error}')


def shown(url: str) -> str:
    """Pure: the URL without its query, which may hold a token: messages of probes go into events, logs and history."""
    path, question, _ = url.partition("?")
    return f"{path}{question}{'…' if question else ''}"


async def _one(url: str, get: Get, timeout: float) -> Response:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    exchange = wire.exchange_tls if tls else wire.exchange
    request = request_of(url, get)
    return parse(await exchange(parts.hostname or "", port, request, is_complete, timeout=timeout))


def request_of(url: str, get: Get) -> bytes:
    """Pure: the request for a URL, which is that of `get` or the target of a redirect."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _request(target, parts.netloc, get)


def _request(target: str, netloc: str, get: Get) -> bytes:
    given = {name.lower() for name, _ in get.headers}
    lines = [f"GET {target} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {netloc}")
    lines += [f"{name}: {value}" for name, value in get.headers]
    lines += [f"User-Agent: {get.agent}"] * ("user-agent" not in given)
    lines += ["Accept: */*"] * ("accept" not in given)
    lines += ["Connection: close", "", ""]
    return "\r\n".join(line.replace("\r", "").replace("\n", "") for line in lines).encode()


def parse(data: bytes | bytearray) -> Response:
    """Parse a response and skip interim ones (1xx). Raises WireError if the data is not an HTTP response."""
    if not data:
        raise WireError("EOF")
    head, _, body = data.partition(b"\r\n\r\n")
    line = head.partition(b"\r\n")[0].decode("latin-1")
    words = line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise WireError(f'malformed HTTP response "{line[:80]}"')
    if words[1].startswith("1") and words[1] != "101":
        return parse(body)
    status = int(words[1])
    return Response(
        status, _header(head, b"location") if status in _REDIRECTS else "", bytes(body[:MAX_BODY])
    )


def _header(head: bytes | bytearray, name: bytes) -> str:
    """The value of the first header with this name (in lower case); "" if there is none."""
    begin = head.lower().find(b"\r\n" + name + b":")
    if begin < 0:
        return ""
    begin += len(name) + 3
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else None].decode("latin-1").strip()


def is_complete(data: bytearray) -> bool:
    """Whether enough of the response has been read."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return len(data) > MAX_HEAD
    got = len(data) - end - 4
    if got >= MAX_BODY:
        return True
    head = data[:end]
    words = head.split(b" ", 2)
    if len(words) > 1 and (bytes(words[1][:3]) in (b"204", b"304") or words[1].startswith(b"1")):
        return not words[1].startswith(b"1") or words[1][:3] == b"101"
    if _header(head, b"transfer-encoding").lower().endswith("chunked"):
        return data.endswith(b"\r\n0\r\n\r\n") or data.endswith(b"\r\n\r\n0\r\n\r\n")
    length = _header(head, b"content-length")
    return length.isdigit() and got >= int(length)
