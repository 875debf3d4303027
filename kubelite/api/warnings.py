"""The header `Warning` of an answer (RFC 7234, 5.5), which kubectl and kubelite's client print. Pure.

Source: apimachinery pkg/util/net/http.go (NewWarningHeader): text in UTF-8, without control characters. An object's own
names may be part of it, so both are ensured here.
"""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 4096  # characters of all texts (apiserver pkg/endpoints/filters/warning.go)


def warning_header(sentences: Iterable[str]) -> dict[str, str]:
    """Return the header of these sentences; {} if there are none."""
    text = "; ".join(dict.fromkeys(sentences))
    if not text:
        return {}
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    plain = "".join(one if one.isprintable() else " " for one in text)
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    # The server encodes headers as Latin-1; the bytes on the wire are UTF-8.
    return {"Warning": f'299 - "{quoted}"'.encode().decode("latin-1")}


def joined(*headers: dict[str, str]) -> dict[str, str]:
    """Return one header with the warnings of several."""
    texts = [header["Warning"] for header in headers if header]
    return {"Warning": ", ".join(texts)} if texts else {}
