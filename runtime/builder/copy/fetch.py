"""ADD from a URL: http and https, with the standard library."""

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
    """The file's name as in docker: the last part of the URL's path. Raises CopyError."""
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if not name or name in (".", ".."):
        raise CopyError(f"{url} does not end in a file name; fetch it in a RUN instead")
    return name


def download(url: str, path: str, checksum: str, check: Callable[[], None], *, host: bool) -> None:
    """Download `url` to the new file `path`, with mode 0600 and the server's Last-Modified time. `host`: fetching from
    the host's own addresses is allowed. Raises CopyError."""
    import http.client
    import urllib.error

    from runtime.builder.copy import reach  # imports ssl: only when needed

    algorithm, _, wanted = checksum.partition(":")
    if checksum and (algorithm != "sha256" or len(wanted) != 64):
        raise CopyError(f"--checksum must be sha256: and 64 hex digits, not {checksum}")
    digest = hashlib.sha256()
    try:
        with reach.opener(host=host).open(url, timeout=_TIMEOUT) as answer, open(path, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            while chunk := answer.read(_CHUNK):
                check()
                digest.update(chunk)
                file.write(chunk)
            modified, promised = answer.headers.get("Last-Modified"), answer.headers.get("Content-Length", "")
            if promised.isdigit() and int(promised) != file.tell():  # urllib accepts a short body
                raise CopyError(
                    f"cannot fetch {url}: the connection ended after {file.tell()} of {promised} bytes"
                )
    except CopyError:
        raise
    except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise CopyError(f"cannot fetch {url}: {why or type(error).__name__}") from error
    if checksum and digest.hexdigest() != wanted:
        raise CopyError(f"{url} has the digest sha256:{digest.hexdigest()}, not {checksum}")
    when = _time(modified or "")
    os.utime(path, (when, when))


def _time(text: str) -> float:
    """Unix seconds of a Last-Modified header; 0 if it is absent or invalid."""
    import email.utils

    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
