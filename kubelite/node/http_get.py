"""Effects: a GET as kubelet's probes and hooks make it (K pkg/probe/http): no keep-alive, no proxy, certificates not
checked, redirects followed on the same host only, 10 KiB of a body read and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from kubelite.node import wire
from kubelite.node.wire import TimedOut, WireError

MAX_BODY = 10 * 1024
MAX_HEAD = 256 * 1024
MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Get:
    """One request. `headers` are the manifest's; a Host among them is the host asked for."""

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


async def fetch(get: Get, timeout: float) -> Response:
    """The last response of a chain of redirects on one host. Raises WireError with the words of Go's client."""
    url, host = get.url, get.host
    try:
        for _ in range(MAX_REDIRECTS):
            response = await _one(url, get, timeout)
            if response.status not in _REDIRECTS or not response.location:
                return response
            target = urljoin(url, response.location)
            if urlsplit(target).hostname != host or urlsplit(target).scheme not in ("http", "https"):
                return response
            url = target
    except TimedOut:
        sentence = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise TimedOut(f'Get "{url}": {sentence}') from None
    except (WireError, ValueError) as error:
        raise WireError(f'Get "{url}": {error}') from error
    raise WireError(f'Get "{url}": stopped after {MAX_REDIRECTS} redirects')


async def _one(url: str, get: Get, timeout: float) -> Response:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    exchange = wire.exchange_tls if tls else wire.exchange
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    data = await exchange(
        parts.hostname or "", port, _request(target, parts.netloc, get), _complete, timeout=timeout
    )
    return parse(data)


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


def parse(data: bytes) -> Response:
    """Raises WireError for what is no HTTP response."""
    if not data:
        raise WireError("EOF")
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise WireError(f'malformed HTTP response "{lines[0][:80]}"')
    if words[1].startswith("1") and words[1] != "101":
        return parse(body)
    return Response(int(words[1]), _header(lines, "location"), body[:MAX_BODY])


def _header(lines: Sequence[str], name: str) -> str:
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _complete(data: bytearray) -> bool:
    """Whether enough was read to stop."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return len(data) > MAX_HEAD
    got = len(data) - end - 4
    if got >= MAX_BODY:
        return True
    lines = bytes(data[:end]).decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) > 1 and (words[1] in ("204", "304") or words[1].startswith("1")):
        return not words[1].startswith("1") or words[1] == "101"
    if _header(lines, "transfer-encoding").lower().endswith("chunked"):
        return data.endswith(b"\r\n0\r\n\r\n") or data.endswith(b"\r\n\r\n0\r\n\r\n")
    length = _header(lines, "content-length")
    return length.isdigit() and got >= int(length)
