"""Make untrusted text (from containers, registries, manifests) safe for a terminal.

A control sequence could move the cursor, change the title or hide what was printed before. kubectl writes ESC as `^[`
(kubernetes/kubectl pkg/util/term). Here every control character but the line feed and the tab is written by its name.
"""

from __future__ import annotations

_NAMES = {code: f"^{chr(code ^ 0x40)}" for code in (*range(0x20), 0x7F)}  # ^[ for ESC, ^? for DEL
_C1 = {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
_BIDI = {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_TABLE = {**_NAMES, **_C1, **_BIDI}
del _TABLE[ord("\n")], _TABLE[ord("\t")]


def harmless(text: str) -> str:
    """Replace control characters but line feeds and tabs, and marks that reorder a line."""
    return text if text.isascii() and text.isprintable() else text.translate(_TABLE)


def indented(text: str, indent: str) -> str:
    """Make the text safe and indent its further lines, so that none of them looks like our own output."""
    return harmless(text).replace("\n", f"\n{indent}")
