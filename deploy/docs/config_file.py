"""Print the /etc/kubelite/config.yaml that packages install: every setting as a comment, with its description and
default.

python -m deploy.docs.config_file >config.yaml
"""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any, Final

from deploy.docs.settings_page import GROUPS, descriptions, duration, type_of
from kubelite.settings import Settings

HEAD: Final = """\
# Settings of kubelite. The commented values are the defaults. Apply a change with: systemctl restart kubelite
# Pods keep running. All ways to set a value are in the manual page kubelite-config.yaml(5), and the settings that a
# reload applies: systemctl reload kubelite
"""
WIDTH: Final = 100


def text() -> str:
    said = descriptions()
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"\n## {title}\n")
        for name in names:
            field = Settings.model_fields[name]
            words = said[name].replace("`", "")
            lines = textwrap.wrap(words, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
            parts += ["\n", *(f"# {line}\n" for line in lines)]
            value = written(field.get_default(call_default_factory=True), type_of(field))
            parts.append(f"#{name}: {value}\n")
    return "".join(parts)


def written(value: Any, of: str) -> str:
    """A default as YAML."""
    if of == "duration":
        return duration(value)
    if isinstance(value, float):
        return f"{value:g}"
    if (
        isinstance(value, str)
        and value
        and value.isprintable()
        and not set(value) & set("#:,<>{}[]&*!|%@`'\"")
    ):
        return value
    return json.dumps(value)


if __name__ == "__main__":
    sys.stdout.write(text())
