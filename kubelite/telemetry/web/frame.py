"""The common parts of all web pages: the frame, the security headers, and the three static files.

Everything comes from this server. The content security policy forbids inline scripts and styles, other hosts, frames,
and markup created from strings (Trusted Types). Without JavaScript, the page reloads itself; with JavaScript, only
changed parts are replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path

from kubelite.diagnosis.health import LOOKS, Level

RELOAD = 5  # seconds between reloads without JavaScript
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
TYPES = {
    "kubelite.css": "text/css; charset=utf-8",
    "kubelite.js": "text/javascript; charset=utf-8",
    "kubelite.svg": "image/svg+xml",
}
_COMMAND = re.compile(r"kubelite [a-z](?:[^\s;,)]|,(?=\S)| (?!and\b|or\b|to\b|shows\b|names\b))*")


@cache
def asset(name: str) -> bytes:
    """Return a file of `TYPES`. The colours of the levels are inserted into the style sheet."""
    content = (Path(__file__).with_name("static") / name).read_bytes()
    return content.replace(b"/* colours */", _colours().encode()) if name.endswith(".css") else content


def _colours() -> str:
    light = "".join(f"--{level}:{look.light};" for level, look in LOOKS.items())
    dark = "".join(f"--{level}:{look.dark};" for level, look in LOOKS.items())
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


@cache
def address(name: str) -> str:
    """Return the address of a file. It changes with the file's content, so that browsers may cache the file."""
    return f"/{name}?{hashlib.sha256(asset(name)).hexdigest()[:12]}"


def mark(level: Level, words: str) -> str:
    """Return a level's mark and a text as HTML."""
    return f'<span class="mark {level}"><i aria-hidden="true">{LOOKS[level].mark}</i>{escape(words)}</span>'


def advised(sentence: str) -> str:
    """Return a sentence of advice as HTML, with its commands in `<code>`."""
    return _COMMAND.sub(lambda found: f"<code>{found.group()}</code>", escape(sentence))


def page(title: str, node: str, body: str) -> str:
    """Return a whole HTML document. `body`: HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        f'<noscript><meta http-equiv="refresh" content="{RELOAD}"></noscript>'
        f'<link rel="icon" href="{address("kubelite.svg")}"><link rel="stylesheet" href="{address("kubelite.css")}">'
        f'<script src="{address("kubelite.js")}" defer></script></head><body>'
        '<a class="skip" href="#main">Skip to the content</a>'
        f'<header class="top"><a href="/" class="brand"><i aria-hidden="true">◆</i> kubelite</a><span>{escape(node)}'
        '</span><p id="stale" role="status" hidden>The node does not answer. What you see is old.</p></header>'
        f'<main id="main" tabindex="-1">{body}</main>'
        '<footer>Read-only. <a href="/metrics">metrics</a> · in a terminal: <code>kubelite ui</code></footer>'
        "</body></html>"
    )


def table(name: str, columns: Sequence[tuple[str, str]], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a table, which narrow screens show as a list. `columns`: (HTML of the heading, class of the cells);
    `rows`: (attributes, cells), all of them HTML. The first cell of a row is its heading.

    The explicit roles are those that the elements have by default. Browsers drop these when the style sheet displays a
    row as a grid."""
    head = "".join(
        f'<th role="columnheader" scope="col" class="{kind}"{_sorted(text)}>{text}</th>'
        for text, kind in columns
    )
    labels = [escape(_plain(text)) for text, _ in columns]
    lines = []
    for attributes, cells in rows:
        first, *others = cells
        shown = "".join(
            f'<td role="cell" class="{kind}" data-l="{label}">{cell}</td>'
            for cell, (_, kind), label in zip(others, columns[1:], labels[1:], strict=True)
        )
        head_cell = f'<th role="rowheader" scope="row" class="{columns[0][1]}">{first}</th>'
        lines.append(f'<tr role="row"{attributes}>{head_cell}{shown}</tr>')
    return (
        f'<table role="table" aria-label="{escape(name)}"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table>'
    )


def _sorted(head: str) -> str:
    for word in ("ascending", "descending"):
        if f'class="{word}"' in head:
            return f' aria-sort="{word}"'
    return ""


def _plain(html: str) -> str:
    return re.sub(r"<small>.*?</small>|<i\b.*?</i>|<[^>]*>", "", html).strip()
