"""Expands $(NAME) references in strings of a manifest, as Kubernetes does (third_party/forked/golang/expansion)."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace $(NAME) by its value and $$ by $, in one pass. A reference that has an unknown name or is not closed is
    unchanged."""
    return _expanded(text, lambda name: values.get(name, f"$({name})"))


def _expanded(text: str, value_of: Callable[[str], str]) -> str:
    out: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0 and dollar + 1 < len(text):
        out.append(text[position:dollar])
        following = text[dollar + 1]
        position = dollar + 2
        if following == "$":
            out.append("$")
        elif following != "(":
            out.append("$" + following)
        elif (end := text.find(")", position)) < 0:
            out.append("$(")
        else:
            name = text[position:end]
            out.append(value_of(name))
            position = end + 1
    out.append(text[position:])
    return "".join(out)
