"""The formats of `-o`, including templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubelite.cli.errors import CliError
from kubelite.cli.output.tables import TablePrinter, print_json, print_yaml

if TYPE_CHECKING:
    from kubelite.kube.json import Json

F = TypeVar("F", bound=Callable[..., Any])
Printer = Callable[["Json", bool], None]  # prints a document or a list; the flag: with headers

FORMATS = ("wide", "json", "yaml", "name")
# each is followed by =TEXT or =FILE
TEMPLATES = (
    "jsonpath", "jsonpath-as-json", "jsonpath-file", "custom-columns", "custom-columns-file",
    "go-template", "go-template-file", "template", "templatefile",
)  # fmt: skip
FORMATS_SHOWN = "wide|json|yaml|name|jsonpath=…|custom-columns=…|go-template=…"
_ALIASES = {"template": "go-template", "templatefile": "go-template-file"}


def known_format(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """The callback of -o: accept one of FORMATS, or one of TEMPLATES with its text. Raises BadParameter."""
    word, given, _ = (value or "").partition("=")
    if value is None or word in TEMPLATES or (word in FORMATS and not given):
        return value or ""
    raise click.BadParameter(f"{word!r} is not one of {', '.join((*FORMATS, *TEMPLATES))}", ctx, param)


def complete_format(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    words = (*FORMATS, *(f"{word}=" for word in TEMPLATES))
    return [word for word in words if word.startswith(incomplete)]


def by_template(output: str) -> Printer | None:
    """Return a printer for a template; None if `output` is not a template. Raises CliError."""
    form, _, text = output.partition("=")
    if form not in TEMPLATES:
        return None
    form = _ALIASES.get(form, form)
    if not text and form != "custom-columns":
        raise CliError("error: template format specified but no template given", code=2)
    if form.endswith("-file"):
        form, text = form.removesuffix("-file"), _read(text)
        if form == "custom-columns":
            text = _columns_of(text)
    printers = {
        "jsonpath": _jsonpath,
        "jsonpath-as-json": _as_json,
        "custom-columns": _columns,
        "go-template": _go_template,
    }
    return printers[form](text)


def document_options(command: F) -> F:
    """Add -o and --format to a command that prints whole documents (`print_documents`)."""
    output = click.option(
        "-o",
        "--output",
        metavar="json|yaml|jsonpath=…|go-template=…",
        callback=known_format,
        shell_complete=complete_format,
        help="Output format. [default: json]",
    )
    form = click.option(
        "--format",
        "form",
        default="",
        metavar="TEMPLATE",
        help="Go template, as in docker; json for one line of JSON.",
    )
    return output(form(command))


def print_documents(documents: Sequence[Json], output: str, form: str, *, many: bool) -> None:
    """Print documents in the formats of `document_options`. `many`: JSON and YAML are a list. Raises CliError."""
    if form and output:
        raise CliError("error: use either -o or --format", code=2)
    if form:
        from kubelite.cli.output.gotemplate import render

        shown = render("{{json .}}" if form == "json" else form)
        for document in documents:
            print(shown(document))
        return
    if output in ("wide", "name"):
        raise CliError(
            f"error: -o {output} does not apply to this command; use json, yaml or a template", code=2
        )
    printer = by_template(output)
    if printer is not None:
        for document in documents:
            printer(document, True)
        return
    whole: Any = list(documents) if many else documents[0]
    (print_yaml if output == "yaml" else print_json)(whole)


def _read(file: str) -> str:
    from pathlib import Path

    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"error: error reading template {file}: {error}", code=2) from error


def _columns_of(text: str) -> str:
    """Convert kubectl's file, a line of headers and one of paths, to HEADER:PATH,…"""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        raise CliError(
            "error: custom-columns-file needs a line of headers and a line with a path for each", code=2
        )
    return ",".join(f"{header}:{path}" for header, path in zip(*lines, strict=True))


def _jsonpath(text: str) -> Printer:
    from kubelite.cli.output.jsonpath import template

    render = template(text)
    return lambda document, _headers: print(render(document), end="")


def _go_template(text: str) -> Printer:
    from kubelite.cli.output.gotemplate import render

    shown = render(text)
    return lambda document, _headers: print(shown(document), end="")


def _as_json(text: str) -> Printer:
    from kubelite.cli.output.jsonpath import path

    find = path(text)
    return lambda document, _headers: print_json(find(document))


def _columns(text: str) -> Printer:
    from kubelite.cli.output.jsonpath import columns

    shown = columns(text)

    def table(document: Json, headers: bool) -> None:
        lines = [[cell(doc) for _, cell in shown] for doc in document.get("items", [document])]
        TablePrinter(headers=headers).print([header for header, _ in shown], lines)

    return table
