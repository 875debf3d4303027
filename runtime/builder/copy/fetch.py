"""ADD from the network: http and https, by the standard library."""

from __future__ import annotations

import hashlib
import os
import posixpath
import urllib.parse
from collections.abc import Callable

from runtime.builder.copy.copying import CopyError

_CHUNK = 1 << 18
_TIMEOUT = 60.0  # seconds without a byte


def file_name(url: str) -> str:
    """What docker calls it: the last part of the URL's path. Raises CopyError."""
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if not name or name in (".", ".."):
        raise CopyError(f"{url} has no file name at its end; COPY a heredoc, or fetch it in a RUN")
    return name


def download(url: str, path: str, checksum: str, check: Callable[[], None]) -> None:
    """Into `path`, mode 0600, with the time the server says. Raises CopyError."""
    import http.client
    import urllib.error
    import urllib.request  # brings ssl along: only for who fetches

    algorithm, _, wanted = checksum.partition(":")
    if checksum and (algorithm != "sha256" or len(wanted) != 64):
        raise CopyError(f"--checksum is sha256: and 64 hex digits, not {checksum}")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, open(path, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            while chunk := answer.read(_CHUNK):
                check()
                digest.update(chunk)
                file.write(chunk)
            modified, promised = answer.headers.get("Last-Modified"), answer.headers.get("Content-Length", "")
            if promised.isdigit() and int(promised) != file.tell():  # the library takes a short one for whole
                raise CopyError(f"cannot get {url}: it broke off after {file.tell()} of {promised} bytes")
    except CopyError:
        raise
    except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise CopyError(f"cannot get {url}: {why or type(error).__name__}") from error
    if checksum and digest.hexdigest() != wanted:
        raise CopyError(f"{url} is sha256:{digest.hexdigest()}, not {checksum}")
    when = _time(modified or "")
    os.utime(path, (when, when))


def _time(text: str) -> float:
    """Unix seconds of a Last-Modified; 0 for what is none."""
    import email.utils

    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
