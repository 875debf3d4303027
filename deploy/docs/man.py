"""The manual pages: `python -m deploy.docs.man DIRECTORY` writes man1/ and man5/ below it.

kubelite(1), a page for each of its commands, kubelite-oci(1) and kubelite-config.yaml(5) are generated from the
commands and settings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Final

import click

from deploy.docs import exit_codes_page, roff, settings_page
from deploy.docs.config_file import written
from deploy.docs.roff import bold, italic, items, marked, paragraphs, plain, reference, section, subsection
from kubelite.cli.groups import Command, Group
from kubelite.cli.main import GROUPS, cli
from kubelite.settings import Settings
from kubelite.version import version
from runtime.oci.cli import help as oci
from runtime.oci.cli.options import COMMANDS as OCI_COMMANDS
from runtime.oci.cli.options import GLOBAL as OCI_GLOBAL
from runtime.oci.cli.options import SWITCH, Flags

CONFIG: Final = "kubelite-config.yaml"
FILES: Final = (
    ("/etc/kubelite/manifests", "The manifests that the node runs."),
    ("/etc/kubelite/config.yaml", f"The settings; see `{CONFIG}`(5)."),
    ("/var/lib/kubelite", "State, images, and the directories of pods and claims."),
    ("/run/kubelite/kubelite.sock", "The API."),
    ("/var/log/pods", "The logs of containers."),
)
SETTINGS: Final = """
`/etc/kubelite/config.yaml` is a YAML file with a `name: value` line for each setting. All settings are optional. An
unknown name or an impossible value stops `kubelite serve` with exit code 2.

A setting can also be given as an environment variable, its name in capitals after `KUBELITE_`, and some as a flag of
`kubelite serve`. A flag wins over a variable, and a variable over the file. Names are also accepted as kubelet spells
them, for example `podCIDR`.

A duration is a number of seconds or a text such as 90s, 2m0s or 24h. In a variable, a list or a map is written
`a=1,b=2` (thresholds: `a<1,b<2`); in the file, in the same way or as a YAML mapping.
"""


def pages() -> Iterator[tuple[str, int, str]]:
    """Name, section and text of each page."""
    yield "kubelite", 1, _overview()
    yield from _commands(cli, ("kubelite",))
    yield "kubelite-oci", 1, _engine()
    yield CONFIG, 5, _settings()


def _overview() -> str:
    groups = [
        subsection(
            title,
            items((reference(f"kubelite-{name}", 1), f"{plain(text)}.") for name, (_, _, text) in of.items()),
        )
        for title, of in GROUPS.items()
    ]
    about = """
    kubelite runs pods from manifests in a directory, as a Kubernetes node does. `kubelite serve` is the node. Most
    other commands ask it over a socket. Commands shared with kubectl behave identically.
    """
    codes = [
        *exit_codes_page.ALL,
        *((f"`kubelite {name}`", f"{text}.") for name, text in exit_codes_page.OWN.items()),
    ]
    variable = "Path of the daemon's socket; `--socket` wins."
    return roff.page(
        "kubelite",
        1,
        "container node for one machine",
        version(),
        [
            section(
                "SYNOPSIS",
                f"{bold('kubelite')} [{italic('OPTIONS')}] {italic('COMMAND')} [{italic('ARGS')}...]\n",
            ),
            section("DESCRIPTION", paragraphs(about)),
            section("OPTIONS", items(_options(cli, _context(cli, "kubelite")))),
            section("COMMANDS", *groups),
            section("EXIT STATUS", items((marked(code), marked(text)) for code, text in codes)),
            section("ENVIRONMENT", items([(bold("KUBELITE_SOCKET"), marked(variable))])),
            section("FILES", items((italic(path), marked(text)) for path, text in FILES)),
            section("SEE ALSO", f"{reference('kubelite-oci', 1)}, {reference(CONFIG, 5)}\n"),
        ],
    )


def _commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, int, str]]:
    context = click.Context(group, info_name=" ".join(words))
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert isinstance(command, Command | Group)
        if len(words) > 1 and not _own(command, words):
            continue  # `image ls` is `images`
        yield "-".join((*words, name)), 1, _command(command, (*words, name))
        if isinstance(command, click.Group):
            yield from _commands(command, (*words, name))


def _own(command: click.Command, words: tuple[str, ...]) -> bool:
    """Whether this is not a top-level command under another name."""
    context = click.Context(cli)
    return not any(cli.get_command(context, name) is command for name in cli.list_commands(context))


def _page_of(command: click.Command, words: tuple[str, ...]) -> str:
    context = click.Context(cli)
    if not _own(command, words):
        return next(
            f"kubelite-{n}" for n in cli.list_commands(context) if cli.get_command(context, n) is command
        )
    return "-".join(words)


def _command(command: Command | Group, words: tuple[str, ...]) -> str:
    context = _context(command, " ".join(words))
    summary, _, about = (command.help or "").partition("\n\n")
    usage = [bold(" ".join(words)), *(italic(piece) for piece in command.collect_usage_pieces(context))]
    below = []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            line = (found.help or "").partition("\n")[0]
            below.append((reference(_page_of(found, (*words, name)), 1), marked(line)))
    examples = []
    for block in dedent(command.examples).strip().split("\n\n"):
        comment, *lines = block.splitlines()
        examples += [f".PP\n{plain(comment.removeprefix('# '))}:\n", roff.example(lines)]
    above = reference("-".join(words[:-1]), 1)
    return roff.page(
        "-".join(words),
        1,
        summary[0].lower() + summary[1:].rstrip(".") if not summary[:2].isupper() else summary.rstrip("."),
        version(),
        [
            section("SYNOPSIS", " ".join(usage) + "\n"),
            section("DESCRIPTION", paragraphs(f"{summary}\n\n{about}")),
            section("COMMANDS", items(below)),
            section("OPTIONS", items(_options(command, context))),
            section("EXAMPLES", *examples),
            section("SEE ALSO", f"{above}\n"),
        ],
    )


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            yield _flag(record[0]), marked(record[1].replace("  [", " ["))


def _context(command: click.Command, name: str) -> click.Context:
    return click.Context(command, info_name=name, help_option_names=cli.context_settings["help_option_names"])


def _flag(text: str) -> str:
    """`-o, --output FORMAT`: flags in bold, the value in italics."""
    words = text.split(" ")
    return " ".join(
        f"{bold(word.rstrip(','))}{',' if word.endswith(',') else ''}" if word.startswith("-") else
        "/" if word == "/" else italic(word) for word in words
    )  # fmt: skip


def _engine() -> str:
    usage = (
        f"{bold('kubelite-oci')} [{italic('flags')}] {italic('COMMAND')} [{italic('flags')}] {italic('ARGS')}"
    )
    about = """
    kubelite-oci is the engine of kubelite alone. It creates and runs containers by the OCI runtime specification,
    with the command line of runc, so that podman, docker and containerd can use it.
    """
    commands = []
    for name, command in OCI_COMMANDS.items():
        line = f"{bold(f'kubelite-oci {name}')}{' [flags]' if command.flags else ''} {plain(command.usage)}".rstrip()
        commands.append(
            subsection(
                name,
                f"{line}\n.PP\n",
                f"{plain(_sentence(command.help))}\n",
                items(_flags(name, command.flags, oci.FLAGS)),
            )
        )
        for comment, example in oci.EXAMPLES[name]:
            commands += [f".PP\n{plain(comment)}:\n", roff.example([example])]
    return roff.page(
        "kubelite-oci",
        1,
        "OCI container runtime",
        version(),
        [
            section("SYNOPSIS", f"{usage}\n"),
            section("DESCRIPTION", paragraphs(about)),
            section("GLOBAL FLAGS", items(_flags("", OCI_GLOBAL, oci.GLOBAL_FLAGS))),
            section("COMMANDS", *commands),
            section("EXIT STATUS", items((marked(code), marked(text)) for code, text in exit_codes_page.OCI)),
            section("SEE ALSO", f"{reference('kubelite', 1)}\n"),
        ],
    )


def _flags(command: str, known: Flags, about: Mapping[str, oci.About]) -> Iterator[tuple[str, str]]:
    for name in sorted(known):
        short = oci.short_of(command, name)
        words = [bold(f"-{short}") + ",", bold(f"--{name}")] if short else [bold(f"--{name}")]
        if known[name] is not SWITCH:
            words.append(italic(about[name].value))
        yield " ".join(words), f"{plain(_sentence(about[name].text))}"


def _sentence(text: str) -> str:
    """A line of --help as a sentence. Text in brackets at its end stays after the period."""
    body, bracket, rest = text.partition(" [")
    return f"{body[:1].upper()}{body[1:]}.{bracket}{rest}"


def _settings() -> str:
    said, parts = settings_page.descriptions(), []
    for title, names in settings_page.GROUPS.items():
        rows = []
        for name in names:
            field = Settings.model_fields[name]
            kind = settings_page.type_of(field)
            value = written(field.get_default(call_default_factory=True), kind)
            default = f" [default: {value}]" if value not in ('""', "{}") else ""
            rows.append((f"{bold(name)} ({marked(kind)})", marked(said[name]) + plain(default)))
        parts.append(subsection(title, items(rows)))
    example = [
        "pod_cidr: 10.90.0.0/16",
        "eviction_hard:",
        "  memory.available: 200Mi",
        "  nodefs.available: 5%",
    ]
    return roff.page(
        CONFIG,
        5,
        "settings of a kubelite node",
        version(),
        [
            section("DESCRIPTION", paragraphs(SETTINGS)),
            section("SETTINGS", *parts),
            section("EXAMPLES", roff.example(example)),
            section("SEE ALSO", f"{reference('kubelite', 1)}, {reference('kubelite-serve', 1)}\n"),
        ],
    )


def write(directory: Path) -> None:
    for name, number, text in pages():
        place = directory / f"man{number}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.{number}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
